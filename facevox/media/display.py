"""From a decoded frame to the picture that a player shows: square pixels, upright, unmirrored."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from facevox.media.container import is_joined

if TYPE_CHECKING:
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

_HIGH_RANGE = frozenset({ColorTrc.SMPTE2084.value, ColorTrc.ARIB_STD_B67.value})  # PQ, HLG
Colour = Literal["rgb", "bgr"]
# Pixels wider or taller than this are a damaged header: the widest in use are 2.2 times as wide as tall.
MAX_PIXEL_ASPECT = 5


@dataclass(frozen=True)
class Turn:
    """The way of a picture onto the screen: first transposed, then mirrored.

    Attributes:
        is_transposed: Whether rows become columns.
        is_mirrored: Left and right, after that.
        is_upside_down: Top and bottom, after that.
    """

    is_transposed: bool = False
    is_mirrored: bool = False
    is_upside_down: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "Turn":
        """By the frame's display matrix, to the next quarter turn; none without one."""
        try:
            # Not `frame.side_data`: frame and container would hold each other, and hundreds of pictures stay
            # in memory until Python looks for such circles.
            data = SideDataContainer(frame)[Type.DISPLAYMATRIX]  # type: ignore[call-arg]  # stubs lack it
        except KeyError:
            return cls()
        # x' = a x + c y, y' = b x + d y, y downwards, as whole numbers in 65536ths.
        a, b, _, c, d = np.frombuffer(bytes(data), np.int32, count=5).tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def apply(self, image: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
        """The picture as it is shown, contiguous."""
        if self == Turn():
            return image
        turned = image.transpose(1, 0, 2) if self.is_transposed else image
        rows, columns = (-1 if is_back else 1 for is_back in (self.is_upside_down, self.is_mirrored))
        return np.ascontiguousarray(turned[::rows, ::columns])


def pixel_aspect(stream: "VideoStream") -> Fraction:
    """Width over height of a pixel of the stream, by container, then codec; 1 where neither says one.

    In MPEG-TS and MPEG, whose containers say none, by the codec at the frame that was decoded last.
    """
    aspects = [stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio]
    for aspect in reversed(aspects) if is_joined(stream.container) else aspects:
        if aspect and Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT:
            return Fraction(aspect)
    return Fraction(1)


def is_high_range(frame: av.VideoFrame) -> bool:
    """True for a picture of high dynamic range."""
    return frame.color_trc in _HIGH_RANGE


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size with square pixels: the shorter direction is enlarged, so that nothing is lost."""
    if aspect >= 1:
        return max(round(width * aspect), 1), height
    return width, max(round(height / aspect), 1)


class PictureMaker:
    """Makes pictures of the frames of one stream.

    One of these is kept for a whole stream: setting a conversion up takes longer than converting a frame, and
    a second and a half for high dynamic range.

    Args:
        stream: Whose frames they are; the aspect of their pixels may change on the way.
        colour: Order of the channels.
    """

    def __init__(self, stream: "VideoStream", colour: Colour) -> None:
        self._stream, self._form = stream, f"{colour}24"
        self._reformatter = VideoReformatter()

    def picture(self, frame: av.VideoFrame) -> "NDArray[np.uint8]":
        """(H, W, 3) uint8, as a player shows the frame on a screen of standard range (BT.709)."""
        options: dict[str, Any] = {"format": self._form}
        aspect = pixel_aspect(self._stream)
        if aspect != 1:
            options["width"], options["height"] = square_size(frame.width, frame.height, aspect)
            options["interpolation"] = "BICUBIC"
        if is_high_range(frame):
            # swscale maps the tones, with white at 203 nits (ITU-R BT.2408).
            options |= {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
        converted = self._reformatter.reformat(frame, **options)
        return Turn.of(frame).apply(np.asarray(converted.to_ndarray(), np.uint8))
