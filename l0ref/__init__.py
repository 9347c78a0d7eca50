"""L0 regularisation with hard concrete gates: the reference."""

from .concrete import BinaryConcrete, StretchedConcrete
from .hard_concrete import HardConcrete
from .networks import MLP, LeNet5, LeNet300100, Network, WideResNet
from .penalties import expected_l0
from .pruning import CompactNetwork, compact
from .training import Settings, Trainer

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "BinaryConcrete",
    "CompactNetwork",
    "HardConcrete",
    "LeNet5",
    "LeNet300100",
    "Network",
    "Settings",
    "StretchedConcrete",
    "Trainer",
    "WideResNet",
    "compact",
    "expected_l0",
]
