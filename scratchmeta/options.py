"""The options of each command, typed and documented: --help shows what stands here."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from scratchmeta.config import Config

Options = TypeVar("Options")
Backend = Literal["numpy", "cupy"]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Config):
    """Train an algorithm, in a run folder that evaluate, plot and --resume take.

    What is not given comes from the preset. `scratchmeta train ALGORITHM --data DATA --preset
    PRESET --help` shows its values.
    """

    algorithm: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ALGORITHM")]
    """One of `scratchmeta list`."""
    out: Path | None = None
    """The run's folder; the first free one of runs/ALGORITHM-DATA-1, 2, ... if not given."""
    resume: Path | None = None
    """Continue the run in this folder, bit for bit; only --steps can be changed."""
    overwrite: bool = False
    """Replace the run that is in the folder."""
    data_dir: Path | None = None
    """Folder of the data, or where it has a folder omniglot or mini-imagenet (or
    SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a run on test episodes, of classes it was not trained on."""

    run: Folder
    """The run's folder."""
    episodes: int = 600
    """Test episodes."""
    n_way: int | None = None
    """Classes in an episode; as in the run's validation if not given."""
    k_shot: int | None = None
    """Labelled examples of each class; as in training if not given."""
    n_query: int | None = None
    """Examples of each class to predict; as in the run's validation if not given."""
    length: int | None = None
    """Vectors in a sequence (copy), or items (recall); as in training if not given."""
    seed: int = 0
    """Decides the test episodes."""
    within_alphabet: bool = False
    """Classes of one alphabet, each shot by one drawer (the design of Lake's one-shot runs)."""
    one_shot_runs: Path | None = None
    """Lake's one-shot runs, all_runs.zip or its folder, in place of episodes: 20-way 1-shot."""
    checkpoint: Literal["best", "last"] = "best"
    """The best by validation, or the last."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: accuracy, mse, bit_errors or error_rate, ci95, episodes, ..."""


@dataclass(frozen=True)
class CheckOptions:
    """Verify gradients numerically, first and second order, and print a line for each subject.

    The exit status is 1 when one of them is wrong.
    """

    names: Names = ()
    """Operations, layers, losses, optimisers, algorithms, or a kind such as "layer"; else all."""
    seed: int = 0
    """Decides the numbers at which gradients are checked."""
    no_kernels: bool = False
    """Check the plain references in place of the kernels."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: passed, and results, one for each subject."""


@dataclass(frozen=True)
class BenchOptions:
    """Time one training step of every algorithm, as its quick presets have it.

    A step is the gradient over one batch of episodes and the optimizer's update; the median of
    some. The folder benchmarks/ of the repository holds the comparisons with other libraries.
    """

    rounds: int = 5
    """Steps timed, at least, after one that is not."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print one JSON object: hardware, and steps, one for each algorithm and data."""


@dataclass(frozen=True)
class TaylorOptions:
    """Compare the gradients of FOMAML, MAML and Reptile with their leading terms in α.

    Prints how much is left, and how fast it falls with α: as α to the power of 2 if the terms are
    right, of 1 without those in B. docs/analysis.md says what A and B are.
    """

    k: tuple[int, ...] = (2, 3, 4)
    """Numbers of minibatches, 2 to 7."""
    problem: Literal["linear", "sinusoid"] = "linear"
    """A linear model on random data, or MAML's network (with tanh) on a sine wave."""
    seed: int = 0
    """Decides the problem."""
    plot: Path | None = None
    """Draw the residuals over α into this file."""
    json: bool = False
    """Print a JSON list: name, k, alphas, residuals, without_b, slope, slope_without_b of each."""


@dataclass(frozen=True)
class CompareOptions:
    """Compare the meta-gradients of MAML, FOMAML and Reptile: same parameters, same episodes.

    Cosine and ratio of norms are those to MAML's. What is not given is as in the run, or as in
    MAML's quick preset.
    """

    data: Literal["glyphs", "omniglot", "sinusoids"] | None = None
    """Where the episodes come from; glyphs if not given, nor a run."""
    run: Path | None = None
    """Parameters, network and data of this run of maml, fomaml or reptile; else new ones."""
    inner_lr: float | None = None
    """α of all three."""
    inner_steps: int | None = None
    """Inner steps of MAML and FOMAML; Reptile takes one more."""
    k_shot: int | None = None
    """Labelled examples of each class."""
    n_query: int | None = None
    """Query examples of each class."""
    tasks: int = 8
    """Tasks that the gradients are averaged over."""
    seed: int = 0
    """Decides the parameters and the episodes."""
    data_dir: Path | None = None
    """Folder of the data (or SCRATCHMETA_DATA)."""
    backend: Backend = "numpy"
    """NumPy on the CPU or CuPy on a GPU (or SCRATCHMETA_BACKEND)."""
    json: bool = False
    """Print a JSON list of objects."""


@dataclass(frozen=True)
class ListOptions:
    """List the algorithms: name, paper, family, and the data they have presets for."""

    json: bool = False
    """Print a JSON list of objects."""


@dataclass(frozen=True)
class PlotOptions:
    """Draw a run: a test episode with its predictions, and the learning curve."""

    run: Folder
    """The run's folder; episode.png and learning.png are written into it."""
    episode: int = 0
    """Number of the test episode."""
    length: int | None = None
    """Vectors in its sequence (copy), or items (recall); as in training if not given."""
    data_dir: Path | None = None
    """Where the data lies, if not where it lay in training (or SCRATCHMETA_DATA)."""


# --- parsing ------------------------------------------------------------------------------------


class UsageError(ValueError):
    """The command line cannot be read."""


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
