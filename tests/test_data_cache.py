"""The cache on disk: found again, made anew when stale or damaged, never half written."""

from pathlib import Path

import numpy as np
import pytest

from scratchmeta.data import cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Build:
    """Arrays, and how often they were made."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {
            "images": np.arange(60, dtype=np.uint8).reshape(3, 20),
            "names": np.array(["é", "b"]),
        }


def same(arrays):
    wanted = Build()()
    assert arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_made_once_and_found_again():
    build = Build()
    for _ in range(3):
        same(cache.cached("x", "key", build))
    assert build.times == 1


def test_another_key_replaces_the_file(folder):
    build = Build()
    for key in ("a", "b", "a"):
        same(cache.cached("x", key, build))
    assert build.times == 3
    assert [file.name for file in folder.iterdir()] == ["x.npz"]


def test_any_damage_is_noticed_and_repaired(folder):
    """Every seventh byte inverted, and cuts: never wrong arrays, never an error."""
    build = Build()
    cache.cached("x", "key", build)
    file = folder / "x.npz"
    whole = file.read_bytes()
    flips = [whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :] for k in range(0, len(whole), 7)]
    cuts = [whole[:k] for k in range(0, len(whole), 101)]
    before = build.times
    for damaged in flips + cuts:
        file.write_bytes(damaged)
        same(cache.cached("x", "key", build))
    assert build.times - before > len(flips) // 2
    before = build.times
    same(cache.cached("x", "key", build))
    assert build.times == before


def test_an_interrupted_write_leaves_what_was_there(folder, monkeypatch):
    build = Build()
    cache.cached("x", "key", build)

    def stopped(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", stopped)
        with pytest.raises(KeyboardInterrupt):
            cache.cached("x", "other", build)
    assert [file.name for file in folder.iterdir()] == ["x.npz"]
    times = build.times
    same(cache.cached("x", "key", build))
    assert build.times == times


def test_where_nothing_can_be_written_it_warns_and_goes_on(folder, monkeypatch):
    folder.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"x\.npz could not be written"):
        same(cache.cached("x", "key", Build()))


def test_where_the_folder_is(monkeypatch):
    monkeypatch.setenv("SCRATCHMETA_CACHE", "mine")
    assert cache.folder() == Path("mine")
    monkeypatch.delenv("SCRATCHMETA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "theirs")
    assert cache.folder() == Path("theirs/scratchmeta")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "scratchmeta"


# --- what is mapped and not read ---


class Rows:
    """The rows of an array (3, 4, 5), and how often they were made."""

    wanted = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        yield from self.wanted


def mapped(rows, key="key"):
    array = cache.mapped("big", key, (3, 4, 5), rows)
    np.testing.assert_array_equal(array, Rows.wanted)
    return array


def test_a_mapped_array_is_made_once_and_read_only(folder):
    rows = Rows()
    for _ in range(3):
        assert not mapped(rows).flags.writeable
    assert rows.times == 1
    mapped(rows, "other")
    assert rows.times == 2
    assert len(list(folder.iterdir())) == 1  # the old key's file is deleted


def test_a_mapped_file_cut_short_is_made_anew(folder):
    rows = Rows()
    mapped(rows)
    [file] = folder.iterdir()
    whole = file.read_bytes()
    for length in range(0, len(whole), 13):
        file.write_bytes(whole[:length])
        mapped(rows)
    assert rows.times == 1 + len(range(0, len(whole), 13))


def flipped(content, k):
    return content[:k] + bytes([content[k] ^ 1 << k % 8]) + content[k + 1 :]


def test_a_flipped_bit_in_a_mapped_file_is_noticed_at_first_use(folder):
    rows = Rows()
    mapped(rows)
    [file] = folder.iterdir()
    whole = file.read_bytes()
    for times, k in enumerate(range(0, len(whole), 3), 2):
        file.write_bytes(flipped(whole, k))
        mapped(rows)
        assert rows.times == times
    for end in (whole[:-1], whole[:-4], whole + b"x"):
        file.write_bytes(end)
        mapped(rows)
    assert rows.times == times + 3


def test_a_mapped_file_is_read_through_once_in_a_process(monkeypatch):
    read = []
    is_whole = cache._is_whole
    monkeypatch.setattr(cache, "_is_whole", lambda path: read.append(path) or is_whole(path))
    rows = Rows()
    for _ in range(3):
        mapped(rows)
    assert len(read) == 1


def test_damaged_files_are_found_on_request(folder):
    assert cache.damaged() == []
    mapped(Rows())
    cache.cached("x", "key", Build())
    [big] = folder.glob("*.npy")
    assert cache.damaged() == []
    for file in (big, folder / "x.npz"):
        whole = file.read_bytes()
        for damage in (b"", flipped(whole, len(whole) // 2), whole[:-5]):
            file.write_bytes(damage)
            assert cache.damaged() == [file]
        file.write_bytes(whole)
    assert cache.damaged() == []


def test_rows_that_fail_leave_no_file(folder):
    def failing():
        yield Rows.wanted[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.mapped("big", "key", (3, 4, 5), failing)
    assert list(folder.iterdir()) == []


def test_where_nothing_can_be_written_the_array_is_made_in_memory(folder):
    folder.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"big\.[0-9a-f]*\.npy could not be written"):
        mapped(Rows())
