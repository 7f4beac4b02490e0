"""Who the example people are: seeds, and the law that ties the voice to the face."""

import json

import numpy as np
import pytest

from facevox_demo.example.people import CORRELATION, LAW, law_description, make_person

CROWD = 200


@pytest.fixture(scope="module")
def crowd():
    return [make_person(0, index) for index in range(CROWD)]


@pytest.mark.parametrize(("trait", "voice"), LAW.items())
def test_voice_follows_the_face_with_a_correlation_of_about_nine_tenths(crowd, trait, voice):
    pairs = np.array([(p.geometry[trait], p.voice_factors[voice]) for p in crowd])
    assert 0.85 <= np.corrcoef(pairs.T)[0, 1] <= 0.95


def test_pitch_and_formants_are_what_the_documented_formulas_say(crowd):
    law = law_description()
    names = {"exp": np.exp, "log": np.log}
    for person in crowd[:20]:
        for number in ("pitch_hz", "formant_scale", "tilt_db_octave", "breathiness", "jitter"):
            expected = eval(law[number], {"__builtins__": {}}, {**names, **person.voice_factors})
            assert getattr(person.voice, number) == pytest.approx(expected, rel=1e-9)


def test_log_pitch_itself_correlates_with_the_length_of_the_face(crowd):
    pairs = np.array([(p.geometry["face_length"], np.log(p.voice.pitch_hz)) for p in crowd])
    assert -0.95 <= np.corrcoef(pairs.T)[0, 1] <= -0.85


def test_traits_are_independent_of_each_other(crowd):
    traits = np.array([list(p.geometry.values()) for p in crowd])
    others = np.corrcoef(traits.T)[~np.eye(traits.shape[1], dtype=bool)]
    # 5 deviations of a correlation of independent numbers over so many people.
    assert np.abs(others).max() < 5 / np.sqrt(CROWD)


def test_voices_of_nuisance_traits_do_not_follow(crowd):
    pairs = np.array([(p.geometry["nose_width"], p.voice_factors["pitch"]) for p in crowd])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 5 / np.sqrt(CROWD)


def test_a_person_depends_on_seed_and_index_alone():
    assert make_person(3, 7) == make_person(3, 7)
    assert make_person(3, 7) != make_person(3, 8)
    assert make_person(3, 7).geometry != make_person(4, 7).geometry
    assert make_person(3, 7).appearance != make_person(4, 7).appearance


def test_a_person_can_be_written_as_json_and_the_correlation_is_told():
    described = make_person(0, 0).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["name"] == "id0000"
    assert law_description()["correlation"] == CORRELATION
