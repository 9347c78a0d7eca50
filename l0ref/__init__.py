"""L0 regularisation with hard concrete gates: the reference."""

from .concrete import BinaryConcrete, StretchedConcrete
from .hard_concrete import HardConcrete
from .networks import lenet300100, mlp
from .penalties import expected_l0
from .pruning import CompactNetwork, compact
from .training import Settings, Trainer

__version__ = "0.1.0"

__all__ = [
    "BinaryConcrete",
    "CompactNetwork",
    "HardConcrete",
    "Settings",
    "StretchedConcrete",
    "Trainer",
    "compact",
    "expected_l0",
    "lenet300100",
    "mlp",
]
