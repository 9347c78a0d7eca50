"""Twins of `l0ref.ops.flatten`: from maps that lie one after the other to examples that do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ._compile import parallel, prange
from ._registry import NotForKernel, check_arrays, packed, twin
from .conv import by_map

Array = NDArray[Any]


@parallel
def _swap(x, y):  # type: ignore[no-untyped-def]
    """(A, B, P) -> (B, A, P)."""
    places = x.shape[2]
    for b in prange(y.shape[0]):
        for a in range(x.shape[0]):
            source, out = x[a, b], y[b, a]
            for p in range(places):
                out[p] = source[p]


@twin(ops.flatten)
def flatten(x: Array) -> tuple[Array, tuple[int, ...]]:
    """Copy each image to its place among its example's."""
    check_arrays(x)
    if x.ndim != 4 or x.flags.c_contiguous:
        raise NotForKernel
    n, c, h, w = x.shape
    y = np.empty((n, c, h * w), x.dtype)
    _swap(by_map(x).reshape(c, n, h * w), y)
    return y.reshape(n, -1), x.shape


@twin(ops.flatten_vjp)
def flatten_vjp(dy: Array, residuals: tuple[int, ...]) -> Array:
    """Copy each image back."""
    check_arrays(dy)
    n, c, h, w = residuals
    check_cotangent(dy, (n, c * h * w))
    dx = np.empty((c, n, h * w), dy.dtype)
    _swap(packed(dy).reshape(n, c, h * w), dx)
    return dx.reshape(c, n, h, w).transpose(1, 0, 2, 3)
