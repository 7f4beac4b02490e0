"""Retrieval, verification and 1:N matching of faces and voices, with chance and 95 % intervals.

    evaluation = evaluate_embeddings(faces, voices, face_identities, voice_identities)
    evaluation.retrieval["face_to_voice", "all"].top_k[1].value
    evaluation.verification["all"].auc

* A query is right with any of its positives (items of the same identity). Ties are taken in random order, and
  the expectation is reported: a constant score comes to chance, not to luck.
* Queries without a positive, or without a negative, are counted and left out.
* Strata: with gender and nationality known, negatives are also taken from the people of the same gender,
  nationality, or both only; and `floors` has the scores of these two facts alone.
* Intervals resample people, see `intervals`. For retrieval they are those of the queries, with the gallery as
  it is; for 1:N and verification the people among the distractors vary as well.
* Equality: of the same embeddings, values, ranks and thresholds are the same on every processor and with any
  number of threads, because similarities are exact (see `similarity`) and the rest is counting. Intervals add
  rounded numbers, always in the same order: equal on one machine, on another up to about 1e-6.
* Memory: a few bands of the similarity matrix; see `similarity`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facevox.errors import UserError
from facevox.intervals import Measure
from lc_pytorch.utils import chance
from lc_pytorch.utils.intervals import mean_effects, mean_measure, median_measure, share_measure
from lc_pytorch.utils.pair_counts import PairCounter, ThresholdCounter
from lc_pytorch.utils.rank_counts import RankCounter
from lc_pytorch.utils.similarity import STRATA, Bands, Counts, Plan, Side, sorted_side
from lc_pytorch.utils.verification import Verification, equal_error, verify

TOP_K = (1, 5, 10)
CHOICES = tuple(range(2, 11))
NORM_TOLERANCE = 1e-3
NOT_DEFINED = Measure(float("nan"), float("nan"))

Identities = Sequence[Hashable] | NDArray[np.generic]
# Any: a Mapping is invariant in its keys, and these are identities of any hashable type.
Attributes = Mapping[Any, tuple[str, str]]


@dataclass(frozen=True)
class Retrieval:
    """Scores of one side's queries, each looking for its own person among the items of the other side.

    Attributes:
        num_queries: Number of queries that count.
        num_without_positive: Queries left out because their person is not in the gallery.
        num_without_negative: Queries left out because nobody else is in the gallery (of this stratum).
        gallery_size: Mean number of items that a counted query was compared with.
        top_k: Share of queries with a positive among the first k, by k.
        mean_reciprocal_rank: Mean of 1 / rank of the best positive.
        median_rank: Median rank of the best positive; 1 is first.
        mean_average_precision: Mean over the queries, with all positives of each.
        matching: 1:N, by N: a positive wins against N - 1 random items of others.
        ranks: (Q,) expected rank of the best positive, in the order of the input; NaN without one.
    """

    num_queries: int
    num_without_positive: int
    num_without_negative: int
    gallery_size: float
    top_k: dict[int, Measure]
    mean_reciprocal_rank: Measure
    median_rank: Measure
    mean_average_precision: Measure
    matching: dict[int, Measure]
    ranks: NDArray[np.float64]


@dataclass(frozen=True)
class Floor:
    """Scores of "same gender", "same nationality" or both as the only similarity."""

    auc: float
    equal_error_rate: float


@dataclass(frozen=True)
class Evaluation:
    """All measures.

    Attributes:
        num_faces: Number of faces, N.
        num_voices: Number of voices, M.
        num_identities: Number of people on either side.
        retrieval: By direction (`face_to_voice`, `voice_to_face`) and stratum.
        verification: Over all face-voice pairs, by stratum.
        floors: By attribute; empty without attributes.
    """

    num_faces: int
    num_voices: int
    num_identities: int
    retrieval: dict[tuple[str, str], Retrieval]
    verification: dict[str, Verification]
    floors: dict[str, Floor]


def evaluate_embeddings(
    faces: ArrayLike,
    voices: ArrayLike,
    face_identities: Identities,
    voice_identities: Identities,
    *,
    attributes: Attributes | None = None,
    top_k: Sequence[int] = TOP_K,
    choices: Sequence[int] = CHOICES,
    num_threads: int | None = None,
) -> Evaluation:
    """All measures of embeddings, in two passes over their similarities (one for each direction).

    Args:
        faces: (N, D) unit vectors.
        voices: (M, D) unit vectors.
        face_identities: (N,) person of each face.
        voice_identities: (M,) person of each voice.
        attributes: (gender, nationality) of identities; "" or absent: unknown, equal to nobody's. Default:
            without strata and floors.
        top_k: Lengths of list, each at least 1.
        choices: N of 1:N, each at least 2.
        num_threads: Default: the cores this process may use.

    Returns:
        The measures; undefined ones (nobody to find, nobody to distinguish) are NaN.

    Raises:
        UserError: Embeddings are empty, not finite, not unit vectors or of two widths; identities are of
            another number; or top_k or choices are out of range.
    """
    face_ND, voice_MD = _checked(faces, voices, top_k, choices)
    numbers, names = _numbered(face_identities, voice_identities, len(face_ND), len(voice_MD))
    genders, nations = _attribute_numbers(names, attributes)
    sides = [
        sorted_side(vectors, numbers[side], genders, nations)
        for side, vectors in enumerate((face_ND, voice_MD))
    ]
    strata = STRATA if attributes is not None else STRATA[:1]
    plans = [Plan(sides[0], sides[1], strata), Plan(sides[1], sides[0], strata)]
    bands = [Bands(plan, num_threads) for plan in plans]
    rankings = [RankCounter(band, tuple(choices)) for band in bands]
    pairs = PairCounter(bands[0], rankings[0].counts.scores)

    def add_first(start: int, band: NDArray[np.float32]) -> None:
        bands[0].hide_positives(start, band)
        pairs.add(start, band)
        rankings[0].add(start, band)

    bands[0].each(add_first)
    pair_counts = pairs.finish()
    errors = [equal_error(pair_counts, s) for s in range(len(strata))]
    # The equal-error thresholds are known only now: their counts by voice come out of the second pass.
    passing = ThresholdCounter(bands[1], np.array([e.threshold for e in errors], np.float32))

    def add_second(start: int, band: NDArray[np.float32]) -> None:
        bands[1].hide_positives(start, band)
        passing.add(start, band)
        rankings[1].add(start, band)

    bands[1].each(add_second)
    retrieval = {
        (name, stratum): _retrieval(ranking.counts, band.plan, s, top_k, choices)
        for name, ranking, band in zip(("face_to_voice", "voice_to_face"), rankings, bands, strict=True)
        for s, stratum in enumerate(strata)
    }
    verification = {
        stratum: verify(pair_counts, rankings[0].counts, bands[0].plan, s, errors[s], passing)
        for s, stratum in enumerate(strata)
    }
    floors = {} if attributes is None else _floors(rankings[0].counts, sides[0], strata, names, attributes)
    return Evaluation(len(face_ND), len(voice_MD), len(names), retrieval, verification, floors)


def _checked(
    faces: ArrayLike, voices: ArrayLike, top_k: Sequence[int], choices: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    face_ND, voice_MD = checked_embeddings(faces, "face"), checked_embeddings(voices, "voice")
    if face_ND.shape[1] != voice_MD.shape[1]:
        raise UserError(
            f"faces of {face_ND.shape[1]} numbers, voices of {voice_MD.shape[1]}: "
            "the embeddings of one model have one width"
        )
    if min(top_k, default=1) < 1 or min(choices, default=2) < 2:
        raise UserError(f"top_k {tuple(top_k)}, choices {tuple(choices)}: from 1 and from 2 on are expected")
    return face_ND, voice_MD


def checked_embeddings(embeddings: ArrayLike, name: str) -> NDArray[np.float32]:
    """(n, D) float32, checked to be finite unit vectors.

    Raises:
        UserError: They are not.
    """
    vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
    if vectors.ndim != 2 or not vectors.size:
        raise UserError(f"{name} embeddings of shape {vectors.shape}: one row for each (N, D) is expected")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    # A NaN or an infinity anywhere in a row makes its norm fail the comparison as well.
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE))
    if len(bad):
        raise UserError(
            f"{name} embedding {bad[0]} has the norm {norms[bad[0]]} ({len(bad)} of {len(vectors)} are like "
            "this): finite unit vectors are expected; check the model that made them"
        )
    return vectors


def _numbered(
    face_identities: Identities, voice_identities: Identities, n: int, m: int
) -> tuple[list[NDArray[np.int64]], list[Hashable]]:
    """Numbers of the identities of both sides, and the names by number, in the order of first appearance."""
    numbers: dict[Hashable, int] = {}
    sides = []
    for name, people, num in (("face", face_identities, n), ("voice", voice_identities, m)):
        if len(people) != num:
            raise UserError(f"{len(people)} identities for {num} {name} embeddings: one for each is expected")
        sides.append(np.array([numbers.setdefault(person, len(numbers)) for person in people], np.int64))
    return sides, list(numbers)


def _attribute_numbers(
    names: Sequence[Hashable], attributes: Attributes | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(G,) gender and nationality as numbers; an unknown one has its own number."""
    if attributes is None:
        return np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    columns = []
    for index in (0, 1):
        number_of: dict[Hashable, int] = {}
        # A tuple equals no string, so every unknown attribute differs from all others.
        keys = [attributes.get(name, ("", ""))[index] or (name,) for name in names]
        columns.append(np.array([number_of.setdefault(key, len(number_of)) for key in keys], np.int64))
    return columns[0], columns[1]


