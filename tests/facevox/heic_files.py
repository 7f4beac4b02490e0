"""HEIC files for tests: HEVC pictures of PyAV's libx265 in the boxes of a camera; pi-heif only reads."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
import pytest
from av.codec.codec import UnknownCodecError
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
# Every picture by itself, on one thread: with more, this encoder sometimes fails on pictures so small.
_OPTIONS = {"x265-params": "log-level=none:keyint=1:bframes=0:pools=none:frame-threads=1", "crf": "12"}


@dataclass(frozen=True)
class _Coded:
    """A picture as HEVC: its boxes hvcC and ispe, and its data."""

    settings: bytes
    size: bytes
    data: bytes


def require_hevc() -> None:
    """Skips a test where PyAV has no encoder of HEVC."""
    try:
        av.codec.Codec("libx265", "w")
    except UnknownCodecError:
        pytest.skip("this PyAV has no libx265, with which the HEIC files are made")


def heic(
    image: Rgb,
    *,
    tile_px: int = 0,
    turns: int = 0,
    mirror: int | None = None,
    exif_orientation: int = 0,
    bits: int = 8,
    brand: bytes = b"heic",
    has_thumbnail: bool = False,
    stated_size: tuple[int, int] | None = None,
) -> bytes:
    """A HEIC file of `image`, which is the picture as stored, before it is turned and mirrored.

    Args:
        image: (H, W, 3) with even sides.
        tile_px: Side of the tiles of a grid; 0: a picture without tiles.
        turns: Quarter turns anticlockwise (irot).
        mirror: imir: 0 swaps top and bottom, 1 left and right.
        exif_orientation: Of an EXIF item; 0: none.
        bits: 8 or 10.
        brand: The major brand.
        has_thumbnail: Whether there is one.
        stated_size: Width and height in the header of the whole picture (default: the true ones).
    """
    height, width = image.shape[:2]
    stated = stated_size or (width, height)
    tiles = _tiles(image, tile_px) if tile_px else [image]
    coded = [_encode(tile, bits) for tile in tiles]
    boxes = _Properties()
    shown = boxes.add(_full(b"ispe", struct.pack(">II", *stated)))
    turned = [boxes.add(_box(b"irot", bytes([turns])))] if turns else []
    turned += [boxes.add(_box(b"imir", bytes([mirror])))] if mirror is not None else []
    items, references = [], []
    for number, one in enumerate(coded, start=1):
        links = [boxes.add(one.settings), boxes.add(one.size)]
        items.append(_Item(number, b"hvc1", one.data, links, is_hidden=bool(tile_px)))
    primary = items[0]
    if tile_px:
        grid = struct.pack(">BBBBHH", 0, 0, -(-height // tile_px) - 1, -(-width // tile_px) - 1, *stated)
        primary = _Item(len(items) + 1, b"grid", grid, [shown])
        references.append((b"dimg", primary.number, [item.number for item in items]))
        items.append(primary)
    else:
        primary.links[1] = shown
    primary.links += turned
    if has_thumbnail:
        small = _encode(np.ascontiguousarray(image[::4, ::4][: height // 8 * 2, : width // 8 * 2]), bits)
        links = [boxes.add(small.settings), boxes.add(small.size)]
        items.append(_Item(len(items) + 1, b"hvc1", small.data, [*links, *turned]))
        references.append((b"thmb", items[-1].number, [primary.number]))
    if exif_orientation:
        tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, exif_orientation, 0, 0)
        items.append(_Item(len(items) + 1, b"Exif", struct.pack(">I", 0) + tiff, []))
        references.append((b"cdsc", items[-1].number, [primary.number]))
    return _assemble(brand, primary, items, references, boxes)


def heic_sequence(images: Sequence[Rgb], brand: bytes) -> bytes:
    """A HEIC sequence of `images` without a still picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=5, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    data = buffer.getvalue()
    return data[:8] + brand + data[12:]


@dataclass
class _Item:
    number: int
    kind: bytes
    data: bytes
    links: list[int]  # positions of its properties, from 1
    is_hidden: bool = False


class _Properties:
    def __init__(self) -> None:
        self.boxes: list[bytes] = []

    def add(self, box: bytes) -> int:
        """The position of a property, from 1."""
        if box not in self.boxes:
            self.boxes.append(box)
        return self.boxes.index(box) + 1


def _assemble(
    brand: bytes,
    primary: _Item,
    items: Sequence[_Item],
    references: Sequence[tuple[bytes, int, list[int]]],
    boxes: _Properties,
) -> bytes:
    ftyp = _box(b"ftyp", brand, struct.pack(">I", 0), b"mif1", b"heic")
    entries = b"".join(_infe(item) for item in items)
    linked = [item for item in items if item.links]
    links = b"".join(
        struct.pack(">HB", item.number, len(item.links)) + bytes(0x80 | link for link in item.links)
        for item in linked
    )
    pieces = [
        _full(b"hdlr", struct.pack(">I4s12s", 0, b"pict", b"") + b"\0"),
        _full(b"pitm", struct.pack(">H", primary.number)),
        _full(b"iinf", struct.pack(">H", len(items)), entries),
        _box(
            b"iprp",
            _box(b"ipco", *boxes.boxes),
            _full(b"ipma", struct.pack(">I", len(linked)), links),
        ),
    ]
    if references:
        pieces.append(
            _full(
                b"iref",
                *(
                    _box(kind, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))
                    for kind, source, targets in references
                ),
            )
        )

    def meta(start: int) -> bytes:
        places = b""
        for item in items:
            places += struct.pack(">HHHII", item.number, 0, 1, start, len(item.data))
            start += len(item.data)
        iloc = _full(b"iloc", bytes([0x44, 0x00]), struct.pack(">H", len(items)), places)
        return _full(b"meta", *pieces, iloc)

    start = len(ftyp) + len(meta(0)) + 8
    return ftyp + meta(start) + _box(b"mdat", *(item.data for item in items))


def _infe(item: _Item) -> bytes:
    content = struct.pack(">HH4s", item.number, 0, item.kind) + b"\0"
    return _box(b"infe", struct.pack(">I", (2 << 24) | item.is_hidden), content)


def _tiles(image: Rgb, side: int) -> list[Rgb]:
    height, width = image.shape[:2]
    rows, columns = -(-height // side), -(-width // side)
    whole = np.zeros((rows * side, columns * side, 3), np.uint8)
    whole[:height, :width] = image
    return [
        np.ascontiguousarray(whole[y * side : (y + 1) * side, x * side : (x + 1) * side])
        for y in range(rows)
        for x in range(columns)
    ]


def _encode(image: Rgb, bits: int) -> _Coded:
    buffer = io.BytesIO()
    pixels = "yuv420p10le" if bits == 10 else "yuv420p"
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=1, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], pixels
        stream.codec_context.codec_tag = "hvc1"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        stream = container.streams.video[0]
        data = b"".join(bytes(packet) for packet in container.demux(stream))
        settings = _box(b"hvcC", bytes(stream.codec_context.extradata))
    size = struct.pack(">II", image.shape[1], image.shape[0])
    return _Coded(settings, _full(b"ispe", size), data)


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, *parts: bytes) -> bytes:
    return _box(kind, b"\0\0\0\0", *parts)
