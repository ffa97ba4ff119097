"""Omniglot: generated archives in the official layout, and the real ones where they are."""

import hashlib
import io
import os
import shutil
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratchmeta import episodes, presets
from scratchmeta.data import DataError, Omniglot, omniglot
from scratchmeta.run import datasets, experiment

DATA = Path(os.environ.get("SCRATCHMETA_DATA", Path(__file__).parents[2] / "shared" / "data"))
REAL = DATA / "omniglot"
with_real_data = pytest.mark.skipif(
    not (REAL / "images_background.zip").is_file(),
    reason=f"no Omniglot in {REAL} (set SCRATCHMETA_DATA to the folder that holds omniglot/)",
)

CHARACTERS = {
    "images_background": ["Armenian/character01", "Greek/character01", "Greek/character02"],
    "images_evaluation": ["Angelic/character01", "Gurmukhi/character42"],
}
EVERY = [character for part in CHARACTERS.values() for character in part]


def ink(character, drawer):
    """A random scribble for each drawing: (105, 105) bool."""
    rng = np.random.default_rng([EVERY.index(character), drawer])
    return np.kron(rng.random((15, 15)) < 0.3, np.ones((7, 7), bool))


def png(picture):
    out = io.BytesIO()
    Image.fromarray(~picture).save(out, "PNG")
    return out.getvalue()


def contents(part):
    return {
        f"{part}/{character}/{EVERY.index(character):04}_{drawer:02}.png": png(
            ink(character, drawer)
        )
        for character in CHARACTERS[part]
        for drawer in range(1, 21)
    }


