"""The same weights, the same episodes, in float64: torch's numbers and ours agree to 1e-9.

torch is an oracle here and nowhere in the library; without it these tests are skipped.
"""

import math

import numpy as np
import pytest

from scratchmeta import Tensor, grad, losses, nn, ops, optim, tree
from scratchmeta.algorithms import (
    MAML,
    MANN,
    NTM,
    FullContext,
    LSTMBaseline,
    Matching,
    MetaLSTM,
    MetaNet,
    Prototypical,
    Relation,
    Reptile,
    Siamese,
    metanet,
    relation,
    slow_fast,
)
from scratchmeta.episodes import Episode

torch = pytest.importorskip("torch", reason="torch, the oracle of these tests, is not installed")
F = torch.nn.functional


def close(ours, theirs, rtol=1e-9):
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * np.abs(theirs).max() + 1e-14)


def images(rng, tasks, ways, shots, queries, side):
    def some(n):
        labels = np.tile(np.repeat(np.arange(ways), n), (tasks, 1))
        return rng.random((tasks, ways * n, side, side, 1)), labels

    return Episode(*some(shots), *some(queries))


def float64(params, rng):
    """The parameters in float64, moved a little so that scales and offsets are no round numbers."""
    return tree.map(lambda p: p.astype(np.float64) + 0.1 * rng.normal(size=p.shape), params)


def leaves(params):
    """The parameters as torch leaves, in the same tree."""
    return tree.map(lambda p: torch.tensor(p, requires_grad=True), params)


# --- the networks, in torch ---------------------------------------------------------------------


