"""Twins of `l0ref.ops.pack`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.pack import PackResiduals
from ._compile import inline, parallel, share_out
from ._places import Index, inside, places_of
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]


@inline
def _gather_row(i, x, rows, columns, y):  # type: ignore[no-untyped-def]
    source, target = x[rows[i]], y[i]
    for j in range(columns.shape[0]):
        here, there = source[columns[j]], target[j]
        for k in range(there.shape[0]):
            there[k] = here[k]


@parallel
def gather(many, x, rows, columns, y):  # type: ignore[no-untyped-def]
    """Let y be some rows and columns of x (A, B, P)."""
    share_out(many, _gather_row, rows.shape[0], (x, rows, columns, y))


@inline
def _scatter_row(r, dy, rows, columns, dx):  # type: ignore[no-untyped-def]
    target = dx[r]
    for c in range(target.shape[0]):
        there = target[c]
        for k in range(there.shape[0]):
            there[k] = 0
    if rows[r] >= 0:
        source = dy[rows[r]]
        for j in range(columns.shape[0]):
            here, there = source[j], target[columns[j]]
            for k in range(here.shape[0]):
                there[k] = here[k]


@parallel
def _scatter(many, dy, rows, columns, dx):  # type: ignore[no-untyped-def]
    share_out(many, _scatter_row, dx.shape[0], (dy, rows, columns, dx))


def _positions(
    rows: Index | None, columns: Index | None, shape: tuple[int, ...]
) -> tuple[Index, Index]:
    """Return the positions, all of them for None, or leave what is none to the original."""
    r, c = places_of(rows), places_of(columns)
    if not inside(r, shape[0], c, shape[1]):
        raise NotForKernel
    return r if r.size else np.arange(shape[0]), c if c.size else np.arange(shape[1])


def _as_three_axes(a: Array) -> Array:
    rest = math.prod(a.shape[2:])
    return packed(a).reshape(*a.shape[:2], rest)


@twin(ops.pack)
def pack(x: Array, rows: Index | None, columns: Index | None) -> tuple[Array, PackResiduals]:
    """Rows are shared out; whole maps that lie together are left to NumPy, which copies them so."""
    check_arrays(x)
    if x.ndim < 2 or (x.ndim == 4 and rows is None):
        raise NotForKernel
    r, c = _positions(rows, columns, x.shape)
    y = np.empty((len(r), len(c), *x.shape[2:]), x.dtype)
    gather.sized(y.size, _as_three_axes(x), r, c, y.reshape(len(r), len(c), -1))
    return y, PackResiduals(x.shape, rows, columns)


@twin(ops.pack_vjp)
def pack_vjp(dy: Array, residuals: PackResiduals) -> Array:
    """Each row of dx is written once, with its zeros."""
    check_arrays(dy)
    shape, rows, columns = residuals
    if len(shape) < 2 or (len(shape) == 4 and rows is None):
        raise NotForKernel
    r, c = _positions(rows, columns, shape)
    if dy.shape != (len(r), len(c), *shape[2:]):
        raise NotForKernel
    source = np.full(shape[0], -1)
    source[r] = np.arange(len(r))
    dx = np.empty(shape, dy.dtype)
    _scatter.sized(
        dx.size, _as_three_axes(dy), source, c, dx.reshape(*shape[:2], math.prod(shape[2:]))
    )
    return dx
