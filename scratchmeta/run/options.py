"""What the commands' options have in common, and reading them from the command line."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

Options = TypeVar("Options")
Backend = Literal["numpy", "cupy"]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")]


class UsageError(ValueError):
    """The command line cannot be read."""


def at_least(lowest: int, name: str, value: int) -> None:
    """Raises UsageError if `value` is less than `lowest`."""
    if value < lowest:
        raise UsageError(f"{name}: wanted at least {lowest}, got {value}")


def refuse_empty(argv: Sequence[str]) -> None:
    """Raises UsageError for an empty argument: as a path it would be the folder one is in."""
    for before, argument in zip(("", *argv), argv, strict=False):
        option, given, value = argument.partition("=")
        if not argument or (given and not value and option.startswith("--")):
            raise UsageError(f"{option or before or 'command'}: wanted a value, got ''")


def parse(
    options: type[Options],
    argv: Sequence[str],
    prog: str,
    default: Options | Any = tyro.MISSING_NONPROP,
) -> Options:
    """The options of `argv`, others as in `default`; raises UsageError saying what is wrong.

    The description in --help is the docstring of `options`.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                options,
                default=default,
                args=list(argv),
                prog=f"scratchmeta {prog}",
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except SystemExit as stop:
        if stop.code == 0:  # --help
            raise
        raise UsageError(
            f"{_unboxed(complaint.getvalue())} (scratchmeta {prog} --help lists the options)"
        ) from None


def _unboxed(message: str) -> str:
    """One line of a message in tyro's box: what is wrong, a rule, hints, a rule, where help is."""
    parts: list[list[str]] = [[]]
    for line in message.splitlines():
        text = line.strip(" │")
        if set(text) & set("╭╰") or not text:
            continue
        if set(text) <= set("─-"):
            parts.append([])
        else:
            parts[-1].append(text)
    if "╭" not in message:  # no box where the terminal has no such characters: a title comes first
        parts = parts[1:]
    said = [" ".join(part) for part in parts]
    return "; ".join(part for part in said if "full helptext" not in part)
