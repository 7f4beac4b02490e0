"""Whole-file writes, file search, pictures."""

import errno
import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facevox import files
from facevox.errors import UserError
from facevox.files import ImageError, find_files, read_image, replacing, write_arrays, write_image


def test_replacing_shows_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x.txt"
    with replacing(path, "w") as file:
        file.write("old")
    with replacing(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert os.listdir(path.parent) == ["x.txt"]


def test_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), replacing(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_stale_temporary_blocks_nothing_and_is_removed_by_its_token(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".dead-1-0.tmp").write_bytes(b"half")
    (tmp_path / ".alive-1-0.tmp").write_bytes(b"half")
    files.write_bytes(tmp_path / "a" / "x", b"whole")
    assert files.remove_temporaries(tmp_path, "dead") == 1
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".alive-1-0.tmp", "x"]


def temporary_name(folder: Path) -> str:
    with replacing(folder / "x") as file:
        return Path(file.name).name


def test_temporaries_of_two_processes_with_one_pid_differ(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.getpid = lambda: 1\n"  # as in two containers on one volume
        "from facevox.files import replacing\n"
        "with replacing(sys.argv[1]) as file: print(file.name)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    names = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(names) == 2


def test_own_token_comes_back_after_a_run(tmp_path: Path) -> None:
    own = temporary_name(tmp_path).split("-")[0]
    files.set_run_token("run")
    try:
        assert temporary_name(tmp_path).split("-")[0] == ".run"
    finally:
        files.set_run_token("")
    assert temporary_name(tmp_path).split("-")[0] == own
    assert len(own) == 13  # a full stop and 12 random digits


def test_forked_process_has_a_token_of_its_own(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write_end, temporary_name(tmp_path).encode())
        finally:  # whatever happens, the child must not go on with the tests
            os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read_end, 1000).decode()
    os.close(read_end)
    os.close(write_end)
    assert theirs.endswith(".tmp")
    assert theirs.split("-")[0] != temporary_name(tmp_path).split("-")[0]


def test_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("가" * 84 + ".x")  # 254 bytes of the 255 that file systems take
    files.write_text(path, "x")
    assert path.exists()


def test_json_refuses_what_json_has_no_word_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 5000, "not JSON"),  # more digits than Python turns into a number
    ],
)
def test_read_json_names_the_file_and_the_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_json(path)


def test_find_files_is_recursive_sorted_and_blind_to_case(tmp_path: Path) -> None:
    names = ["b/y.MP4", "a.mp4", "b/c/z.mp4", "b/.hidden.mp4", ".hidden/x.mp4", "out/w.mp4", "b/n.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_files(tmp_path, ["*.mp4"], exclude=[tmp_path / "out"])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.mp4", "b/c/z.mp4", "b/y.MP4"]