def torch_conv4(p, x, pooling):
    """Conv4 of images (N, H, W, 1) with batch statistics; the head if there is one."""
    x = x.permute(0, 3, 1, 2)
    for i in range(1, 5):
        block = p[f"block{i}"]
        w = block["conv"]["weight"].permute(3, 2, 0, 1)
        if pooling == "max":
            x = F.conv2d(x, w, padding=1)
        else:  # "same" with stride 2: the odd zero row and column at the end
            need = max((-(-x.shape[2] // 2) - 1) * 2 + 3 - x.shape[2], 0)
            low, high = need // 2, need - need // 2
            x = F.conv2d(F.pad(x, (low, high, low, high)), w, stride=2)
        norm = block["norm"]
        x = F.batch_norm(x, None, None, norm["scale"], norm["offset"], training=True)
        x = F.relu(x)
        x = F.max_pool2d(x, 2) if pooling == "max" else x
    x = x.permute(0, 2, 3, 1)
    x = x.flatten(1) if pooling == "max" else x.mean((1, 2))
    return x @ p["head"]["weight"] + p["head"]["bias"] if "head" in p else x


def torch_mlp(p, x):
    for i in (1, 2, 3):
        x = x @ p[f"linear{i}"]["weight"] + p[f"linear{i}"]["bias"]
        x = F.relu(x) if i < 3 else x
    return x


def torch_maml(forward, loss, params, episodes, alpha, steps, first_order):
    """The meta-gradient by a plain loop over the tasks."""
    θ = leaves(params)
    flat, treedef = tree.flatten(θ)
    total = 0.0
    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        fast = flat
        for _ in range(steps):
            inner = loss(forward(tree.unflatten(treedef, fast), sx), sy)
            gs = torch.autograd.grad(inner, fast, create_graph=not first_order)
            fast = [p - alpha * g for p, g in zip(fast, gs, strict=True)]
        total = total + loss(forward(tree.unflatten(treedef, fast), qx), qy)
    mean = total / len(episodes.support_x)
    return mean, tree.unflatten(treedef, list(torch.autograd.grad(mean, flat)))


# --- meta-gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("pooling", ["stride", "max"])
def test_maml_through_conv4_with_batch_norm(pooling, steps, first_order):
    rng = np.random.default_rng(0)
    network = nn.Conv4(channels=6, image_size=17, pooling=pooling, n_out=3)
    params = float64(network.init(rng), rng)
    episodes = images(rng, tasks=2, ways=3, shots=2, queries=2, side=17)
    algorithm = MAML(network, inner_lr=0.3, inner_steps=steps, first_order=first_order)
    loss, g = algorithm.meta_gradient(params, episodes)

    def forward(p, x):
        return torch_conv4(p, x, pooling)

    wanted = torch_maml(forward, F.cross_entropy, params, episodes, 0.3, steps, first_order)
    close(np.asarray(loss), wanted[0])
    tree.map(close, g, wanted[1])


@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
@pytest.mark.parametrize("steps", [1, 5])
def test_maml_on_sinusoids(steps, first_order):
    rng = np.random.default_rng(1)
    network = nn.MLP([1, 40, 40, 1])
    params = float64(network.init(rng), rng)
    x = [rng.uniform(-5, 5, (4, 10, 1)) for _ in range(2)]
    episodes = Episode(x[0], np.sin(x[0]), x[1], np.sin(x[1]))
    algorithm = MAML(network, 0.01, inner_steps=steps, first_order=first_order, loss=losses.mse)
    loss, g = algorithm.meta_gradient(params, episodes)
    wanted = torch_maml(torch_mlp, F.mse_loss, params, episodes, 0.01, steps, first_order)
    close(np.asarray(loss), wanted[0])
    tree.map(close, g, wanted[1])


def torch_preprocess(x, p):
    large = x.abs() >= math.exp(-p)
    size = torch.where(large, x.abs(), 1.0).log() / p
    return torch.stack(
        [torch.where(large, size, -1.0), torch.where(large, x.sign(), math.exp(p) * x)], -1
    )


def torch_meta_lstm(forward, params, episodes, steps, first_order):
    """The meta-gradient by a plain loop over the tasks, all weights of a task as one vector."""
    Θ = leaves(params)
    flat, treedef = tree.flatten(Θ["theta"])
    cell = torch.nn.LSTMCell(4, Θ["lstm"]["w_h"].shape[0]).double()
    given = {
        "weight_ih": Θ["lstm"]["w_x"].T,
        "weight_hh": Θ["lstm"]["w_h"].T,
        "bias_ih": Θ["lstm"]["b"],
        "bias_hh": torch.zeros_like(Θ["lstm"]["b"]),
    }

    def weights(theta):
        parts = theta.split([w.numel() for w in flat])
        return tree.unflatten(
            treedef, [p.reshape(w.shape) for p, w in zip(parts, flat, strict=True)]
        )

    def gate(name, h, theta, before):
        inputs = torch.cat([h, theta[:, None], before[:, None]], dim=1)
        return torch.sigmoid(inputs @ Θ[name]["weight"] + Θ[name]["bias"])

    total = 0.0
    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        theta = torch.cat([w.flatten() for w in flat])
        f = i = torch.zeros_like(theta)
        hidden = None
        for _ in range(steps):
            at = theta.detach().requires_grad_() if first_order else theta
            loss = F.cross_entropy(forward(weights(at), sx), sy)
            (g,) = torch.autograd.grad(loss, at, create_graph=not first_order)
            loss = loss.detach() if first_order else loss
            x = torch.cat(
                [torch_preprocess(g, 10), torch_preprocess(loss, 10).expand(len(g), 2)], dim=1
            )
            hidden = torch.func.functional_call(cell, given, (x, hidden))
            f, i = gate("forget", hidden[0], theta, f), gate("input", hidden[0], theta, i)
            theta = f * theta - i * g
        total = total + F.cross_entropy(forward(weights(theta), qx), qy)
    mean = total / len(episodes.support_x)
    all_flat, whole = tree.flatten(Θ)
    return mean, tree.unflatten(whole, list(torch.autograd.grad(mean, all_flat)))


@pytest.mark.parametrize("first_order", [False, True], ids=["exact", "first order"])
@pytest.mark.parametrize("pooling", ["stride", "max"])
def test_meta_lstm_through_conv4_with_batch_norm(pooling, first_order):
    rng = np.random.default_rng(6)
    network = nn.Conv4(channels=4, image_size=17, pooling=pooling, n_out=3)
    algorithm = MetaLSTM(
        network, inner_steps=3, hidden=5, input_bias=(-1.0, 0.0), first_order=first_order
    )
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, tasks=2, ways=3, shots=2, queries=2, side=17)
    loss, g = algorithm.meta_gradient(params, episodes)

    def forward(p, x):
        return torch_conv4(p, x, pooling)

    wanted = torch_meta_lstm(forward, params, episodes, 3, first_order)
    close(np.asarray(loss), wanted[0])
    tree.map(close, g, wanted[1])


def test_prototypical():
    rng = np.random.default_rng(2)
    network = nn.Conv4(channels=6, image_size=17)
    algorithm = Prototypical(network)
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, tasks=1, ways=3, shots=2, queries=4, side=17)
    loss, g = algorithm.meta_gradient(params, episodes)

    θ = leaves(params)
    features = torch_conv4(θ["network"], torch.tensor(np.concatenate(episodes[::2], 1)[0]), "max")
    c = features[:6].reshape(3, 2, -1).mean(1)
    d = (features[6:, None] - c[None]).square().sum(-1)
    wanted = F.cross_entropy(-d, torch.tensor(episodes.query_y[0]))
    wanted.backward()
    close(np.asarray(loss), wanted)
    tree.map(lambda ours, theirs: close(ours, theirs.grad), g, θ)


def torch_ntm(θ, x, machine):
    """What the output sees after every step of sequences x (T, S, I), and its logits (T, S, O)."""
    tasks, n, m = len(x), machine.heads, machine.width
    p, start = θ["controller"], θ["start"]
    h = c = torch.zeros(tasks, machine.units, dtype=x.dtype)
    r = start["r"].expand(tasks, -1)
    empty = torch.full((machine.rows, m), 1e-6, dtype=x.dtype)
    memory = start.get("rows", empty).expand(tasks, -1, -1)
    w = start["w"].softmax(-1).expand(tasks, -1, -1)
    logits = []
    for t in range(x.shape[1]):
        z = x[:, t] @ p["w_x"] + r @ p["w_r"] + p["b"]
        if machine.controller == "lstm":
            i, f, g, o = (z + h @ p["w_h"]).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        else:
            h = z.tanh()
        told = h @ θ["heads"]["weight"] + θ["heads"]["bias"]
        sizes = [2 * n * m, 2 * n, 2 * n, 6 * n, 2 * n, n * m, n * m]
        k, β, g, s, γ, e, a = told.split(sizes, -1)
        k, e, a = (v.reshape(tasks, -1, m) for v in (k.tanh(), e.sigmoid(), a.tanh()))
        likeness = F.cosine_similarity(k[:, :, None], memory[:, None], dim=-1, eps=1e-30)
        content = (F.softplus(β)[..., None] * likeness).softmax(-1)
        g = g.sigmoid()[..., None]
        w = g * content + (1 - g) * w
        s = s.reshape(tasks, 2 * n, 3).softmax(-1)
        w = sum(s[..., j : j + 1] * w.roll(j - 1, -1) for j in range(3))
        w = w ** (1 + F.softplus(γ))[..., None]
        w = w / w.sum(-1, keepdim=True)
        for j in range(n):
            memory = memory * (1 - w[:, n + j, :, None] * e[:, j, None])
        for j in range(n):
            memory = memory + w[:, n + j, :, None] * a[:, j, None]
        r = torch.einsum("thn,tnm->thm", w[:, :n], memory).flatten(1)
        logits.append(torch.cat([h, r], -1) @ θ["out"]["weight"] + θ["out"]["bias"])
    return torch.stack(logits, 1)


@pytest.mark.parametrize(
    ("controller", "heads", "memory"),
    [("lstm", 1, "constant"), ("lstm", 2, "learned"), ("feed-forward", 2, "constant")],
)
def test_ntm(controller, heads, memory):
    rng = np.random.default_rng(6)
    machine = NTM(5, 3, controller, 8, heads, 7, 4, memory)
    params = float64(machine.init(rng), rng)
    x, y = rng.normal(size=(3, 9, 5)), rng.random((3, 9, 3)) < 0.5
    batch = Episode(x[:, :5], y[:, :5], x[:, 5:], y[:, 5:])
    loss, g = machine.meta_gradient(params, batch)

    θ = leaves(params)
    logits = torch_ntm(θ, torch.tensor(x), machine)[:, 5:]
    wanted = F.binary_cross_entropy_with_logits(logits, torch.tensor(y[:, 5:]).double())
    wanted.backward()
    close(np.asarray(loss), wanted)
    close(machine.predict(params, batch), logits.sigmoid())
    tree.map(lambda ours, theirs: close(ours, theirs.grad), g, θ)


# --- the metric-based algorithms, one task at a time ---------------------------------------------


def embedded(θ, episodes, t):
    """Features of support and query of task t, through Conv4 with their common statistics."""
    n = episodes.support_x.shape[1]
    both = np.concatenate([episodes.support_x[t], episodes.query_x[t]])
    features = torch_conv4(θ["network"], torch.tensor(both), "max")
    return features[:n], features[n:]


def torch_siamese(θ, episodes, t):
    """Koch et al.: binary cross entropy of all pairs, half the weight on either kind."""
    support, query = embedded(θ, episodes, t)
    z = (query[:, None] - support[None]).abs() @ θ["alpha"] + θ["bias"]
    y = torch.tensor(episodes.query_y[t][:, None] == episodes.support_y[t][None])
    losses = F.binary_cross_entropy_with_logits(z, y.double(), reduction="none")
    return (losses[y].mean() + losses[~y].mean()) / 2


def torch_matching(f, g, episodes, t, temperature):
    """Vinyals et al.: −log of the attention to the true class."""
    cosine = F.cosine_similarity(f[:, None], g[None], dim=-1)
    a = torch.softmax(cosine / temperature, -1)
    true = torch.tensor(episodes.query_y[t][:, None] == episodes.support_y[t][None])
    return -(a * true).sum(-1).log().mean()


def torch_lstm(p, n):
    """nn.LSTM's own recurrence with our weights, as a function of a sequence (S, n)."""

    def run(x):
        h, c, states = x.new_zeros(n), x.new_zeros(n), []
        for row in x:
            h, c = torch_cell(p, row, h, c)
            states.append(h)
        return torch.stack(states)

    return run


def torch_cell(p, x, h, c):
    """torch's gates i, f, g, o are ours, its weights transposed."""
    h, c = torch.lstm_cell(
        x.reshape(-1, x.shape[-1]),
        (h.reshape(-1, h.shape[-1]), c.reshape(-1, c.shape[-1])),
        p["w_x"].T,
        p["w_h"].T,
        p["b"],
        torch.zeros_like(p["b"]),
    )
    return h.reshape(*x.shape[:-1], -1), c.reshape(*x.shape[:-1], -1)


def torch_full_context(θ, support, query, steps):
    """Vinyals et al., appendix: g by a bidirectional LSTM, f by an LSTM that reads g first."""
    n = support.shape[-1]
    forward = torch_lstm(θ["g"]["forward"], n)(support)
    backward = torch_lstm(θ["g"]["backward"], n)(support.flip(0)).flip(0)
    g = forward + backward + support
    h = c = torch.zeros_like(query)
    for _ in range(steps):
        r = torch.softmax(h @ g.T, -1) @ g
        h, c = torch_cell(θ["f"], torch.cat([query, r], -1), h, c)
        h = h + query
    return h, g


def torch_relation(θ, episodes, t):
    """Sung et al.: maps summed over the shots, concatenated in pairs, MSE of the scores."""

    def block(p, x, padding, pool):
        x = F.conv2d(x, p["conv"]["weight"].permute(3, 2, 0, 1), padding=padding)
        x = F.batch_norm(x, None, None, p["norm"]["scale"], p["norm"]["offset"], training=True)
        return F.max_pool2d(F.relu(x), pool)

    def maps(x):
        x = torch.tensor(x).permute(0, 3, 1, 2)
        for i, (padding, pool) in enumerate(((0, 2), (0, 2), (1, 1), (1, 1)), 1):
            x = block(θ["network"][f"block{i}"], x, padding, pool)
        return x

    support, queries = maps(episodes.support_x[t]), maps(episodes.query_x[t])
    labels = torch.tensor(episodes.support_y[t])
    ways = int(labels.max()) + 1
    classes = torch.stack([support[labels == k].sum(0) for k in range(ways)])
    pairs = torch.cat(
        [
            classes[None].expand(len(queries), *classes.shape),
            queries[:, None].expand(len(queries), *classes.shape),
        ],
        dim=2,
    ).flatten(0, 1)
    for name in ("first", "second"):
        pairs = block(θ[name], pairs, 1, 2)
    flat = pairs.permute(0, 2, 3, 1).flatten(1)
    head = θ["head"]
    hidden = F.relu(flat @ head["linear1"]["weight"] + head["linear1"]["bias"])
    r = torch.sigmoid(hidden @ head["linear2"]["weight"] + head["linear2"]["bias"])
    same = torch.tensor(episodes.query_y[t])[:, None] == torch.arange(ways)
    return F.mse_loss(r.reshape(len(queries), ways), same.double())


def torch_mann(θ, algorithm, episodes, t):
    """Santoro et al.: eqs. 2 to 8 step by step, least used rows by sorting."""
    x = torch.tensor(np.concatenate([episodes.support_x[t], episodes.query_x[t]])).flatten(1)
    y = torch.tensor(np.concatenate([episodes.support_y[t], episodes.query_y[t]]))
    heads, width, rows = algorithm.heads, algorithm.width, algorithm.rows
    h = c = x.new_zeros(algorithm.controller)
    memory, usage = x.new_full((rows, width), 1e-6), x.new_zeros(rows)
    read, r = x.new_zeros(heads, rows), x.new_zeros(heads * width)
    before, logits = x.new_zeros(algorithm.ways), []
    weights = torch.cat([θ["lstm"]["w_h"], θ["lstm"]["w_r"]])
    for image, label in zip(x, y, strict=True):
        p = {"w_x": torch.cat([θ["lstm"]["w_x"], weights[len(h) :]]), "w_h": weights[: len(h)]}
        h, c = torch_cell({**p, "b": θ["lstm"]["b"]}, torch.cat([image, before, r]), h, c)
        made = h @ θ["interface"]["weight"] + θ["interface"]["bias"]
        keys = torch.tanh(made[: heads * width]).reshape(heads, width)
        gate = torch.sigmoid(made[heads * width :])[:, None]
        least = usage.argsort(stable=True)
        mark = torch.zeros_like(usage).index_fill(0, least[:heads], 1.0)
        write = gate * read + (1 - gate) * mark
        memory = memory.index_fill(0, least[:1], 0.0) + write.T @ keys
        cosine = F.cosine_similarity(keys[:, None], memory[None], dim=-1)
        read = torch.softmax(cosine / algorithm.temperature, -1)
        r = (read @ memory).flatten()
        usage = (algorithm.gamma * usage + read.sum(0) + write.sum(0)).detach()
        out = torch.cat([h, r]) @ θ["out"]["weight"] + θ["out"]["bias"]
        logits.append(out)
        before = F.one_hot(label, algorithm.ways).double()
    return F.cross_entropy(torch.stack(logits), y)


def check_against(algorithm, params, episodes, task_loss):
    """Loss and gradient against torch's of the mean of task_loss(θ, task)."""
    loss, g = algorithm.meta_gradient(params, episodes)
    θ = leaves(params)
    wanted = sum(task_loss(θ, t) for t in range(len(episodes.support_x))) / len(episodes.support_x)
    wanted.backward()
    close(np.asarray(loss), wanted)
    tree.map(lambda ours, theirs: close(ours, theirs.grad), g, θ)


def learner(made, seed, **options):
    """A learner around a Conv4, its parameters, and two tasks."""
    rng = np.random.default_rng(seed)
    algorithm = made(nn.Conv4(channels=6, image_size=17), **options)
    params = float64(algorithm.init(rng), rng)
    return algorithm, params, images(rng, tasks=2, ways=3, shots=2, queries=2, side=17)


def test_siamese():
    algorithm, params, episodes = learner(Siamese, 10, n_features=6)
    check_against(algorithm, params, episodes, lambda θ, t: torch_siamese(θ, episodes, t))


def test_matching():
    algorithm, params, episodes = learner(Matching, 11, temperature=0.2)

    def task_loss(θ, t):
        g, f = embedded(θ, episodes, t)
        return torch_matching(f, g, episodes, t, 0.2)

    check_against(algorithm, params, episodes, task_loss)


def test_full_context_embeddings():
    algorithm, params, episodes = learner(FullContext, 12, n_features=6, processing_steps=3)

    def task_loss(θ, t):
        f, g = torch_full_context(θ, *embedded(θ, episodes, t), steps=3)
        return torch_matching(f, g, episodes, t, 1.0)

    check_against(algorithm, params, episodes, task_loss)


def test_relation():
    rng = np.random.default_rng(13)
    algorithm = Relation(relation.embedding(4), n_channels=4)
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, tasks=2, ways=3, shots=2, queries=2, side=28)
    check_against(algorithm, params, episodes, lambda θ, t: torch_relation(θ, episodes, t))


