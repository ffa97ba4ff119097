"""One training loop for every algorithm.

    for t = 1, 2, ...:
        L, g = meta_gradient(θ, episodes of step t)
        θ = Adam(θ, g)
        now and then validate, save

An episode is a pure function of (seed, index) and a step's index is its number, so (step, θ, the
optimizer's state, the best validation so far) is the whole state: a run that is stopped and
resumed continues bit for bit.
"""

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import numpy as np

from scratchmeta import backend, episodes, optim, tree
from scratchmeta.algorithms.protocol import Learner
from scratchmeta.episodes import Dataset, Episode, EpisodeMaker
from scratchmeta.run import recording
from scratchmeta.run.checkpoint import Run, State, appended
from scratchmeta.run.config import Training
from scratchmeta.run.evaluation import VALIDATION, Evaluation, calibrated, evaluate
from scratchmeta.run.progress import Progress

SMALL = 2**14  # numbers in a batch below which sampling ahead in a thread costs more than it saves


class NonFiniteError(ValueError):
    """The loss, a gradient or a parameter is infinite or NaN; training stopped, and its last
    checkpoint is kept."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped training after `step`, whose state was saved."""

    def __init__(self, step: int, signum: int, run: str | os.PathLike | None) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.step, self.signum, self.run = step, signum, run


