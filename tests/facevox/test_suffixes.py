"""Files that a search finds by default, leaves out, and counts."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError

from facevox.errors import UserError
from facevox.files import IMAGE_PATTERNS, VIDEO_PATTERNS, find_files
from facevox.media import read_first_frame
from facevox.suffixes import SOUND_SUFFIXES, patterns


def put(folder: Path, *names: str, content: bytes = b"\x47\x00\x01") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names_of(files: list[Path]) -> list[str]:
    return [path.name for path in files]


def test_what_cameras_phones_and_recorders_write_is_found(tmp_path: Path) -> None:
    videos = ["v.MTS", "v.m2ts", "v.ts", "v.3gp", "v.wmv", "v.flv", "v.ogv", "v.mxf", "v.dav", "v.vob"]
    videos += ["v.asf", "v.m2v", "v.mpe", "v.divx", "v.f4v", "v.3g2", "v.mjpeg", "v.mp4"]
    pictures = ["p.jfif", "p.tif", "p.TIFF", "p.gif", "p.HEIC", "p.heif", "p.avif", "p.jpg", "p.png"]
    sounds = ["s.opus", "s.aac", "s.aiff", "s.m4a", "s.flac", "s.ogg", "s.mp3", "s.wav"]
    put(tmp_path, *videos, *pictures, *sounds, "notes.txt")
    assert sorted(names_of(find_files(tmp_path, VIDEO_PATTERNS))) == sorted(videos)
    assert sorted(names_of(find_files(tmp_path, IMAGE_PATTERNS))) == sorted(pictures)
    assert sorted(names_of(find_files(tmp_path, patterns(SOUND_SUFFIXES)))) == sorted(sounds)


def test_other_files_of_the_kind_are_counted_with_the_option(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a.mp4", "b.swf", "sub/c.SWF", "d.braw", "e.jpg", "f.txt", "g.wav", "h.psd")
    assert names_of(find_files(tmp_path, VIDEO_PATTERNS, what="--in", option="--video_extensions")) == [
        "a.mp4"
    ]
    (record,) = logged.records
    assert record.getMessage() == "--in: left out: 2 .swf, 1 .braw (--video_extensions takes them)"
    logged.clear()
    find_files(tmp_path, IMAGE_PATTERNS, what="--faces_dir")
    assert [record.getMessage() for record in logged.records] == ["--faces_dir: left out: 1 .psd"]
    logged.clear()
    find_files(tmp_path, ["*.swf"], what="--in", option="--video_extensions")
    assert "1 .mp4, 1 .braw" in logged.text or "1 .braw, 1 .mp4" in logged.text


def test_system_files_are_left_out_and_counted(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    put(
        tmp_path, "a.jpg", "._a.jpg", "sub/._b.jpg", "Thumbs.db", "sub/desktop.ini", ".DS_Store", ".git/x.jpg"
    )
    put(
        tmp_path,
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "__MACOSX/a.jpg",
        "#recycle/x.jpg",
        "lost+found/x.jpg",
    )
    put(tmp_path, "$RECYCLE.BIN/x.jpg", "sub/@eaDir/x.jpg")
    assert names_of(find_files(tmp_path, IMAGE_PATTERNS)) == ["a.jpg"]
    (record,) = logged.records
    message = record.getMessage()
    assert message.endswith(" of the system")
    for part in (
        "2 ._*",
        "2 @eaDir",
        "1 Thumbs.db",
        "1 desktop.ini",
        "1 .DS_Store",
        "1 __MACOSX",
        "1 #recycle",
    ):
        assert part in message
    assert ".git" not in message


def test_typescript_is_no_recording(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "tape.ts", "camera.mts", content=b"\x47\x40\x00\x10\x00" + b"\xff" * 183)
    put(tmp_path, "app.ts", "module.mts", content='export const 이름 = "x";\n'.encode())
    put(tmp_path, "pointer.ts", content=b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    put(tmp_path, "empty.ts", content=b"")
    found = names_of(find_files(tmp_path, VIDEO_PATTERNS))
    assert found == ["camera.mts", "empty.ts", "pointer.ts", "tape.ts"]
    assert "left out: 2 .ts or .mts that are text" in logged.text


def test_folder_of_nothing_else_says_what_was_left_out(tmp_path: Path) -> None:
    put(tmp_path, "@eaDir/a.mp4", "b.braw")
    with pytest.raises(UserError, match=r"1 other files; left out: 1 \.braw \(--x takes them\); 1 @eaDir"):
        find_files(tmp_path, VIDEO_PATTERNS, option="--x")


RECORDED = {  # suffix -> muxer, codec
    ".mts": ("mpegts", "libx264"),
    ".ts": ("mpegts", "mpeg2video"),
    ".vob": ("vob", "mpeg2video"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".3gp": ("3gp", "mpeg4"),
    ".3g2": ("3g2", "libx264"),
    ".f4v": ("f4v", "libx264"),
    ".flv": ("flv", "flv1"),
    ".wmv": ("asf", "wmv2"),
    ".ogv": ("ogv", "libtheora"),
    ".mxf": ("mxf", "mpeg2video"),
    ".divx": ("avi", "mpeg4"),
    ".rm": ("rm", "rv10"),
    ".mjpeg": ("mjpeg", "mjpeg"),
    ".dv": ("dv", "dvvideo"),
    ".h264": ("h264", "libx264"),
    ".hevc": ("hevc", "libx265"),
}


@pytest.mark.parametrize("suffix", RECORDED)
def test_video_of_each_suffix_is_found_and_read(tmp_path: Path, suffix: str) -> None:
    muxer, codec = RECORDED[suffix]
    path = tmp_path / f"clip{suffix}"
    picture = np.zeros((576, 720, 3), np.uint8)
    picture[:, 360:] = (200, 60, 60)
    try:
        with av.open(str(path), "w", format=muxer) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 720, 576
            stream.pix_fmt = {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")
            for _ in range(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode())
    except (FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV does not write {suffix}: {error}")
    assert find_files(tmp_path, VIDEO_PATTERNS) == [path]
    frame = read_first_frame(path).image
    assert abs(frame[:, frame.shape[1] * 3 // 4].mean(0) - (200, 60, 60)).max() < 25
    assert frame[:, frame.shape[1] // 4].mean() < 25
