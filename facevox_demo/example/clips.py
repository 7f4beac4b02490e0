"""Speech of a person in one clip and the movements of the face with it: one clock for sound and pictures.

A clip is a list of syllables. `loudness_at` and `articulation_at` are functions of time in seconds, so that
sound (sampled at 16 kHz) and pictures (sampled at each frame's presentation time) agree to the sample: no
constant lag. The mouth opens with the loudness of the vowel and as far as the vowel asks; it is shut in
pauses and at b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facevox_demo.example.expressions import Expression, make_expression
from facevox_demo.example.people import Person, random_generator
from facevox_demo.example.pictures import Light, Pose, random_light
from facevox_demo.example.warps import Floats

# Vowel -> (opening of the mouth 0 to 1 at full loudness, spread -1 round to 1 spread).
VOWELS = {"a": (1.0, 0.1), "e": (0.7, 0.5), "i": (0.42, 0.95), "o": (0.62, -0.65), "u": (0.36, -1.0)}
ATTACK_S, RELEASE_S = 0.045, 0.075
# Onset -> (its length in seconds, opening of the mouth while it lasts). "" starts with the vowel at once.
ONSETS = {"b": (0.070, 0.0), "s": (0.080, 0.10), "t": (0.045, 0.06), "": (0.0, 0.0)}
LOUDNESS_POWER = 0.85  # opening = vowel's opening * loudness ** this: quiet vowels keep some opening
END_GUARD_S = 0.06  # the last syllable ends this long before the clip does


@dataclass(frozen=True, kw_only=True)
class Syllable:
    """One syllable: from `start_s`, first its onset, then its vowel until `end_s`; loudness in (0, 1]."""

    start_s: float
    end_s: float
    onset: str
    vowel: str
    loudness: float
    pitch: float  # factor on the person's pitch

    @property
    def vowel_s(self) -> float:
        """Time at which the vowel begins, in seconds."""
        return self.start_s + ONSETS[self.onset][0]


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """Everything that distinguishes one clip of a person."""

    person: Person
    number: int
    clip_s: float
    syllables: tuple[Syllable, ...]
    expression_name: str
    expression: Expression
    light: Light
    base_pose: Pose
    sway: Floats  # (4 movements, 2 waves, 3: amplitude, frequency in Hz, phase)
    noise_db: float  # background noise below full loudness
    sound_seed: int

    @property
    def name(self) -> str:
        """`0001` for the clip number 0."""
        return f"{self.number + 1:04d}"


def plan_clip(person: Person, number: int, clip_s: float) -> ClipPlan:
    """The clip `number` of a person; depends on the person, the number and the length alone."""
    rng = random_generator(person.seed, person.index, 5, number)
    mood = str(rng.choice(("neutral", "happy", "sad", "anxiety"), p=(0.7, 0.1, 0.1, 0.1)))
    light = random_light(rng)
    base = Pose(
        shift_x=float(rng.uniform(-0.08, 0.08)),
        shift_y=float(rng.uniform(-0.04, 0.04)),
        roll_deg=float(rng.uniform(-3, 3)),
        scale=float(rng.uniform(0.95, 1.03)),
        turn=float(rng.uniform(-0.4, 0.4)),
        nod=float(rng.uniform(-0.3, 0.3)),
    )
    # Of shift (face units), roll (degrees), turn and nod: two slow waves each, no two clips alike.
    amplitude = np.array([0.02, 1.3, 0.25, 0.2])[:, None] * rng.uniform(0.3, 1.0, (4, 2))
    sway = np.stack([amplitude, rng.uniform(0.1, 0.7, (4, 2)), rng.uniform(0, 2 * np.pi, (4, 2))], axis=-1)
    return ClipPlan(
        person=person,
        number=number,
        clip_s=clip_s,
        syllables=_speech(person, clip_s, rng),
        expression_name=mood,
        expression=make_expression(mood, float(rng.uniform(0.25, 0.5))),
        light=light,
        base_pose=base,
        sway=sway,
        noise_db=float(rng.uniform(28.0, 45.0)),
        sound_seed=int(rng.integers(1 << 31)),
    )


def _speech(person: Person, clip_s: float, rng: np.random.Generator) -> tuple[Syllable, ...]:
    syllables: list[Syllable] = []
    time_s = float(rng.uniform(0.05, 0.35))
    while True:
        count = int(rng.integers(2, 7))  # syllables of a sentence; a pause follows
        for position in range(count):
            length_s = float(rng.uniform(0.75, 1.3)) / person.voice.syllables_per_s
            if time_s + length_s > clip_s - END_GUARD_S:
                return tuple(syllables)
            syllables.append(
                Syllable(
                    start_s=time_s,
                    end_s=time_s + length_s,
                    onset=str(rng.choice(("b", "s", "t", ""), p=(0.3, 0.2, 0.25, 0.25))),
                    vowel=str(rng.choice(tuple(VOWELS))),
                    loudness=float(rng.uniform(0.35, 1.0)),
                    # Sentences fall in pitch; each syllable has its own accent.
                    pitch=1.06 - 0.12 * position / count + float(rng.uniform(-0.05, 0.05)),
                )
            )
            time_s += length_s
        time_s += float(rng.uniform(0.15, 0.7))


def syllable_loudness(syllable: Syllable, time_s: Floats) -> Floats:
    """Loudness of the vowel of one syllable at each time, 0 to 1: rises, stays, falls."""
    rise = np.clip((time_s - syllable.vowel_s) / ATTACK_S, 0.0, 1.0)
    fall = np.clip((syllable.end_s - time_s) / RELEASE_S, 0.0, 1.0)
    opening = VOWELS[syllable.vowel][0]
    # Open vowels are louder by nature: they let more sound out.
    level = syllable.loudness * opening**0.35
    loudness: Floats = level * 0.25 * (1.0 - np.cos(np.pi * rise)) * (1.0 - np.cos(np.pi * fall))
    return loudness


def loudness_at(plan: ClipPlan, time_s: Floats) -> Floats:
    """Loudness of the voice at each time (n,), 0 to 1; onsets and noise are not counted."""
    return sum((syllable_loudness(s, time_s) for s in plan.syllables), np.zeros_like(time_s))


def articulation_at(plan: ClipPlan, time_s: Floats) -> tuple[Floats, Floats]:
    """Opening (n,) in [0, 1] and spread (n,) in [-1, 1] of the mouth at each time, without the expression."""
    opening, spread = np.zeros_like(time_s), np.zeros_like(time_s)
    for syllable in plan.syllables:
        open_share, spread_share = VOWELS[syllable.vowel]
        loudness = syllable_loudness(syllable, time_s)
        onset_s, onset_opening = ONSETS[syllable.onset]
        # Without the factor by which open vowels are louder, or they would count twice.
        opening = np.maximum(opening, open_share * (loudness / open_share**0.35) ** LOUDNESS_POWER)
        if onset_opening:
            middle = (time_s - syllable.start_s - 0.5 * onset_s) / onset_s
            opening = np.maximum(opening, onset_opening * np.exp(-2.0 * middle**2))
        spread += spread_share * np.sqrt(loudness)
    return opening, np.clip(spread, -1.0, 1.0)


def vowels_at(plan: ClipPlan, time_s: Floats) -> str:
    """The vowel that sounds at each time, `-` where none does."""
    letters = ["-"] * len(time_s)
    for syllable in plan.syllables:
        for k in np.flatnonzero((time_s >= syllable.vowel_s) & (time_s < syllable.end_s)):
            letters[k] = syllable.vowel
    return "".join(letters)


def pose_at(plan: ClipPlan, time_s: float) -> Pose:
    """Pose of the head at a time: the clip's own pose, the sway, and what the expression adds."""
    amplitude, rate_hz, phase = np.moveaxis(plan.sway, -1, 0)
    shift, roll, turn, nod = (amplitude * np.sin(2 * np.pi * rate_hz * time_s + phase)).sum(-1)
    base, face = plan.base_pose, plan.expression
    return Pose(
        shift_x=base.shift_x + float(shift),
        shift_y=base.shift_y,
        roll_deg=base.roll_deg + face.roll_deg + float(roll),
        scale=base.scale,
        turn=base.turn + face.turn + float(turn),
        nod=base.nod + face.nod + float(nod),
    )
