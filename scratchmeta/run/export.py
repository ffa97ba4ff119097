"""Networks and classifiers as ONNX graphs, for machines that have no scratchmeta.

The engine records every operation on a Tensor with its name and arguments, so the record of one
evaluation is the graph to be written (`onnx_graph`). A function is recorded on several examples,
with other numbers in each, and one more of the things whose number is free.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from scratchmeta import backend, ops
from scratchmeta.core import Tensor
from scratchmeta.episodes import Episode
from scratchmeta.run import onnx_graph

Tree = Any


def embedding(algorithm: Any, params: Tree, input_shape: Sequence[int]) -> onnx.ModelProto:
    """The network that embeds inputs: images (N, *input_shape) -> features (N, ...), N free.

    Batch-norm uses the statistics that `calibrate` has stored under the policy "running"; under the
    others, those of the N images.

    Raises ValueError for an algorithm without an embedding, and for operations that cannot be
    exported.
    """
    _refuse_adapted(algorithm)
    rng = np.random.default_rng(0)

    def features(images):
        return algorithm.features(params, images)

    examples = [{"images": _some(rng, n, input_shape)} for n in (2, 3)]
    return _model("features", features, examples, params)


def classifier(
    algorithm: Any, params: Tree, input_shape: Sequence[int], n_way: int, k_shot: int | None = None
) -> onnx.ModelProto:
    """The whole algorithm: support (S, *input_shape), labels (S,), query (Q, *input_shape) ->
    probabilities (Q, n_way).

    Q is free, and so is S where no `k_shot` makes it n_way · k_shot. labels are int64, each of 0
    ... n_way − 1 at least once. Batch-norm is what the algorithm's policy says.

    Raises ValueError for an algorithm that adapts by gradients, and for operations that cannot be
    exported.
    """
    _refuse_adapted(algorithm, whole=True)
    rng, examples = np.random.default_rng(0), []
    shots = k_shot or 1
    for more_support, more_query in ((0, 0), (0, 1)) if k_shot else ((0, 0), (1, 0), (0, 1)):
        labels = np.append(np.repeat(np.arange(n_way), shots), np.zeros(more_support, np.int64))
        example = {
            "support": _some(rng, len(labels), input_shape),
            "labels": rng.permutation(labels),
            "query": _some(rng, 2 + more_query, input_shape),
        }
        examples.append(example)

    def probabilities(support, labels, query):
        task = (ops.expand_dims(x, 0) for x in (support, labels, query))
        episode = Episode(*task, query_y=np.zeros((1, len(query)), np.int64))
        return ops.exp(algorithm.log_probabilities(params, episode, algorithm.batch_norm))[0]

    return _model("probabilities", probabilities, examples, params)


def _refuse_adapted(algorithm: Any, whole: bool = False) -> None:
    """Raises ValueError for what an ONNX graph cannot hold."""
    name = type(algorithm).__name__
    if not hasattr(algorithm, "log_probabilities"):
        raise ValueError(
            f"export: wanted an algorithm that compares embeddings, got {name}: what an episode "
            "changes in a network, by gradients or in a memory, cannot be exported"
        )
    if whole and hasattr(algorithm, "adapt"):
        raise ValueError(
            f"export: {name} adapts to each episode by gradients, which cannot be exported; its "
            "embedding can"
        )
    if whole and hasattr(algorithm, "attribute_network"):
        raise ValueError(
            f"export: {name} is shown descriptions and no examples, which is not exported; its "
            "embedding can be"
        )


def _some(rng: np.random.Generator, n: int, shape: Sequence[int]) -> np.ndarray:
    return rng.random((n, *shape), np.float32)


def _model(name: str, f: Callable, examples: list[dict[str, Any]], params: Tree) -> Any:
    """The graph of the function f of named arrays."""
    inputs = [{key: Tensor(value) for key, value in example.items()} for example in examples]
    with backend.use("numpy"), backend.use_kernels(True):  # fused operations under their names
        outputs = [f(**each) for each in inputs]
    return onnx_graph.model(name, inputs, outputs, params)
