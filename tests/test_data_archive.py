"""Archives from somebody else: read without extracting, refused by name when hostile or damaged."""

import os
import stat
import tracemalloc
import zipfile

import pytest

from scratchmeta.data import DataError, archive
from scratchmeta.data.archive import members

FILES = {"top/a/1.txt": b"one", "top/a/2.txt": b"two" * 50, "top/b/1.txt": b""}


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_yield_the_same_files_in_order(tmp_path, method):
    path = zipped(tmp_path / "x.zip", dict(reversed(FILES.items())), method)
    with zipfile.ZipFile(path) as whole:
        whole.extractall(tmp_path)
    assert list(members(path, 1000)) == list(FILES.items())
    assert list(members(tmp_path / "top", 1000)) == list(FILES.items())


def test_what_operating_systems_leave_behind_is_passed_over(tmp_path):
    litter = {"__MACOSX/top/._1.txt": b"?", "top/.DS_Store": b"?", "top/a/": b""}
    path = zipped(tmp_path / "x.zip", FILES | litter)
    (tmp_path / "top" / "a").mkdir(parents=True)
    (tmp_path / "top" / ".DS_Store").write_bytes(b"?")
    (tmp_path / "top" / "a" / "1.txt").write_bytes(b"one")
    assert dict(members(path, 1000)) == FILES
    assert list(members(tmp_path / "top", 1000)) == [("top/a/1.txt", b"one")]


@pytest.mark.parametrize("name", ["/etc/x", "../x", "top/../../x", "C:/x", "..\\x"])
def test_a_name_that_leaves_the_archive(tmp_path, name):
    path = zipped(tmp_path / "x.zip", FILES | {name: b"!"})
    with pytest.raises(DataError, match=r"x\.zip: member .* points outside the archive"):
        list(members(path, 1000))


def test_a_symbolic_link(tmp_path):
    path = tmp_path / "x.zip"
    link = zipfile.ZipInfo("top/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"x\.zip: member 'top/link' is a symbolic link"):
        list(members(path, 1000))


def test_a_file_that_declares_too_much(tmp_path):
    path = zipped(tmp_path / "x.zip", {"top/bomb": bytes(100_000)})
    with pytest.raises(DataError, match=r"'top/bomb' declares 100000 bytes, at most 1000 wanted"):
        list(members(path, 1000))


def test_a_file_that_expands_to_more_than_it_declares(tmp_path):
    path = zipped(tmp_path / "x.zip", {"top/bomb": bytes(100_000)})
    declared = (100_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(declared, (500).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"x\.zip: not readable as a zip archive"):
        list(members(path, 1000))


def test_what_a_bomb_declares_is_all_that_is_unpacked(tmp_path):
    """64 MB of zeros in an entry that declares 500 bytes: tens of kilobytes are made, not all."""
    path = zipped(tmp_path / "x.zip", {"top/bomb": bytes(1 << 26)})
    declared = (1 << 26).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(declared, (500).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"x\.zip: not readable as a zip archive"):
            list(members(path, 1000))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_ends_before_what_it_declares(tmp_path):
    """Even where the checksum is right for what there is."""
    path = zipped(tmp_path / "x.zip", {"top/a": b"abc" * 9}, zipfile.ZIP_DEFLATED)
    declared = (27).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(declared, (500).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"'top/a' has not the 500 bytes it declares"):
        list(members(path, 1000))


def test_an_archive_that_declares_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_TOTAL", 100)
    path = zipped(tmp_path / "x.zip", FILES)
    with pytest.raises(DataError, match=r"x\.zip: at most 100 bytes of content wanted.*153"):
        list(members(path, 1000))


def test_a_large_file_in_a_folder(tmp_path):
    (tmp_path / "x.png").write_bytes(bytes(1001))
    with pytest.raises(DataError, match=r"x\.png: at most 1000 bytes wanted, got 1001"):
        list(members(tmp_path, 1000))


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda path: path.symlink_to("/dev/zero"), "a regular file wanted, got crw"),
        (lambda path: os.mkfifo(path), "a regular file wanted, got prw"),
        (lambda path: path.symlink_to("nowhere"), "not readable"),
        (lambda path: path.symlink_to(path.name), "not readable"),
    ],
)
def test_what_is_no_regular_file_in_a_folder(tmp_path, make, got):
    (tmp_path / "a.png").write_bytes(b"one")
    make(tmp_path / "b.png")
    with pytest.raises(DataError, match=rf"b\.png: {got}"):
        list(members(tmp_path, 1000))


def test_a_link_to_a_regular_file_is_that_file(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "one" / "b.png").symlink_to(tmp_path / "a.png")
    assert list(members(tmp_path / "one", 1000)) == [("one/b.png", b"one")]


def test_an_encrypted_file(tmp_path):
    path = zipped(tmp_path / "x.zip", {"top/a": b"secret"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.zip: member 'top/a' is encrypted"):
        list(members(path, 1000))


def test_a_compression_whose_expansion_is_not_bounded(tmp_path):
    path = zipped(tmp_path / "x.zip", FILES, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match=r"x\.zip: member .* neither stored nor deflated"):
        list(members(path, 1000))


def test_damage_of_every_kind_is_one_error(tmp_path):
    whole = zipped(tmp_path / "whole.zip", FILES, zipfile.ZIP_STORED).read_bytes()
    path = tmp_path / "x.zip"
    flipped = bytearray(whole)
    flipped[whole.index(b"twotwo")] ^= 1
    newer = bytearray(whole)
    newer[whole.index(b"PK\x01\x02") + 6] = 255  # the version needed to read it
    for damaged in (b"", b"hello", whole[: len(whole) // 2], whole[:-10], flipped, newer):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.zip: not readable as a zip archive"):
            list(members(path, 1000))


def test_no_byte_of_an_archive_can_be_changed_into_another_kind_of_error(tmp_path):
    """Every single byte inverted: files within the limit, or DataError and nothing else."""

    def largest(path):
        try:
            return max((len(content) for _, content in members(path, 1000)), default=0)
        except DataError:
            return None

    whole = zipped(tmp_path / "x.zip", {"top/a": b"abc" * 9, "top/b": b"d"}).read_bytes()
    path = tmp_path / "x.zip"
    seen = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        seen.append(largest(path))
    # the others are dates, attributes and the like
    assert seen.count(None) > len(whole) // 3
    assert max(size for size in seen if size is not None) <= 1000
