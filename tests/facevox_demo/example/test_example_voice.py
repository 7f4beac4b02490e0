"""The synthesised speech: pitch, resonances, loudness, and its clock."""

import dataclasses

import numpy as np
import pytest

from facevox_demo.example.clips import ClipPlan, Syllable, articulation_at, loudness_at, plan_clip, vowels_at
from facevox_demo.example.people import Voice, make_person
from facevox_demo.example.voice import FORMANTS_HZ, FULL_RMS, RATE_HZ, speak


def _steady_plan(voice: Voice, vowel: str = "a", clip_s: float = 1.0) -> ClipPlan:
    """A clip with one long vowel at an even pitch and next to no noise."""
    person = dataclasses.replace(make_person(0, 0), voice=voice)
    long = Syllable(start_s=0.1, end_s=0.9, onset="", vowel=vowel, loudness=1.0, pitch=1.0)
    return dataclasses.replace(plan_clip(person, 0, clip_s), syllables=(long,), noise_db=80.0)


def _voice(**changes: float) -> Voice:
    usual = {
        "pitch_hz": 150.0,
        "formant_scale": 1.0,
        "tilt_db_octave": -5.0,
        "breathiness": 0.002,
        "jitter": 0.005,
        "syllables_per_s": 4.0,
    }
    return Voice(**{**usual, **changes})


def _measured_pitch_hz(sound: np.ndarray) -> float:
    """Pitch by the highest peak of the autocorrelation between 70 and 400 Hz."""
    piece = sound - sound.mean()
    correlation = np.correlate(piece, piece, "full")[len(piece) - 1 :]
    shortest, longest = RATE_HZ // 400, RATE_HZ // 70
    return RATE_HZ / (shortest + int(correlation[shortest:longest].argmax()))


def _power(sound: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    rate_hz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    return float(spectrum[(rate_hz >= low_hz) & (rate_hz < high_hz)].sum())


@pytest.mark.parametrize("pitch_hz", [95.0, 150.0, 230.0])
def test_pitch_is_the_persons(pitch_hz):
    sound = speak(_steady_plan(_voice(pitch_hz=pitch_hz)))
    assert _measured_pitch_hz(sound[4000:12000]) == pytest.approx(pitch_hz, rel=0.03)


@pytest.mark.parametrize("vowel", list(FORMANTS_HZ))
@pytest.mark.parametrize("scale", [0.85, 1.15])
def test_first_resonance_lies_where_the_vowel_and_the_vocal_tract_put_it(vowel, scale):
    # A low pitch samples the spectrum densely; a flat tilt leaves the resonance where it is.
    voice = _voice(pitch_hz=80.0, formant_scale=scale, tilt_db_octave=4.0)
    sound = speak(_steady_plan(voice, vowel))[4000:12000]
    expected_hz = FORMANTS_HZ[vowel][0] * scale
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    rate_hz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    near = (rate_hz > 0.6 * expected_hz) & (rate_hz < 1.35 * expected_hz)
    peak_hz = rate_hz[near][spectrum[near].argmax()]
    assert abs(peak_hz - expected_hz) <= 55  # two thirds of the distance of two harmonics


def test_tilt_darkens_and_breath_fills_the_top_of_the_spectrum():
    def balance(**changes: float) -> float:
        sound = speak(_steady_plan(_voice(**changes)))[4000:12000]
        return 10 * np.log10(_power(sound, 2000, 8000) / _power(sound, 100, 1000))

    assert balance(tilt_db_octave=-1.0) > balance(tilt_db_octave=-9.0) + 6
    assert balance(tilt_db_octave=-5.0, breathiness=0.3) > balance(tilt_db_octave=-5.0, breathiness=0.03) + 6


def test_jitter_makes_the_periods_uneven():
    def periodicity(jitter: float) -> float:
        """Height of the autocorrelation one period later."""
        sound = speak(_steady_plan(_voice(pitch_hz=100.0, jitter=jitter)))[4000:12000]
        return float(np.corrcoef(sound[:-160], sound[160:])[0, 1])

    assert periodicity(0.002) > 0.9
    assert periodicity(0.03) < periodicity(0.002) - 0.1


def test_loudness_is_that_of_the_plan_and_pauses_are_silent():
    plan = dataclasses.replace(plan_clip(make_person(0, 3), 0, 4.0), noise_db=80.0)
    sound = speak(plan)
    frames = np.arange(100) / 25.0
    wanted = loudness_at(plan, frames)
    rms = np.array([np.sqrt(np.mean(sound[max(int(t * RATE_HZ) - 320, 0) :][:640] ** 2)) for t in frames])
    assert np.corrcoef(rms, wanted)[0, 1] > 0.9
    silent = np.array(
        [
            all(abs(t - m) > 0.03 for s in plan.syllables for m in np.linspace(s.start_s, s.end_s, 50))
            for t in frames
        ]
    )
    assert silent.sum() > 5
    assert rms[silent].max() < 0.02 * FULL_RMS


def test_mouth_is_shut_in_pauses_and_at_b_and_open_at_a():
    plan = _steady_plan(_voice())
    b = dataclasses.replace(plan.syllables[0], onset="b", start_s=0.2, vowel="a", end_s=0.6)
    plan = dataclasses.replace(plan, syllables=(b,))
    opening, _ = articulation_at(plan, np.array([0.1, 0.21, 0.26, 0.4, 0.7]))
    assert opening[[0, 1, 2, 4]] == pytest.approx(0.0)
    assert opening[3] == pytest.approx(1.0)


def test_vowels_differ_in_opening_and_spread():
    shapes = {}
    for vowel in FORMANTS_HZ:
        opening, spread = articulation_at(_steady_plan(_voice(), vowel), np.array([0.5]))
        shapes[vowel] = (opening[0], spread[0])
    assert shapes["a"][0] > shapes["e"][0] > shapes["i"][0] > shapes["u"][0]
    assert shapes["i"][1] > 0.5
    assert shapes["u"][1] < -0.5


def test_vowel_timeline_names_what_sounds():
    plan = _steady_plan(_voice(), "o")
    assert vowels_at(plan, np.array([0.05, 0.2, 0.5, 0.95])) == "-oo-"


def test_clips_of_a_person_say_other_things_and_start_at_other_times():
    person = make_person(0, 5)
    plans = [plan_clip(person, number, 10.0) for number in range(4)]
    assert len({plan.syllables for plan in plans}) == 4
    assert len({plan.syllables[0].start_s for plan in plans}) == 4
    assert len({plan.noise_db for plan in plans}) == 4
    pauses = [b.start_s - a.end_s for p in plans for a, b in zip(p.syllables, p.syllables[1:], strict=False)]
    long = [pause for pause in pauses if pause > 0.01]
    assert max(long) > 2 * min(long)


@pytest.mark.parametrize("clip_s", [0.5, 1.0, 2.3])
def test_sound_has_the_length_of_the_clip_and_stays_in_range(clip_s):
    sound = speak(plan_clip(make_person(1, 2), 0, clip_s))
    assert sound.shape == (round(clip_s * RATE_HZ),)
    assert sound.dtype == np.float32
    assert 0.0 < np.abs(sound).max() < 1.0


def test_same_plan_gives_the_same_samples():
    plan = plan_clip(make_person(1, 2), 1, 1.0)
    assert np.array_equal(speak(plan), speak(plan))
