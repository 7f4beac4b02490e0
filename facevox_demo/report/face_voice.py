"""The demo report's part on faces, groups, voices and pairs."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from facevox.files import read_image, read_json
from facevox.intervals import interval_text
from facevox.media import read_audio
from facevox.spreadsheets import TableReader
from facevox_demo.report.page import Report
from lc_pytorch.datasets.matched_files import iter_matched_file
from lc_pytorch.faces.grouping import bcubed_f1

SHOWN_FACES = 24
SHOWN_GROUPS = 8
SHOWN_PAIRS = 6
SHOWN_MEASURES = (
    "top_1",
    "top_5",
    "mean_reciprocal_rank",
    "median_rank",
    "matching_1_of_2",
    "matching_1_of_10",
)
SHOWN_WIDTH_PX = 900


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a program's CSV."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(TableReader(file))


def count_statuses(rows: list[dict[str, str]]) -> str:
    """ "238 done, 2 failed", as the table has it."""
    return ", ".join(
        f"{count} {status}" for status, count in sorted(Counter(r["status"] for r in rows).items())
    )


def add_example_data(report: Report, folder: Path) -> None:
    """The people: their number, and the law by which the voice follows the face."""
    people = read_table(folder / "people.csv")
    metadata = read_json(folder / "metadata.json")
    report.section("Example data")
    report.text(
        f"{len(people)} synthetic people, {sum(int(row['videos']) for row in people)} videos with sound "
        "(H.264 and AAC). None of them exists: two public-domain portraits are warped and blended."
    )
    law = metadata["law"]
    rows = [(name, str(value)) for name, value in law.items() if not isinstance(value, (dict, list))]
    if rows:
        report.table(["law from face to voice", ""], rows)


def add_faces(report: Report, folder: Path) -> None:
    """The extracted faces and the result of each video."""
    rows = read_table(folder / "faces.csv")
    done_rows = [row for row in rows if row["status"] == "done"]
    report.section("Faces")
    report.text(f"{count_statuses(rows)}; first frame with a face, best face, eyes level.")
    if done_rows:
        sizes = np.array([(float(row["box_w_px"]), float(row["box_h_px"])) for row in done_rows])
        confidence = np.array([float(row["confidence"]) for row in done_rows])
        report.table(
            ["", "median", "smallest", "largest"],
            [
                ("box width (px)", *_three(sizes[:, 0])),
                ("box height (px)", *_three(sizes[:, 1])),
                ("confidence", *_three(confidence)),
                ("sharpness", *_three(np.array([float(row["sharpness"]) for row in done_rows]))),
            ],
        )
        step = max(len(done_rows) // SHOWN_FACES, 1)
        report.images(
            (read_image(folder / r["face_file"]), r["video"]) for r in done_rows[::step][:SHOWN_FACES]
        )
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        report.table(["video", "reason"], [(row["video"], row["reason"]) for row in failed[:10]])


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(np.median(values)), float(values.min()), float(values.max())


def score_groups(rows: list[dict[str, str]]) -> dict[str, object]:
    """Groups compared with the people that the folders name: B-cubed F1, number of groups and of people."""
    done_rows = [row for row in rows if row["status"] == "done"]
    truth = _numbered([Path(row["file"]).parent.as_posix() for row in done_rows])
    labels = _numbered([row["group"] for row in done_rows])
    return {
        "faces": len(done_rows),
        "people": int(truth.max()) + 1,
        "groups": int(labels.max()) + 1,
        "bcubed_f1": round(bcubed_f1(labels, truth), 4),
    }


def _numbered(names: list[str]) -> NDArray[np.int64]:
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def add_groups(report: Report, base_dir: Path, embedder_facts: Mapping[str, object]) -> dict[str, object]:
    """The groups, some with all their faces, and the representatives; returns the score."""
    faces_dir, dedupe_dir = base_dir / "extracted_faces", base_dir / "deduped_faces"
    rows = read_table(dedupe_dir / "groups.csv")
    score = score_groups(rows)
    report.section("Groups")
    report.text(
        f"{score['faces']} faces of {score['people']} people in {score['groups']} groups; B-cubed F1 against "
        f"the true people {score['bcubed_f1']}. Embedded by the demo's own small model, trained on "
        f"{embedder_facts['trained_people']} other example people; for real videos take a real one "
        "(Facenet, ArcFace, or an ONNX file)."
    )
    members: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done":
            members[row["group"]].append(row)
    # Evenly over all groups of several faces: the largest alone would show those that were merged wrongly.
    groups = [group for group in members.values() if len(group) > 1]
    for group in groups[:: max(len(groups) // SHOWN_GROUPS, 1)][:SHOWN_GROUPS]:
        group.sort(key=lambda row: (row["file"] != row["representative"], row["file"]))
        captions = [
            ("representative, " if row["file"] == row["representative"] else "")
            + f"{row['file']}, distance {float(row['distance'] or 0):.2f}, "
            + f"quality {float(row['quality']):.2f}"
            for row in group
        ]
        faces = zip(group[:8], captions, strict=False)
        report.images(((read_image(faces_dir / row["file"]), caption) for row, caption in faces), row=True)
    report.section("Representatives")
    chosen = [row for row in rows if row["status"] == "done" and row["file"] == row["representative"]]
    report.images(
        ((read_image(faces_dir / row["file"]), row["file"]) for row in chosen[: 3 * SHOWN_FACES]), width_px=72
    )
    return score


def add_voices(report: Report, folder: Path) -> None:
    """Lengths and loudness of the voices, and three of them drawn."""
    rows = read_table(folder / "voices.csv")
    done_rows = [row for row in rows if row["status"] == "done"]
    report.section("Voices")
    report.text(f"{count_statuses(rows)}; mono wavs on the clock of the pictures.")
    if not done_rows:
        return
    numbers = {
        name: np.array([float(r[name]) for r in done_rows])
        for name in ("duration_s", "rms_db", "speech_share")
    }
    report.table(["", "median", "smallest", "largest"], [(name, *_three(v)) for name, v in numbers.items()])
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, row in zip(axes, done_rows[:: max(len(done_rows) // 3, 1)], strict=False):
        rate_hz = int(row["rate_hz"])
        with np.errstate(divide="ignore"):  # pauses of the example voices are true zeros
            axis.specgram(read_audio(folder / row["voice_file"], rate_hz), NFFT=512, noverlap=352, Fs=rate_hz)
        axis.set(title=row["voice_file"], xlabel="s", ylim=(0, 4000))
    axes[0].set_ylabel("Hz")
    report.figure(figure, "spectrograms")


def add_pairs(report: Report, folder: Path) -> None:
    """Number of pairs in each list, and the first pairs."""
    files = sorted(folder.glob("matched_files-*.txt"), key=lambda p: int(p.stem.rpartition("-")[2]))
    report.section("Pairs")
    pairs = {path: list(iter_matched_file(path)) for path in files}
    report.table(["list", "pairs"], [(path.name, len(listed)) for path, listed in pairs.items()])
    first = pairs[files[0]][:SHOWN_PAIRS]
    report.images(
        (read_image(face), f"with {voice.parent.parent.name}/{voice.name}") for _, face, voice in first
    )


def add_model(report: Report, title: str, model_dir: Path) -> dict[str, object]:
    """A trained and evaluated model: curves, scores with chance and interval, ROC, ranks, gallery.

    Returns:
        `people` (of the test), `auc`, `top_1` and its chance (both directions averaged).
    """
    history = read_json(model_dir / "history.json")
    results = read_json(model_dir / "evaluation_results.json")
    report.section(title)
    report.text(
        f"{len(history)} epochs on people of the training part; scores on {results['gallery']['identities']} "
        f"people never seen ({results['tested']['origin']})."
    )
    for warning in results["warnings"]:
        report.text(warning)
    rows = []
    for direction in ("face_to_voice", "voice_to_face"):
        measures = results[direction]["all"]
        label = direction.replace("_", " ")
        rows += [
            (label, name.replace("_", " "), *_columns(measures[name]))
            for name in SHOWN_MEASURES
            if name in measures
        ]
    verification = results["verification"]["all"]
    rows += [("all pairs", name, *_columns(verification[name])) for name in ("auc", "equal_error_rate")]
    report.table(["", "measure", "value", "95 % interval", "chance"], rows)
    for name in ("curves.png", "roc.png", "rank_cdf.png", "gallery.png"):
        picture = read_image(model_dir / name)
        report.images([(picture, name)], width_px=min(picture.shape[1], SHOWN_WIDTH_PX))
    tops = [results[direction]["all"]["top_1"] for direction in ("face_to_voice", "voice_to_face")]
    return {
        "people": results["gallery"]["identities"],
        "auc": verification["auc"]["value"],
        "top_1": sum(top["value"] for top in tops) / 2,
        "chance_top_1": sum(top["chance"] for top in tops) / 2,
    }


def _columns(measure: Mapping[str, object]) -> tuple[object, str, object]:
    return measure["value"], interval_text(measure), measure["chance"]
