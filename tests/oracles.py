"""What every row of the table of cases should compute, as NumPy has it or in loops over scalars.

ORACLES[name](*inputs, **options) is the value of an operation or loss; for a layer, the first
argument is the layer itself.
"""

import itertools
import math

import numpy as np


def every(shape):
    """All indices of an array of this shape."""
    return itertools.product(*(range(n) for n in shape))


# --- elementwise and reductions -------------------------------------------------------------------


def elementwise(f):
    """f of Python numbers, applied to one number after the other."""

    def oracle(*arrays):
        arrays = np.broadcast_arrays(*arrays)
        out = np.empty(arrays[0].shape)
        for i in every(out.shape):
            out[i] = f(*(float(a[i]) for a in arrays))
        return out

    return oracle


def preprocess(x, p):
    out = np.empty((*x.shape, 2))
    for i in every(x.shape):
        v = float(x[i])
        if abs(v) >= math.exp(-p):
            out[i] = math.log(abs(v)) / p, math.copysign(1.0, v)
        else:
            out[i] = -1.0, math.exp(p) * v
    return out


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def reduction(f):
    """f of the list of numbers that are reduced to one."""

    def oracle(x, axis=None, keepdims=False):
        axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = [a % x.ndim for a in axes]
        groups = {}
        for i in every(x.shape):
            kept = tuple(0 if a in axes else n for a, n in enumerate(i))
            groups.setdefault(kept, []).append(float(x[i]))
        out = np.empty([1 if a in axes else n for a, n in enumerate(x.shape)])
        for i, numbers in groups.items():
            out[i] = f(numbers)
        return out if keepdims else out.reshape([n for a, n in enumerate(x.shape) if a not in axes])

    return oracle


def mean(numbers):
    return math.fsum(numbers) / len(numbers)


def var(numbers):
    return mean([(x - mean(numbers)) ** 2 for x in numbers])


def logsumexp(numbers):
    return math.log(math.fsum(math.exp(x) for x in numbers))


def along_axis(f):
    """f of the list of numbers along an axis gives another such list."""

    def oracle(x, axis=-1):
        out = np.empty(x.shape)
        for i in every(x.shape):
            line = list(i)
            line[axis] = slice(None)
            out[i] = f([float(v) for v in x[tuple(line)]])[i[axis]]
        return out

    return oracle


def softmax(numbers):
    return [math.exp(x - logsumexp(numbers)) for x in numbers]


def cumsum(numbers):
    return [math.fsum(numbers[: i + 1]) for i in range(len(numbers))]


def prod(x, axis=-1):
    return reduction(math.prod)(x, axis)


def norm(x, axis=-1, keepdims=False):
    return reduction(lambda numbers: math.hypot(*numbers))(x, axis, keepdims)


def top_k_mask(x, k):
    out = np.zeros(x.shape)
    for i in every(x.shape[:-1]):
        for j in sorted(range(x.shape[-1]), key=lambda j: (-x[(*i, j)], j))[:k]:
            out[(*i, j)] = 1.0
    return out


def one_hot_times(x):
    labels = [[2, 0], [1, 1]]
    out = np.zeros(x.shape)
    for i in every(x.shape):
        if labels[i[0]][i[1]] == i[2]:
            out[i] = x[i]
    return out


# --- shape ----------------------------------------------------------------------------------------


def sum_to(x, shape):
    out = np.zeros(shape)
    for i in every(x.shape):
        place = i[x.ndim - len(shape) :]
        out[tuple(0 if n == 1 else p for p, n in zip(place, shape, strict=True))] += x[i]
    return out


def scatter_add(x, index, shape):
    places = np.arange(math.prod(shape)).reshape(shape)[index]
    x = np.broadcast_to(x, places.shape)
    out = np.zeros(math.prod(shape))
    for place, value in zip(places.reshape(-1), x.reshape(-1), strict=True):
        out[place] += value
    return out.reshape(shape)


def split(x, parts, axis=-1):
    cuts = parts if isinstance(parts, int) else np.cumsum(parts)[:-1]
    return np.split(x, cuts, axis)


