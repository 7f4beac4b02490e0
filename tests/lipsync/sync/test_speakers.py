"""Who speaks when: against all successions of speakers written out, and on real people heard in turns."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from planted import CALIBRATION, LAGS, similar
from synthetic_takes import make_take

from lipsync.clips.features import ClipFeatures
from lipsync.sync.estimators import UNTRAINED_CALIBRATION, LoudnessEstimator
from lipsync.sync.posterior import BLOCK_FRAMES, block_evidence, find_posterior
from lipsync.sync.scoring import score_clip
from lipsync.sync.speakers import SWITCH, FaceEvidence, mixed_evidence, speaker_shares
from lipsync.sync.verdicts import NO_MATCH


def face(first: int, values: np.ndarray) -> FaceEvidence:
    return FaceEvidence(first, values.astype(np.float32), np.full(len(values), BLOCK_FRAMES))


def successions(
    faces: list[FaceEvidence], num_blocks: int, lag: int
) -> list[tuple[tuple[int, ...], float, float]]:
    """(speakers, their probability beforehand, likelihood of what is seen at a lag), all of them."""
    seen = [[k for k, one in enumerate(faces) if one.first <= block < one.end] for block in range(num_blocks)]
    result = []
    for speakers in itertools.product(*(here or [-1] for here in seen)):
        prior = likelihood = 1.0
        for block, speaker in enumerate(speakers):
            if speaker < 0:
                continue
            here = seen[block]
            before = speakers[block - 1] if block else -1
            chance = 1 / len(here)
            if before in here:
                chance = SWITCH / len(here) + (1 - SWITCH) * (speaker == before)
            prior *= chance
            one = faces[speaker]
            likelihood *= np.exp(float(one.blocks[block - one.first, lag]))
        result.append((speakers, prior, likelihood))
    return result


@pytest.fixture
def faces() -> list[FaceEvidence]:
    """One all the time, one that comes, one that goes; nobody in block 4."""
    rng = np.random.default_rng(0)
    spans = ((0, 4), (2, 2), (5, 2), (6, 1))
    return [face(first, rng.normal(0, 2, (count, 3))) for first, count in spans]


def test_evidence_is_the_sum_over_all_successions_of_speakers(faces: list[FaceEvidence]) -> None:
    evidence, counts = mixed_evidence(faces, 7, 3)
    for lag in range(3):
        each = successions(faces, 7, lag)
        assert sum(prior for _, prior, _ in each) == pytest.approx(1)
        total = sum(prior * likelihood for _, prior, likelihood in each)
        assert float(evidence[:, lag].sum(dtype=np.float64)) == pytest.approx(np.log(total), rel=1e-5)
    assert (evidence[4] == 0).all()
    np.testing.assert_array_equal(counts > 0, [True, True, True, True, False, True, True])


def test_shares_are_those_of_all_successions(faces: list[FaceEvidence]) -> None:
    """Lags may differ from block to block, as in a drift."""
    places = np.array([0, 0, 1, 1, 1, 2, 2])
    moved = [
        face(one.first, one.blocks[np.arange(len(one.blocks)), places[one.first : one.end]][:, None])
        for one in faces
    ]
    each = successions(moved, 7, 0)
    total = sum(prior * likelihood for _, prior, likelihood in each)
    expected = np.zeros((4, 7))
    for speakers, prior, likelihood in each:
        for block, speaker in enumerate(speakers):
            if speaker >= 0:
                expected[speaker, block] += prior * likelihood / total
    np.testing.assert_allclose(speaker_shares(faces, 7, places), expected, atol=1e-6)


def test_one_face_at_a_time_keeps_its_evidence() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 3, (3, 5)), rng.normal(0, 3, (4, 5))
    evidence, counts = mixed_evidence([face(0, first), face(3, second)], 8, 5)
    np.testing.assert_array_equal(evidence[:7], np.concatenate([first, second]).astype(np.float32))
    assert (counts == [10] * 7 + [0]).all()


def test_evidence_far_beyond_what_exp_takes_stays_finite() -> None:
    values = np.array([[1e4, -1e4], [-1e4, 1e4]])
    faces = [face(0, values), face(0, -values)]
    evidence, _ = mixed_evidence(faces, 2, 2)
    assert np.isfinite(evidence).all()
    shares = speaker_shares(faces, 2, np.array([0, 0]))
    np.testing.assert_allclose(shares, [[1, 0], [0, 1]], atol=1e-6)


def test_foreign_sound_gains_nothing_from_many_faces() -> None:
    """The mean of exp over sounds of others stays 1 where somebody is chosen by chance."""
    rng = np.random.default_rng(0)
    matches = []
    for seed in range(40):
        lags = rng.integers(-90, 90, (3, 30))
        parts = [
            block_evidence(similar(np.repeat(row, BLOCK_FRAMES).astype(float), 0.5, seed), 0.3)
            for row in lags
        ]
        evidence, counts = mixed_evidence([FaceEvidence(0, *part) for part in parts], 30, len(LAGS))
        posterior = find_posterior(evidence.sum(axis=0), int(counts.sum()), LAGS, CALIBRATION)
        assert posterior is not None
        matches.append(posterior.match)
    assert np.mean(np.array(matches) > 0.5) < 0.1


def test_each_of_two_people_speaks_in_turn() -> None:
    """Both move their lips all the time; the sound changes between them every 6 s, 100 ms early."""
    takes = [make_take(seed, 600, offset_rows=10) for seed in (1, 2)]
    turns = np.arange(2400) // 600 % 2
    levels = np.where(turns[:, None] == 0, *(take.sound.log_mel[:2400] for take in takes))
    sound = replace(takes[0].sound, log_mel=levels, mfcc=levels[:, :13].copy())
    wide = np.tile([0, 0, 200, 200], (600, 1)).astype(np.float32)
    tracks = tuple(replace(take.track, track_id=number, boxes_px=wide) for number, take in enumerate(takes))
    score = score_clip(ClipFeatures(600, (0,), tracks, sound), LoudnessEstimator(), UNTRAINED_CALIBRATION)
    assert score.judgement.offset_ms == pytest.approx(100, abs=15)
    for one, expected in zip(score.faces, ([(0, 6), (12, 18)], [(6, 12), (18, 24)]), strict=True):
        assert one.is_speaking
        assert np.abs(np.array(one.speaks_s) - expected).max() <= 0.81
        assert one.judgement.offset_ms == pytest.approx(100, abs=20)
    # Of a sound of somebody else, nobody speaks.
    other = make_take(7, 600)
    foreign = ClipFeatures(600, (0,), tracks, other.sound)
    score = score_clip(foreign, LoudnessEstimator(), UNTRAINED_CALIBRATION)
    assert score.judgement.verdict.kind == NO_MATCH
    assert [one.is_speaking for one in score.faces] == [False, False]