def _retrieval(
    counts: Counts, plan: Plan, stratum: int, top_k: Sequence[int], choices: Sequence[int]
) -> Retrieval:
    higher, equal, totals = counts.higher[stratum], counts.equal[stratum], counts.totals[stratum]
    has_positive = counts.num_positives > 0
    is_counted = has_positive & (totals > 0)
    best = _best_pairs(counts)
    ranks = np.full(len(totals), np.nan)
    above, level, tied = higher[best[0]], equal[best[0]], best[1]
    ranks[plan.queries.order[has_positive]] = chance.expected_rank(above, level, tied)
    keep = is_counted[has_positive]
    above, level, tied = above[keep], level[keep], tied[keep]
    people = plan.queries.identities[is_counted]
    positives, negatives = counts.num_positives[is_counted], totals[is_counted]
    if len(people):
        reciprocal, median = chance.chance_first_ranks(positives, negatives)
        precision = float(chance.chance_average_precision(positives, negatives).mean())
    else:
        reciprocal = median = precision = float("nan")
    first_ranks = chance.expected_rank(above, level, tied)
    return Retrieval(
        num_queries=len(people),
        num_without_positive=int((~has_positive).sum()),
        num_without_negative=int((has_positive & (totals == 0)).sum()),
        gallery_size=float((positives + negatives).mean()) if len(people) else float("nan"),
        top_k={
            k: mean_measure(
                chance.top_k_share(above, level, tied, k),
                people,
                _mean(chance.chance_top_k(positives, negatives, k)),
            )
            for k in top_k
        },
        mean_reciprocal_rank=mean_measure(chance.reciprocal_rank(above, level, tied), people, reciprocal),
        median_rank=median_measure(first_ranks, people, median),
        mean_average_precision=mean_measure(
            _average_precision(counts, stratum)[is_counted], people, precision
        ),
        matching={choice: _matching(counts, plan, stratum, c, choice) for c, choice in enumerate(choices)},
        ranks=ranks,
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _best_pairs(counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The best pair of each query with a positive, and the number of its positives level with that."""
    # Sorted by query, best score first: the first pair of each query is its best.
    order = np.lexsort((-counts.scores, counts.queries))
    queries, scores = counts.queries[order], counts.scores[order]
    first = np.flatnonzero(np.diff(queries, prepend=-1))
    group = np.cumsum(np.diff(queries, prepend=-1) > 0) - 1
    tied = np.bincount(group, scores == scores[first][group] if len(first) else None).astype(np.int64)
    return order[first], tied


def _average_precision(counts: Counts, stratum: int) -> NDArray[np.float64]:
    """(Q,) average precision of each query, ties in random order; 0 for queries without a positive."""
    num = len(counts.num_positives)
    if not len(counts.scores):
        return np.zeros(num)
    order = np.lexsort((-counts.scores, counts.queries))
    queries, scores = counts.queries[order], counts.scores[order]
    is_new = np.append(True, (np.diff(queries) > 0) | (np.diff(scores) != 0))
    starts = np.flatnonzero(is_new)  # groups of level positives
    tied = np.diff(np.append(starts, len(scores)))
    query_starts = np.concatenate([[0], np.cumsum(counts.num_positives)])[queries[starts]]
    before = starts - query_starts  # positives of the query above the group
    pair = order[starts]
    higher, equal = counts.higher[stratum, pair], counts.equal[stratum, pair]
    precision = chance.tie_precision(higher + before, before, tied, equal)
    sums = np.bincount(queries[starts], precision, minlength=num)
    averages: NDArray[np.float64] = sums / np.maximum(counts.num_positives, 1)
    return averages


def _matching(counts: Counts, plan: Plan, stratum: int, index: int, choice: int) -> Measure:
    """1:N matching: mean over queries of the mean over their positives."""
    totals = counts.totals[stratum]
    is_counted = (counts.num_positives > 0) & (totals >= choice - 1)
    if not is_counted.any():
        return NOT_DEFINED
    total = totals[counts.queries]
    lower = total - counts.higher[stratum] - counts.equal[stratum]
    wins = chance.match_share(lower, counts.equal[stratum], total, choice)
    sums = np.bincount(counts.queries, np.nan_to_num(wins), minlength=len(totals))
    values = (sums / np.maximum(counts.num_positives, 1))[is_counted]
    people = plan.queries.identities[is_counted]
    num_people = 1 + int(max(plan.queries.identities.max(), plan.gallery.identities.max()))
    effects = np.zeros(num_people)
    effects[np.unique(people)] = mean_effects(values, people)
    # The accuracy that each gallery item takes away, compared with that of an average item.
    expected = counts.expected[stratum, index]
    usual = _over_stratum(expected, plan, stratum)
    change = (usual - counts.influence[stratum, index]) / len(values)
    effects += np.bincount(plan.gallery.identities, change, minlength=num_people)
    is_part = np.zeros(num_people, bool)
    is_part[people] = True
    return share_measure(float(values.mean()), 1 / choice, effects[is_part | (effects != 0)])


def _over_stratum(values: NDArray[np.float64], plan: Plan, stratum: int) -> NDArray[np.float64]:
    """(M,) sum of the values of the queries for which each gallery item is a negative of the stratum."""
    sums: NDArray[np.float64] = np.zeros(len(plan.gallery.identities))
    for rows, runs in plan.parts(plan.strata[stratum], 0, len(values)):
        for run in runs:
            sums[run] += values[rows].sum()
    # The runs hold the positives too: the values of the item's own person are taken off again.
    of_person = np.bincount(plan.queries.identities, values, minlength=int(plan.gallery.identities.max()) + 1)
    sums -= of_person[plan.gallery.identities]
    return sums


def _floors(
    counts: Counts,
    faces: Side,
    strata: Sequence[str],
    names: Sequence[Hashable],
    attributes: Attributes,
) -> dict[str, Floor]:
    """AUC and EER of agreement as the score: two values, so the ROC has one corner."""
    floors = {}
    has_value = np.array([[bool(value) for value in attributes.get(name, ("", ""))] for name in names])
    used = {"gender": has_value[:, 0], "nationality": has_value[:, 1]}
    used["both"] = used["gender"] & used["nationality"]
    pairs, negatives = int(counts.num_positives.sum()), int(counts.totals[0].sum())
    for s, stratum in enumerate(strata):
        if stratum in used and pairs and negatives:
            agree = float(counts.num_positives[used[stratum][faces.identities]].sum()) / pairs
            false = float(counts.totals[s].sum()) / negatives
            missed = 1.0 - agree
            # Where the curve from (1, 0) over its corner (false, missed) to (0, 1) crosses the diagonal.
            if false >= missed:
                error = false / (1 + false - missed)
            else:
                error = missed / (1 + missed - false)
            floors[stratum] = Floor(0.5 + (agree - false) / 2, error)
    return floors