CONTENTS = {part: contents(part) for part in CHARACTERS}


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    if not request.node.name.startswith("test_real"):
        monkeypatch.setenv("SCRATCHMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "omniglot"
    (root / "splits" / "vinyals").mkdir(parents=True)
    for part, files in CONTENTS.items():
        zipped(root / f"{part}.zip", files)
    split(root, "train", ["Greek/character02", "Angelic/character01"])
    split(root, "val", ["Armenian/character01"])
    split(root, "test", ["Gurmukhi/character42"])
    return root


def split(root, name, characters):
    lines = [f"{c}/rot{turn:03}\n" for c in characters for turn in (0, 90, 180, 270)]
    (root / "splits" / "vinyals" / f"{name}.txt").write_text("".join(lines))


def pixels(dataset):
    """Every drawing of a dataset, (C, 20, H, W)."""
    characters, drawings = np.ogrid[: len(dataset.names), : dataset.n_drawings]
    return dataset.pixels(characters, drawings)[..., 0]


SPLITS = {
    "background": CHARACTERS["images_background"],
    "background-train": ["Greek/character01", "Greek/character02"],
    "background-val": ["Armenian/character01"],
    "evaluation": CHARACTERS["images_evaluation"],
    "train": ["Greek/character02", "Angelic/character01"],
    "val": ["Armenian/character01"],
    "test": ["Gurmukhi/character42"],
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_has_its_characters_and_their_drawings(root, name):
    dataset = Omniglot(root, split=name, image_size=105)
    assert dataset.names == tuple(SPLITS[name])
    assert dataset.split == name
    assert (dataset.n_classes, dataset.n_drawings) == (len(SPLITS[name]), 20)
    assert dataset.image_shape == (105, 105, 1)
    got = pixels(dataset)
    for row, character in enumerate(SPLITS[name]):
        for drawer in range(20):
            np.testing.assert_array_equal(got[row, drawer], 255 * ink(character, drawer + 1))


@pytest.mark.parametrize("size", [1, 20, 28])
def test_images_are_resampled_by_pillow(root, size):
    dataset = Omniglot(root, image_size=size)
    assert dataset.image_shape == (size, size, 1)
    got = pixels(dataset)
    assert got.dtype == np.uint8
    for row, character in enumerate(SPLITS["background"]):
        for drawer in (0, 7, 19):
            full = Image.fromarray(np.uint8(255) * ink(character, drawer + 1))
            wanted = np.asarray(full.resize((size, size), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(got[row, drawer], wanted)


@pytest.mark.parametrize("size", [20, 28])
def test_nearest_is_what_pillow_makes_of_binary_pictures(root, size):
    """Whatever filter it is told, so that the authors' images are these."""
    dataset = Omniglot(root, image_size=size, resampling="nearest")
    got = pixels(dataset)
    assert set(np.unique(got)) == {0, 255}
    for row, character in enumerate(SPLITS["background"]):
        for drawer in (0, 7, 19):
            picture = Image.fromarray(ink(character, drawer + 1))
            assert picture.mode == "1"
            wanted = picture.resize((size, size), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(got[row, drawer], 255 * np.asarray(wanted))


def test_of_nearest_neighbours_it_does_not_matter_whether_turning_or_resampling_comes_first():
    """Snell's code turns the 105 × 105 picture, this library the resampled one."""
    places = np.floor((np.arange(28) + 0.5) * 105 / 28)
    np.testing.assert_array_equal(places, 104 - places[::-1])


def test_both_kinds_of_images_lie_in_the_cache(root):
    for _ in range(2):
        grays, binary = (Omniglot(root, resampling=kind) for kind in ("antialiased", "nearest"))
        assert not np.array_equal(grays.images, binary.images)


def test_another_resampling_is_refused(root):
    with pytest.raises(ValueError, match="resampling: antialiased or nearest wanted, got 'cubic'"):
        Omniglot(root, resampling="cubic")


def test_extracted_folders_read_like_the_archives(root, tmp_path):
    folders = tmp_path / "extracted"
    for part in CHARACTERS:
        with zipfile.ZipFile(root / f"{part}.zip") as whole:
            whole.extractall(folders)
    shutil.copytree(root / "splits", folders / "splits")
    for name in ("background", "evaluation", "train"):
        a, b = Omniglot(root, split=name), Omniglot(folders, split=name)
        assert a.names == b.names
        np.testing.assert_array_equal(a.images, b.images)


def test_pictures_saved_as_grey_read_like_black_and_white(root):
    grey = {}
    for name, content in CONTENTS["images_background"].items():
        out = io.BytesIO()
        Image.open(io.BytesIO(content)).convert("L").save(out, "PNG")
        grey[name] = out.getvalue()
    before = Omniglot(root).images
    zipped(root / "images_background.zip", grey)
    np.testing.assert_array_equal(Omniglot(root).images, before)


def test_what_is_read_once_comes_from_the_cache(root, monkeypatch):
    first = Omniglot(root, split="train")
    with monkeypatch.context() as patch:
        patch.setattr(omniglot, "members", None)
        patch.setattr(omniglot, "resized", None)
        again = Omniglot(root, split="train")
        assert again.names == first.names
        np.testing.assert_array_equal(again.images, first.images)
    with monkeypatch.context() as patch:  # another size needs no more reading
        patch.setattr(omniglot, "members", None)
        assert Omniglot(root, split="train", image_size=20).image_shape == (20, 20, 1)


def test_a_changed_archive_is_read_anew(root):
    Omniglot(root)
    other = {name: png(~ink("Angelic/character01", 1)) for name in CONTENTS["images_background"]}
    zipped(root / "images_background.zip", other)
    got = pixels(Omniglot(root, image_size=105))
    assert (got == 255 * ~ink("Angelic/character01", 1)).all()


def test_a_damaged_cache_is_made_anew(root, cache):
    before = Omniglot(root).images
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    np.testing.assert_array_equal(Omniglot(root).images, before)


def test_an_episode_of_full_size_pictures(root):
    dataset = Omniglot(root, image_size=105, rotations="class-episode", jitter=True)
    episode = episodes.sample(dataset, n_way=2, k_shot=1, n_query=2, tasks=3)
    assert episode.query_x.shape == (3, 4, 105, 105, 1)
    assert 0.05 < episode.query_x.mean() < 0.5


def test_vinyals_classes_are_in_the_order_of_the_files(root):
    dataset = Omniglot(root, split="train", rotations="classes")
    lines = (root / "splits" / "vinyals" / "train.txt").read_text().split()
    assert dataset.n_classes == len(lines)
    x = dataset.gather(np.arange(8)[None], np.full((1, 8, 1), 3), np.random.default_rng(0))
    for k, line in enumerate(lines):
        name, turn = line.split("/rot")
        upright = dataset.pixels(dataset.names.index(name), 3)
        np.testing.assert_array_equal(x[0, k, 0], np.rot90(upright, int(turn) // 90))


def refusal(root, match, **options):
    with pytest.raises(DataError, match=match):
        Omniglot(root, **options)


def test_a_missing_archive_says_which_where_and_how(tmp_path):
    wanted = r"images_evaluation\.zip nor the folder .*; put https.*images_evaluation\.zip there, "
    wanted += r"or let Omniglot\('.*', 'evaluation', download=True\) do it"
    refusal(tmp_path, wanted, split="evaluation")


def test_a_missing_split_file_says_which(root):
    refusal(root, r"vinyals.trainval\.txt not found; .*github", split="trainval")


@pytest.mark.parametrize(
    "text",
    ["", "Greek/character02/rot000\n", "Greek/character02\n", "nonsense\n" * 4, "Gré/c/rot000\n"],
)
def test_a_split_file_of_another_format(root, text):
    (root / "splits" / "vinyals" / "train.txt").write_text(text, encoding="utf-8")
    refusal(root, r"train\.txt: .* wanted", split="train")


def test_a_split_file_that_repeats_a_line(root):
    file = root / "splits" / "vinyals" / "train.txt"
    file.write_text(file.read_text() + file.read_text().split()[0])
    refusal(root, r"train\.txt: .* each once", split="train")


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_character_in_two_splits_is_refused(root, one, other):
    config = presets.lookup("maml", "omniglot", "paper")
    split(root, "test", ["Greek/character01"])  # another character of an alphabet to train on
    assert experiment.splits(config, root).test.names == ("Greek/character01",)
    split(root, other, SPLITS[one])
    message = rf"{other}\.txt: other classes .*/{one}\.txt, got '{min(SPLITS[one])}'"
    with pytest.raises(DataError, match=message):
        experiment.splits(config, root)


@pytest.mark.parametrize("split", ["lake", "vinyals"])
def test_a_scripts_images_are_recognised(root, split):
    """Every option that concerns training."""
    made = datasets.find("omniglot")(20, "nearest", split, "class-episode", True, True)
    assert made.recognised(made.splits(root).train) == made


def test_background_characters_are_not_evaluated_on(root):
    config = presets.lookup("maml", "omniglot")
    (root / "images_evaluation.zip").unlink()
    with zipfile.ZipFile(root / "images_background.zip") as archive:
        archive.extractall(root)
    (root / "images_background").rename(root / "images_evaluation")
    with pytest.raises(DataError, match=r"images_evaluation: other classes .*background\.zip, got"):
        experiment.splits(config, root)


def test_a_listed_character_that_the_archives_lack(root):
    split(root, "train", ["Greek/character02", "Greek/character77"])
    refusal(root, "lack 'Greek/character77'", split="train")


def test_a_split_with_no_character_left(root):
    kept = {n: c for n, c in CONTENTS["images_background"].items() if "Greek" in n}
    zipped(root / "images_background.zip", kept)
    refusal(root, "no character of split 'background-val'", split="background-val")


def first(part="images_background"):
    return next(iter(CONTENTS[part]))


def large():
    out = io.BytesIO()
    Image.new("1", (60_000, 60_000)).save(out, "PNG")
    return out.getvalue()[:60_000]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({first(): b"GIF89a"}, rf"images_background\.zip: {first()} is not a PNG"),
        ({first(): b""}, "is not a PNG"),
        ({first(): png(np.zeros((105, 104), bool))}, "105 × 105 pixels wanted, got 104 × 105"),
        ({first(): large()}, "105 × 105 pixels wanted, got 60000 × 60000"),
        ({first(): png(ink(EVERY[0], 1))[:-40]}, f"{first()}: damaged picture"),
        ({first(): png(ink(EVERY[0], 1))[:20]}, "pixels wanted|not a PNG"),
        ({first(): bytes(70_000)}, "declares 70000 bytes, at most 65536"),
        ({"images_background/readme.txt": b"?"}, "NNNN_NN.png wanted, got .*readme.txt"),
        ({"../" + first(): b"?"}, "points outside the archive"),
        ({first().replace("_01", "_21"): png(ink(EVERY[0], 1))}, "drawings 1 to 20 wanted, got"),
        ({first().replace("/00", "/99"): png(ink(EVERY[0], 1))}, r"wanted, got \[1, 1, 2"),
    ],
)
def test_a_file_that_does_not_belong(root, cache, change, match):
    zipped(root / "images_background.zip", CONTENTS["images_background"] | change)
    refusal(root, match)
    assert not cache.exists()  # nothing doubtful is kept


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere"])
def test_a_link_in_a_folder_to_what_is_no_picture(root, cache, target):
    archive = root / "images_background.zip"
    with zipfile.ZipFile(archive) as whole:
        whole.extractall(root)
    archive.unlink()
    file = root / first()
    file.unlink()
    file.symlink_to(target)
    refusal(root, f"{file}: (a regular file wanted, got crw|not readable)")
    assert not cache.exists()


def test_a_missing_drawing(root):
    files = dict(list(CONTENTS["images_background"].items())[1:])
    zipped(root / "images_background.zip", files)
    refusal(root, r"Armenian/character01: drawings 1 to 20 wanted, got \[2, 3")


def test_an_archive_without_pictures(root):
    zipped(root / "images_background.zip", {})
    refusal(root, r"images_background\.zip: no pictures")


def test_a_truncated_archive(root):
    file = root / "images_background.zip"
    file.write_bytes(file.read_bytes()[:5000])
    refusal(root, r"images_background\.zip: not readable as a zip archive")


def test_no_byte_of_a_picture_can_be_changed_into_another_kind_of_error():
    whole = png(ink(EVERY[0], 1))
    refused = 0
    for place in range(len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        try:
            assert omniglot.bits_of(changed, "x.png").shape == (105, 14)
        except DataError:
            refused += 1
    assert refused > 0.8 * len(whole)


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"split": "dev"}, "split: one of background, .* wanted, got 'dev'"),
        ({"image_size": 106}, "image_size: 1 to 105 wanted, got 106"),
        ({"image_size": 0}, "image_size: 1 to 105 wanted, got 0"),
        ({"rotations": "all"}, "rotations: one of"),
    ],
)
def test_an_option_that_does_not_exist(root, option, match):
    with pytest.raises(ValueError, match=match):
        Omniglot(root, **option)


def test_without_pillow_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'scratchmeta\[data\]'"):
        Omniglot(root)


# downloads, from a server on this machine


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; of files named "short" only half of what it announces."""

    def log_message(self, *args):
        pass

    def copyfile(self, source, outputfile):
        content = source.read()
        outputfile.write(content[: len(content) // 2] if "short" in self.path else content)


@pytest.fixture
def served(root, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(omniglot, "URL", f"http://127.0.0.1:{server.server_port}/")
    sums = {p: hashlib.md5((root / f"{p}.zip").read_bytes()).hexdigest() for p in CHARACTERS}
    monkeypatch.setattr(omniglot, "MD5", sums)
    yield sums
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_fetches_what_is_missing_with_progress(root, served, tmp_path, capsys):
    target = tmp_path / "new" / "place"
    got = Omniglot(target, download=True)
    np.testing.assert_array_equal(got.images, Omniglot(root).images)
    assert [file.name for file in target.iterdir()] == ["images_background.zip"]
    assert "images_background.zip" in capsys.readouterr().out  # the bar


def test_download_leaves_alone_what_is_there(root, monkeypatch):
    monkeypatch.setattr(omniglot, "URL", "http://127.0.0.1:1/")
    assert Omniglot(root, download=True).n_classes == 3


def test_a_download_with_another_hash_is_refused(served, tmp_path):
    served["images_background"] = "0" * 32
    target = tmp_path / "new"
    refusal(target, r"images_background\.zip: download .* failed: .*hash", download=True)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("path", ["short/", "absent/"])
def test_a_download_that_breaks_off_or_is_not_there(root, served, tmp_path, monkeypatch, path):
    (root / "short").mkdir()
    shutil.copy(root / "images_background.zip", root / "short")
    monkeypatch.setattr(omniglot, "URL", omniglot.URL + path)
    target = tmp_path / "new"
    refusal(target, r"images_background\.zip: download from http.* failed", download=True)
    assert list(target.iterdir()) == []
    for thread in threading.enumerate():  # the bar's own has been told to end
        if type(thread).__name__ == "_RefreshThread":
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_no_server_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(omniglot, "URL", "http://127.0.0.1:1/")
    refusal(tmp_path, r"images_background\.zip: download from http.* failed", download=True)


def test_without_pooch_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        ImportError, match=r"pooch is needed here: pip install 'scratchmeta\[data\]'"
    ):
        Omniglot(tmp_path, download=True)


# the real thing

COUNTS = {  # PAPERS.md, section 0
    "background": (30, 964),
    "background-train": (25, 792),
    "background-val": (5, 172),
    "evaluation": (20, 659),
    "train": (33, 1028),
    "val": (5, 172),
    "trainval": (38, 1200),
    "test": (13, 423),
}


@with_real_data
def test_real_counts_and_overlaps():
    names = {}
    for name, (alphabets, characters) in COUNTS.items():
        dataset = Omniglot(REAL, split=name)
        names[name] = set(dataset.names)
        assert len(names[name]) == dataset.n_classes == characters
        assert len({n.split("/")[0] for n in names[name]}) == alphabets
        assert dataset.n_drawings == 20
    assert names["background-train"] | names["background-val"] == names["background"]
    assert names["train"] | names["val"] == names["trainval"]
    for a, b in (("background", "evaluation"), ("trainval", "test"), ("train", "val")):
        assert not names[a] & names[b]
    assert len(names["trainval"] | names["test"]) == 1623
    assert names["background-val"] == names["val"]
    shared = {n.split("/")[0] for n in names["train"]} & {n.split("/")[0] for n in names["test"]}
    assert shared == {"Gurmukhi"}


@with_real_data
def test_real_pixels_make_a_weak_classifier():
    """Nearest neighbour on pixels: about 45 % in 5-way 1-shot (cosine in Vinyals et al.: 41.7)."""
    dataset = Omniglot(REAL, split="evaluation")
    episode = episodes.sample(dataset, n_way=5, k_shot=1, n_query=15, tasks=300)
    accuracy = (episodes.nearest_neighbour(episode) == episode.query_y).mean()
    assert 0.41 < accuracy < 0.50


@with_real_data
@pytest.mark.parametrize(("resampling", "measured"), [("antialiased", 0.473), ("nearest", 0.383)])
def test_real_pixels_are_weaker_in_the_authors_images(resampling, measured):
    dataset = Omniglot(REAL, split="test", rotations="classes", resampling=resampling)
    episode = episodes.sample(dataset, n_way=5, k_shot=1, n_query=15, tasks=300)
    accuracy = (episodes.nearest_neighbour(episode) == episode.query_y).mean()
    assert abs(accuracy - measured) < 0.02
