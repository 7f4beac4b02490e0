"""ZIPs read in place: Korean names, order, limits, and everything that can be wrong with one."""

import os
import struct
import zipfile
from pathlib import Path

import pytest
from call_counts import count_calls
from long_archives import write_long_archive

from emotion.data.aihub.archives import Archive, ArchiveError, ArchiveLimits, SplitArchiveError
from facevox_demo.example.aihub import write_zip

KOREAN = "ab_남_20_기쁨_도심 환경_2021-1.jpg"


def make_zip(path: Path, contents: dict[str, bytes], names: str = "utf-8", method: int = 0) -> Path:
    write_zip(path, iter(contents.items()), names, method)
    return path


def read_all(archive: Archive) -> dict[str, bytes]:
    return {member.name: archive.read(member.offset) for member in archive.members()}


@pytest.mark.parametrize("names", ["utf-8", "cp949"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_back_whole_under_their_names(tmp_path, names, method):
    contents = {f"폴더/{k}_{KOREAN}": os.urandom(1000 + k) for k in range(5)}
    with Archive(make_zip(tmp_path / "[원천]a.zip", contents, names, method)) as archive:
        assert read_all(archive) == contents


def test_cp949_archive_really_has_no_utf8_flag(tmp_path):
    path = make_zip(tmp_path / "a.zip", {KOREAN: b"x"}, "cp949")
    assert KOREAN.encode("cp949") in path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].flag_bits & 0x800 == 0


def test_members_come_in_the_order_of_the_file_without_system_files(tmp_path):
    path = tmp_path / "a.zip"
    names = ["z.jpg", "a.jpg", "__MACOSX/._a.jpg", ".DS_Store", "m/b.jpg", "m/Thumbs.db"]
    names += ["m/@eaDir/b.jpg/SYNOPHOTO_THUMB_XL.jpg", "#recycle/c.jpg"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
        archive.filelist.reverse()  # the directory in another order than the members
        archive.writestr("last.jpg", "last.jpg")
        archive.mkdir("empty")
    with Archive(path) as archive:
        assert [member.name for member in archive.members()] == ["z.jpg", "a.jpg", "m/b.jpg", "last.jpg"]
        assert all(content == name.encode() for name, content in read_all(archive).items())


def test_zip64_archive_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    contents = {"a.jpg": b"1" * 50, "b.jpg": b"2" * 60, "c.jpg": b"3" * 70}
    path = make_zip(tmp_path / "a.zip", contents)
    assert b"PK\6\6" in path.read_bytes()
    monkeypatch.undo()
    with Archive(path) as archive:
        assert read_all(archive) == contents
    with pytest.raises(ArchiveError, match="3 members"):
        Archive(path, ArchiveLimits(max_members=2))


def test_damaged_member_is_told_and_the_others_are_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A" * 99, "b.jpg": b"B" * 99})
    data = bytearray(path.read_bytes())
    data[data.index(b"A" * 99) + 5] ^= 1
    path.write_bytes(bytes(data))
    with Archive(path) as archive:
        first, second = archive.members()
        with pytest.raises(ArchiveError, match=r"a\.zip/a\.jpg: damaged: .*CRC"):
            archive.read(first.offset)
        assert archive.read(second.offset) == b"B" * 99


def test_damaged_deflated_member_is_told(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": os.urandom(2000)}, method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[60:100] = b"\xff" * 40
    path.write_bytes(bytes(data))
    with Archive(path) as archive, pytest.raises(ArchiveError, match="damaged"):
        archive.read(archive.members()[0].offset)


def test_encrypted_member_is_told(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # flags of the local header
    data[data.index(b"PK\1\2") + 8] |= 1  # and of the directory
    path.write_bytes(bytes(data))
    with Archive(path) as archive, pytest.raises(ArchiveError, match="encrypted"):
        archive.read(archive.members()[0].offset)


def test_unknown_packing_is_told(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A"})
    data = bytearray(path.read_bytes())
    data[8] = data[data.index(b"PK\1\2") + 10] = 9  # deflate64
    path.write_bytes(bytes(data))
    with Archive(path) as archive, pytest.raises(ArchiveError, match="packed with Deflate64; only stored"):
        archive.read(archive.members()[0].offset)


def test_bomb_is_refused_by_ratio_and_by_size_before_it_is_unpacked(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(30_000_000)}, method=zipfile.ZIP_DEFLATED)
    with Archive(path) as archive, pytest.raises(ArchiveError, match="times its size; at most 200"):
        archive.read(archive.members()[0].offset)
    limits = ArchiveLimits(max_member_bytes=1000)
    with Archive(path, limits) as archive, pytest.raises(ArchiveError, match="30000000 bytes; at most 1000"):
        archive.read(archive.members()[0].offset)


def test_member_that_understates_its_size_is_not_unpacked_beyond_it(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(5_000_000)}, method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, data.index(b"PK\1\2") + 24, 100)
    path.write_bytes(bytes(data))
    with Archive(path) as archive, pytest.raises(ArchiveError, match="damaged"):
        archive.read(archive.members()[0].offset)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_truncated_archive_is_told(tmp_path, keep):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(500)})
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ArchiveError, match=r"a\.zip: not a readable ZIP"):
        Archive(path)


