"""How far torch.func's vmapped second-order meta-gradient through F.batch_norm is off, in float64.

The same strided Conv4, weights and episodes four times: a plain loop over tasks in torch;
torch.func's vmap with F.batch_norm; the same vmap with batch-norm written out in sums; and
scratchmeta, all tasks at once. The loop, which differentiates one task after another with torch's
own rules, is what the others are measured against.

    python benchmarks/vmap_batch_norm.py [--json]
"""

import numpy as np
import torch
from common import arguments, header, relative_error, show
from torch.nn import functional as F

from scratchmeta import nn, tree
from scratchmeta.algorithms import MAML
from scratchmeta.episodes import Episode

TASKS, WAYS, SHOTS, QUERIES, SIDE, CHANNELS, INNER_LR = 4, 5, 1, 3, 28, 16, 0.4


def written_out(x, scale, offset):
    """Batch-norm over the images, rows and columns of x (N, C, H, W), in sums and products."""
    mean = x.mean((0, 2, 3), keepdim=True)
    var = (x - mean).square().mean((0, 2, 3), keepdim=True)
    scale, offset = scale[None, :, None, None], offset[None, :, None, None]
    return (x - mean) / torch.sqrt(var + 1e-5) * scale + offset


def library(x, scale, offset):
    """torch's batch-norm with the batch's own statistics."""
    return F.batch_norm(x, None, None, scale, offset, training=True)


def network(params, images, batch_norm):
    """The strided Conv4 of `nn.Conv4(pooling="stride")`: images (N, H, W, 1) -> logits."""
    x = images.permute(0, 3, 1, 2)
    for i in range(1, 5):
        block = params[f"block{i}"]
        side = x.shape[-1]  # "same" padding at stride 2: the odd column of zeros comes last
        zeros = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
        low, high = zeros // 2, zeros - zeros // 2
        x = F.pad(x, (low, high, low, high))
        x = F.conv2d(x, block["conv"]["weight"].permute(3, 2, 0, 1), stride=2)
        x = batch_norm(x, block["norm"]["scale"], block["norm"]["offset"]).relu()
    return x.mean((2, 3)) @ params["head"]["weight"] + params["head"]["bias"]


def task_loss(params, support_x, support_y, query_x, query_y, batch_norm):
    """The query loss of one task after one inner step."""

    def support_loss(params):
        return F.cross_entropy(network(params, support_x, batch_norm), support_y)

    g = torch.func.grad(support_loss)(params)
    fast = tree.map(lambda p, g: p - INNER_LR * g, params, g)
    return F.cross_entropy(network(fast, query_x, batch_norm), query_y)


def looped(params, episodes, batch_norm):
    """The mean over tasks of each task's meta-gradient, from torch.autograd."""
    leaves, treedef = tree.flatten(tree.map(lambda p: p.requires_grad_(), params))
    total = 0.0
    for support_x, support_y, query_x, query_y in zip(*episodes, strict=True):
        loss = F.cross_entropy(network(params, support_x, batch_norm), support_y)
        gs = torch.autograd.grad(loss, leaves, create_graph=True)
        fast = [p - INNER_LR * g for p, g in zip(leaves, gs, strict=True)]
        fast = tree.unflatten(treedef, fast)
        total = total + F.cross_entropy(network(fast, query_x, batch_norm), query_y)
    return [g.numpy() for g in torch.autograd.grad(total / TASKS, leaves)]


def vmapped(params, episodes, batch_norm):
    """The same from torch.func: grad of vmap of grad."""

    def meta_loss(params):
        def loss(*episode):
            return task_loss(params, *episode, batch_norm)

        return torch.func.vmap(loss)(*episodes).mean()

    gradient = torch.func.grad(meta_loss)(tree.map(lambda p: p.detach(), params))
    return [g.numpy() for g in tree.flatten(gradient)[0]]


def worst_array(got, wanted):
    """max ‖got − wanted‖ / ‖wanted‖ over the arrays of the parameters."""
    norm = np.linalg.norm
    return float(max(norm(g - w) / norm(w) for g, w in zip(got, wanted, strict=True)))


def main() -> None:
    """Prints every contestant's distance to the plain loop."""
    options = arguments(__doc__)

    rng = np.random.default_rng(0)
    conv4 = nn.Conv4(CHANNELS, image_size=SIDE, pooling="stride", n_out=WAYS)
    params = tree.astype(conv4.init(rng), "float64")

    def images(n):
        labels = np.tile(np.repeat(np.arange(WAYS), n), (TASKS, 1))
        return rng.random((TASKS, WAYS * n, SIDE, SIDE, 1)), labels

    episodes = Episode(*images(SHOTS), *images(QUERIES))
    theirs = tree.map(torch.tensor, params), Episode(*map(torch.tensor, episodes))

    wanted = looped(*theirs, library)
    _, ours = MAML(conv4, INNER_LR).meta_gradient(params, episodes)
    contestants = {
        "scratchmeta, all tasks at once": tree.flatten(ours)[0],
        "torch loop, batch-norm written out": looped(*theirs, written_out),
        "torch.func vmap, batch-norm written out": vmapped(*theirs, written_out),
        "torch.func vmap, F.batch_norm": vmapped(*theirs, library),
    }
    rows = [
        [name, relative_error(got, wanted), worst_array(got, wanted)]
        for name, got in contestants.items()
    ]
    columns = ["meta-gradient", "largest error / largest entry", "worst array, in norm"]
    show(header(options, "torch"), columns, rows, options.json)


if __name__ == "__main__":
    main()
