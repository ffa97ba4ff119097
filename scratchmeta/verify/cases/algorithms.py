"""Rows of algorithms: the whole meta-gradient, through the inner loop."""

from scratchmeta import algorithms, losses, nn, ops, tree
from scratchmeta.algorithms.protocol import query_outputs
from scratchmeta.fields import build, options
from scratchmeta.presets import OWN, REGISTRY
from scratchmeta.verify.cases.rows import CASES, row
from scratchmeta.verify.episodes import bits, curves, described, images, instance, sequences
from scratchmeta.verify.examples import call, meta_gradient, task_losses
from scratchmeta.verify.numbers import float64


@row("algorithm", directions=1)
def prototypical(rng):
    network = nn.Conv4(channels=2, image_size=8, pooling="stride")
    algorithm = algorithms.Prototypical(network)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng))
    network = nn.MLP([4, 3, 2], activation=ops.tanh, batch_norm=True)
    algorithm = algorithms.Prototypical(network)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
    yield task_losses(algorithm, params, episodes)
    for policy in ("support", "running"):
        algorithm = algorithms.Prototypical(network, distance="cosine", batch_norm=policy)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", "prototypical-zero-shot", directions=1)
def zero_shot(rng):
    describe = nn.MLP([3, 4, 2], activation=ops.tanh)
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    algorithm = algorithms.ZeroShot(network, describe)
    params = float64(algorithm.init(rng), rng)
    yield meta_gradient(algorithm, params, described(images(rng, shots=1), rng))
    algorithm = algorithms.ZeroShot(_tanh_features(), describe)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, shots=1)
    yield task_losses(algorithm, params, described(episodes, rng))
    yield meta_gradient(algorithm, params, described(episodes, rng))


def _tanh_features(n_out=2):
    """A smooth embedding of images of 2 x 2."""
    return nn.MLP([4, 3, n_out], activation=ops.tanh, batch_norm=True)


def _classifier(algorithm):
    """The gradient of training; what is done on the support afterwards has none."""

    def examples(rng):
        batch = images(rng, side=2, ways=3)
        made = algorithm(_tanh_features(), classes=4, n_features=2)
        params = float64(made.init(rng), rng)
        yield task_losses(made, params, batch)
        yield meta_gradient(made, params, batch)

    return examples


row("algorithm", "baseline-nn", directions=1)(_classifier(algorithms.BaselineNN))
row("algorithm", "baseline-finetune", directions=1)(_classifier(algorithms.BaselineFinetune))


@row("algorithm", directions=1)
def siamese(rng):
    for policy in ("transductive", "support"):
        algorithm = algorithms.Siamese(_tanh_features(), n_features=2, batch_norm=policy)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def matching(rng):
    for policy in ("transductive", "support"):
        algorithm = algorithms.Matching(_tanh_features(), temperature=0.2, batch_norm=policy)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", "matching-fce", directions=1)
def matching_fce(rng):
    algorithm = algorithms.FullContext(_tanh_features(), n_features=2, processing_steps=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def relation(rng):
    network = nn.ConvBlock(1, 2, pooling="none")
    algorithm = algorithms.Relation(network, n_channels=2, map_size=4, hidden=2)
    params, episodes = float64(algorithm.init(rng), rng), images(rng, side=4)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def reptile(rng):
    """One step of gradient descent: φ − φ̃ is α times the gradient of the minibatch's loss."""
    for network, side in (
        (nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2), 8),
        (nn.MLP([4, 4, 2], activation=ops.tanh, batch_norm=True), 2),
    ):
        algorithm = algorithms.Reptile(
            network, inner_lr=0.1, inner_steps=1, inner_batch=4, inner_optimizer="sgd"
        )
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=side)
        x, y = algorithm.training_data(episodes)

        def loss(params, network=network, x=x[:, :4], y=y[:, :4]):
            return 0.1 * ops.mean(losses.cross_entropy(network(params["network"], x), y))

        yield meta_gradient(algorithm, params, episodes, loss)
        if side == 2:
            yield call(loss, params)


@row("algorithm", directions=1)
def ntm(rng):
    for controller, heads, memory in (("lstm", 1, "constant"), ("feed-forward", 2, "learned")):
        algorithm = algorithms.NTM(3, 2, controller, 3, heads, 4, 2, memory)
        params, episodes = float64(algorithm.init(rng), rng), bits(rng)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def mann(rng):
    for labels, temperature in (("one-hot", 1.0), ("strings", 0.5)):
        algorithm = algorithms.MANN(
            2, 2, 3, labels, rows=5, width=3, heads=2, temperature=temperature
        )
        params, episodes = float64(algorithm.init(rng), rng), sequences(rng)
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)


@row("algorithm", directions=1)
def lstm(rng):
    algorithm = algorithms.LSTMBaseline(2, 2, 3)
    params, episodes = float64(algorithm.init(rng), rng), sequences(rng)
    yield task_losses(algorithm, params, episodes)
    yield meta_gradient(algorithm, params, episodes)


