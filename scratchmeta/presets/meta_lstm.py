"""The presets of the LSTM meta-learner."""

from scratchmeta import nn, ops
from scratchmeta.algorithms import MetaLSTM
from scratchmeta.algorithms.protocol import query_outputs
from scratchmeta.fields import options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.datasets.mini_imagenet import MiniImageNet
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Conv4
from scratchmeta.verify.episodes import images, instance
from scratchmeta.verify.examples import call, meta_gradient, task_losses
from scratchmeta.verify.numbers import float64

ALGORITHM = MetaLSTM
PAPER = "Ravi & Larochelle 2017"
FAMILY = "optimization"

method = options(MetaLSTM)

# Gradients of norm at most 0.25: the authors' code. The paper has no table for Omniglot; `paper`
# there is its meta-learner and its learner on images of 28 x 28. `quick` starts from a larger
# learning rate, σ(−0.5), and takes few updates; it normalises the queries by their own statistics
# in the test too.
QUICK = method(
    inner_steps=2,
    eval_inner_steps=2,
    input_bias=(-1.0, 0.0),
    test_batch_norm="transductive",
)
PRESETS = {
    ("glyphs", "quick"): Preset(
        QUICK,
        Glyphs(),
        Conv4(channels=16, pooling="stride"),
        Training(
            n_query=5, tasks=4, lr=3e-3, clip_norm=0.25, steps=500, linear_decay=True,
            validate_every=100, validation_episodes=50,
        ),
    ),
    ("omniglot", "quick"): Preset(
        QUICK,
        Omniglot(rotations="class-episode"),
        Conv4(channels=16, pooling="stride"),
        Training(
            n_query=10, tasks=4, lr=3e-3, clip_norm=0.25, steps=9000, linear_decay=True,
            validate_every=1000,
        ),
    ),
    ("omniglot", "paper"): Preset(
        method(),
        Omniglot(split="vinyals", rotations="classes", resampling="nearest"),
        Conv4(channels=32, batch_norm_eps=1e-3),  # ε as in the authors' code
        Training(clip_norm=0.25, steps=75_000, validate_every=1000, validation_episodes=100),
    ),
}  # fmt: skip
PRESETS["mini-imagenet", "paper"] = PRESETS["omniglot", "paper"]._replace(dataset=MiniImageNet())
PRESETS["mini-imagenet", "paper-5-shot"] = (
    PRESETS["mini-imagenet", "paper"]
    .trained(k_shot=5, steps=50_000)
    ._replace(method=method(inner_steps=5, eval_inner_steps=5))
)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    network = nn.MLP([64, 6, 2], activation=ops.tanh)
    algorithm = MetaLSTM(network, inner_steps=2, hidden=3, input_bias=(-1.0, 0.0))
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """The exact meta-gradient; and that of the paper, with the learner's gradients and losses as
    they are at these parameters put in as constants."""
    tasks = images(rng, side=2)
    for policy in ("transductive", "support"):
        network = nn.MLP([4, 3, 2], activation=ops.tanh, batch_norm=True)
        options = {"inner_steps": 2, "hidden": 2, "input_bias": (-1.0, 0.0), "batch_norm": policy}
        exact = MetaLSTM(network, first_order=False, **options)
        params = float64(exact.init(rng), rng)
        yield task_losses(exact, params, tasks)
        yield meta_gradient(exact, params, tasks)
        paper = MetaLSTM(network, **options)
        given, state = [], paper.start(params, 2)
        for _ in range(2):
            given.append(paper.gradient(state.theta, params["theta"], tasks, exact=False))
            state = paper.step(params, state, *given[-1])

        def with_constants(params, paper=paper, given=given, policy=policy):
            state = paper.start(params, 2)
            for gradient, loss in given:
                state = paper.step(params, state, gradient, loss)
            weights = paper.weights(state.theta, params["theta"])
            outputs = query_outputs(paper.network, weights, tasks, policy)
            return ops.mean(paper.loss(outputs, tasks.query_y))

        yield call(with_constants, params)
        yield meta_gradient(paper, params, tasks, with_constants)
