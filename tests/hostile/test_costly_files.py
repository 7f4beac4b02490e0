"""Small files that ask for much work or memory: refused by their headers, within a moment."""

import io
import itertools
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from emotion.data.pictures import decode_reduced
from facevox import files
from facevox.files import ImageError, decode_image, read_image
from facevox.media import (
    MediaError,
    iter_audio,
    iter_frames,
    pictures,
    probe,
    read_audio,
    sound,
    tables,
    write_wav,
    writing,
)
from facevox.media.tables import FREE_SAMPLES, table_fault
from facevox.picture_headers import MAX_SCANS, cost_fault

BOMB = 30_000_000  # samples: FFmpeg would take a gigabyte for them


def picture_bytes(kind: str, **options: object) -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, kind, **options)
    return content.getvalue()


def with_scans(num_scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = picture_bytes("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (num_scans - data.count(b"\xff\xda")) + data[-2:]


def with_chunks(num_chunks: int) -> bytes:
    """A PNG with empty chunks."""
    data = picture_bytes("PNG")
    return data[:33] + (b"\0\0\0\0teSt" + struct.pack(">I", zlib.crc32(b"teSt"))) * num_chunks + data[33:]


def with_markers(num_markers: int) -> bytes:
    data = picture_bytes("JPEG")
    return data[:2] + b"\xff\xfe\0\x02" * num_markers + data[2:]


COSTLY: dict[str, Callable[[], bytes]] = {
    "scans": lambda: with_scans(MAX_SCANS + 1),
    "many scans": lambda: with_scans(20_000),
    "chunks": lambda: with_chunks(150_000),
    "markers": lambda: with_markers(400_000),
    "fill bytes": lambda: b"\xff\xd8" + b"\xff" * 3_000_000 + picture_bytes("JPEG")[2:],
    "junk between": lambda: b"\xff\xd8\xff\xfe\0\x02" + b"\0" * 3_000_000 + picture_bytes("JPEG")[2:],
    "nothing but fill": lambda: b"\xff\xd8" + b"\xff" * 3_000_000,
}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_picture_is_refused_at_once(name: str) -> None:
    data = COSTLY[name]()
    start_s = time.process_time()
    with pytest.raises(ImageError, match=r"^x\.jpg: a (JPEG|PNG) of more than \d+ .*too long to decode$"):
        decode_image(data, "x.jpg")
    with pytest.raises(ImageError, match="too long to decode"):
        decode_reduced(data, "x.jpg", lambda width, height: 2)
    assert time.process_time() - start_s < 1


HONEST: dict[str, Callable[[], bytes]] = {
    "progressive": lambda: picture_bytes("JPEG", progressive=True),
    "as many scans as allowed": lambda: with_scans(MAX_SCANS),
    # Phones write a video after the picture; its bytes may look like the start of a scan.
    "video after it": lambda: picture_bytes("JPEG", progressive=True) + b"ab\xff\xda" * 500,
    "scans of a preview": lambda: picture_bytes("JPEG", progressive=True, comment=b"\xff\xda" * 500),
    "colour profile": lambda: picture_bytes("JPEG", icc_profile=b"\xff\xda" * 100_000),
    "restart markers": lambda: picture_bytes("JPEG", restart_marker_blocks=1),
    "text chunks": lambda: with_chunks(500),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_picture_is_read(name: str) -> None:
    data = HONEST[name]()
    assert cost_fault(data) == ""
    assert decode_image(data, "x").shape == (64, 96, 3)


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_random_headers_are_walked_quickly(start: bytes) -> None:
    """Damaged ones as well: no exception, and never more than a moment."""
    randomness = random.Random(5)
    start_s = time.process_time()
    for size in (0, 1, 2, 7, 100, 100_000):
        for _ in range(20):
            cost_fault(start + randomness.randbytes(size))
            cost_fault(start + bytes(randomness.choices(b"\xff\xda\0\xd9\x02\xc4", k=size)))
    assert time.process_time() - start_s < 5


def test_picture_in_strips_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {"RGB": "PNG", "RGBA": "PNG", "LA": "PNG", "P": "PNG", "1": "PNG", "L": "PNG", "CMYK": "TIFF"}
    noise = np.random.default_rng(2).integers(0, 255, (50, 31, 4), np.uint8)
    contents = [(Image.fromarray(noise).convert(mode), kind) for mode, kind in modes.items()]
    contents.append((Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG"))
    for picture, kind in contents:
        content = io.BytesIO()
        picture.save(content, kind)
        whole = decode_image(content.getvalue(), "x")
        with monkeypatch.context() as patch:
            patch.setattr("facevox.files._STRIP_PIXELS", 100)
            np.testing.assert_array_equal(decode_image(content.getvalue(), "x"), whole)


@pytest.mark.slow
def test_largest_picture_takes_a_gigabyte_at_most(tmp_path: Path) -> None:
    """A flat picture of a few bytes, in a process of its own."""
    file = tmp_path / "flat.png"
    Image.new("RGB", (11_400, 11_400), (1, 2, 3)).save(file)
    assert file.stat().st_size < 1_000_000
    program = (
        "import resource, sys; from facevox.files import read_image; from PIL import Image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(read_image(sys.argv[1]).shape[0])\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    height, megabytes = map(int, run.stdout.split())
    assert height == 11_400
    assert megabytes < 1100


def write_movie(path: Path, **options: str) -> bytes:
    with av.open(str(path), "w", format="mp4", options=options) as output:
        stream = output.add_stream("mpeg4", 25)
        stream.width = stream.height = 64
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


def patched(data: bytes, kind: bytes, offset: int, *numbers: int) -> bytes:
    """The file with other numbers in the first box of a kind, `offset` bytes after the kind."""
    start = data.index(kind) + 4 + offset
    content = struct.pack(f">{len(numbers)}I", *numbers)
    return data[:start] + content + data[start + len(content) :]


def with_edits(data: bytes, count: int) -> bytes:
    """The film shown again and again by its edit list."""
    start = data.index(b"edts") - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    entries = struct.pack(">IIHH", 400, 0, 1, 0) * count
    box = struct.pack(">I4sI4sII", 24 + len(entries), b"edts", 16 + len(entries), b"elst", 0, count) + entries
    data = data[:start] + box + data[start + length :]
    for kind in (b"trak", b"moov"):
        place = data.index(kind) - 4
        (size,) = struct.unpack(">I", data[place : place + 4])
        data = data[:place] + struct.pack(">I", size + len(box) - length) + data[place + 4 :]
    return data


@pytest.mark.parametrize("kind", ["sizes", "run", "edits", "boxes"])
def test_movie_whose_index_counts_too_much_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "film.mp4"
    data = write_movie(file, **({"movflags": "frag_keyframe+empty_moov"} if kind == "run" else {}))
    file.write_bytes(
        {
            "sizes": lambda: patched(data, b"stsz", 4, 16, BOMB),
            "run": lambda: patched(data, b"trun", 4, BOMB),
            "edits": lambda: with_edits(data, FREE_SAMPLES // 5),
            "boxes": lambda: b"\0\0\0\x08free" * 150_000 + data,
        }[kind]()
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.process_time()
    for read in (probe, lambda path: next(iter_frames(path))):
        with pytest.raises(MediaError, match=r"film\.mp4: an mp4 (whose index counts|of more than) \d+"):
            read(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert time.process_time() - start_s < 3


def test_sound_whose_chunks_count_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PCM is read by its chunks, whatever the number of samples: here 2 billion in one."""
    monkeypatch.setattr(tables, "FREE_SAMPLES", 1_000_000)
    file = tmp_path / "sound.mov"
    with av.open(str(file), "w", format="mov") as output:
        stream = output.add_stream("pcm_s16le", 16_000, layout="mono")
        for start in range(0, 16_000, 1000):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    data = file.read_bytes()
    assert table_fault(io.BytesIO(data), len(data)) == ""
    assert len(read_audio(file)) == 16_000
    file.write_bytes(patched(data, b"stsc", 8, 1, 2**31 - 1))
    with pytest.raises(MediaError, match="whose index counts"):
        read_audio(file)


def test_sound_that_is_longer_than_its_bytes_can_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sound.wav"
    write_wav(file, np.zeros(80_000, np.float32), 8000)
    assert len(read_audio(file, 8000)) == 80_000
    monkeypatch.setattr(sound, "FREE_S", 0.0)
    monkeypatch.setattr(sound, "LEAST_BITS_PER_S", 200_000.0)
    with pytest.raises(MediaError, match="of sound in so small a file"):
        read_audio(file, 8000)


def test_sound_that_is_nearly_all_gaps_is_refused(tmp_path: Path) -> None:
    """Twelve blocks, an hour apart each."""
    file = tmp_path / "sound.mkv"
    with av.open(str(file), "w") as output:
        stream = output.add_stream("pcm_s16le", 16_000, layout="mono")
        for index in range(12):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, index * 16_000 * 3590
            output.mux(stream.encode(frame))
    with pytest.raises(MediaError, match="without sound between"):
        for _ in iter_audio(file):
            pass


def test_sound_beyond_what_a_wav_can_hold_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_MOST_WAV_BYTES", 10_000)
    blocks = (np.zeros(1000, np.float32) for _ in itertools.count())
    with pytest.raises(MediaError, match="can hold; take a lower rate"):
        write_wav(tmp_path / "long.wav", blocks, 16_000)
    assert list(tmp_path.iterdir()) == []


def test_formats_that_are_decoded_twice_have_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture_bytes("WEBP")
    assert decode_image(data, "x").shape == (64, 96, 3)
    monkeypatch.setattr(files, "MAX_REDECODED_PIXELS", 1000)
    for read in (decode_image, lambda data, name: decode_reduced(data, name, lambda width, height: 2)):
        with pytest.raises(ImageError, match="x: 96 x 64 pixels; at most 1000 are read of a WEBP"):
            read(data, "x")


def test_cut_film_of_an_hour_passes() -> None:
    """Sixty edits that show each picture once, and as many that show all of them."""
    rows = [(60_000, second * 60_000, 1, 0) for second in range(60)]
    for durations, is_refused in (([60_000] * 60, False), ([3_600_000] * 60, True)):
        entries = b"".join(
            struct.pack(">IIHH", duration, *row[1:]) for duration, row in zip(durations, rows, strict=True)
        )
        data = movie_of(90_000, entries, key_every=25)
        assert bool(table_fault(io.BytesIO(data), len(data))) == is_refused


def movie_of(num_samples: int, edits: bytes, key_every: int) -> bytes:
    """The index of a film of 25 pictures a second, in ticks of 1 ms."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I4s", 8 + len(content), kind) + content

    scale = struct.pack(">IIII", 0, 0, 0, 1000)
    keys = list(range(1, num_samples + 1, key_every))
    tables = (
        box(b"stsz", struct.pack(">III", 0, 100, num_samples)),
        box(b"stts", struct.pack(">IIII", 0, 1, num_samples, 40)),
        box(b"stss", struct.pack(f">II{len(keys)}I", 0, len(keys), *keys)),
    )
    media = box(b"mdia", box(b"mdhd", scale), box(b"minf", box(b"stbl", *tables)))
    edit_list = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits) // 12), edits))
    return box(b"moov", box(b"mvhd", scale), box(b"trak", edit_list, media))


def test_ordinary_movies_pass(tmp_path: Path) -> None:
    """Whole, in fragments, with its index first, with some edits, cut off, and other formats."""
    file = tmp_path / "film.mp4"
    plain = write_movie(file)
    fragments = write_movie(file, movflags="frag_every_frame+empty_moov")
    first = write_movie(file, movflags="faststart")
    for data in (plain, fragments, first, with_edits(plain, 50), first[:900], plain[::-1], b"", b"\0" * 100):
        assert table_fault(io.BytesIO(data), len(data)) == ""


def test_pictures_by_the_thousand_in_a_moment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millions of tiny pictures in a second of film would take hours; here some thousands."""
    monkeypatch.setattr(pictures, "FREE_FRAMES", 2000.0)
    file = tmp_path / "film.mkv"
    with av.open(str(file), "w") as output:
        stream = output.add_stream("mpeg4", 1000)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        for index in range(6000):
            frame.pts = index
            for packet in stream.encode(frame):
                packet.pts = packet.dts = index // 6
                output.mux(packet)
    with pytest.raises(MediaError, match="pictures a second"):
        for _ in iter_frames(file):
            pass


def test_film_of_costly_pictures_has_none(tmp_path: Path) -> None:
    """Motion JPEG: a picture of 20,000 scans is left out like a damaged one."""
    file = tmp_path / "film.mkv"
    with av.open(str(file), "w") as output:
        stream = output.add_stream("mjpeg", 25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for index, data in enumerate((picture_bytes("JPEG"), with_scans(20_000), picture_bytes("JPEG"))):
            packet = av.Packet(data)
            packet.pts = packet.dts = index
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            output.mux(packet)
    start_s = time.process_time()
    assert len(list(iter_frames(file))) == 2
    assert time.process_time() - start_s < 3


def test_costly_picture_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(COSTLY["many scans"]())
    with pytest.raises(ImageError, match=r"a\.jpg: a JPEG of more than 64 scans"):
        read_image(file)