def test_find_files_ends_on_link_loops_and_dead_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.mp4").write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "dead.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    found = find_files(tmp_path, ["*.mp4"], exclude=[tmp_path / "self.mp4"])
    assert [p.name for p in found] == ["x.mp4"]


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Folders of these names cannot be listed, whoever runs the tests."""
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_unreadable_folders_are_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    for name in ("a\nb", "c", "d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mp4").write_bytes(b"x")
    refuse_to_list(monkeypatch, "a\nb", "c")
    assert [p.parent.name for p in find_files(tmp_path, ["*.mp4"], what="--in")] == ["d"]
    (record,) = logged.records
    shown = record.getMessage()
    assert record.levelname == "WARNING"
    assert len(shown.splitlines()) == 1
    assert shown.startswith("--in: 2 files or folders could not be read; the first: ")
    assert "Permission denied" in shown


def test_files_in_a_folder_that_can_be_listed_but_not_entered_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "b.mp4").write_bytes(b"x")
    stat_of = Path.stat

    def refusing(self: Path, **options: Any) -> os.stat_result:
        if self.name == "b.mp4":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return stat_of(self, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    assert [p.name for p in find_files(tmp_path, ["*.mp4"])] == ["a.mp4"]
    assert "1 file or folder could not be read" in logged.text


def test_nothing_found_names_what_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c").mkdir()
    refuse_to_list(monkeypatch, "c")
    with pytest.raises(
        UserError, match=r"1 file or folder could not be read; the first: .*Permission denied"
    ):
        find_files(tmp_path, ["*.mp4"])
    assert not logged.records


def test_readable_folders_are_no_reason_for_a_warning(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.mp4").write_bytes(b"x")
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "nowhere")
    find_files(tmp_path, ["*.mp4"])
    assert not logged.records


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.write_text("x"), "not a folder"),
        (lambda p: p.mkdir(), "it is empty"),
        (lambda p: (p.mkdir(), (p / "x.txt").write_text("x")), "1 other files"),
    ],
)
def test_find_files_says_what_is_wrong(tmp_path: Path, make: object, message: str) -> None:
    folder = tmp_path / "d"
    make(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        find_files(folder, ["*.mp4"], what="--dataset_path")


def colours() -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20] = (200, 30, 30)
    image[20:, :30] = (30, 200, 30)
    return image


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_picture_comes_back_in_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'-그림 "1"\n{suffix}'
    write_image(path, colours())
    assert np.abs(read_image(path).astype(int) - colours()).mean() < (0.01 if suffix == ".png" else 8)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_every_kind_of_picture_is_read_as_8_bit_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.fromarray(colours()).convert(mode).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((40, 60, 3), np.uint8)
    if mode in ("CMYK", "RGBA"):
        assert np.abs(image.astype(int) - colours()).mean() < 8


def test_16_bit_grey_keeps_its_levels(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    assert np.abs(read_image(tmp_path / "x.png")[..., 0] - ramp / 257.0).max() < 1


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(colours()).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "x.png"), np.rot90(colours(), -1))


def test_exif_orientation_is_applied_to_16_bit_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "x.png", exif=exif)
    image = read_image(tmp_path / "x.png")
    assert image.shape == (64, 32, 3)
    assert np.abs(image[..., 0] - np.rot90(ramp, -1) / 257.0).max() < 1


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "0 bytes"), (b"text", "not a picture"), (None, "broken picture")]
)
def test_broken_pictures_are_named_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.jpg"
    if content is None:
        write_image(path, np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8))
        content = path.read_bytes()[:5000]
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_image(path)


def test_huge_picture_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("L", (3000, 3000)).save(buffer, "PNG")
    monkeypatch.setattr(files, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(ImageError, match="3000 x 3000"):
        files.decode_image(buffer.getvalue(), "x.png")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size; only the claim is changed, so nothing of that size is ever held."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("height", [17_100, 17_895, 18_000, 20_100, 100_000])  # Pillow's own: 17 895.7
def test_the_limit_that_speaks_is_ours(height: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match=f"at most {files.MAX_IMAGE_PIXELS} are read"):
            files.decode_image(png_header(10_000, height), "x.png")
    assert caught == []


def test_large_picture_below_the_limit_is_decoded_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    buffer = io.BytesIO()
    Image.new("L", (40, 40)).save(buffer, "PNG")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert files.decode_image(buffer.getvalue(), "x.png").shape == (40, 40, 3)
    assert caught == []


def test_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x.jpg").open("wb") as file:
        file.truncate(files.MAX_IMAGE_BYTES + 1)  # a hole: it takes no room on the disk
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(ImageError, match=f"at most {files.MAX_IMAGE_BYTES} are read"):
        read_image(tmp_path / "x.jpg")


def test_tiff_that_pillow_reads_wrongly_is_refused(tmp_path: Path) -> None:
    wide = struct.Struct("<HHII")
    values = np.arange(48, dtype="<u2").reshape(3, 4, 4) * 1000
    bits, offsets, counts = (8 + 2 + 12 * 10 + 4 + size for size in (0, 6, 18))
    data = bits + 6 + 12 + 12
    entries = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 3, offsets), (277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 3, counts), (284, 3, 1, 2)]
    content = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(
        wide.pack(*entry) for entry in entries
    )
    content += (
        struct.pack("<I3H3I3I", 0, 16, 16, 16, data, data + 32, data + 64, 32, 32, 32) + values.tobytes()
    )
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.tif: a TIFF of 16 bits in separate planes"):
        read_image(tmp_path / "x.tif")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match=r"f\.tif: floating-point values"):
        read_image(tmp_path / "f.tif")


def test_arrays_in_parts_are_written_as_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 255, (2500, 3, 2)).astype(np.uint8)
    parts = [whole[:1], whole[1:1], whole[1:1200], whole[1200:][:, ::-1][:, ::-1]]
    write_arrays(tmp_path / "parts.npz", {"a": parts, "b": whole[0]}, compression=zipfile.ZIP_DEFLATED)
    write_arrays(tmp_path / "whole.npz", {"a": whole, "b": whole[0]}, compression=zipfile.ZIP_DEFLATED)
    contents = []
    for name in ("parts", "whole"):
        with zipfile.ZipFile(tmp_path / f"{name}.npz") as archive:
            contents.append({member: archive.read(member) for member in archive.namelist()})
    assert contents[0] == contents[1]