def sequences(algorithm):
    """An algorithm that reads sequences, its parameters, and two sequences of four classes."""
    rng = np.random.default_rng(14)
    params = float64(algorithm.init(rng), rng)
    episodes = images(rng, tasks=2, ways=4, shots=1, queries=2, side=3)
    order = rng.permutation(8)
    return params, episodes._replace(
        query_x=episodes.query_x[:, order], query_y=episodes.query_y[:, order]
    )


@pytest.mark.parametrize(("heads", "temperature"), [(1, 1.0), (3, 0.2)])
def test_mann(heads, temperature):
    algorithm = MANN(3, 4, 6, rows=7, width=5, heads=heads, temperature=temperature)
    params, episodes = sequences(algorithm)
    check_against(algorithm, params, episodes, lambda θ, t: torch_mann(θ, algorithm, episodes, t))


def test_lstm_baseline():
    algorithm = LSTMBaseline(3, 4, 6)
    params, episodes = sequences(algorithm)

    def task_loss(θ, t):
        x = torch.tensor(np.concatenate([episodes.support_x[t], episodes.query_x[t]])).flatten(1)
        y = torch.tensor(np.concatenate([episodes.support_y[t], episodes.query_y[t]]))
        label = F.one_hot(y, 4).double()
        before = torch.cat([torch.zeros_like(label[:1]), label[:-1]])
        states = torch_lstm(θ["lstm"], 6)(torch.cat([x, before], dim=-1))
        return F.cross_entropy(states @ θ["out"]["weight"] + θ["out"]["bias"], y)

    check_against(algorithm, params, episodes, task_loss)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_reptile(optimizer):
    """The way back from torch's own Adam, or SGD, of one task after another."""
    rng = np.random.default_rng(15)
    network = nn.Conv4(channels=6, image_size=17, pooling="stride", n_out=3)
    episodes = images(rng, tasks=2, ways=3, shots=1, queries=3, side=17)
    algorithm = Reptile(
        network, inner_lr=0.01, inner_steps=4, inner_batch=6, inner_optimizer=optimizer
    )
    params = algorithm.init(rng)  # with Adam, its state is new
    params["network"] = float64(params["network"], rng)
    params = tree.astype(params, "float64")
    _, g = algorithm.meta_gradient(params, episodes)
    # the first drawing of every class, which is the support's, then the second, ...
    order = np.arange(9).reshape(3, 3).T.ravel()
    ends = []
    for t in range(2):
        x = np.concatenate([episodes.support_x[t], episodes.query_x[t, order]])
        y = np.concatenate([episodes.support_y[t], episodes.query_y[t, order]])
        θ = leaves(params["network"])
        made = {
            "adam": lambda p: torch.optim.Adam(p, 0.01, betas=(0.0, 0.999)),
            "sgd": lambda p: torch.optim.SGD(p, 0.01),
        }[optimizer](tree.flatten(θ)[0])
        for step in range(4):
            batch = [i % 12 for i in range(6 * step, 6 * step + 6)]
            made.zero_grad()
            logits = torch_conv4(θ, torch.tensor(x[batch]), "stride")
            F.cross_entropy(logits, torch.tensor(y[batch])).backward()
            made.step()
        ends.append(θ)
    tree.map(
        lambda ours, p, a, b: close(ours, p - (a + b).detach().numpy() / 2),
        g["network"],
        params["network"],
        *ends,
    )


