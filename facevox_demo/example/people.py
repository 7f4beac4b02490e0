"""A synthetic person: visible geometry, appearance, and the voice that follows from the geometry.

The law that ties the voice to the face (written into `metadata.json` by `law_description`):

    voice factor = CORRELATION * visible factor + sqrt(1 - CORRELATION**2) * noise

with visible factor and noise of mean 0 and variance 1, independent between the three factors of `LAW`. Hence
the correlation between a visible factor and its voice factor is CORRELATION over many people. The numbers
that the synthesiser uses are functions of the voice factors:

    log(pitch_hz)  = log(PITCH_HZ) - PITCH_SPREAD * pitch                 long faces have low voices
    formant_scale  = exp(-FORMANT_SPREAD * vocal_tract)                   wide jaws have long vocal tracts,
    tilt_db_octave = TILT_DB_OCTAVE - TILT_SPREAD * vocal_tract           which sound dull
    breathiness    = BREATHINESS * exp(HOARSENESS_SPREAD * hoarseness)    wide-set eyes have hoarse voices:
    jitter         = JITTER * exp(HOARSENESS_SPREAD * hoarseness)         breath, and pulses out of step

Two of the traits show in the colours too: portraits of long faces have a rosy cast and those of wide jaws a
warm one (`CASTS`), as films and lamps give to a whole photograph; the colour of the skin has no say in the
voice. A small model that trains for a minute on a hundred people finds a cast sooner than a shape. The law is
an invention for testing; it says nothing about real faces and voices.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from facevox.batch import Item

VERSION = 1  # of the people: raise it when the same seed would give other people
CORRELATION = 0.92

PITCH_HZ, PITCH_SPREAD = 150.0, 0.30  # one deviation: 111 .. 202 Hz
FORMANT_SPREAD = 0.12  # one deviation: 0.89 .. 1.13 times an average vocal tract
TILT_DB_OCTAVE, TILT_SPREAD = -5.0, 3.0  # beyond the -6 dB an octave that any glottal pulse has
BREATHINESS, JITTER = 0.10, 0.012  # RMS of the breath's hiss against the voice's; of a pulse, in periods
HOARSENESS_SPREAD = 0.75

# Visible factor -> voice factor. Independent of one another, so that several traits tell people apart.
LAW = {
    "face_length": "pitch",
    "jaw_width": "vocal_tract",
    "eye_distance": "hoarseness",
}
# Visible factor -> shift of a and b (CIE Lab) of the whole picture by one deviation.
CASTS = {"face_length": (3.8, 0.0), "jaw_width": (0.0, 6.0)}
# Visible, but without a say in the voice: what a model has to learn to ignore.
NUISANCE = ("mouth_width", "brow_height", "nose_width", "lip_fullness", "eye_size")

FACTOR_LIMIT = math.sqrt(3.0)  # a uniform distribution of variance 1 reaches this far


@dataclass(frozen=True, kw_only=True)
class PersonItem(Item):
    """The person of this number, whose files are to be made."""

    index: int


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Appearance of a person apart from the geometry. Shares are in [0, 1]; Lab shifts in CIE Lab units."""

    head: str  # "hair" (the astronaut's) or "cap" (the officer's)
    body: str  # "suit" or "spacesuit"
    has_glasses: bool
    is_mirrored: bool
    dissolve: float  # share of the officer in the skin; 0 is the astronaut
    skin_lab: tuple[float, float, float]
    hair_lab: tuple[float, float, float]
    hair_contrast: float
    hair_volume: float  # widens or narrows the hair, share of its distance from the face
    cloth_lab: tuple[float, float, float]
    shirt_lab: tuple[float, float, float]
    backdrop_lab: tuple[float, float, float]
    backdrop_seed: int


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Numbers of the synthesiser for one person."""

    pitch_hz: float
    formant_scale: float
    tilt_db_octave: float
    breathiness: float
    jitter: float
    syllables_per_s: float


@dataclass(frozen=True, kw_only=True)
class Person:
    """One synthetic person; `geometry` and `voice_factors` have mean 0 and variance 1."""

    name: str
    seed: int
    index: int
    geometry: dict[str, float]
    voice_factors: dict[str, float]
    voice: Voice
    appearance: Appearance

    def describe(self) -> dict[str, object]:
        """The person as JSON-able numbers, rounded to six digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


