"""HEIC sequences without a still picture, as bursts may be: Pillow reads the first one by this plugin."""

import io
from typing import TYPE_CHECKING, Any

import av
from av.error import FFmpegError
from PIL import Image, ImageFile

from facevox.media.display import PictureMaker
from facevox.media.tables import table_fault

if TYPE_CHECKING:
    from av.container import InputContainer

NAME = "HEIF-SEQUENCE"
_BRANDS = (b"hevc", b"hevx", b"hevm", b"hevs", b"msf1", b"heic", b"heix", b"mif1")
_MARGIN_PX = 64  # a coded picture is padded to whole blocks


class SequenceImage(ImageFile.ImageFile):
    """The first picture of a sequence; FFmpeg decodes it."""

    format = "HEIF"
    format_description = "HEIF sequence"

    def _open(self) -> None:
        """Reads the size.

        Raises:
            SyntaxError: Not a sequence, or one with a still picture, of which FFmpeg would read a tile.
        """
        self._data = self.fp.read() if self.fp else b""
        kinds = _box_kinds(self._data)
        if b"moov" not in kinds or b"meta" in kinds:
            raise SyntaxError("not a HEIF sequence")
        if fault := table_fault(io.BytesIO(self._data), len(self._data)):
            raise SyntaxError(fault)
        try:
            with self._container() as container:
                codec = container.streams.video[0].codec_context
                self._size = codec.width, codec.height
        except (FFmpegError, IndexError) as error:
            raise SyntaxError(f"not a HEIF sequence: {error}") from None
        self._mode, self.tile = "RGB", []

    def _container(self) -> "InputContainer":
        # An index may name other files; nothing is opened but these bytes.
        options = {"protocol_whitelist": "none", "enable_drefs": "0"}
        return av.open(io.BytesIO(self._data), "r", format="mov", options=options)

    def load(self) -> Any:
        """Decodes the picture, upright."""
        if self._data:
            with self._container() as container:
                stream = container.streams.video[0]
                most = (self.width + _MARGIN_PX) * (self.height + _MARGIN_PX)
                stream.codec_context.options = {"max_pixels": str(most)}
                frame = next(container.decode(stream), None)
                if frame is None:
                    raise OSError("no picture in the sequence")
                picture = PictureMaker(stream, "rgb").picture(frame)
            self._data = b""
            self.im = Image.fromarray(picture).im
            self._size = self.im.size
        return super().load()


def _box_kinds(data: bytes) -> set[bytes]:
    """The kinds of the boxes on the top level."""
    kinds, position = set(), 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        kinds.add(data[position + 4 : position + 8])
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:
            break
        position += size
    return kinds


def register() -> None:
    """Adds the plugin to Pillow under `NAME`."""
    Image.register_open(
        NAME, SequenceImage, lambda prefix: prefix[4:8] == b"ftyp" and prefix[8:12] in _BRANDS
    )
