"""The demo's part on the classifier at work: the commands exist, and the report shows their files."""

from pathlib import Path

import numpy as np
import pytest
from face_pictures import frame_of_faces

from facevox.files import write_image
from facevox.media import write_video
from facevox_demo.report.live import add_live, picture_command, video_command
from facevox_demo.report.page import Report


def write_rows(path: Path, columns: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((columns, *rows)) + "\n", encoding="utf-8")


@pytest.fixture
def emotion_dir(tmp_path: Path) -> Path:
    """What preprocessing and both commands leave, with pictures of held-out people and of training."""
    folder = tmp_path / "emotion"
    live = folder / "live"
    (folder / "example/aihub/folders/092/01/2.Validation").mkdir(parents=True)
    write_rows(
        folder / "crops/crops.csv",
        "picture,split,class,status",
        "a.zip/held.jpg,validation,happy,done",
        "a.zip/trained.jpg,train,sad,done",
        "a.zip/company.jpg,validation,anxiety,done",
        "a.zip/nobody.jpg,validation,sad,failed",
    )
    write_rows(
        live / "pictures/faces.csv",
        "picture,annotated,face,label",
        "x/held.jpg,x/held.jpg,1,happy",
        "x/company.jpg,x/company.jpg,1,neutral",
        "x/company.jpg,x/company.jpg,2,neutral",
        "x/trained.jpg,x/trained.jpg,1,sad",
        "x/nobody.jpg,x/nobody.jpg,,",
    )
    for name in ("held", "trained", "company", "nobody"):
        write_image(live / f"pictures/x/{name}.jpg", frame_of_faces(1))
    write_video(live / "video/clip.mp4", [frame_of_faces(1, 2 * k) for k in range(6)], 5)
    write_rows(live / "video/clip.csv", "frame,face", *(f"{k},{1 if k else ''}" for k in range(6)))
    return folder


def test_report_shows_held_out_pictures_and_frames_of_the_video(emotion_dir, tmp_path):
    report = Report("demo")
    facts = add_live(report, emotion_dir)
    assert facts == {"pictures": 4, "faces": 4, "video_frames": 6, "video_frames_with_face": 5}
    report.write(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "happy; classified as happy" in page
    assert "classified as sad" not in page, "a person of training is shown"
    assert "anxiety" not in page, "whose label is it, with two faces?"
    assert page.count("data:image/jpeg") == 1 + 5
    assert "An expression is not a feeling" in page
    assert "emotion/live/video/clip.mp4" in page


def test_commands_of_the_demo_are_options_of_the_program(emotion_dir, tmp_path, load_script, repository):
    videos = tmp_path / "videos"
    for person in ("id0001", "id0002"):
        write_video(videos / person / "clip00.mp4", [np.zeros((32, 32, 3), np.uint8)] * 2, 5)
    parser = load_script("emotion/run_model").get_args_parser()
    program, *options = picture_command(emotion_dir)
    assert (repository / program).is_file()
    args = parser.parse_args(options)
    assert args.test_mode == "image"
    assert Path(args.input_path).name == "2.Validation"
    args = parser.parse_args(video_command(emotion_dir, videos)[1:])
    assert args.input_path.endswith("id0002/clip00.mp4")
    assert Path(args.output_dir) == emotion_dir / "live" / "video"
