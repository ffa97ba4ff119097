"""Progress on standard error: a bar on a terminal, a plain line now and then anywhere else.

train ━━━━━━━━━━━━╸━━━━━━━━ 240/400  loss 0.312  validation 91.2 %  0:00:41

Where nobody reads it (any more), the work goes on without it.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

BAR_INTERVAL = 0.1  # seconds between redraws: the loop must not wait for its own bar
LINE_INTERVAL = 10.0  # seconds between lines where there is no terminal


def say(text: str) -> None:
    """Prints a line on standard error; where that fails, standard error leads nowhere from now on.

    So nothing else that is written to it fails, not even at the end, where Python writes what it
    still holds.
    """
    if sys.stderr is None:  # closed from the start
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # its reader is gone, its disk is full
        nowhere(sys.stderr)


def nowhere(stream: TextIO) -> None:
    """Lets a standard stream that cannot be written to lead nowhere."""
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), stream.fileno())


def coloured(text: str, colours: Mapping[str, str]) -> str:
    """The text with these words in colour where lines begin with them, if it goes to a terminal.

    Where NO_COLOR is set, or standard output is a pipe, it stays as it is.
    """
    from rich.console import Console
    from rich.text import Text

    shown = Text(text)
    for word, colour in colours.items():
        shown.highlight_regex(rf"(?m)^{word}\b", colour)
    console = Console()
    with console.capture() as captured:
        console.print(shown, soft_wrap=True, end="")
    return captured.get()


class Progress:
    """Reports how much of `total` is done; a context manager.

    `start` is how much was done before (a resumed run); with `shown` false nothing is reported.
    `update` may be called as often as one likes.
    """

    def __init__(self, label: str, total: int, start: int = 0, shown: bool = True) -> None:
        self.label, self.total, self.start, self.shown = label, total, start, shown
        self.done, self.note, self.said = start, "", start
        self.began: float | None = None
        self.reported = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr is not None and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[note]}"),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.task = self.bar.add_task(
                self.label, total=self.total, completed=self.start, note=""
            )
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.done > self.said:
            self._report()
        if self.bar is not None:
            try:
                self.bar.stop()
            except OSError:  # the terminal is gone
                nowhere(sys.stderr)

    def update(self, done: int, note: str) -> None:
        """Says that `done` of the total are done, with a note such as the loss."""
        self.done, self.note = done, note
        if self.began is None:  # the first takes longer than the others: it compiles
            self.began, self.start = time.monotonic(), done
        interval = LINE_INTERVAL if self.bar is None else BAR_INTERVAL
        if time.monotonic() - self.reported >= interval:
            self._report()

    def _report(self) -> None:
        self.reported, self.said = time.monotonic(), self.done
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, note=self.note)
        elif self.shown:
            parts = [f"{self.label} {self.done}/{self.total}", self.note]
            if self.began is not None and self.start < self.done < self.total:
                pace = (self.reported - self.began) / (self.done - self.start)
                parts.append(f"{pace * (self.total - self.done):.0f} s left")
            say("  ".join(part for part in parts if part))
