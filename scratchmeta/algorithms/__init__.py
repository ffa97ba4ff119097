"""The algorithms, one file a paper, all with the same three methods.

    init(rng) -> params
    meta_gradient(params, episodes) -> (loss, grads)
    predict(params, episodes) -> log-probabilities (T, N·Q, N), or values in regression

and `calibrate(params, episodes) -> params`, which puts in running batch-norm statistics where the
policy asks for them.
"""

from typing import NamedTuple

from scratchmeta.algorithms.baseline import BaselineFinetune, BaselineNN
from scratchmeta.algorithms.lstm import LSTMBaseline
from scratchmeta.algorithms.maml import MAML
from scratchmeta.algorithms.mann import MANN
from scratchmeta.algorithms.matching import FullContext, Matching
from scratchmeta.algorithms.meta_lstm import MetaLSTM
from scratchmeta.algorithms.metanet import MetaNet
from scratchmeta.algorithms.ntm import NTM
from scratchmeta.algorithms.prototypical import Prototypical
from scratchmeta.algorithms.relation import Relation
from scratchmeta.algorithms.reptile import Reptile
from scratchmeta.algorithms.siamese import Siamese
from scratchmeta.algorithms.zero_shot import ZeroShot


class Entry(NamedTuple):
    """An algorithm as `scratchmeta list` shows it."""

    algorithm: type
    paper: str
    family: str


REGISTRY: dict[str, Entry] = {
    "baseline-nn": Entry(
        BaselineNN, "Vinyals et al. 2016; Ravi & Larochelle 2017, a baseline", "baseline"
    ),
    "baseline-finetune": Entry(
        BaselineFinetune, "Vinyals et al. 2016; Ravi & Larochelle 2017, a baseline", "baseline"
    ),
    "siamese": Entry(Siamese, "Koch, Zemel & Salakhutdinov 2015", "metric"),
    "matching": Entry(Matching, "Vinyals et al. 2016", "metric"),
    "matching-fce": Entry(FullContext, "Vinyals et al. 2016, appendix A", "metric"),
    "relation": Entry(Relation, "Sung et al. 2018", "metric"),
    "prototypical": Entry(Prototypical, "Snell, Swersky & Zemel 2017", "metric"),
    "prototypical-zero-shot": Entry(ZeroShot, "Snell, Swersky & Zemel 2017, section 2.6", "metric"),
    "ntm": Entry(NTM, "Graves, Wayne & Danihelka 2014", "model"),
    "mann": Entry(MANN, "Santoro et al. 2016", "model"),
    "lstm": Entry(LSTMBaseline, "Santoro et al. 2016, the baseline", "model"),
    "metanet": Entry(MetaNet, "Munkhdalai & Yu 2017", "model"),
    "meta-lstm": Entry(MetaLSTM, "Ravi & Larochelle 2017", "optimization"),
    "maml": Entry(MAML, "Finn, Abbeel & Levine 2017", "optimization"),
    "fomaml": Entry(MAML, "Finn, Abbeel & Levine 2017, section 5.2", "optimization"),
    "reptile": Entry(Reptile, "Nichol, Achiam & Schulman 2018", "optimization"),
}

__all__ = [
    "MAML",
    "MANN",
    "NTM",
    "REGISTRY",
    "BaselineFinetune",
    "BaselineNN",
    "Entry",
    "FullContext",
    "LSTMBaseline",
    "Matching",
    "MetaLSTM",
    "MetaNet",
    "Prototypical",
    "Relation",
    "Reptile",
    "Siamese",
    "ZeroShot",
]
