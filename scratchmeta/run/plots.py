"""Pictures of a run: an episode with its predictions, and the learning curve. Needs matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scratchmeta import episodes
from scratchmeta.analysis.taylor import Expansion
from scratchmeta.run.checkpoint import Run, write_atomically
from scratchmeta.run.evaluation import TEST
from scratchmeta.run.experiment import Saved, algorithm, of_length
from scratchmeta.run.sweeps.tables import Sweep
from scratchmeta.shown import percent
from scratchmeta.tree import to_backend, to_numpy

RIGHT, WRONG = "#2a7f3f", "#c0392b"
QUERIES = 8  # drawn of each class
WAYS = 10  # classes drawn


def episode(run: Saved, path: Path, number: int = 0, length: int | None = None) -> Path:
    """Draws the test episode `number` with the run's predictions, as PNG; returns the path.

    Images: a row for each class, first its support, if that is images, then queries, framed green
    where the prediction is right, red with the predicted class where it is wrong. Features: how
    probable each class is for each query. Regression: the wave, the support points, and the
    prediction after each number of inner steps. Sequences, of `length` if that is
    given: inputs, the answer and what was answered, and where the memory was read and written.
    """
    if not 0 <= number < 2**64 - TEST:
        raise ValueError(f"episode: wanted 0 to {2**64 - TEST - 1}, got {number}")
    dataset = of_length(run.splits.test, length)
    batch = episodes.sample(dataset, *run.config.training.test_shape, index=TEST + number)
    classes = _images if batch.query_x.ndim == 5 else _probabilities
    draw = {"i": classes, "f": _wave, "b": _sequence}[batch.query_y.dtype.kind]
    figure = draw(run, batch)
    return _saved(figure, path)


def _saved(figure: Figure, path: str | Path) -> Path:
    """Writes a picture: the whole of it, or none."""
    content, path = io.BytesIO(), Path(path)
    figure.savefig(content, dpi=120, format=path.suffix[1:] or "png")
    write_atomically(path, content.getvalue())
    return path


def _images(run: Saved, batch: episodes.Episode) -> Figure:
    scores = run.algorithm.predict(run.params, to_backend(batch))
    predicted = to_numpy(scores)[0].argmax(-1)  # (N·Q,)
    support_y, query_y = batch.support_y[0], batch.query_y[0]
    ways = min(WAYS, support_y.max() + 1)
    shots, queries = (min(QUERIES, int((y == 0).sum())) for y in (support_y, query_y))
    if batch.support_x.ndim != 5:  # described, not shown
        shots = 0
    figure = Figure(figsize=(0.8 * (shots + queries + 1), 0.85 * ways + 0.9), layout="constrained")
    figure.suptitle(_share_right(run, predicted == query_y))
    axes = figure.subplots(ways, shots + queries, squeeze=False)
    for k, row in enumerate(axes):
        support, query = np.flatnonzero(support_y == k), np.flatnonzero(query_y == k)
        for axis, i in zip(row[:shots], support, strict=False):
            _image(axis, batch.support_x[0, i], "black")
        for axis, i in zip(row[shots:], query, strict=False):
            if predicted[i] == k:
                _image(axis, batch.query_x[0, i], RIGHT)
            else:
                _image(axis, batch.query_x[0, i], WRONG, f"taken for {predicted[i]}")
        row[0].set_ylabel(f"class {k}", fontsize=8)
    if shots:
        axes[0, 0].set_title("support", fontsize=8)
    axes[0, shots].set_title("queries", fontsize=8)
    return figure


def predictions(
    path: Path,
    names: Sequence[str],
    support: np.ndarray,
    labels: np.ndarray,
    query: np.ndarray,
    p: np.ndarray,
) -> Path:
    """Draws pictures with the classes they are given; returns the path.

    A row for each class: its first support pictures, then the queries taken for it, each with its
    probability. Pictures are uint8 (·, H, W, channels), p (Q, N).
    """
    best = p.argmax(axis=-1)
    shown = [np.flatnonzero(labels == k)[:QUERIES] for k in range(len(names))]
    asked = [np.flatnonzero(best == k)[:QUERIES] for k in range(len(names))]
    shots, queries = max(map(len, shown)), max(map(len, asked))
    size = 0.8 * (shots + queries + 1), 0.95 * len(names) + 0.5
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(names), shots + queries, squeeze=False)
    for row in axes.flat:
        row.set_axis_off()
    for k, row in enumerate(axes):
        for axis, i in zip(row, shown[k], strict=False):
            _image(axis, support[i] / 255, "black")
        for axis, i in zip(row[shots:], asked[k], strict=False):
            _image(axis, query[i] / 255, RIGHT, percent(p[i, k], digits=0))
        for axis in row:
            axis.set_axis_on() if axis.images else None
        row[0].set_title(names[k], fontsize=8, loc="left")
    return _saved(figure, path)


def _probabilities(run: Saved, batch: episodes.Episode) -> Figure:
    """The queries, class after class, from top to bottom; the classes from left to right."""
    scores = to_numpy(run.algorithm.predict(run.params, to_backend(batch)))[0]  # (N·Q, N)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.exp(scores), cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    axis.set(
        xlabel="class, dark where probable",
        ylabel="query",
        title=_share_right(run, scores.argmax(-1) == batch.query_y[0]),
    )
    return figure


def _share_right(run: Saved, right: np.ndarray) -> str:
    """The title of a picture of predictions, of which some are right."""
    share = percent(right.mean(), digits=0)
    return f"{run.config.algorithm} on {run.config.data}: {share} of the queries right"


def _image(axis: Axes, image: np.ndarray, colour: str, note: str = "") -> None:
    """One image, ink dark or in its colours, in a frame with a note below."""
    if image.shape[-1] == 1:
        axis.imshow(1 - image[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        axis.imshow(image)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(2)
    axis.set_xlabel(note, fontsize=6, color=colour, labelpad=1)


def _wave(run: Saved, batch: episodes.Episode) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    order = np.argsort(batch.query_x[0, :, 0])
    x = batch.query_x[0, order, 0]
    axis.plot(x, batch.query_y[0, order, 0], "k-", label="the task")
    axis.plot(batch.support_x[0, :, 0], batch.support_y[0, :, 0], "k^", label="support")
    for steps in sorted({0, 1, run.algorithm.eval_inner_steps}):
        adapted = algorithm(run.config, eval_inner_steps=steps)
        y = to_numpy(adapted.predict(run.params, to_backend(batch)))[0, order, 0]
        axis.plot(x, y, "--" if steps == 0 else "-", label=f"after {steps} inner steps")
    axis.set(xlabel="x", ylabel="y", title=f"{run.config.algorithm} on {run.config.data}")
    axis.legend()
    return figure


def _sequence(run: Saved, batch: episodes.Episode) -> Figure:
    """Figures 4 and 6 of Graves et al.: steps from left to right, one panel below the other."""
    seen = to_backend(batch)
    answered = to_numpy(run.algorithm.predict(run.params, seen))[0]
    weights = to_numpy(run.algorithm.weights(run.params, seen))[0]  # (S, 2 heads, rows)
    inputs = np.concatenate([batch.support_x[0], batch.query_x[0]])
    shown = len(batch.support_x[0])

    def asked(y):
        return np.concatenate([np.full((shown, y.shape[-1]), np.nan), y])

    n = weights.shape[1] // 2
    panels = {
        "inputs": inputs,
        "answer": asked(batch.query_y[0]),
        "answered": asked(answered),
        **{f"write {h + 1}": weights[:, n + h] for h in range(n)},
        **{f"read {h + 1}": weights[:, h] for h in range(n)},
    }
    heights = [max(8, min(24, panel.shape[1])) for panel in panels.values()]
    figure = Figure(figsize=(max(5, 0.12 * len(inputs) + 2), 0.09 * sum(heights) + 1))
    figure.set_layout_engine("constrained")
    errors = int(((answered > 0.5) != batch.query_y[0]).sum())
    figure.suptitle(f"{run.config.algorithm} on {run.config.data}: {errors} bits wrong")
    axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights)
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        axis.imshow(panel.T, cmap="magma", vmin=0, vmax=1, aspect="auto", interpolation="none")
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        axis.set_yticks([])
    axes[-1].set_xlabel("step")
    return figure


def learning(run: Run, path: Path) -> Path:
    """Draws the training loss and the validations over the steps, as PNG; returns the path."""
    history = run.history()
    loss = np.array([(line["step"], line["loss"]) for line in history if "loss" in line])
    validation = np.array(
        [
            (line["step"], line["validation"], line["ci95"])
            for line in history
            if "validation" in line
        ]
    )
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel="step", ylabel="training loss", title=f"{run.config['algorithm']}")
    if len(loss):
        axis.plot(*loss.T, color="0.8", linewidth=0.8)
        width = max(1, len(loss) // 50)
        smooth = np.convolve(loss[:, 1], np.ones(width) / width, "valid")  # mean of `width` steps
        axis.plot(loss[width - 1 :, 0], smooth, color="0.3")
    if len(validation):
        right = axis.twinx()
        steps, values, errors = validation.T
        right.errorbar(steps, values, yerr=errors, color=RIGHT, capsize=2)
        right.set_ylabel("validation, with its 95 % interval", color=RIGHT)
    return _saved(figure, path)


def expansions(found: Sequence[Expansion], path: Path) -> Path:
    """Draws what the leading terms leave over α, a panel an algorithm; returns the path.

    With B and without, and beside the straight parts the slopes 2 and 1.
    """
    names = list(dict.fromkeys(each.name for each in found))
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for name, axis in zip(names, panels, strict=True):
        own = [each for each in found if each.name == name]
        for each in own:
            [line] = axis.loglog(each.alphas, each.residuals, ".-", label=f"k = {each.k}")
            axis.loglog(each.alphas, each.without_b, "--", color=line.get_color(), linewidth=0.9)
        small = np.array(own[0].alphas)[:9]
        firsts = [(each.residuals[0], each.without_b[0]) for each in own]
        for power, first in zip((2, 1), np.min(firsts, axis=0), strict=True):
            guide = 0.3 * first * (small / small[0]) ** power
            axis.loglog(small, guide, "k:", linewidth=0.9)
            axis.annotate(
                "∝ α²" if power == 2 else "∝ α", (small[4], guide[4]), (6, -9),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
        axis.set(xlabel="α", title=name)
        axis.grid(color="0.92")
    panels[0].set_ylabel("residual / gradient")
    panels[0].legend(title="less A and B; dashed: less A", fontsize=8, title_fontsize=8)
    return _saved(figure, path)


def sweep(found: Sweep, path: Path) -> Path:
    """Draws the rows of a sweep, and their differences to the first, as PNG; returns the path.

    A dot for each seed, the mean with its interval over seeds (thick) and over episodes (thin).
    """
    rows = [
        (row.name, row.mean, row.over_seeds, row.over_episodes, list(row.by_seed.values()))
        for row in found.rows
        if row.mean is not None
    ]
    names = [name for name, *_ in rows]
    first = found.rows[0].name
    differences: list = [
        (d.name, d.mean, d.over_seeds, d.over_episodes, [])
        for d in found.differences
        if d.less == first
    ]
    panels: dict[str, list] = (
        {"": rows, f"less {first}": differences} if differences else {"": rows}
    )
    measure = next((row.measure for row in found.rows if row.measure), "")
    scale = 100 if measure == "accuracy" else 1
    labels = {"accuracy": ("accuracy, %", "points")}.get(measure, (measure, measure))
    size = 4.5 * len(panels) + 1, 0.4 * max(3, len(names)) + 1.4
    figure = Figure(figsize=size, layout="constrained")
    seeds = " ".join(map(str, found.about["seeds"]))
    figure.suptitle(f"{found.about['data']}, seeds {seeds}: 95 % over seeds thick, episodes thin")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, panel), label in zip(axes, panels.items(), labels, strict=False):
        for name, mean, over_seeds, over_episodes, values in panel:
            y = names.index(name)
            axis.plot(
                [scale * value for value in values], [y - 0.25] * len(values), ".", color="0.6"
            )
            for half, width, offset in ((over_seeds, 3.5, 0), (over_episodes, 1.2, 0.2)):
                if half is not None:
                    axis.errorbar(
                        scale * mean, y + offset, xerr=scale * half, color=RIGHT, elinewidth=width
                    )
            axis.plot(scale * mean, y, "o", color=RIGHT)
        if title:
            axis.axvline(0, color="0.6", linewidth=0.8)
        axis.set(xlabel=label, title=title.replace(",", " "))
        axis.grid(axis="x", color="0.92")
    axes[0].set_yticks(range(len(names)), [name.replace(",", " ") for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return _saved(figure, path)
