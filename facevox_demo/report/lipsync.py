"""The demo's part on lip-sync: the clips that it scores, and its part of the report."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from facevox.files import read_image, read_json, write_text
from facevox.spreadsheets import TableReader
from facevox_demo.report.page import Report

IN_SYNC, SHIFTED, SWAPPED, REPAIRED = "in sync", "shifted", "another person's sound", "repaired"
DEMO_OFFSET_MS = 240  # of the shifted clip: its audio is early
SHIFTED_FILE, REPAIRED_FILE, PLOT_FILE = "shifted.mp4", "repaired.mp4", "shifted.png"
PAIRS_FILE, REPAIRED_PAIRS_FILE = "pairs.csv", "repaired_pairs.csv"
CHECKPOINT_DIR, SCORES_DIR, REPAIRED_SCORES_DIR = "checkpoints", "scores", "repaired_scores"
SHOWN_WIDTH_PX = 900


def held_out_clips(folder: Path, videos_dir: Path) -> tuple[Path, Path]:
    """Videos of two people whom the model has not seen; the first is scored, the second lends its sound.

    Args:
        folder: Of the demo's lip-sync part.
        videos_dir: That data_processing.py read.
    """
    names = read_json(folder / CHECKPOINT_DIR / "split.json")["test"]
    first = videos_dir / names[0]
    return first, next(videos_dir / name for name in names if (videos_dir / name).parent != first.parent)


def write_pairs(path: Path, pairs: Sequence[tuple[Path, Path | None]]) -> None:
    """Writes the table that `lipsync/inference.py --batch` reads; None: the video's own sound.

    Its paths are absolute: to a spreadsheet none begins as a formula.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["video", "audio"])
    rows.writerows([video.resolve(), audio.resolve() if audio else ""] for video, audio in pairs)
    write_text(path, text.getvalue())


def write_demo_pairs(folder: Path, videos_dir: Path) -> Path:
    """The three clips that are scored: in sync, shifted, with another person's sound."""
    clip, other_sound = held_out_clips(folder, videos_dir)
    pairs: list[tuple[Path, Path | None]] = [(clip, None), (folder / SHIFTED_FILE, None), (clip, other_sound)]
    write_pairs(folder / PAIRS_FILE, pairs)
    return folder / PAIRS_FILE


def write_repaired_pairs(folder: Path) -> Path:
    """The corrected clip, to be scored again."""
    write_pairs(folder / REPAIRED_PAIRS_FILE, [(folder / REPAIRED_FILE, None)])
    return folder / REPAIRED_PAIRS_FILE


def read_scores(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of `sync.csv` of the scored clips, by kind of clip; numbers as in the file."""
    rows = _table(folder / SCORES_DIR / "sync.csv") + _table(folder / REPAIRED_SCORES_DIR / "sync.csv")
    row_by_kind = {}
    for row in rows:
        stem = Path(row["video"]).name
        if row["audio"]:
            kind = SWAPPED
        else:
            kind = {SHIFTED_FILE: SHIFTED, REPAIRED_FILE: REPAIRED}.get(stem, IN_SYNC)
        row_by_kind[kind] = row
    return {kind: row_by_kind[kind] for kind in (IN_SYNC, SHIFTED, SWAPPED, REPAIRED) if kind in row_by_kind}


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(TableReader(file))


def add_lipsync(report: Report, folder: Path) -> dict[str, object]:
    """Training curves, the scored clips, the lag by time of the shifted one, and the test's table.

    Returns:
        Score and offset of each clip, by kind of clip.
    """
    checkpoints = folder / CHECKPOINT_DIR
    history = read_json(checkpoints / "history.json")
    split = read_json(checkpoints / "split.json")
    scores = read_scores(folder)
    report.section("Lip-sync")
    report.text(
        f"{len(history)} epochs on the lips and voices of {len(split['train'])} clips; what follows is of "
        "unseen people. The score is the probability that lips and sound are in sync; a positive offset "
        "says that the audio is early."
    )
    report.table(
        ["clip", "score", "offset (ms)", "90 % interval (ms)", "verdict"],
        [
            (
                kind,
                _number(row["score"]),
                _number(row["offset_ms"]),
                f"{row['offset_low_ms']} to {row['offset_high_ms']}" if row["offset_ms"] else "",
                row["text"],
            )
            for kind, row in scores.items()
        ],
    )
    report.images(
        [(read_image(folder / PLOT_FILE), f"{SHIFTED} by {DEMO_OFFSET_MS} ms")], width_px=SHOWN_WIDTH_PX
    )
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    for kind, row in scores.items():
        result_dir = REPAIRED_SCORES_DIR if kind == REPAIRED else SCORES_DIR
        curve = read_json(folder / result_dir / row["json_file"])["curve"]
        points = [(point["time_s"], point["score"]) for point in curve if point["score"] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=kind, marker=".")
    axes.set(xlabel="s", ylabel="score", ylim=(-0.02, 1.02))
    axes.legend(fontsize=8)
    report.figure(figure, "score second by second")
    picture = read_image(checkpoints / "curves.png")
    report.images([(picture, "training")], width_px=min(picture.shape[1], SHOWN_WIDTH_PX))
    report.code(_test_table((checkpoints / "MODEL_CARD.md").read_text(encoding="utf-8")))
    return {
        kind: {"score": _number(row["score"]), "offset_ms": _number(row["offset_ms"])}
        for kind, row in scores.items()
    }


def _number(text: str) -> float | str:
    """A number of a table, or "" where it has none."""
    return float(text) if text else ""


def _test_table(card: str) -> str:
    """The section of the model card with the scores on the test clips."""
    return card.partition("## Test clips")[2].partition("## Use")[0].strip()