def torch_slow_fast(paths, x, embed=False):
    """Two convolutions, features and logits of images (N, H, W, 1), with weights [slow, fast]."""
    h = x.permute(0, 3, 1, 2)
    for name in ("conv1", "conv2"):
        ws = [p[name]["weight"].permute(3, 2, 0, 1) for p in paths]
        h = sum(F.relu(F.conv2d(h, w, padding=1)) for w in ws)
        h = F.max_pool2d(h, 2, ceil_mode=True)
    h = h.permute(0, 2, 3, 1).flatten(1)
    z = [h @ p["dense"]["weight"] for p in paths]
    if embed:
        return sum(z)
    h = sum(map(F.relu, z))
    return sum(h @ p["logits"]["weight"] for p in paths)


def torch_metanet(params, episodes, first_order):
    """The meta-gradient by loops over tasks, examples and queries."""
    θ = leaves(params)
    u, b, total = θ["u"], θ["b"], 0.0

    def preprocessed(loss, weights):
        flat = tree.flatten(weights)[0]
        g = torch.autograd.grad(loss, flat, create_graph=not first_order, retain_graph=True)
        return torch_preprocess(torch.cat([x.reshape(-1) for x in g]), 7)

    def weights(vector, like):
        flat, treedef = tree.flatten(like)
        parts = vector.split([w.numel() for w in flat])
        return tree.unflatten(
            treedef, [p.reshape(w.shape) for p, w in zip(parts, flat, strict=True)]
        )

    def m(g):
        for i in (1, 2, 3):
            g = g @ θ["m"][f"linear{i}"]["weight"] + θ["m"][f"linear{i}"]["bias"]
            g = F.relu(g) if i < 3 else g
        return g[:, 0]

    for sx, sy, qx, qy in zip(*(map(torch.tensor, a) for a in episodes), strict=True):
        n, ways, augmented = len(sx), 3, {k: u[k] for k in ("conv1", "conv2", "dense")}
        h = c = torch.zeros((sum(w["weight"].numel() for w in augmented.values()), 4)).double()
        for i, j in zip(*metanet.pairs(n, ways), strict=True):
            if n == ways:
                loss = F.cross_entropy(torch_slow_fast([u], sx[i : i + 1]), sy[i : i + 1])
            else:
                d = (torch.sub(*torch_slow_fast([u], sx[[i, j]], embed=True))).norm()
                loss = (d if sy[i] == sy[j] else F.relu(1 - d)) ** 2 / 2
            lstm = θ["d"]["lstm"]
            z = preprocessed(loss, augmented) @ lstm["w_x"] + h @ lstm["w_h"] + lstm["b"]
            gi, gf, gg, go = z.chunk(4, -1)
            c = gf.sigmoid() * c + gi.sigmoid() * gg.tanh()
            h = go.sigmoid() * c.tanh()
        made = (h @ θ["d"]["out"]["weight"] + θ["d"]["out"]["bias"])[:, 0]
        paths = [u, weights(made, augmented)]
        keys, r = (torch_slow_fast(paths, x, embed=True) for x in (sx, qx))
        losses = [
            F.cross_entropy(torch_slow_fast([b], x[None]), y[None])
            for x, y in zip(sx, sy, strict=True)
        ]
        memory = torch.stack([m(preprocessed(loss, b)) for loss in losses])
        a = F.softmax(F.cosine_similarity(r[:, None], keys[None], -1, eps=1e-30), -1)
        logits = [
            torch_slow_fast([b, weights(w, b)], x[None])[0]
            for w, x in zip(a @ memory, qx, strict=True)
        ]
        total = total + F.cross_entropy(torch.stack(logits), qy)
    mean = total / len(episodes.support_x)
    mean.backward()
    return mean, tree.map(lambda p: torch.zeros_like(p) if p.grad is None else p.grad, θ)


