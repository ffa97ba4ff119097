"""Algorithms and networks from outside the library: trained with, read again, refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import refused

from scratchmeta import fields, presets
from scratchmeta.presets import REGISTRY
from scratchmeta.run import outside
from scratchmeta.run.cli import main
from scratchmeta.run.experiment import Surroundings
from scratchmeta.verify.cases import CASES

ALGORITHM = '''
from dataclasses import dataclass
from pathlib import Path

from scratchmeta import ops
from scratchmeta.algorithms.protocol import MetricLearner, n_way
from scratchmeta.algorithms.prototypical import prototypes
from scratchmeta.fields import Positive

Path("was-loaded").touch()


@dataclass(frozen=True)
class Mine(MetricLearner):
    """Prototypes with a temperature."""

    temperature: Positive = 1.0
    """Divides the distances."""

    def log_probabilities(self, params, episodes, batch_norm):
        support, query = self.embed(params, episodes, batch_norm)
        c = prototypes(support, episodes.support_y, n_way(episodes))
        return ops.log_softmax(-ops.pairwise_distance(query, c) / self.temperature)


class NotOne:
    pass
'''

NETWORK = '''
from dataclasses import dataclass

from scratchmeta import nn
from scratchmeta.fields import Count, Given


@dataclass(frozen=True)
class Net:
    features: Count = 8
    """Numbers in a feature vector."""
    image_size: Given[int] = 28

    def init(self, rng):
        return nn.Linear(self.image_size**2, self.features).init(rng)

    def __call__(self, params, x):
        return nn.Linear(self.image_size**2, self.features)(params, nn.flatten_images(x))
'''

TRAIN = [
    "train", "./mine.py:Mine", "--data", "glyphs", "--network", "./net.py:Net", "--features", "3",
    "--temperature", "2", "--image-size", "16", "--n-way", "4", "--n-query", "2", "--steps", "2",
    "--validate-every", "2", "--validation-episodes", "2", "--out", "run",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHMETA_CACHE", cache)
    Path("mine.py").write_text(ALGORITHM)
    Path("net.py").write_text(NETWORK)


@pytest.fixture
def run(capsys):
    """A run of the class in mine.py, which has not been loaded since."""
    assert main(TRAIN) == 0
    capsys.readouterr()
    Path("was-loaded").unlink()
    for name in [n for n in outside.sys.modules if n.startswith("scratchmeta_outside")]:
        del outside.sys.modules[name]
    return Path("run")


def test_a_file_is_trained_evaluated_drawn_resumed_and_checked(run, capsys):
    config = json.loads((run / "config.json").read_text())
    assert config["algorithm"] == "Mine"
    assert config["method"]["temperature"] == 2.0
    assert config["network"] == {"type": "Net", "features": 3}
    assert config["loaded"]["algorithm"]["name"] == f"{Path('mine.py').resolve()}:Mine"
    assert set(config["loaded"]) == {"algorithm", "network"}
    assert main(["evaluate", "run", "--episodes", "3"]) == 0
    assert main(["plot", "run"]) == 0
    assert main(["train", "--resume", "run", "--steps", "3"]) == 0
    assert main(["train", "./mine.py:Mine", "--resume", "run", "--steps", "4"]) == 0
    capsys.readouterr()
    assert main(["check", "./mine.py:Mine"]) == 0
    assert re.search("^ok +Mine", capsys.readouterr().out, re.MULTILINE)
    del CASES["Mine"]
    with pytest.raises(SystemExit):
        main(["train", "./mine.py:Mine", "--help"])
    assert "Divides the distances." in capsys.readouterr().out


def test_it_names_pictures_and_gives_their_features(run, capsys):
    shape = json.loads((run / "config.json").read_text())["dataset"]["image_size"]
    for name, ink in (("left", slice(0, 4)), ("right", slice(-4, None))):
        picture = np.full((shape, shape), 255, np.uint8)
        picture[:, ink] = 0
        Path("shown", name).mkdir(parents=True)
        Image.fromarray(picture).save(Path("shown", name, "1.png"))
    pictures = ["shown/left/1.png", "shown/right/1.png"]
    argv = ["predict", "run", "--support", "shown", "--query", *pictures, "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)["predictions"]
    assert [each["class"] for each in found] == ["left", "right"]
    assert main(["features", "run", *pictures, "--out", "x.npz"]) == 0
    assert np.load("x.npz")["features"].shape == (2, 3)


def test_another_content_is_loaded_only_when_it_is_named_and_never_resumed(run, capsys):
    Path("mine.py").write_text(ALGORITHM + "# changed\n")
    for argv in (["evaluate", "run"], ["plot", "run"], ["train", "--resume", "run"]):
        assert "another SHA-256); to load it all the same" in refused(capsys, *argv)
    assert not Path("was-loaded").exists()
    assert main(["evaluate", "run", "--episodes", "3", "--algorithm", "./mine.py:Mine"]) == 0
    capsys.readouterr()
    error = refused(capsys, "train", "./mine.py:Mine", "--resume", "run", "--steps", "3")
    assert "another SHA-256), so it cannot be resumed" in error


@pytest.mark.parametrize("place", ["absolute", "relative", "linked"])
def test_a_strangers_folder_runs_no_code_of_its_own(place, run, capsys):
    shutil.move("mine.py", run / "mine.py")
    inside = (run / "mine.py").resolve()
    Path("link.py").symlink_to(inside)
    config = json.loads((run / "config.json").read_text())
    name = {"absolute": inside, "relative": "run/mine.py", "linked": Path("link.py").absolute()}
    config["loaded"]["algorithm"]["name"] = f"{name[place]}:Mine"
    (run / "config.json").write_text(json.dumps(config))
    assert "is no whole path out of the run folder" in refused(capsys, "evaluate", "run")
    assert not Path("was-loaded").exists()


def test_a_module_is_loaded_only_when_named_or_brought_by_a_package(run, monkeypatch, capsys):
    monkeypatch.syspath_prepend(".")
    config = json.loads((run / "config.json").read_text())
    config["loaded"]["algorithm"]["name"] = "mine:Mine"
    (run / "config.json").write_text(json.dumps(config))
    assert "mine:Mine: no installed package brings it" in refused(capsys, "evaluate", "run")
    assert not Path("was-loaded").exists()
    assert main(["evaluate", "run", "--episodes", "3", "--algorithm", "mine:Mine"]) == 0
    monkeypatch.setattr(outside, "brought", lambda: {"my-method": "mine:Mine"})
    assert main(["evaluate", "run", "--episodes", "3"]) == 0
    capsys.readouterr()
    assert "my-method" in REGISTRY
    assert main(["list"]) == 0
    assert re.search("^my-method +outside +Prototypes with a temperature", capsys.readouterr().out,
                     re.MULTILINE)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./mine.py:NotOne", "wanted a class with init, meta_gradient, predict"),
        ("./mine.py:Nothing", "got no such name"),
        ("./nowhere.py:Mine", "nowhere.py: No such file"),
        ("no.such.module:Mine", "No module named 'no'"),
    ],
)
def test_what_is_no_algorithm_is_named(name, message, capsys):
    assert message in refused(capsys, "train", name, "--data", "glyphs")


def test_options_are_the_fields_of_a_class():
    cls = outside.load(outside.ALGORITHM, "./mine.py:Mine")
    options = fields.options(cls)
    assert options(temperature=2.0) == options(temperature=2.0, batch_norm="transductive")
    with pytest.raises(ValueError, match="temperature: wanted a positive number, got -1"):
        options(temperature=-1.0)
    assert presets.lookup("./mine.py:Mine").method == options()


def test_what_a_package_brings_is_refused_where_its_content_has_changed(run, monkeypatch, capsys):
    """At evaluate as at resume, and without having been run; named again it is evaluated."""
    monkeypatch.syspath_prepend(".")
    monkeypatch.delitem(outside.sys.modules, "mine", raising=False)
    config = json.loads((run / "config.json").read_text())
    config["loaded"]["algorithm"]["name"] = "mine:Mine"
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(outside, "brought", lambda: {"my-method": "mine:Mine"})
    Path("mine.py").write_text(ALGORITHM + "# changed\n")
    for argv in (["evaluate", "run"], ["plot", "run"], ["train", "--resume", "run"]):
        assert "another SHA-256); to load it all the same" in refused(capsys, *argv)
    assert not Path("was-loaded").exists()
    named = ["--algorithm", "mine:Mine"]
    assert main(["evaluate", "run", "--episodes", "3", *named]) == 0
    capsys.readouterr()
    error = refused(capsys, "train", "mine:Mine", "--resume", "run", "--steps", "3")
    assert "another SHA-256), so it cannot be resumed" in error
    monkeypatch.setattr(outside, "brought", lambda: {"gone": "no_such_module:Mine"})
    config["loaded"]["algorithm"]["name"] = "no_such_module:Mine"
    (run / "config.json").write_text(json.dumps(config))
    assert "No module named 'no_such_module'" in refused(capsys, "evaluate", "run")


def test_a_class_that_says_nothing_of_a_head_gets_features():
    """Three methods are enough; what such a class wants of its network are features."""

    class Bare:
        def __init__(self, network: fields.Given[object]) -> None:
            self.network = network

    config = replace(presets.lookup("prototypical"), method=fields.options(Bare)())
    assert Surroundings(config).n_out is None
    assert Surroundings(presets.lookup("maml")).n_out == 5
