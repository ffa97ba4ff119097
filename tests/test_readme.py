"""The README's Python runs as it stands, and its MAML learns."""

import re
import shlex
from pathlib import Path

import scratchmeta as sm
from scratchmeta import presets
from scratchmeta.run.commands import COMMANDS

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block, own in zip(blocks, (names, {}), strict=True):  # each runs alone
        exec(block, own)
    # 200 steps of MAML: from about 4 before adaptation to well below after one step
    e = sm.episodes.sample(names["data"], n_way=1, k_shot=10, n_query=10, tasks=25, seed=1)
    untrained = names["net"].init(names["np"].random.default_rng(0))
    loss = sm.value_and_grad(names["meta_loss"])
    assert loss(names["θ"], e)[0] < 0.9 * loss(untrained, e)[0]
    assert "soft_nearest" in capsys.readouterr().out


def test_its_commands_algorithms_and_files_exist():
    text = README.read_text(encoding="utf-8")
    commands = re.findall(
        r"^scratchmeta (\S+)|&& scratchmeta (\S+)|`scratchmeta ([a-z]+)", text, re.M
    )
    assert len(commands) > 8
    assert {name for found in commands for name in found if name} <= {*COMMANDS}
    for line in re.findall(r"^scratchmeta train .*", text, re.M):
        argv = shlex.split(line, comments=True)
        data = argv[argv.index("--data") + 1] if "--data" in argv else None
        assert presets.lookup(argv[2], data).algorithm == argv[2]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert len(links) > 20
    for link in links:
        assert (README.parent / link).exists(), link
