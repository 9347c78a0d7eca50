"""Twins of `l0ref.ops.flatten`: from maps that lie one after the other to examples that do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from .conv import by_map

Array = NDArray[Any]


@inline
def _swap_row(b, x, y):  # type: ignore[no-untyped-def]
    places = x.shape[2]
    for a in range(x.shape[0]):
        source, out = x[a, b], y[b, a]
        for p in range(places):
            out[p] = source[p]


@parallel
def _swap(many, x, y):  # type: ignore[no-untyped-def]
    """(A, B, P) -> (B, A, P)."""
    share_out(many, _swap_row, y.shape[0], (x, y))


@inline
def _take_example(b, x, whose, where, y):  # type: ignore[no-untyped-def]
    out = y[b]
    for t in range(out.shape[0]):
        out[t] = x[whose[t], b, where[t]]


@parallel
def take_units(many, x, whose, where, y):  # type: ignore[no-untyped-def]
    """Lay some units of maps (A, B, P) side by side for each example b of y (B, units).

    Unit t is number `where[t]` of map `whose[t]`.
    """
    share_out(many, _take_example, y.shape[0], (x, whose, where, y))


@inline
def _give_example(b, dy, whose, where, dx):  # type: ignore[no-untyped-def]
    for a in range(dx.shape[0]):
        row = dx[a, b]
        for p in range(row.shape[0]):
            row[p] = 0
    source = dy[b]
    for t in range(source.shape[0]):
        dx[whose[t], b, where[t]] = source[t]


@parallel
def give_units(many, dy, whose, where, dx):  # type: ignore[no-untyped-def]
    """Undo `take_units`, with zeros where no unit was taken."""
    share_out(many, _give_example, dy.shape[0], (dy, whose, where, dx))


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
