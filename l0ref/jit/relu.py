"""Twins of `l0ref.ops.relu`: one pass over the array, which writes both results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]

PIECE = 2**13
"""Values a block."""


@inline
def _relu_piece(block, x, y, positive):  # type: ignore[no-untyped-def]
    low = block * PIECE
    values, out, above = x[low : low + PIECE], y[low : low + PIECE], positive[low : low + PIECE]
    for i in range(values.shape[0]):
        value = values[i]
        out[i] = x.dtype.type(0) if value <= 0 else value
        above[i] = value > 0


@parallel
def _relu(many, x, y, positive):  # type: ignore[no-untyped-def]
    share_out(many, _relu_piece, (x.shape[0] + PIECE - 1) // PIECE, (x, y, positive))


@inline
def _relu_piece_vjp(block, dy, positive, dx):  # type: ignore[no-untyped-def]
    low = block * PIECE
    pulled, above, out = dy[low : low + PIECE], positive[low : low + PIECE], dx[low : low + PIECE]
    for i in range(pulled.shape[0]):
        out[i] = pulled[i] * above[i]


@parallel
def _relu_vjp(many, dy, positive, dx):  # type: ignore[no-untyped-def]
    share_out(many, _relu_piece_vjp, (dy.shape[0] + PIECE - 1) // PIECE, (dy, positive, dx))


@twin(ops.relu)
def relu(x: Array) -> tuple[Array, Array]:
    """Read x once."""
    check_arrays(x)
    flat = _flat(x)
    y, positive = np.empty_like(flat), np.empty(flat.shape, np.bool_)
    _relu.sized(flat.size, flat, y, positive)
    return _like(y, x), _like(positive, x)


@twin(ops.relu_vjp)
def relu_vjp(dy: Array, residuals: Array) -> Array:
    """Multiply by the mask without making numbers of it first."""
    check_arrays(dy)
    if residuals.shape != dy.shape or residuals.dtype != np.bool_:
        raise NotForKernel
    dx = np.empty(dy.size, dy.dtype)
    _relu_vjp.sized(dy.size, _flat(dy), _flat(residuals), dx)
    return _like(dx, dy)


def _flat(a: Array) -> Array:
    """All values, map by map where there are maps."""
    return packed(a.transpose(1, 0, 2, 3) if a.ndim == 4 else a).reshape(-1)


def _like(flat: Array, a: Array) -> Array:
    if a.ndim != 4:
        return flat.reshape(a.shape)
    n, c, h, w = a.shape
    return flat.reshape(c, n, h, w).transpose(1, 0, 2, 3)
