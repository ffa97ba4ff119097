"""The command `scratchmeta`: finds the command asked for, and turns known errors into one line."""

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from scratchmeta.run.progress import nowhere, say

USAGE = """\
usage: scratchmeta COMMAND [OPTIONS]

Meta-learning from scratch: readable, verified to second order, on NumPy or CuPy.

  train ALGORITHM   train on episodes, into a run folder that can be resumed bit for bit
  evaluate RUN      accuracy or mean squared error of a run, with its 95 % interval
  check [NAME ...]  verify gradients numerically: operations, layers, algorithms
  conformance       published weights in our classes, beside their authors' numbers
  list              the algorithms: name, family, paper, presets
  plot RUN          an episode with its predictions, and the learning curve
  predict RUN       name new pictures, after a few of each class
  features RUN ...  what a run's embedding makes of pictures
  export RUN OUT    the embedding, or the whole classifier, as an ONNX graph
  sweep ALGORITHM ...
                    algorithms, seeds and options on the same test episodes, compared in a table
  bench             time a training step of each algorithm
  compare           the meta-gradients of MAML, FOMAML and Reptile on the same episodes
  taylor            the leading terms of these gradients, and how fast the rest falls

scratchmeta COMMAND --help explains the options of a command.
First steps: scratchmeta train prototypical; scratchmeta check prototypical
"""


# What print raises: errors of files, which may be these too, have the file's name.
_OF_PRINTING = (errno.EPIPE, errno.ENOSPC)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    0 it worked; 1 a check failed; 2 something was wrong with what was asked for, said in one line
    on standard error; 128 + n stopped by signal n (130 for Ctrl-C), or 141 when nobody reads what
    was to be printed (128 + SIGPIPE, although none is sent).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    _open_closed()
    if hasattr(sys.stdout, "reconfigure"):  # results are not lost where ± cannot be written
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            return _answer(argv)
        finally:  # what cannot be printed shows itself here, and not when Python ends
            print(end="", flush=True)
    except KeyboardInterrupt:  # wherever it arrives, in the imports of a command too
        say("scratchmeta: interrupted")
        return 130
    except BrokenPipeError:  # `scratchmeta list | head`: nobody reads on
        nowhere(sys.stdout)
        return 141
    except OSError as error:
        nowhere(sys.stdout)
        say(f"scratchmeta: error: standard output: {error.strerror}")
        return 2


def _open_closed() -> None:
    """Opens standard streams that are closed (`2>&-`), else the next file, a checkpoint, say, would
    have their numbers and get what is meant for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _answer(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if argv[0] == "--version":
        from scratchmeta import __version__

        print(f"scratchmeta {__version__}")
        return 0
    return _reported(argv)


def _reported(argv: list[str]) -> int:
    # imported here, so that the usage text above does not wait for NumPy's and tyro's import
    from scratchmeta import backend
    from scratchmeta.fields import choose
    from scratchmeta.run import commands, options
    from scratchmeta.run.training import Interrupted

    try:
        options.refuse_empty(argv)
        name = choose("command", argv[0], commands.COMMANDS)
        with warnings.catch_warnings():
            warnings.showwarning = _warning
            return commands.command(name)(argv[1:])
    except Interrupted as stop:
        say(f"scratchmeta: {stop}; continue with")
        say(f"  scratchmeta train --resume {shlex.quote(str(stop.run))}")
        return 128 + stop.signum
    # a missing extra is an ImportError, what is too large to be had one of memory or of overflow
    except (
        ValueError, OSError, ImportError, MemoryError, OverflowError, backend.BackendError
    ) as error:  # fmt: skip
        if isinstance(error, OSError) and error.filename is None and error.errno in _OF_PRINTING:
            raise
        if sys.flags.dev_mode:  # python -X dev: show where it came from
            raise
        say(f"scratchmeta: error: {_one_line(error)}")
        return 2


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"scratchmeta: warning: {' '.join(str(message).split())}")


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