def pad(x, widths, value=0.0):
    shape = [low + n + high for n, (low, high) in zip(x.shape, widths, strict=True)]
    out = np.full(shape, value)
    for i in every(x.shape):
        out[tuple(p + low for p, (low, _) in zip(i, widths, strict=True))] = x[i]
    return out


# --- products -------------------------------------------------------------------------------------


def einsum(subscripts, *operands):
    inputs, output = subscripts.split("->")
    inputs = inputs.split(",")
    if "..." in subscripts:  # stand-in letters for the leading axes, the longest first
        n = max(x.ndim - len(s) + 3 for s, x in zip(inputs, operands, strict=True))
        operands = [
            x.reshape((1,) * (n - (x.ndim - len(s) + 3)) + x.shape)
            for s, x in zip(inputs, operands, strict=True)
        ]
        inputs = [s.replace("...", "XYZ"[:n]) for s in inputs]
        output = output.replace("...", "XYZ"[:n])
    sizes = {}
    for s, x in zip(inputs, operands, strict=True):
        for letter, n in zip(s, x.shape, strict=True):
            sizes[letter] = n if sizes.get(letter, 1) == 1 else sizes[letter]
    out = np.zeros([sizes[letter] for letter in output])
    for place in every(sizes.values()):
        at = dict(zip(sizes, place, strict=True))
        term = 1.0
        for s, x in zip(inputs, operands, strict=True):
            term *= x[tuple(at[c] if n > 1 else 0 for c, n in zip(s, x.shape, strict=True))]
        out[tuple(at[letter] for letter in output)] += term
    return out


def matmul(a, b):
    rows = a if a.ndim > 1 else a[None, :]
    columns = b if b.ndim > 1 else b[:, None]
    y = einsum("...nk,...km->...nm", rows, columns)
    y = y[..., 0, :] if a.ndim == 1 else y
    return y[..., 0] if b.ndim == 1 else y


def project(x, w, b=None):
    lead = w.ndim - 2
    if x.ndim == w.ndim:
        x = np.broadcast_to(x, (*w.shape[:-2], *x.shape[-2:]))
    b = np.zeros((*w.shape[:-2], w.shape[-1])) if b is None else b
    out = np.zeros((*x.shape[:-1], w.shape[-1]))
    for i in every(x.shape[:-1]):
        for m in range(w.shape[-1]):
            xw = sum(x[(*i, k)] * w[(*i[:lead], k, m)] for k in range(x.shape[-1]))
            out[(*i, m)] = xw + b[(*i[:lead], m)]
    return out


def determinant(a):
    """By the definition: a sum over all permutations."""
    n, total = len(a), 0.0
    for p in itertools.permutations(range(n)):
        inversions = sum(p[i] > p[j] for j in range(n) for i in range(j))
        total += (-1) ** inversions * math.prod(float(a[i, p[i]]) for i in range(n))
    return total


def solve(a, b):
    """By Cramer's rule: the determinants with a column of b in the place of a column of a."""
    columns = b if b.ndim > 1 else b[:, None]
    lead = np.broadcast_shapes(a.shape[:-2], columns.shape[:-2])
    a = np.broadcast_to(a, (*lead, *a.shape[-2:]))
    columns = np.broadcast_to(columns, (*lead, *columns.shape[-2:]))
    x = np.empty(columns.shape)
    for *place, i, k in every(x.shape):
        replaced = a[tuple(place)].copy()
        replaced[:, i] = columns[(*place, slice(None), k)]
        x[(*place, i, k)] = determinant(replaced) / determinant(a[tuple(place)])
    return x if b.ndim > 1 else x[..., 0]


# --- images ---------------------------------------------------------------------------------------


def geometry(n, k, stride, padding):
    """The number of outputs along an axis, and the zeros before it."""
    if padding == "same":
        out = math.ceil(n / stride)
        return out, max((out - 1) * stride + k - n, 0) // 2
    zeros = 0 if padding == "valid" else padding
    return (n + 2 * zeros - k) // stride + 1, zeros