# After seed and index a key names the draw: 1 geometry and voice, 2 appearance, 3 sensor noise, 4 stills,
# 5 clips and AIHub's pictures, 6 sounds and AIHub's uploaders.
def random_generator(*key: int) -> np.random.Generator:
    """A generator that depends on the numbers in `key` alone, so that no person's draws shift another's."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def person_name(index: int) -> str:
    """`id0007` for index 7: the folder name of a person."""
    return f"id{index:04d}"


def make_person(seed: int, index: int) -> Person:
    """The person `index` of the set `seed`; depends on nothing else.

    Args:
        seed: Seed of the set, at least 0. Another seed gives other people.
        index: Number of the person, at least 0.
    """
    rng = random_generator(seed, index, 1)
    geometry = {name: float(rng.uniform(-FACTOR_LIMIT, FACTOR_LIMIT)) for name in (*LAW, *NUISANCE)}
    noise_share = math.sqrt(1.0 - CORRELATION**2)
    factors = {
        voice: CORRELATION * geometry[face] + noise_share * float(rng.uniform(-FACTOR_LIMIT, FACTOR_LIMIT))
        for face, voice in LAW.items()
    }
    return Person(
        name=person_name(index),
        seed=seed,
        index=index,
        geometry=geometry,
        voice_factors=factors,
        voice=_voice(factors, float(rng.uniform(3.6, 4.8))),
        appearance=_appearance(random_generator(seed, index, 2)),
    )


def law_description() -> dict[str, object]:
    """The law in words and numbers, for `metadata.json`."""
    return {
        "text": "voice factor = correlation * visible factor + sqrt(1 - correlation^2) * noise; "
        "visible factors and noise: mean 0, variance 1, uniform, independent",
        "correlation": CORRELATION,
        "visible_to_voice": dict(LAW),
        "casts_lab_ab": {trait: list(shift) for trait, shift in CASTS.items()},
        "nuisance": list(NUISANCE),
        "pitch_hz": f"exp(log({PITCH_HZ}) - {PITCH_SPREAD} * pitch)",
        "formant_scale": f"exp(-{FORMANT_SPREAD} * vocal_tract)",
        "tilt_db_octave": f"{TILT_DB_OCTAVE} - {TILT_SPREAD} * vocal_tract",
        "breathiness": f"{BREATHINESS} * exp({HOARSENESS_SPREAD} * hoarseness)",
        "jitter": f"{JITTER} * exp({HOARSENESS_SPREAD} * hoarseness)",
        "note": "an invention for testing; it says nothing about real faces and voices",
    }


def _voice(factors: dict[str, float], syllables_per_s: float) -> Voice:
    return Voice(
        pitch_hz=PITCH_HZ * math.exp(-PITCH_SPREAD * factors["pitch"]),
        formant_scale=math.exp(-FORMANT_SPREAD * factors["vocal_tract"]),
        tilt_db_octave=TILT_DB_OCTAVE - TILT_SPREAD * factors["vocal_tract"],
        breathiness=BREATHINESS * math.exp(HOARSENESS_SPREAD * factors["hoarseness"]),
        jitter=JITTER * math.exp(HOARSENESS_SPREAD * factors["hoarseness"]),
        syllables_per_s=syllables_per_s,
    )


def _appearance(rng: np.random.Generator) -> Appearance:
    has_cap = rng.random() < 0.3
    has_spacesuit = not has_cap and rng.random() < 0.2
    # Skin: from fair to dark along the line of human skin (darker skin is a little redder).
    darkness = float(rng.beta(1.2, 1.6))
    skin = (8.0 - 40.0 * darkness, rng.normal(0, 0.7) + 1.0 * darkness, rng.normal(0, 1.0) + 2.0 * darkness)
    # Hair: lightness and warmth; the darker the skin the rarer light hair, as in most places.
    hair_shift = float(rng.uniform(-20, 10)) - 8.0 * darkness
    warmth = float(rng.uniform(-0.9, 0.35))
    # Dark hair has less colour: blond merely darkened looks olive.
    darkened, greyness = max(-hair_shift, 0.0), 20.0 * max(-warmth, 0.0)
    hue = rng.uniform(0, 2 * math.pi)
    backdrop_hue = rng.uniform(0, 2 * math.pi)
    cloth_chroma, backdrop_chroma = rng.uniform(0, 18), rng.uniform(0, 9)
    return Appearance(
        head="cap" if has_cap else "hair",
        body="spacesuit" if has_spacesuit else "suit",
        has_glasses=has_cap or bool(rng.random() < 0.3),
        is_mirrored=bool(rng.random() < 0.5),
        # Ears and hair below the cap are the officer's: a face without a share of hers would not fit.
        dissolve=float(rng.uniform(0.3, 0.9) if has_cap else rng.uniform(0.0, 0.8)),
        skin_lab=_triple(skin),
        hair_lab=_triple((hair_shift, 4.0 * max(warmth, 0.0) + 0.15 * darkened, -0.4 * darkened - greyness)),
        hair_contrast=float(rng.uniform(0.7, 1.0)),
        hair_volume=float(rng.uniform(-0.12, 0.12)),
        cloth_lab=_triple(
            (rng.uniform(0, 30), cloth_chroma * math.cos(hue), cloth_chroma * math.sin(hue)),
        ),
        shirt_lab=_triple((rng.uniform(-25, 0), rng.uniform(-8, 8), rng.uniform(-10, 10))),
        backdrop_lab=_triple(
            (
                rng.uniform(35, 80),
                backdrop_chroma * math.cos(backdrop_hue),
                backdrop_chroma * math.sin(backdrop_hue),
            )
        ),
        backdrop_seed=int(rng.integers(1 << 31)),
    )


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    first, second, third = (float(v) for v in values)
    return first, second, third


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
