"""The demo's part on the trained classifier at work: annotated pictures, and a video frame by frame."""

from collections import Counter
from pathlib import Path

from facevox.files import read_image
from facevox.media import iter_frames
from facevox.spreadsheets import TableReader
from facevox_demo.report.page import Report

SHOWN_PICTURES = 5
SHOWN_FRAMES = 5
LIVE_DIR = "live"
# The smaller part of the scenes that scripts/demo/make_example_data.py --shape aihub writes.
_SCENES = "example/aihub/folders/*/*/2.Validation"


def picture_command(folder: Path) -> list[str]:
    """The program and its options that annotate the scenes of the demo's expressions.

    Args:
        folder: Of the demo's expressions: `example/` (--shape aihub), `crops/`, `models/`.
    """
    scenes = next(iter(sorted(folder.glob(_SCENES))))
    return [
        *("emotion/run_model.py", "--test_mode", "image", f"--input_path={scenes}", "--overwrite"),
        *("--output_dir", str(folder / LIVE_DIR / "pictures"), *_common(folder)),
    ]


def video_command(folder: Path, videos: Path) -> list[str]:
    """The same for a clip of the last of the people who speak.

    Args:
        folder: As above.
        videos: `videos/` of the demo's example data.
    """
    clip = max(videos.glob("*/*.mp4"))
    return [
        *("emotion/run_model.py", "--test_mode", "video", f"--input_path={clip}"),
        *("--output_dir", str(folder / LIVE_DIR / "video"), *_common(folder)),
    ]


def _common(folder: Path) -> list[str]:
    return [
        *("--model_dir", str(folder / "models"), "--log_dir", str(folder / "logs")),
        *("--language", "en", "--no_window"),
    ]


def add_live(report: Report, folder: Path) -> dict[str, object]:
    """Annotated pictures of people who were not trained on, a strip of an annotated video, and its numbers.

    Args:
        report: The page.
        folder: Holds `crops/` (of emotion/preprocess.py) and what both commands wrote.

    Returns:
        `pictures` and `faces` found in them, `video_frames`, `video_frames_with_face`.
    """
    pictures = folder / LIVE_DIR / "pictures"
    rows = _read_rows(pictures / "faces.csv")
    held_out = _held_out(folder / "crops" / "crops.csv")
    report.section("Expressions in pictures and videos")
    report.text(
        "emotion/run_model.py on whole scenes and on a clip; the live page (make serve) draws the same. "
        "An expression is not a feeling: the shares say how a face looks to the classifier."
    )
    # With a passer-by in the picture it would be unclear whose label it is.
    num_faces = Counter(row["picture"] for row in rows if row["face"])
    unambiguous = [
        row for row in rows if num_faces[row["picture"]] == 1 and Path(row["picture"]).name in held_out
    ]
    # One of each class where there is one, then others.
    firsts = {held_out[Path(row["picture"]).name]: row for row in reversed(unambiguous)}
    chosen = [*firsts.values(), *(row for row in unambiguous if row not in firsts.values())][:SHOWN_PICTURES]
    report.images(
        (
            (
                read_image(pictures / row["annotated"]),
                f"{held_out[Path(row['picture']).name]}; classified as {row['label']}",
            )
            for row in chosen
        ),
        width_px=320,
    )
    (table,) = (folder / LIVE_DIR / "video").glob("*.csv")
    frames = _read_rows(table)
    video = table.with_suffix(".mp4")
    _add_strip(report, video)
    report.video(video, str(video.relative_to(folder.parent)))
    return {
        "pictures": len({row["picture"] for row in rows}),
        "faces": sum(bool(row["face"]) for row in rows),
        "video_frames": len({row["frame"] for row in frames}),
        "video_frames_with_face": len({row["frame"] for row in frames if row["face"]}),
    }


def _read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(TableReader(file))


def _held_out(crops: Path) -> dict[str, str]:
    """File name -> class of the pictures of people who were not trained on."""
    return {
        Path(row["picture"]).name: row["class"]
        for row in _read_rows(crops)
        if row["split"] == "validation" and row["status"] == "done"
    }


def _add_strip(report: Report, video: Path) -> None:
    """Some frames, evenly spread."""
    frames = list(iter_frames(video))
    positions = [round(k * (len(frames) - 1) / (SHOWN_FRAMES - 1)) for k in range(SHOWN_FRAMES)]
    report.images(
        (
            (frames[position].image, f"{frames[position].time_s:.2f} s")
            for position in dict.fromkeys(positions)
        ),
        width_px=208,
        row=True,
    )