def conv_terms(x_shape, w_shape, stride, padding):
    """(index of y, index of x, index of w) of every product in y = conv2d(x, w)."""
    *x_lead, n, height, width, channels = x_shape
    *w_lead, kh, kw, _, filters = w_shape
    lead = np.broadcast_shapes(tuple(x_lead), tuple(w_lead))
    out_h, top = geometry(height, kh, stride, padding)
    out_w, left = geometry(width, kw, stride, padding)
    for t in every(lead):
        tx = tuple(i % k for i, k in zip(t[len(t) - len(x_lead) :], x_lead, strict=True))
        tw = tuple(i % k for i, k in zip(t[len(t) - len(w_lead) :], w_lead, strict=True))
        for m, i, j, f, a, b, c in every((n, out_h, out_w, filters, kh, kw, channels)):
            h, w = stride * i + a - top, stride * j + b - left
            if 0 <= h < height and 0 <= w < width:
                yield (*t, m, i, j, f), (*tx, m, h, w, c), (*tw, a, b, c, f)


def conv_shape(x_shape, w_shape, stride, padding):
    lead = np.broadcast_shapes(x_shape[:-4], w_shape[:-4])
    out_h, _ = geometry(x_shape[-3], w_shape[-4], stride, padding)
    out_w, _ = geometry(x_shape[-2], w_shape[-3], stride, padding)
    return (*lead, x_shape[-4], out_h, out_w, w_shape[-1])


def conv2d(x, w, stride=1, padding="same"):
    y = np.zeros(conv_shape(x.shape, w.shape, stride, padding))
    for iy, ix, iw in conv_terms(x.shape, w.shape, stride, padding):
        y[iy] += x[ix] * w[iw]
    return y


def conv2d_input(g, w, shape, stride, padding):
    x = np.zeros(shape)
    for iy, ix, iw in conv_terms(shape, w.shape, stride, padding):
        x[ix] += g[iy] * w[iw]
    return x


def conv2d_weight(x, g, shape, stride, padding):
    w = np.zeros(shape)
    for iy, ix, iw in conv_terms(x.shape, shape, stride, padding):
        w[iw] += g[iy] * x[ix]
    return w


