r"""Which functions do the work: the NumPy reference, or its Numba twins where there are some.

``"numpy"`` is the reference, to be read and trusted; ``"numba"`` is what trains several times
faster. Networks, gates and optimisers look their functions up in one of the two, so that nothing
else changes from one to the other.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from . import ops
from .hard_concrete import sample, sample_and_slope
from .optimizers import all_finite, step_and_average
from .penalties import gate_gradient

BACKENDS = ("numpy", "numba")

_SWITCHED: tuple[Callable[..., Any], ...] = (
    *(getattr(ops, name) for name in ops.__all__ if name.islower()),
    all_finite,
    gate_gradient,
    sample,
    sample_and_slope,
    step_and_average,
)
"""The originals that a backend may replace."""


@dataclass(frozen=True)
class Backend:
    """A set of functions, as attributes under their originals' names.

    Attributes
    ----------
    name : {"numpy", "numba"}
    fuses : bool
        Whether layers in a row are one op where there is one: dense and ReLU; convolution, ReLU
        and max pooling.
    exclusive : callable
        Makes the context in which the functions should run: the one pool of threads is theirs.
    """

    name: str
    functions: MappingProxyType[str, Callable[..., Any]]
    fuses: bool
    exclusive: Callable[[], contextlib.AbstractContextManager[None]]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self.functions[name]
        except KeyError:
            raise AttributeError(f"a backend has no function {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.name,)


NUMPY = Backend(
    "numpy",
    MappingProxyType({function.__name__: function for function in _SWITCHED}),
    False,
    contextlib.nullcontext,
)


@functools.cache
def _numba() -> Backend:
    from . import jit  # importing Numba takes as long as everything else together

    functions = {f.__name__: jit.TWINS.get(f, f) for f in _SWITCHED}
    return Backend("numba", MappingProxyType(functions), True, jit.one_blas_thread)


def load(name: str) -> Backend:
    """Return a backend by name.

    Raises
    ------
    ValueError
        If there is none of that name.

    Examples
    --------
    >>> load("numpy").name
    'numpy'
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {name!r}")
    return NUMPY if name == "numpy" else _numba()