def slow_and_fast(n_fast):
    """A smooth network of 3 layers of images of 2 x 2, for Meta Networks."""
    return algorithms.slow_fast.SlowFast(
        [
            ("conv1", nn.Conv2d(1, 2, bias=False), nn.flatten_images),
            ("features", nn.Linear(8, 2, bias=False), lambda h: h),
            ("logits", nn.Linear(2, 2, bias=False), lambda h: h),
        ],
        n_fast,
        ops.tanh,
    )


@row("algorithm", directions=1)
def metanet(rng):
    """Filters of their own for every query, one example of a class; features, and pairs."""
    for n_fast, shots in ((3, 1), (2, 2)):
        algorithm = algorithms.MetaNet(slow_and_fast(n_fast), hidden=2)
        params, episodes = float64(algorithm.init(rng), rng), images(rng, side=2, shots=shots)
        params["u"]["features"]["weight"] *= 0.3  # pairs nearer than the margin
        yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)
    small = algorithms.slow_fast.network(2, channels=2, features=3, image_size=3, depth=2, n_fast=4)
    algorithm = algorithms.MetaNet(small, hidden=2)
    episodes = images(rng, side=3, shots=1)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), episodes)


@row("algorithm", directions=1)
def maml(rng):
    # second-order MAML through the four blocks and their transductive batch-norm
    network = nn.Conv4(channels=2, image_size=8, pooling="stride", n_out=2)
    algorithm = algorithms.MAML(network, inner_lr=0.1, inner_steps=2)
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng))
    network = nn.MLP([4, 4, 2], activation=ops.tanh, batch_norm=True)
    algorithm = algorithms.MAML(network, inner_lr=0.1, inner_steps=2, batch_norm="support")
    yield meta_gradient(algorithm, float64(algorithm.init(rng), rng), images(rng, side=2))
    network = nn.MLP([1, 3, 1], activation=ops.tanh)
    for batches in ("same", "fresh"):
        algorithm = algorithms.MAML(
            network, inner_lr=0.1, inner_steps=2, loss=losses.mse, inner_batches=batches
        )
        yield task_losses(algorithm, float64(algorithm.init(rng), rng), curves(rng))


@row("algorithm", "meta-lstm", directions=1)
def meta_lstm(rng):
    """The exact meta-gradient; and that of the paper, with the learner's gradients and losses as
    they are at these parameters put in as constants."""
    tasks = images(rng, side=2)
    for policy in ("transductive", "support"):
        network = nn.MLP([4, 3, 2], activation=ops.tanh, batch_norm=True)
        options = {"inner_steps": 2, "hidden": 2, "input_bias": (-1.0, 0.0), "batch_norm": policy}
        exact = algorithms.MetaLSTM(network, first_order=False, **options)
        params = float64(exact.init(rng), rng)
        yield task_losses(exact, params, tasks)
        yield meta_gradient(exact, params, tasks)
        paper = algorithms.MetaLSTM(network, **options)
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


@row("algorithm", directions=1)
def fomaml(rng):
    """The gradient of the query loss in a shift of the adapted weights."""
    network = nn.MLP([1, 4, 1])
    algorithm = algorithms.MAML(
        network, inner_lr=0.1, inner_steps=2, loss=losses.mse, first_order=True
    )
    params, episodes = float64(algorithm.init(rng), rng), curves(rng)
    adapted = algorithm.adapt(params, episodes, 2)

    def shifted(moved):
        fast = tree.map(lambda a, p, m: a + (m - p), adapted, params, moved)
        return ops.mean(algorithm.loss(algorithm.query_outputs(fast, episodes), episodes.query_y))

    yield meta_gradient(algorithm, params, episodes, shifted)


# --- the others, by their small instances ---------------------------------------------------------


class _Given:
    """What a small instance of a class from outside is built with: images of 2 x 2, two classes."""

    image_size, image_channels, n_inputs, ways, n_features = 2, 1, 4, 2, 2
    loss = staticmethod(losses.cross_entropy)
    network = nn.MLP([4, 3, 2], activation=ops.tanh)


def small(entry, rng):
    """The small instance of an algorithm, by default built around a small smooth network."""
    if entry.small is not None:
        return entry.small(rng)
    return instance(build(options(entry.algorithm)(), _Given), rng, images(rng, side=2))


def enter(entry):
    """A row for an algorithm: what its presets' `examples(rng)` say, else its small instance."""

    def examples(rng):
        if entry.examples is not None:
            yield from entry.examples(rng)
            return
        algorithm, params, episodes = small(entry, rng)
        if hasattr(algorithm, "task_losses"):
            yield task_losses(algorithm, params, episodes)
        yield meta_gradient(algorithm, params, episodes)

    row("algorithm", entry.name, directions=1)(examples)


for _name in OWN:
    if _name not in CASES:
        enter(REGISTRY[_name])
