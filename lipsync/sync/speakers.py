"""The speaker among several faces, from moment to moment, and the evidence of that one.

At any moment one of the faces that are seen speaks; which one, nobody knows. It stays the same from block to
block, or, with a probability of SWITCH, is any of them (a hidden Markov model). The likelihood of what is
seen at a lag is then the sum over all successions of speakers: the forward algorithm gives it block by block
(`mixed_evidence`), and since each succession counts with its probability, a sound of somebody else gains
nothing from there being several faces. At the offset of the clip, the forward-backward algorithm gives
the probability of each face in each block (`speaker_shares`).

Letters: F faces, B blocks of the clip, L lags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facevox.signs import report_progress
from lipsync.sync.posterior import BLOCK_FRAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lipsync.clips.features import FaceTrack

# Eight seconds a turn. Of .02, .05, .1 and .2, two people who talk all the time and are heard in turns of 3,
# 5 and more seconds are distinguished about as well (benchmarks/lipsync.py --parts speakers).
SWITCH = 0.05
MOST_EVIDENCE = 50.0  # of a block, to each side: exp stays finite


@dataclass(frozen=True)
class FaceEvidence:
    """The evidence of a face in the blocks of a clip.

    Attributes:
        first: Its first block.
        blocks: (n, L) logarithms (`lipsync.sync.posterior.block_evidence`).
        counts: (n,) frames with any.
    """

    first: int
    blocks: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, track: FaceTrack, evidence: tuple[NDArray[np.float32], NDArray[np.int64]]) -> FaceEvidence:
        """That of `SyncEstimator.evidence`."""
        return cls(track.start // BLOCK_FRAMES, *evidence)

    @property
    def end(self) -> int:
        """One past its last block."""
        return self.first + len(self.blocks)


def mixed_evidence(
    faces: Sequence[FaceEvidence], num_blocks: int, num_lags: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Evidence (B, L) of whoever speaks, and frames (B,) with any; 0 where no face is."""
    evidence, counts = np.zeros((num_blocks, num_lags), np.float32), np.zeros(num_blocks, np.int64)
    before: NDArray[np.float64] | None = None  # (F, L) probabilities of the speakers of the last block
    for block, present in enumerate(_present(faces, num_blocks)):
        if not present.any():
            before = None
            continue
        report_progress()
        here = np.flatnonzero(present).tolist()
        counts[block] = min(sum(int(faces[k].counts[block - faces[k].first]) for k in here), BLOCK_FRAMES)
        values = np.zeros((len(faces), num_lags))
        for k in here:
            values[k] = faces[k].blocks[block - faces[k].first]
        if len(here) == 1:  # nothing to sum, and not a bit changes
            evidence[block] = values[here[0]]
            before = np.repeat(present[:, None].astype(np.float64), num_lags, axis=1)
            continue
        joint = _expected(before, present) * _likelihoods(values, present)
        totals = joint.sum(axis=0)
        evidence[block] = np.log(totals)
        before = joint / totals
    return evidence, counts


def speaker_shares(
    faces: Sequence[FaceEvidence], num_blocks: int, places: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probabilities (F, B) of each face to be the one who speaks; 0 where it is not seen.

    Args:
        faces: Their evidence.
        num_blocks: B.
        places: (B,) number of the lag in each block.
    """
    presents = list(_present(faces, num_blocks))
    likely = np.zeros((len(faces), num_blocks))
    for k, face in enumerate(faces):
        at = face.blocks[np.arange(len(face.blocks)), places[face.first : face.end]]
        likely[k, face.first : face.end] = np.exp(np.clip(at, -MOST_EVIDENCE, MOST_EVIDENCE))
    forward = np.zeros_like(likely)
    for block in range(num_blocks):
        before = forward[:, block - 1 : block] if block and presents[block - 1].any() else None
        forward[:, block] = _scaled(_expected(before, presents[block])[:, 0] * likely[:, block])
    backward = np.ones_like(likely)
    for block in range(num_blocks - 2, -1, -1):
        here, later = presents[block], presents[block + 1]
        if here.any() and later.any():
            # `_expected` the other way round.
            ahead = likely[:, block + 1] * backward[:, block + 1]
            anyone = ahead[later].mean()
            staying = np.where(later, ahead, anyone)
            backward[:, block] = _scaled((1 - SWITCH) * staying + SWITCH * anyone)
    joint = forward * backward
    shares: NDArray[np.float64] = joint / np.maximum(joint.sum(axis=0), np.finfo(float).tiny)
    return shares


def _present(faces: Sequence[FaceEvidence], num_blocks: int) -> NDArray[np.bool_]:
    """(B, F): the faces that are seen in each block."""
    present = np.zeros((num_blocks, len(faces)), np.bool_)
    for k, face in enumerate(faces):
        present[face.first : face.end, k] = True
    return present


def _expected(before: NDArray[np.float64] | None, present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probabilities (F, n) of the speakers of a block, from those (F, n) of the block before.

    A speaker who is gone is followed by any of those who are seen.
    """
    anyone = np.where(present, 1.0 / max(int(present.sum()), 1), 0.0)[:, None]
    if before is None:
        return anyone
    staying = before * present[:, None]
    gone = before.sum(axis=0) - staying.sum(axis=0)
    expected: NDArray[np.float64] = (1 - SWITCH) * (staying + gone * anyone) + SWITCH * anyone
    return expected


def _likelihoods(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(present[:, None], np.exp(np.clip(values, -MOST_EVIDENCE, MOST_EVIDENCE)), 0.0)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = values.sum()
    return values / total if total > 0 else values


def best_gain(evidence: NDArray[np.float32]) -> float:
    """Evidence for the best lag less that for the median one."""
    total = evidence.sum(axis=0, dtype=np.float64)
    return float(total.max() - np.median(total))