@pytest.mark.parametrize(
    "data", [b"no archive", b"PK\5\6", b"PK\5\6" + b"\xff" * 18, b"PK\5\6" + b"\1\0" * 9]
)
def test_text_named_zip_and_a_false_end_are_told(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"^a\.zip: "):
        Archive(tmp_path / "a.zip")


def test_empty_archive_has_no_members(tmp_path):
    with Archive(make_zip(tmp_path / "a.zip", {})) as archive:
        assert archive.members() == []


def test_member_list_beyond_the_limit_is_refused_before_it_is_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", {f"{k}.jpg": b"" for k in range(20)})
    with pytest.raises(ArchiveError, match=r"20 members in a list of .* at most 19"):
        Archive(path, ArchiveLimits(max_members=19))
    with pytest.raises(ArchiveError, match="at most 1000000 in 100 are read"):
        Archive(path, ArchiveLimits(max_directory_bytes=100))


def test_offset_of_no_member_is_told(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"A"})
    with Archive(path) as archive, pytest.raises(ArchiveError, match="the archive was replaced"):
        archive.read(17)


def num_members(path: Path) -> int:
    with Archive(path) as archive:
        return len(archive.members())


def test_more_members_than_a_plain_zip_can_count_are_all_there(tmp_path):
    assert num_members(write_long_archive(tmp_path / "many.zip", 100_000)) == 100_000  # beyond 65,535


def test_opening_an_archive_takes_calls_in_step_with_its_members(tmp_path):
    counts = []
    for size in (1000, 8000):
        path = write_long_archive(tmp_path / f"{size}.zip", size)
        counts.append(count_calls(lambda path=path: num_members(path))[1])
    assert counts[1] < 8.1 * counts[0]


@pytest.mark.parametrize("is_zip64", [False, True])
@pytest.mark.parametrize(
    ("start", "part"), [(b"PK\7\x08", "all parts, joined with cat,"), (b"", "the last part")]
)
def test_split_archive_is_told_by_its_number_of_parts(tmp_path, monkeypatch, is_zip64, start, part):
    if is_zip64:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    data = bytearray(make_zip(tmp_path / "a b.zip", {"a.jpg": b"1", "b.jpg": b"2"}).read_bytes())
    end = data.rindex(b"PK\5\6")
    struct.pack_into("<2H", data, end + 4, *((0xFFFF, 0xFFFF) if is_zip64 else (3, 3)))
    if is_zip64:
        struct.pack_into("<L", data, data.rindex(b"PK\6\7") + 16, 4)
    (tmp_path / "a b.zip").write_bytes(start + data)
    with pytest.raises(
        SplitArchiveError, match=rf"^a b\.zip: {part} of a split archive; .*zip -s 0 'a b.zip' --out"
    ):
        Archive(tmp_path / "a b.zip")


def test_first_part_of_a_split_archive_under_the_name_of_the_whole_is_told(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\7\x08PK\3\4" + os.urandom(100))
    with pytest.raises(SplitArchiveError, match="the first part of a split archive"):
        Archive(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html>403 Forbidden</html>", "a web page: the download failed"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive, no ZIP"),
        (b"", "empty"),
        (b"PK\3\4" + bytes(range(250)), "cut off"),
    ],
)
def test_what_is_no_zip_is_named(tmp_path, data, text):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match=rf"a\.zip: not a readable ZIP: {text}"):
        Archive(tmp_path / "a.zip")
