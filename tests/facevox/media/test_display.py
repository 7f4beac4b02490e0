"""Pictures as a player shows them: pixel aspect, display matrix, fields, high dynamic range."""

import gc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from bad_media import rewrite_matrix
from numpy.typing import NDArray
from skimage.data import astronaut

from facevox.media import (
    MediaError,
    changed_kinds,
    iter_frames,
    pictures,
    probe,
    read_first_frame,
    write_video,
)
from facevox.media.display import square_size
from facevox.media.fields import deinterlaced, stated_order

Image = NDArray[np.uint8]
FACE: Image = np.ascontiguousarray(astronaut()[:240, 100:420])  # 320 x 240, the face left of the middle
# (a, b, c, d) of the display matrix, and what a camera stored of the upright picture.
TURNS = {
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, 1)),
    "half": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "anticlockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 3)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
}


def likeness(image: Image, other: Image) -> float:
    """Correlation of two pictures of one size."""
    assert image.shape == other.shape
    return float(np.corrcoef(image.ravel().astype(float), other.ravel().astype(float))[0, 1])


def write_stream(
    path: Path,
    images: Sequence[Image],
    *,
    aspect: Fraction = Fraction(1),
    form: str = "yuv420p",
    interlaced: bool = False,
) -> None:
    """A video in which pixels are `aspect` times as wide as tall."""
    with av.open(path, "w") as container:
        codec = "mpeg2video" if path.suffix == ".mpg" else "libx264"
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = form
        stream.codec_context.sample_aspect_ratio = aspect
        options = {"crf": "8", "preset": "veryfast"} if codec == "libx264" else {"qscale": "2"}
        if interlaced:
            options |= {"x264opts": "bff=1"}
        stream.options = options
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("name", TURNS)
def test_display_matrix_is_followed_whole(tmp_path: Path, name: str) -> None:
    matrix, stored = TURNS[name]
    write_video(tmp_path / "x.mp4", [np.ascontiguousarray(stored(FACE))] * 2, 25, crf=8)
    rewrite_matrix(tmp_path / "x.mp4", matrix)
    frame = read_first_frame(tmp_path / "x.mp4")
    assert likeness(frame.image, FACE) > 0.99
    is_mirror = bool(np.linalg.det(np.reshape(matrix, (2, 2))) < 0)
    assert changed_kinds(tmp_path / "x.mp4", pictures=True) == ["mirrored"] * is_mirror
    info = probe(tmp_path / "x.mp4")
    assert (info.width, info.height) == (320, 240)


def test_pictures_that_nobody_holds_are_gone_at_once(tmp_path: Path) -> None:
    """Where Python has to look for circles of objects first, a long video takes hundreds of megabytes."""
    write_video(tmp_path / "x.mp4", [FACE] * 60, 25)

    def num_held() -> int:
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = num_held()  # of other tests
        for _ in iter_frames(tmp_path / "x.mp4"):
            pass
        held = num_held() - before
    finally:
        gc.enable()
    assert held <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mpg"])
@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(4, 3), Fraction(16, 15)])
def test_pixels_become_square(tmp_path: Path, suffix: str, aspect: Fraction) -> None:
    width = round(320 / aspect) // 2 * 2
    small = cv2.resize(FACE, (width, 240), interpolation=cv2.INTER_AREA)
    if suffix == ".mpg":  # knows aspects of the whole picture alone
        aspect = Fraction(4, 3) * 240 / width
    write_stream(tmp_path / f"x{suffix}", [small] * 3, aspect=aspect)
    image = read_first_frame(tmp_path / f"x{suffix}").image
    assert image.shape[1] / image.shape[0] == pytest.approx(320 / 240, rel=0.02)
    assert min(image.shape[1] / width, image.shape[0] / 240) >= 0.99  # nothing is lost
    info = probe(tmp_path / f"x{suffix}")
    assert (info.width, info.height) == image.shape[1::-1]
    assert changed_kinds(tmp_path / f"x{suffix}", pictures=True) == ["pixel aspect"]
    assert likeness(cv2.resize(image, (320, 240)), FACE) > 0.98


def test_aspect_that_changes_in_a_broadcast_is_followed(tmp_path: Path) -> None:
    small = cv2.resize(FACE, (240, 240), interpolation=cv2.INTER_AREA)
    for name, aspect in (("a", Fraction(16, 9)), ("b", Fraction(4, 3))):
        write_stream(tmp_path / f"{name}.ts", [small] * 25, aspect=aspect * 240 / 240)
    (tmp_path / "x.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    shapes = [frame.image.shape[:2] for frame in iter_frames(tmp_path / "x.ts")]
    assert shapes[0] == (240, 427)
    assert shapes[-1] == (240, 320)
    assert set(shapes) == {(240, 427), (240, 320)}


def test_pixels_are_square_in_a_turned_picture_too(tmp_path: Path) -> None:
    stored = cv2.resize(np.ascontiguousarray(np.rot90(FACE, 1)), (120, 320), interpolation=cv2.INTER_AREA)
    write_stream(tmp_path / "x.mp4", [stored] * 2, aspect=Fraction(2))
    rewrite_matrix(tmp_path / "x.mp4", (0, 1, -1, 0))
    assert likeness(read_first_frame(tmp_path / "x.mp4").image, FACE) > 0.98


def test_aspect_that_nothing_has_is_a_wrong_header(tmp_path: Path) -> None:
    write_stream(tmp_path / "x.mp4", [FACE] * 2, aspect=Fraction(50))
    assert read_first_frame(tmp_path / "x.mp4").image.shape == FACE.shape
    assert square_size(1, 1, Fraction(1, 5)) == (1, 5)


def test_size_limit_is_that_of_the_picture_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stream(tmp_path / "x.mp4", [FACE] * 2, aspect=Fraction(2))
    monkeypatch.setattr(pictures, "MAX_FRAME_PIXELS", 320 * 240)
    with pytest.raises(MediaError, match="640 x 240"):
        read_first_frame(tmp_path / "x.mp4")


def combs(image: Image) -> float:
    """Mean difference of each line from those above and below it."""
    grey = image.astype(float).mean(axis=2)
    return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean())


