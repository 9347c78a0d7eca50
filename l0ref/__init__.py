"""L0 regularisation with hard concrete gates: the reference."""

from .concrete import BinaryConcrete, StretchedConcrete
from .hard_concrete import HardConcrete

__all__ = ["BinaryConcrete", "HardConcrete", "StretchedConcrete"]