def train(
    algorithm: Learner,
    dataset: Dataset | EpisodeMaker,
    settings: Training,
    *,
    validation: Dataset | EpisodeMaker | None = None,
    run: str | os.PathLike | None = None,
    config: dict | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> State:
    """Trains `algorithm` on episodes of `dataset` and returns its last State, `params` among it.

    `validation`, a dataset of other classes, is evaluated on every `settings.validate_every`
    steps, always with the same episodes; training stops early after `settings.patience` of them
    without a new best. With `run`, metrics, checkpoints and `config` (None: what these arguments
    say of themselves, which the command line and `sm.load` read) are written into that folder
    (see scratchmeta.run.checkpoint), and SIGINT, SIGTERM or SIGHUP stops the loop after the step it
    is in, with a checkpoint. `resume` continues from the run's last checkpoint, `overwrite` begins
    anew.

    Raises NonFiniteError if the loss, a gradient or a parameter is not finite, Interrupted after a
    signal, CheckpointError if there is no checkpoint to resume from or it does not fit or another
    process trains in the folder, FileExistsError rather than write into one that is not empty.
    """
    shape = *settings.shape, settings.tasks
    small = sum(x.size for x in episodes.sample(dataset, *shape, seed=settings.seed)) < SMALL
    if validation is not None:
        episodes.sample(validation, *settings.test_shape)
    optimizer, state = start(algorithm, settings)
    folder = metrics = None
    if run is not None and not resume:
        Run.refuse(run, overwrite)
    with ExitStack() as stack:
        if resume:
            if run is None:
                raise ValueError("resume: wanted the folder of a run, got none")
            folder = Run.open(run)
            folder.hold()
            stack.callback(folder.release)
            state = folder.load("last", like=state)
            if state.step > settings.steps:
                raise ValueError(
                    f"steps: wanted at least the {state.step} done, got {settings.steps}"
                )
            metrics = stack.enter_context(folder.metrics(after=state.step))
            folder.config = config or recording.resumed(
                run, folder.config, algorithm, dataset, validation, settings
            )
            folder.record()
        batches = episodes.stream(
            dataset, *shape, seed=settings.seed, start=state.step, prefetch=0 if small else 2
        )
        stack.enter_context(closing(batches))
        bar = stack.enter_context(Progress("train", settings.steps, state.step, shown=progress))
        signals = stack.enter_context(Signals(catch=run is not None, say=progress))
        stack.enter_context(np.errstate(all="ignore"))  # _refuse_non_finite looks at every step

        known: tuple[int, Any] = -1, None

        def ready() -> Any:
            """The parameters as predict wants them, made once in a step."""
            nonlocal known
            if known[0] != state.step:
                known = state.step, calibrated(algorithm, state.params, dataset, settings)
            return known[1]

        def save(name: str) -> None:
            _refuse_non_finite("parameter ", state.params, state.step, settings)
            if folder is not None and metrics is not None:
                metrics.flush()
                folder.save(name, state, ready())

        def stop() -> Interrupted:
            save("last")
            return Interrupted(state.step, signals.caught, run)

        note = ""
        while state.step < settings.steps and not _stale(state, settings):
            batch = tree.to_backend(next(batches))
            before = state
            loss, state = step(algorithm, optimizer, state, batch, settings)
            if metrics is None:  # all that can be wrong has shown itself: now the folder
                if run is not None:
                    config = config or recording.record(algorithm, dataset, validation, settings)
                    first = calibrated(algorithm, before.params, dataset, settings)
                    folder = Run.create(run, config, before, calibrated=first, overwrite=overwrite)
                    stack.callback(folder.release)
                metrics = stack.enter_context(
                    folder.metrics(after=0) if folder else appended(os.devnull)
                )
            due, result = state.step % settings.validate_every == 0, None
            if due and validation is not None:
                try:
                    with signals.at_once():
                        result = _validate(algorithm, ready(), validation, settings)
                except KeyboardInterrupt:
                    if signals.caught is None:
                        raise
                    state = before  # resuming takes the step again, and validates
                    raise stop() from None
            metrics.write(state.step, loss=loss)
            if result is not None:
                metrics.write(state.step, validation=result.value, ci95=result.ci95)
                note = f"  validation {result}"
                best = -math.inf if state.best_score is None else state.best_score
                if result.score > best:  # what is not a number is not
                    state = state._replace(best_score=result.score, best_step=state.step)
                if result.score == state.best_score:  # of equals the last, trained longer
                    save("best")
            if due:
                save("last")
            bar.update(state.step, f"loss {loss:.3f}{note}")
            if signals.caught is not None:
                raise stop()
        save("last")
    return state


# --- one step -----------------------------------------------------------------------------------


def start(algorithm: Any, settings: Training) -> tuple[Any, State]:
    """The optimizer with its schedule as `settings` have them, and the state before step 1."""
    lr: Any = settings.lr
    if settings.halve_every:
        lr = optim.step_decay(lr, settings.halve_every)
    elif settings.linear_decay:
        lr = optim.linear_decay(lr, settings.steps)
    optimizer: optim.Adam | optim.RMSProp | optim.SGD
    if settings.optimizer == "adam":
        optimizer = optim.Adam(lr, weight_decay=settings.weight_decay)
    elif settings.optimizer == "rmsprop":
        optimizer = optim.RMSProp(lr)
    else:
        optimizer = optim.SGD(lr)
    params = _in_c_order(tree.to_backend(algorithm.init(np.random.default_rng(settings.seed))))
    moved, _ = _moved_and_carried(algorithm, params)
    return optimizer, State(0, params, optimizer.init(moved), None, 0)


def step(
    algorithm: Any, optimizer: Any, state: State, batch: Episode, settings: Training
) -> tuple[float, State]:
    """The loss of a batch of episodes, and the state after a step against its gradient."""
    loss, grads = algorithm.meta_gradient(state.params, batch)
    loss = _finite_loss(loss, grads, state.step + 1, settings)
    params, carried = _moved_and_carried(algorithm, state.params)
    grads, changes = _moved_and_carried(algorithm, grads)
    if settings.clip_norm:
        grads = optim.clip_by_norm(grads, settings.clip_norm)
    if settings.clip_value:
        grads = optim.clip_by_value(grads, settings.clip_value)
    params, moments = optimizer.step(params, grads, state.optimizer)
    if carried:
        params = {**params, **tree.map(lambda p, d: p - d, carried, changes)}
    return loss, state._replace(step=state.step + 1, params=_in_c_order(params), optimizer=moments)


def _moved_and_carried(algorithm: Any, params: Any) -> tuple[Any, Any]:
    """What the optimizer moves of parameters, or of a gradient, and what the algorithm does."""
    if not (names := getattr(algorithm, "carried", ())):
        return params, {}
    moved = {name: p for name, p in params.items() if name not in names}
    return moved, {name: p for name, p in params.items() if name in names}


def _in_c_order(params: Any) -> Any:
    """The parameters in the layout a checkpoint gives them back in: BLAS may round by layout."""
    return tree.map(lambda p: backend.xp(p).asarray(p, order="C"), params)


def _finite_loss(loss: Any, grads: Any, step: int, settings: Training) -> float:
    """The loss, once it and the gradients are known to be finite: one look at the device."""
    xp, leaves = backend.xp(loss), tree.flatten(grads)[0]
    vector = xp.concatenate([xp.asarray(loss).ravel(), *(g.ravel() for g in leaves)])
    value, finite = tree.to_numpy(xp.stack([vector[0], xp.isfinite(vector).all()]))
    if not finite:
        _refuse_non_finite("loss", xp.asarray(loss), step, settings)
        _refuse_non_finite("gradient of ", grads, step, settings)
    return float(value)


def _refuse_non_finite(what: str, values: Any, step: int, settings: Training) -> None:
    finite = [bool(backend.xp(v).isfinite(v).all()) for v in tree.flatten(values)[0]]
    if not all(finite):
        raise NonFiniteError(
            f"the {what}{tree.paths(values)[finite.index(False)]} is not finite at step {step} "
            f"(seed {settings.seed}); the last checkpoint is kept. "
            "A smaller learning rate, or clip_norm, may help"
        )


# --- validation and stopping --------------------------------------------------------------------


def _validate(algorithm, params, validation, settings: Training) -> Evaluation:
    return evaluate(
        algorithm,
        params,
        validation,
        *settings.test_shape,
        episodes=settings.validation_episodes,
        seed=settings.seed,
        first=VALIDATION,
    )


def _stale(state: State, settings: Training) -> bool:
    """Whether the last `patience` validations brought nothing better."""
    if not settings.patience or state.best_score is None:
        return False
    return state.step - state.best_step >= settings.patience * settings.validate_every


class Signals:
    """SIGINT, SIGTERM and SIGHUP, for the length of a with-block, into `caught`; a second signal
    does what it did before.

    The training loop looks at `caught` after every step; inside `at_once` a signal raises
    KeyboardInterrupt where it arrives. Signals that are ignored (nohup) stay so. Python lets only
    the main thread set handlers; in any other nothing is caught.
    """

    def __init__(self, catch: bool, say: bool) -> None:
        self.caught: Any = None  # the number of a signal
        self.say, self.raising = say, False
        self.before: dict[int, Any] = {}
        if catch and threading.current_thread() is threading.main_thread():
            names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
            self.before = {getattr(signal, n): signal.getsignal(getattr(signal, n)) for n in names}

    def __enter__(self) -> "Signals":
        for signum, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: object) -> None:
        self.caught = signum
        self.__exit__()
        if self.raising:
            raise KeyboardInterrupt
        if self.say:  # print might be in the middle of another line
            with suppress(OSError):  # Ctrl-C has ended the reader too
                os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step\n".encode())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A with-block in which a signal, also one already caught, raises KeyboardInterrupt."""
        self.raising = True
        try:
            if self.caught is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self.raising = False
