"""L0 regularisation with hard concrete gates: the reference."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# pytest loads a part of this package in every run where it is installed, and is not to wait for
# NumPy and SciPy: names and modules are imported when they are first asked for.
_NAMES = {
    "concrete": ("BinaryConcrete", "StretchedConcrete"),
    "hard_concrete": ("HardConcrete",),
    "networks": ("MLP", "LeNet5", "LeNet300100", "Network", "WideResNet"),
    "penalties": ("expected_l0",),
    "pruning": ("CompactNetwork", "compact"),
    "training": ("Settings", "Trainer"),
}
_MODULES = {*_NAMES, "datasets", "flops", "gates", "layers", "noise", "ops", "optimizers"}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        found = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
