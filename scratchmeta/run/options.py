"""What the commands' options have in common, and reading them from the command line."""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from scratchmeta import fields

Options = TypeVar("Options")
Backend = Literal["numpy", "cupy"]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")]


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a run is read with, where it may not load that by itself (scratchmeta.run.outside)."""

    algorithm: str | None = None
    """FILE.py:Class or package.module:Class of the run, where it may not be loaded unasked."""
    network: str | None = None
    """The same of its network."""

    @property
    def named(self) -> dict[str, str | None]:
        """For `experiment.saved`."""
        return {"algorithm": self.algorithm, "network": self.network}


class UsageError(ValueError):
    """The command line cannot be read."""


def at_least(lowest: int, name: str, value: int) -> None:
    """Raises UsageError if `value` is less than `lowest`."""
    if value < lowest:
        raise UsageError(f"{name}: wanted at least {lowest}, got {value}")


@functools.cache
def documented(section: type) -> type:
    """A section's type as --help shows it: with the docstrings that are in the class it is of."""
    if not hasattr(section, "of"):
        return section
    docs = fields.docs(section.of)
    made = dataclasses.make_dataclass(
        section.__name__,
        [
            (f.name, Annotated[f.type, tyro.conf.arg(help=_line(docs.get(f.name)))], _default(f))
            for f in dataclasses.fields(section)
        ],
        bases=(section,),
        frozen=True,
        namespace={"__doc__": (section.__doc__ or "").partition("\n\n")[0]},
    )
    made.__module__ = __name__
    return made


def _line(doc: str | None) -> str | None:
    return doc and " ".join(doc.split())


def _default(field: dataclasses.Field) -> Any:
    return dataclasses.field(default=field.default)


def of_type(made: type, options: Any) -> Any:
    """The same options, in an object of another class."""
    return made(**{f.name: getattr(options, f.name) for f in dataclasses.fields(made)})


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
