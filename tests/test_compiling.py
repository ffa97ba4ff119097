"""Compiling kernels takes seconds where they are first used: that is said once, and only then."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numba
import pytest
from numba.core import event

from scratchmeta.kernels import compiling

SAID = "compiling kernels, once ...\n"


@pytest.fixture
def announcement(monkeypatch):
    """One that has said nothing yet, in place of the library's."""
    monkeypatch.setattr(compiling.announcement, "said", True)
    made = compiling.Announcement()
    with event.install_listener("numba:compile", made):
        yield made


def function(module):
    """A function of this module, not compiled yet."""

    def double(x):
        return 2 * x

    double.__module__ = module
    return numba.njit(double)


def test_what_takes_long_is_said_once(announcement, monkeypatch, capsys):
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    for _ in range(2):
        assert function("scratchmeta.kernels.new")(3) == 6
    assert capsys.readouterr().err == SAID


def test_what_is_quick_or_not_ours_is_not_said(announcement, monkeypatch, capsys):
    function("scratchmeta.kernels.new")(3)
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    function("somebody.elses")(3)
    assert capsys.readouterr().err == ""
    assert announcement.depth == 0


def test_many_quick_ones_add_up(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(compiling.time, "monotonic", lambda: now[0])
    announcement = compiling.Announcement()
    dispatcher = SimpleNamespace(py_func=SimpleNamespace(__module__="scratchmeta.kernels.new"))
    heard = SimpleNamespace(data={"dispatcher": dispatcher})
    for k in range(9):
        announcement.on_start(heard)
        now[0] += 0.15
        announcement.on_end(heard)
        assert announcement.said == (k >= 6)  # 7 · 0.15 > 1
        now[0] += 100  # what lies between is no compiling
    assert capsys.readouterr().err == SAID


def test_the_librarys_own_kernels_are_listened_to():
    assert compiling.announcement in event._registered["numba:compile"]


def test_where_numba_must_not_compile_it_is_said_what_to_do():
    script = (
        "import numpy as np, scratchmeta as sm; x = np.ones((2, 3))\n"
        "with sm.backend.use_kernels(False): sm.ops.pairwise_distance(x, x)\n"
        "sm.ops.pairwise_distance(x, x)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == (
        "ImportError: kernels: NUMBA_DISABLE_JIT is set, so that Numba cannot compile them; "
        "unset it, or turn kernels off (scratchmeta.backend.use_kernels(False))"
    )