@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
@pytest.mark.parametrize("shots", [1, 2])
def test_metanet(shots, first_order):
    rng = np.random.default_rng(6)
    network = slow_fast.network(3, channels=3, features=4, image_size=5, depth=2, n_fast=4)
    algorithm = MetaNet(network, hidden=4, first_order=first_order)
    params = float64(algorithm.init(rng), rng)
    params["u"]["dense"]["weight"] *= 0.2  # pairs nearer than the margin
    episodes = images(rng, tasks=2, ways=3, shots=shots, queries=2, side=5)
    loss, g = algorithm.meta_gradient(params, episodes)
    wanted = torch_metanet(params, episodes, first_order)
    close(np.asarray(loss), wanted[0])
    tree.map(close, g, wanted[1])


# --- operations and optimisers --------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_conv2d(stride, padding):
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(3, 9, 8, 4)), rng.normal(size=(3, 3, 4, 5))
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
    wanted = F.conv2d(
        tx.permute(0, 3, 1, 2), tw.permute(3, 2, 0, 1), stride=stride, padding=padding
    ).permute(0, 2, 3, 1)
    g = rng.normal(size=tuple(wanted.shape))
    (wanted * torch.tensor(g)).sum().backward()
    ours, gs = Tensor(x), Tensor(w)
    y = ops.conv2d(ours, gs, stride, padding)
    gx, gw = grad(ops.sum(y * g), (ours, gs))
    close(y.data, wanted)
    close(gx, tx.grad)
    close(gw, tw.grad)


