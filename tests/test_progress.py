"""Progress: a bar on a terminal, a line now and then elsewhere, nothing when not shown."""

import io
import re
import sys

import pytest

from scratchmeta.run import progress
from scratchmeta.run.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_every_ten_seconds(clock, capsys):
    with Progress("train", 100, start=20) as bar:
        for step in range(21, 61):
            clock[0] += 1.0
            bar.update(step, f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "train 30/100  loss 30  70 s left",
        "train 40/100  loss 40  60 s left",
        "train 50/100  loss 50  50 s left",
        "train 60/100  loss 60  40 s left",
    ]


def test_the_last_line_says_what_was_reached(clock, capsys):
    with Progress("check", 3) as bar:
        bar.update(3, "maml")
    assert capsys.readouterr().err == "check 3/3  maml\n"


def test_nothing_done_nothing_said(capsys):
    with pytest.raises(ZeroDivisionError), Progress("evaluate", 600):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_not_shown(capsys, clock):
    with Progress("train", 10, shown=False) as bar:
        clock[0] += 100
        bar.update(5, "loss")
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_with_note_and_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(progress, "BAR_INTERVAL", 0.0)
    with Progress("train", 10) as bar:
        for step in range(1, 6):
            bar.update(step, f"loss {step / 10}")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert re.search(r"train ━+.* 5/10 loss 0\.5 ", shown)
    assert re.search(r"\d:\d\d:\d\d|-:--:--", shown)


class Gone(io.StringIO):
    """A stream without a reader, on a descriptor of its own."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def fileno(self):
        return self.file.fileno()

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_where_nobody_reads_the_stream_leads_nowhere(monkeypatch, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        monkeypatch.setattr(sys, "stderr", Gone(file))
        with Progress("check", 3) as bar:
            bar.update(3, "maml")
        file.write(b"what is still held")
    assert (tmp_path / "file").read_bytes() == b""


def test_with_standard_error_closed_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("check", 3) as bar:
        bar.update(3, "maml")
    assert capsys.readouterr().out == ""