def test_interlaced_frames_have_no_combs_and_keep_their_times(tmp_path: Path) -> None:
    moving = [np.ascontiguousarray(np.roll(FACE, 6 * step, axis=1)) for step in range(20)]  # 50 a second
    woven = []
    for first, second in zip(moving[::2], moving[1::2], strict=True):
        frame = second.copy()
        frame[1::2] = first[1::2]  # the lower field first, as x264 marks it
        woven.append(frame)
    write_stream(tmp_path / "woven.mkv", woven, interlaced=True)
    write_stream(tmp_path / "whole.mkv", moving[::2])
    shown, whole = list(iter_frames(tmp_path / "woven.mkv")), list(iter_frames(tmp_path / "whole.mkv"))
    assert [frame.time_s for frame in shown] == [frame.time_s for frame in whole]
    assert changed_kinds(tmp_path / "woven.mkv", pictures=True) == ["interlaced"]
    assert changed_kinds(tmp_path / "whole.mkv", pictures=True) == []
    assert combs(woven[5]) > 2 * combs(moving[10])
    for frame, reference in zip(shown[1:-1], whole[1:-1], strict=True):
        assert combs(frame.image) < 1.3 * combs(reference.image)
        assert likeness(frame.image, reference.image) > 0.97


@pytest.mark.parametrize(("first", "field_order"), [("tff", 2), ("bff", 3), ("bff", 4), ("tff", 5)])
def test_interlace_that_only_the_file_states_is_taken_out(first: str, field_order: int) -> None:
    moving = [np.ascontiguousarray(np.roll(FACE, 6 * step, axis=1)) for step in range(20)]
    woven = []
    for number in range(10):
        image = moving[2 * number + 1].copy()
        start = 0 if first == "tff" else 1
        image[start::2] = moving[2 * number][start::2]
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv422p")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        woven.append(frame)
    stream: Any = SimpleNamespace(codec_context=SimpleNamespace(name="huffyuv", field_order=field_order))
    assert stated_order(stream) == first
    for number, frame in enumerate(deinterlaced(woven, first)):
        if 0 < number < 9:
            shown = frame.to_ndarray(format="rgb24")
            assert combs(shown) < 1.3 * combs(moving[2 * number])
            assert likeness(shown, moving[2 * number]) > 0.97
    stream.codec_context.name = "h264"  # its frames say it themselves
    assert stated_order(stream) == ""


def write_high_range(path: Path, image: Image, transfer: int) -> None:
    """The picture on a screen whose white is at 203 nits, as PQ (16) or HLG (18), BT.2020, 10 bits."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    nits = (image / 255.0) ** 2.4 @ to_2020.T * 203
    if transfer == 16:
        power = (nits / 10000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        luminance = nits @ np.array([0.2627, 0.678, 0.0593])[:, None] / 1000
        scene = nits / 1000 * np.maximum(luminance, 1e-9) ** (-0.2 / 1.2)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    height, width = image.shape[:2]
    luma = signal @ np.array([0.2627, 0.678, 0.0593])
    planes = [(luma * 219 + 16) * 4]
    for index, share in ((2, 0.0593), (0, 0.2627)):
        chroma = ((signal[..., index] - luma) / (2 * (1 - share)) * 224 + 128) * 4
        planes.append(chroma.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.pix_fmt, stream.width, stream.height = "yuv420p10le", width, height
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = (
            transfer,
            9,
            9,
            1,
        )
        frame = av.VideoFrame(width, height, "yuv420p10le")
        frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, 9
        for plane, values in zip(frame.planes, planes, strict=True):
            rows = np.zeros((values.shape[0], plane.line_size // 2), np.uint16)
            rows[:, : values.shape[1]] = values.round()
            plane.update(rows.tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
def test_high_dynamic_range_looks_like_the_film(tmp_path: Path, transfer: int) -> None:
    write_high_range(tmp_path / "x.mkv", FACE, transfer)
    image = read_first_frame(tmp_path / "x.mkv").image
    assert np.abs(image.astype(float) - FACE).mean() < 5  # levels of 255; without tone mapping 25 to 47
    assert np.abs((image.astype(float) - FACE).mean(axis=(0, 1))).max() < 4
    assert changed_kinds(tmp_path / "x.mkv", pictures=True) == ["high dynamic range"]


@pytest.mark.parametrize("form", ["yuv420p10le", "yuv422p", "yuv444p", "yuvj420p"])
def test_other_forms_have_the_same_colours(tmp_path: Path, form: str) -> None:
    write_stream(tmp_path / "x.mkv", [FACE] * 2, form=form)
    image = read_first_frame(tmp_path / "x.mkv").image
    assert np.abs(image.astype(float) - FACE).mean() < 3
