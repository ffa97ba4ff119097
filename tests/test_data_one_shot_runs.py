"""Lake's one-shot runs, read from archives and folders made here in the official format."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from scratchmeta.data import DataError, one_shot_runs


def png(white):
    buffer = io.BytesIO()
    Image.fromarray(white).save(buffer, "PNG")
    return buffer.getvalue()


def square(run, k, corner):
    """A picture of its own, black ink on white, bits (105, 105)."""
    white = np.ones((105, 105), bool)
    white[corner : corner + 20 + run, 3 * k : 3 * k + 30] = False
    return white


def answer(run, item):
    """Which class, from 1, a test item, from 1, shows."""
    return (7 * item + run) % 20 + 1


def official():
    """{name: content} of all runs: item i of run r shows class answer(r, i), lower on the page."""
    files = {}
    for r in range(1, 21):
        run, lines = f"run{r:02}", []
        for k in range(1, 21):
            files[f"{run}/training/class{k:02}.png"] = png(square(r, k, 5))
            files[f"{run}/test/item{k:02}.png"] = png(square(r, answer(r, k), 7))
            lines.append(f"{run}/test/item{k:02}.png {run}/training/class{answer(r, k):02}.png")
        files[f"{run}/class_labels.txt"] = ("\n".join(reversed(lines)) + "\n").encode()
    return files


@pytest.fixture(scope="module")
def files():
    return official()


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def unpacked(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_an_archive_and_a_folder(files, tmp_path):
    runs = one_shot_runs.read(zipped(tmp_path / "all_runs.zip", files))
    assert runs.training.shape == runs.test.shape == (20, 20, 105, 105, 1)
    assert runs.training.dtype == np.uint8
    for r in range(1, 21):
        for k in range(1, 21):
            ink = 255 * ~square(r, k, 5)
            np.testing.assert_array_equal(runs.training[r - 1, k - 1, ..., 0], ink)
            ink = 255 * ~square(r, answer(r, k), 7)
            np.testing.assert_array_equal(runs.test[r - 1, k - 1, ..., 0], ink)
            assert runs.answers[r - 1, k - 1] == answer(r, k) - 1
    folder = unpacked(tmp_path / "runs", files)
    zipped(folder / "all_runs.zip", files)  # where it was extracted
    (folder / "__MACOSX").mkdir()
    for a, b in zip(one_shot_runs.read(folder), runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_archive_of_a_folder_and_labels_without_the_run(files, tmp_path):
    runs = one_shot_runs.read(zipped(tmp_path / "a.zip", files))
    inside = {f"all_runs/{name}": content for name, content in files.items()}
    for r in range(1, 21):
        name = f"all_runs/run{r:02}/class_labels.txt"
        inside[name] = inside[name].replace(f"run{r:02}/".encode(), b"").replace(b"\n", b"\r\n")
    inside["all_runs/read me.txt"] = b"whatever"
    for a, b in zip(one_shot_runs.read(zipped(tmp_path / "b.zip", inside)), runs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "resampling"),
    [((), Image.Resampling.BILINEAR), (("nearest",), Image.Resampling.NEAREST)],
)
def test_other_sizes_are_resampled_by_pillow(files, tmp_path, options, resampling):
    runs = one_shot_runs.read(zipped(tmp_path / "all_runs.zip", files), 28, *options)
    ink = Image.fromarray(np.uint8(255) * ~square(3, 4, 5))
    wanted = np.asarray(ink.resize((28, 28), resampling))
    np.testing.assert_array_equal(runs.training[2, 3, ..., 0], wanted)


LABELS = "run07/class_labels.txt"


def edited(old, new):
    return lambda files: {**files, LABELS: files[LABELS].replace(old, new)}


def without(name):
    return lambda files: {n: c for n, c in files.items() if n != name}


def added(name, content):
    return lambda files: {**files, name: content}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("run03/test/item07.png"), "run03/test/item07.png is missing"),
        (without(LABELS), f"{LABELS} is missing"),
        (added("run01/test/item01.png", b"GIF89a"), "run01/test/item01.png is not a PNG"),
        (added("run01/test/item01.png", png(np.ones((28, 28), bool))), "105 × 105 pixels wanted"),
        (added("other/run01/test/item01.png", b""), "run01/test/item01.png is in it twice"),
        (added("../run01/x", b""), "points outside the archive"),
        (added("run01/test/item99.png", bytes(1 << 17)), "at most 65536 wanted"),
        (edited(b"run07/training", b"run08/training"), "lines like .* got 'run07/test/item"),
        (edited(b"class03", b"class04"), "20 lines that pair 20 with 19"),
        (edited(b"item03", b"item04"), "20 lines that pair 19 with"),
        (edited(b"item03", b"item21"), "20 lines that pair 20 with 20"),
        (edited(b".png run07/training/class05.png", b""), "lines like"),
        (added(LABELS, b""), "got 0 lines"),
        (added(LABELS, b"\xff\xfe"), "ASCII text wanted"),
    ],
)
def test_one_error_that_names_the_file(files, tmp_path, change, match):
    path = zipped(tmp_path / "all_runs.zip", change(files))
    with pytest.raises(DataError, match=match) as error:
        one_shot_runs.read(path)
    assert str(path) in str(error.value)


def test_what_is_no_archive(tmp_path):
    with pytest.raises(DataError, match="no such archive or folder"):
        one_shot_runs.read(tmp_path / "nothing.zip")
    with pytest.raises(DataError, match=r"run01/training/class01.png is missing"):
        one_shot_runs.read(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK\3\4 but no more")
    with pytest.raises(DataError, match="not readable as a zip archive"):
        one_shot_runs.read(tmp_path / "x.zip")
