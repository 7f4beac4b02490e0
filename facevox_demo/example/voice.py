"""Speech of a person by source and filter, 16 kHz.

Source: glottal pulses with jitter and a spectral tilt. Filter: five resonances per vowel, scaled by the
person's vocal tract. Breath is high-pass noise added to them. Each vowel is scaled to the loudness of the
clip's plan, so the sound's envelope is the very function that opens the mouth.

Source of the vowels' formants: Peterson and Barney 1952, means of adult men (rounded).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from facevox_demo.example.clips import ClipPlan, Syllable, syllable_loudness
from facevox_demo.example.people import Voice, random_generator
from facevox_demo.example.warps import Floats

RATE_HZ = 16_000
FORMANTS_HZ = {
    "a": (730, 1090, 2440, 3500, 4500),
    "e": (530, 1840, 2480, 3500, 4500),
    "i": (270, 2290, 3010, 3600, 4500),
    "o": (570, 840, 2410, 3400, 4500),
    "u": (300, 870, 2240, 3400, 4500),
}
BANDWIDTHS_HZ = (60, 90, 130, 200, 300)
FULL_RMS = 0.14  # of a vowel at loudness 1; its peaks stay below 1
FRICATIVE_LEVEL, BURST_LEVEL = 0.16, 0.10  # of s and of the burst of t, against a vowel of the same loudness


def speak(plan: ClipPlan) -> NDArray[np.float32]:
    """The sound of a clip: (n,) float32 mono in [-1, 1] at 16 kHz, n = round(clip_s * 16000)."""
    count = round(plan.clip_s * RATE_HZ)
    rng = random_generator(plan.person.seed, plan.person.index, 6, plan.sound_seed)
    voice = plan.person.voice
    source = _source(voice, _pitch(plan, count), rng)
    # Breath also hisses at the lips, above the resonances: it sounds as loud as the vowel asks.
    # (1 - 0.9 / z)^2: a high-pass of second order.
    breath = lfilter([1.0, -1.8, 0.81], [1.0], rng.normal(size=count))
    breath *= voice.breathiness / breath.std()
    sound = np.zeros(count)
    for syllable in plan.syllables:
        _add_vowel(sound, source, breath, syllable, voice)
        _add_onset(sound, syllable, voice, rng)
    sound = FULL_RMS * sound
    noise = lfilter([1.0], [1.0, -0.7], rng.normal(size=count))
    sound += noise / noise.std() * FULL_RMS * 10.0 ** (-plan.noise_db / 20.0)
    return np.clip(sound, -0.99, 0.99).astype(np.float32)


def _pitch(plan: ClipPlan, count: int) -> Floats:
    """Pitch in Hz at every sample: the syllables' accents, joined by straight lines."""
    time_s = np.arange(count) / RATE_HZ
    if not plan.syllables:
        return np.full(count, plan.person.voice.pitch_hz)
    middles = [0.5 * (s.start_s + s.end_s) for s in plan.syllables]
    accents: Floats = np.interp(time_s, middles, [s.pitch for s in plan.syllables])
    return plan.person.voice.pitch_hz * accents


def _source(voice: Voice, pitch_hz: Floats, rng: np.random.Generator) -> Floats:
    """Pulses (n,) of RMS 1 before the vocal tract."""
    count = len(pitch_hz)
    cycles = np.cumsum(pitch_hz) / RATE_HZ
    starts = np.interp(np.arange(1, int(cycles[-1]) + 1), cycles, np.arange(count))
    starts = starts + voice.jitter * (RATE_HZ / voice.pitch_hz) * rng.normal(size=len(starts))
    starts = np.clip(starts, 0, count - 2)
    whole = starts.astype(int)
    pulses = np.zeros(count)
    # A pulse between two samples is split between them, or its period would be a whole number of samples.
    np.add.at(pulses, whole, 1.0 - (starts - whole))
    np.add.at(pulses, whole + 1, starts - whole)
    rate_hz = np.fft.rfftfreq(count, 1.0 / RATE_HZ)
    octaves = np.log2(np.maximum(rate_hz, 60.0) / 500.0)
    tilted = np.fft.irfft(
        np.fft.rfft(pulses) * 10.0 ** ((-6.0 + voice.tilt_db_octave) * octaves / 20.0), count
    )
    tilted -= tilted.mean()
    source: Floats = tilted / tilted.std()
    return source


def _add_vowel(sound: Floats, source: Floats, breath: Floats, syllable: Syllable, voice: Voice) -> None:
    first, last = int(syllable.vowel_s * RATE_HZ), min(int(syllable.end_s * RATE_HZ), len(sound))
    lead = max(first - 400, 0)  # the resonances need 25 ms to ring in
    piece = source[lead:last]
    for formant_hz, width_hz in zip(FORMANTS_HZ[syllable.vowel], BANDWIDTHS_HZ, strict=True):
        # A pair of poles: its angle is the frequency, its radius the bandwidth; the gain at 0 Hz is 1.
        radius = np.exp(-np.pi * width_hz / RATE_HZ)
        angle = 2.0 * np.pi * min(formant_hz * voice.formant_scale, 0.47 * RATE_HZ) / RATE_HZ
        poles = [1.0, -2.0 * radius * np.cos(angle), radius**2]
        piece = lfilter([sum(poles)], poles, piece)
    piece = piece[first - lead :]
    level = np.sqrt(np.mean(piece**2)) if len(piece) else 0.0
    if level > 0:
        loudness = syllable_loudness(syllable, np.arange(first, last) / RATE_HZ)
        sound[first:last] += (piece / level + breath[first:last]) * loudness


def _add_onset(sound: Floats, syllable: Syllable, voice: Voice, rng: np.random.Generator) -> None:
    """Hiss of s, burst of t; b is the silence before its vowel."""
    if syllable.onset not in ("s", "t"):
        return
    burst_s = 0.012
    start_s = syllable.start_s if syllable.onset == "s" else syllable.vowel_s - burst_s
    first, last = int(start_s * RATE_HZ), min(int(syllable.vowel_s * RATE_HZ), len(sound))
    if last - first < 16:
        return
    # High-pass that moves with the vocal tract, as the hiss of a small mouth is sharper.
    pole = -0.55 * min(voice.formant_scale, 1.3)
    hiss = lfilter([1.0, -1.0], [1.0, -pole], rng.normal(size=last - first))
    level = FRICATIVE_LEVEL if syllable.onset == "s" else BURST_LEVEL
    sound[first:last] += level * syllable.loudness * np.hanning(last - first) * hiss / hiss.std()