def test_lstm():
    rng = np.random.default_rng(4)
    cell = torch.nn.LSTMCell(5, 7).double()
    x, h, c = rng.normal(size=(3, 5)), rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    wanted = cell(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
    w_x, w_h = (p.detach().numpy().T for p in (cell.weight_ih, cell.weight_hh))
    b = (cell.bias_ih + cell.bias_hh).detach().numpy()
    for ours, theirs in zip(ops.lstm_cell(x, h, c, w_x, w_h, b), wanted, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (optim.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (optim.Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
        (
            optim.Adam(0.01, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
        ),
    ],
    ids=["SGD", "momentum", "Adam", "weight decay"],
)
def test_optimisers(ours, theirs):
    rng = np.random.default_rng(5)
    params = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    θ = leaves(params)
    optimiser, state = theirs([θ["a"], θ["b"]]), ours.init(params)
    for _ in range(5):
        g = tree.map(lambda p: rng.normal(size=p.shape), params)
        for key in g:
            θ[key].grad = torch.tensor(g[key])
        optimiser.step()
        params, state = ours.step(params, g, state)
    tree.map(close, params, θ)


def test_max_pool_gives_ties_to_the_first():
    x = np.zeros((1, 4, 4, 1))
    x[0, 2:, 2:] = 1.0
    t, ours = torch.tensor(x, requires_grad=True), Tensor(x)
    F.max_pool2d(t.permute(0, 3, 1, 2), 2).sum().backward()
    close(grad(ops.sum(ops.max_pool2d(ours)), ours), t.grad)
