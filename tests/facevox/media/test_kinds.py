"""Files named as videos that are something else: one line says what they are."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facevox.media import MediaError, read_first_frame, write_video


def picture(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (picture("GIF"), "a GIF, no video or sound"),
        (picture("PNG"), "a PNG picture"),
        (picture("JPEG"), "a JPEG picture"),
        (picture("BMP"), "a BMP picture"),
        (picture("AVIF"), "an AVIF picture, not a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>404</title></html>", "a web page"),
        (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        (b"no video", r"a text \('no video'\), no video or sound"),
        (b"\x01\x02 no video", "Invalid data found"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=text):
        read_first_frame(tmp_path / "x.mp4")


def test_recording_that_was_cut_off_has_no_index(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 20, 25)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    with pytest.raises(MediaError, match=r"no index \(moov\): the recording was cut off"):
        read_first_frame(tmp_path / "cut.mp4")
    (tmp_path / "cut earlier.mp4").write_bytes(whole[: whole.index(b"mdat") + 40])
    with pytest.raises(MediaError, match="no index"):
        read_first_frame(tmp_path / "cut earlier.mp4")
