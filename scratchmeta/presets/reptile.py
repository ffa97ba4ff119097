"""The presets of Reptile."""

from dataclasses import replace

from scratchmeta import losses, nn, ops
from scratchmeta.algorithms import Reptile
from scratchmeta.fields import options
from scratchmeta.run.config import Preset, Training
from scratchmeta.run.datasets.glyphs import Glyphs
from scratchmeta.run.datasets.mini_imagenet import MiniImageNet
from scratchmeta.run.datasets.omniglot import Omniglot
from scratchmeta.run.networks import Conv4
from scratchmeta.verify.episodes import images, instance
from scratchmeta.verify.examples import call, meta_gradient
from scratchmeta.verify.numbers import float64

ALGORITHM = Reptile
PAPER = "Nichol, Achiam & Schulman 2018"
FAMILY = "optimization"

method = options(Reptile)

# Turns are classes in training, and the test is on characters as they are. Batch-norm's ε is
# TensorFlow's.
AS_THEY_DO = Omniglot(
    split="vinyals", rotations="classes", resampling="nearest", upright_tests=True
)
# Reptile trains on all of an episode: one and nine drawings of a class are the paper's ten shots.
PRESETS = {
    ("glyphs", "quick"): Preset(
        method(inner_lr=1e-2, eval_inner_steps=20),
        Glyphs(),
        Conv4(channels=32, pooling="stride"),
        Training(
            n_query=9, tasks=5, optimizer="sgd", lr=1.0, linear_decay=True, steps=500,
            validate_every=100, validation_episodes=50,
        ),
    ),
    ("omniglot", "quick"): Preset(
        method(inner_lr=1e-2),  # ten times the paper's, for a tenth of its steps
        Omniglot(rotations="class-episode"),
        Conv4(pooling="stride"),
        Training(
            n_query=9, tasks=5, optimizer="sgd", lr=1.0, linear_decay=True, steps=10_000,
            validate_every=1000,
        ),
    ),
    ("omniglot", "paper"): Preset(
        method(),
        AS_THEY_DO,
        Conv4(pooling="stride", batch_norm_eps=1e-3),
        Training(
            n_query=9, tasks=5, optimizer="sgd", lr=1.0, linear_decay=True, steps=100_000,
            validate_every=5000, validation_episodes=600, test_query=1,
        ),
    ),
    ("omniglot", "paper-20-way"): Preset(
        method(inner_lr=5e-4, inner_steps=10, inner_batch=20, eval_batch=10),
        AS_THEY_DO,
        Conv4(pooling="stride", batch_norm_eps=1e-3),
        Training(
            n_way=20, n_query=9, tasks=5, optimizer="sgd", lr=1.0, linear_decay=True,
            steps=200_000, validate_every=5000, validation_episodes=600, test_query=1,
        ),
    ),
}  # fmt: skip

PRESETS["mini-imagenet", "paper"] = Preset(
    method(inner_steps=8),
    MiniImageNet(),
    Conv4(channels=32, batch_norm_eps=1e-3),
    replace(PRESETS["omniglot", "paper"].training, n_query=14),
)
PRESETS["mini-imagenet", "paper-5-shot"] = (
    PRESETS["mini-imagenet", "paper"]
    .trained(k_shot=5, n_query=10)
    ._replace(method=method(inner_steps=8, eval_batch=15))
)


def small(rng):
    """A small instance for the checks: the algorithm, its parameters, episodes."""
    algorithm = Reptile(
        nn.MLP([64, 6, 2], activation=ops.tanh),
        inner_batch=4,
        eval_inner_steps=2,
        inner_optimizer="sgd",
    )
    return instance(algorithm, rng, images(rng, queries=2))


def examples(rng):
    """One step of gradient descent: φ − φ̃ is α times the gradient of the minibatch's loss."""
    for network, side in (
        (nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2), 8),
        (nn.MLP([4, 4, 2], activation=ops.tanh, batch_norm=True), 2),
    ):
        algorithm = Reptile(
            network, inner_lr=0.1, inner_steps=1, inner_batch=4, inner_optimizer="sgd"
        )
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=side)
        x, y = algorithm.training_data(episodes)

        def loss(params, network=network, x=x[:, :4], y=y[:, :4]):
            return 0.1 * ops.mean(losses.cross_entropy(network(params["network"], x), y))

        yield meta_gradient(algorithm, params, episodes, loss)
        if side == 2:
            yield call(loss, params)
