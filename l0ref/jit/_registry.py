r"""Which function is the twin of which, and what a twin leaves to its original.

A twin has the name, the file name and the signature of a NumPy function, and gives the same numbers
faster. It is written for plain float32 or float64 arrays that hold something. Whatever else comes,
the original takes: other dtypes, masked arrays, empty batches, layers without units, shapes that do
not fit. So an error is the original's own, and so is every answer that is no matter of speed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

TWINS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Twin of each original."""


class NotForKernel(Exception):  # noqa: N818  # not an error: the original takes over
    """Raised by a twin for arguments that its kernel does not take; the original is called."""


def twin(original: Callable[..., Any]) -> Callable[[Function], Function]:
    """Register a twin; it gives way to `original` where it raises `NotForKernel`."""

    def register(function: Function) -> Function:
        @functools.wraps(original)
        def choose(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except NotForKernel:
                return original(*args, **kwargs)

        choose.twin = function  # type: ignore[attr-defined]
        TWINS[original] = choose
        return choose  # type: ignore[return-value]

    return register


_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def check_arrays(*arrays: Any) -> None:
    """Raise `NotForKernel` unless all are plain, not empty, of one floating dtype; skip None."""
    dtype = None
    for a in arrays:
        if a is None:
            continue
        if type(a) is not np.ndarray or not a.size:
            raise NotForKernel
        if dtype is None:
            dtype = a.dtype
            if dtype not in _FLOATS:
                raise NotForKernel
        elif a.dtype is not dtype and a.dtype != dtype:
            raise NotForKernel


def packed(a: NDArray[Any]) -> NDArray[Any]:
    """Return a, or a copy, so that kernels need no other compilation for it."""
    return a if a.flags.carray else np.array(a, order="C")