def pool(f):
    def oracle(x, size=2):
        *lead, height, width, channels = x.shape
        y = np.empty((*lead, height // size, width // size, channels))
        for *t, i, j, c in every(y.shape):
            window = [float(x[(*t, size * i + a, size * j + b, c)]) for a, b in every((size, size))]
            y[(*t, i, j, c)] = f(window)
        return y

    return oracle


max_pool2d, avg_pool2d = pool(max), pool(mean)


# --- operations with kernels ----------------------------------------------------------------------


def cosine(x, y):
    """⟨x, y⟩ / (|x| |y|), and 0 where one of them is 0."""
    dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
    lengths = math.hypot(*x) * math.hypot(*y)
    return dot / lengths if lengths else 0.0


def pairwise_distance(x, y, metric="sqeuclidean", weight=None):
    weight = np.ones(x.shape[-1]) if weight is None else weight

    def distance(a, b):
        if metric == "cosine":
            return 1.0 - cosine(a, b)
        if metric == "cityblock":
            return sum(w * abs(p - q) for p, q, w in zip(a, b, weight, strict=True))
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x = np.broadcast_to(x, (*lead, *x.shape[-2:]))
    y = np.broadcast_to(y, (*lead, *y.shape[-2:]))
    out = np.empty((*lead, x.shape[-2], y.shape[-2]))
    for *t, n, m in every(out.shape):
        out[(*t, n, m)] = distance(x[(*t, n)], y[(*t, m)])
    return out


def attend(likeness):
    def oracle(query, keys, values, scale=1.0):
        out = np.zeros((*query.shape[:-1], values.shape[-1]))
        for *t, q in every(query.shape[:-1]):
            s = float(np.asarray(scale)[tuple(t)[: np.ndim(scale)]])
            scores = [s * likeness(query[(*t, q)], key) for key in keys[tuple(t)]]
            for a, value in zip(softmax(scores), values[tuple(t)], strict=True):
                out[(*t, q)] += a * value
        return out

    return oracle


attention = attend(lambda q, k: math.fsum(a * b for a, b in zip(q, k, strict=True)))
cosine_attention = attend(cosine)


def lstm_gates(z, c):
    h_new, c_new = np.empty(c.shape), np.empty(c.shape)
    n = c.shape[-1]
    for *t, k in every(c.shape):
        i, f, g, o = (float(z[(*t, gate * n + k)]) for gate in range(4))
        new = sigmoid(f) * c[(*t, k)] + sigmoid(i) * math.tanh(g)
        c_new[(*t, k)], h_new[(*t, k)] = new, sigmoid(o) * math.tanh(new)
    return h_new, c_new


def lstm_cell(x, h, c, w_x, w_h, b):
    z = project(x, w_x) + project(h, w_h)
    for i in every(z.shape):
        z[i] += b[(*i[: b.ndim - 1], i[-1])]
    return lstm_gates(z, c)


def normalise(x, axes, scale, offset, mu=None, sigma2=None, eps=1e-5):
    """scale (x − μ) / √(σ² + ε) + offset; statistics over `axes`, parameters (C,) or (T, C)."""
    mu = reduction(mean)(x, axes, True) if mu is None else mu
    sigma2 = reduction(var)(x, axes, True) if sigma2 is None else sigma2
    y = np.empty(x.shape)
    for i in every(x.shape):
        per_channel = (*i[: scale.ndim - 1], i[-1])
        at = (
            tuple(0 if n == 1 else k for k, n in zip(i, mu.shape, strict=True))
            if (mu.ndim == x.ndim)
            else per_channel
        )
        y[i] = scale[per_channel] * (x[i] - mu[at]) / math.sqrt(sigma2[at] + eps)
        y[i] += offset[per_channel]
    return y


def norm_relu_pool(x, scale, offset, size=2, eps=1e-5):
    y = elementwise(lambda v: max(v, 0.0))(normalise(x, (-4, -3, -2), scale, offset, eps=eps))
    return y if size == 1 else max_pool2d(y, size)


# --- losses and optimisers ------------------------------------------------------------------------


def cross_entropy(logits, labels):
    out = np.zeros(labels.shape[:-1])
    for *t, n in every(labels.shape):
        line = [float(v) for v in logits[(*t, n)]]
        out[tuple(t)] -= (line[labels[(*t, n)]] - logsumexp(line)) / labels.shape[-1]
    return out


def mse(prediction, target):
    return reduction(mean)((prediction - target) ** 2, (-2, -1))


def binary_cross_entropy(logits, targets):
    def one(x, t):
        return -t * math.log(sigmoid(x)) - (1.0 - t) * math.log(sigmoid(-x))

    return reduction(mean)(elementwise(one)(logits, targets), -1)


def two_steps(params, optimiser):
    """The textbook's updates, one number at a time."""
    kind = type(optimiser).__name__

    def updated(p):
        m = v = n = 0.0
        for t in (1, 2):
            g = math.sin(p) * p
            if kind == "SGD":
                m = optimiser.momentum * m + g
                p -= optimiser.lr * m
            elif kind == "RMSProp":
                n = optimiser.decay * n + (1 - optimiser.decay) * g * g
                m = optimiser.decay * m + (1 - optimiser.decay) * g
                centre = m * m if optimiser.centered else 0.0
                v = optimiser.momentum * v + g / math.sqrt(n - centre + optimiser.eps)
                p -= optimiser.lr * v
            else:
                g += optimiser.weight_decay * p
                m = optimiser.beta1 * m + (1 - optimiser.beta1) * g
                v = optimiser.beta2 * v + (1 - optimiser.beta2) * g * g
                m_hat, v_hat = m / (1 - optimiser.beta1**t), v / (1 - optimiser.beta2**t)
                p -= optimiser.lr * m_hat / (math.sqrt(v_hat) + optimiser.eps)
        return p

    return {name: elementwise(updated)(p) for name, p in params.items()}


def global_norm(grads):
    return math.sqrt(sum(float(g[i]) ** 2 for g in grads.values() for i in every(g.shape)))


def clip(a, low, high):
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    return elementwise(lambda v, low, high: min(max(v, low), high))(a, low, high)


def clip_by_norm(grads, max_norm):
    length = global_norm(grads)
    return {k: g * min(1.0, max_norm / length) for k, g in grads.items()}


def clip_by_value(grads, bound):
    return {k: elementwise(lambda v: min(max(v, -bound), bound))(g) for k, g in grads.items()}


# --- layers ---------------------------------------------------------------------------------------


def with_bias(y, params):
    if "bias" in params:
        b = params["bias"]
        for i in every(y.shape):
            y[i] += b[(*i[: b.ndim - 1], i[-1])]
    return y


def linear(layer, params, x):
    return with_bias(project(x, params["weight"]), params)


def conv(layer, params, x):
    return with_bias(conv2d(x, params["weight"], layer.stride, layer.padding), params)


def batch_norm(layer, params, x):
    axes = (-4, -3, -2) if layer.images else (-2,)
    given = (params["mean"], params["var"]) if "mean" in params else ()
    return normalise(x, axes, params["scale"], params["offset"], *given)


def batch_norm_statistics(with_statistics, params, x):
    axes = (-4, -3, -2) if with_statistics.__self__.images else (-2,)
    return {**params, "mean": reduction(mean)(x, axes), "var": reduction(var)(x, axes)}


def conv_block(layer, params, x):
    y = conv2d(x, params["conv"]["weight"], 2 if layer.pooling == "stride" else 1, layer.padding)
    norm = params["norm"]
    given = (norm["mean"], norm["var"]) if "mean" in norm else ()
    y = normalise(y, (-4, -3, -2), norm["scale"], norm["offset"], *given)
    y = elementwise(lambda v: max(v, 0.0))(y)
    return max_pool2d(y) if layer.pooling == "max" else y


def conv4(network, params, x):
    blocks = [layer for name, layer in network.layers if name.startswith("block")]
    for k, block in enumerate(blocks):
        x = conv_block(block, params[f"block{k + 1}"], x)
    flat = x.reshape(len(x), -1) if blocks[0].pooling == "max" else reduction(mean)(x, (-3, -2))
    return linear(None, params["head"], flat)


def mlp(network, params, x):
    x = linear(None, params["linear1"], x)
    n = params["norm1"]
    x = normalise(
        x, (-2,), n["scale"], n["offset"], *((n["mean"], n["var"]) if "mean" in n else ())
    )
    f = dict(network.layers)["activation1"].f
    x = elementwise(math.tanh if f.__name__ == "tanh" else lambda v: max(v, 0.0))(x)
    return linear(None, params["linear2"], x)


def lstm(layer, params, x):
    h = c = np.zeros((*x.shape[:-2], layer.n_hidden))
    hs = []
    for t in range(x.shape[-2]):
        h, c = lstm_cell(x[..., t, :], h, c, params["w_x"], params["w_h"], params["b"])
        hs.append(h)
    return np.stack(hs, axis=-2), (h, c)


def bilstm(layer, params, x):
    forward, _ = lstm(layer, params["forward"], x)
    backward, _ = lstm(layer, params["backward"], x[..., ::-1, :])
    return forward, backward[..., ::-1, :]


def sequential(network, params, x):
    x = elementwise(math.tanh)(linear(None, params["in"], x))
    return linear(None, params["out"], x)


def embed(network, params, support, query, policy):
    """One task, normalised by the statistics the policy names."""
    support, query = support[0], query[0]
    if policy == "transductive":
        both = mlp(network, params, np.concatenate([support, query]))
        return both[None, : len(support)], both[None, len(support) :]
    if policy == "support":
        z = linear(None, params["linear1"], support)
        stored = {"mean": reduction(mean)(z, 0), "var": reduction(var)(z, 0)}
        params = {**params, "norm1": {**params["norm1"], **stored}}
    return mlp(network, params, support)[None], mlp(network, params, query)[None]


ORACLES = {
    "add": elementwise(lambda a, b: a + b),
    "subtract": elementwise(lambda a, b: a - b),
    "multiply": elementwise(lambda a, b: a * b),
    "divide": elementwise(lambda a, b: a / b),
    "negative": elementwise(lambda a: -a),
    "power": elementwise(math.pow),
    "exp": elementwise(math.exp),
    "log": elementwise(math.log),
    "log1p": elementwise(math.log1p),
    "sqrt": elementwise(math.sqrt),
    "square": elementwise(lambda a: a * a),
    "sin": elementwise(math.sin),
    "cos": elementwise(math.cos),
    "tanh": elementwise(math.tanh),
    "sigmoid": elementwise(sigmoid),
    "softplus": elementwise(lambda a: math.log(1.0 + math.exp(a))),
    "relu": elementwise(lambda a: max(a, 0.0)),
    "abs": elementwise(abs),
    "sign": elementwise(lambda a: math.copysign(1.0, a)),
    "maximum": elementwise(max),
    "minimum": elementwise(min),
    "clip": clip,
    "where": elementwise(lambda condition, a, b: a if condition else b),
    "astype": lambda a, dtype: a.astype(dtype),
    "preprocess": preprocess,
    "identity": lambda a: a,
    "sum": reduction(math.fsum),
    "mean": reduction(mean),
    "mean_square": reduction(lambda numbers: mean([x * x for x in numbers])),
    "var": reduction(var),
    "logsumexp": reduction(logsumexp),
    "max": reduction(max),
    "min": reduction(min),
    "softmax": along_axis(softmax),
    "log_softmax": along_axis(lambda line: [v - logsumexp(line) for v in line]),
    "cumsum": along_axis(cumsum),
    "prod": prod,
    "norm": norm,
    "top_k_mask": top_k_mask,
    "one_hot": one_hot_times,
    "broadcast_to": np.broadcast_to,
    "sum_to": sum_to,
    "reshape": np.reshape,
    "transpose": np.transpose,
    "matrix_transpose": lambda x: np.swapaxes(x, -1, -2),
    "moveaxis": np.moveaxis,
    "expand_dims": np.expand_dims,
    "squeeze": np.squeeze,
    "getitem": lambda x, index: x[index],
    "scatter_add": scatter_add,
    "take": lambda x, indices, axis=0: np.take(x, indices, axis),
    "take_along_axis": lambda x, indices, axis=-1: np.take_along_axis(x, indices, axis),
    "split": split,
    "concat": np.concatenate,
    "stack": np.stack,
    "pad": pad,
    "flip": np.flip,
    "roll": np.roll,
    "matmul": matmul,
    "times_transposed": lambda a, b: matmul(a, np.swapaxes(b, -1, -2)),
    "solve": solve,
    "transposed_times": lambda a, b: matmul(np.swapaxes(a, -1, -2), b),
    "project": project,
    "affine": project,
    "einsum": einsum,
    "conv2d": conv2d,
    "conv2d_input": conv2d_input,
    "conv2d_weight": conv2d_weight,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "pairwise_distance": pairwise_distance,
    "attention": attention,
    "cosine_attention": cosine_attention,
    "lstm_gates": lstm_gates,
    "lstm_cell": lstm_cell,
    "norm_relu_pool": norm_relu_pool,
    "cross_entropy": cross_entropy,
    "mse": mse,
    "binary_cross_entropy": binary_cross_entropy,
    "SGD": two_steps,
    "RMSProp": two_steps,
    "Adam": two_steps,
    "global_norm": global_norm,
    "clip_by_norm": clip_by_norm,
    "clip_by_value": clip_by_value,
    "Linear": linear,
    "Conv2d": conv,
    "BatchNorm": batch_norm,
    "BatchNorm.with_statistics": batch_norm_statistics,
    "ConvBlock": conv_block,
    "Conv4": conv4,
    "MLP": mlp,
    "LSTM": lstm,
    "BiLSTM": bilstm,
    "Flat": lambda layer, params, x: np.array([row.tolist() for row in x.reshape(len(x), -1)]),
    "Function": lambda layer, params, x: elementwise(math.tanh)(x),
    "Sequential": sequential,
    "embed": embed,
}
