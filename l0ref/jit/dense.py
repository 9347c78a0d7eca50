"""Twins of `l0ref.ops.dense`: blocks of the result, each made by one thread.

Of a layer of many inputs each thread has a half of them: it reads the same rows of the weights
forward, writes their gradient on the way back, and moves them with Adam (`l0ref.jit.optimizers`).
So they stay in its own cache, which counts most where the cores have no cache in common.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ..ops.dense import DenseResiduals as OriginalResiduals
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from ._sums import inner
from .blas import SMALL, multiply

Array = NDArray[Any]
Gradients = tuple[Array | None, Array, Array, Array | None]
Blocks = tuple[int, int, int, int]

ROWS, COLUMNS = 50, 320
"""Examples, and output units, of a block of a product: at most so many."""

UNITS, FEW_UNITS = 200, 100
"""Input units of one product for dx, and of one for the weights' gradient: at most so many."""

SHARED = 128
"""Input units of a product of which each of two threads takes a half: at least so many."""

PER_NUMBER = 8
"""Multiplications of a product that take as long as one number of an elementwise function."""


class DenseResiduals(NamedTuple):
    """What `pull` needs of the forward pass."""

    x: Array
    weight: Array
    z: Array | None
    on: str
    positive: Array | None  # behind a rectifier: where it let through

    @property
    def originals(self) -> OriginalResiduals:
        """Those of `l0ref.ops.dense`; gates on outputs are its own."""
        return OriginalResiduals(self.x, self.weight, self.z, self.on, None, True)


# Blocks are made of the shapes alone, not of the number of threads: so are the sums, and they are
# the same to the bit on any number.


def _part(n: int, most: int, *, even: bool = False) -> int:
    """Size of the parts of n where they are alike; of an even number, for two threads, if asked."""
    parts = -(-n // most)
    if even:
        parts += parts % 2
    return -(-n // parts)


def _depth(rows: int, columns: int) -> int:
    """Terms of each sum that are added at a time: so many that BLAS does not copy its operands."""
    return max(SMALL // (rows * columns), 16)


def forward_blocks(n: int, d_in: int, d_out: int, *, on_weights: bool) -> Blocks:
    """Input units, rows, columns and depth of the blocks of y.

    Many input units are shared out, as the weights' gradient is, and what each half adds to y is
    added up then. Gated weights are made for all rows at once.
    """
    units = -(-d_in // 2) if d_in >= SHARED and d_in >= 2 * n else d_in
    rows = n if on_weights else ROWS
    columns = _part(d_out, COLUMNS, even=n <= rows and units == d_in)
    return units, rows, columns, _depth(min(n, 2 * ROWS) if on_weights else ROWS, columns)


def backward_blocks(d_in: int, d_out: int, *, need_dx: bool) -> Blocks:
    """Units, few units, columns and depth of the blocks of a VJP."""
    units = _part(d_in, UNITS if need_dx else FEW_UNITS, even=True)
    few, columns = _part(units, FEW_UNITS), _part(d_out, COLUMNS)
    return units, few, columns, _depth(few, columns)


NO_MASK = np.zeros((1, 1), bool)


@inline
def _gate(values, gates, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] = values[i] * gates[i]


@inline
def _affine_block(  # type: ignore[no-untyped-def]
    turn, x, weight, z, on_inputs, on_weights, units, rows, columns, depth, y, others
):
    """Fill a block of y, or of what a later part of the inputs adds to it."""
    (n, d_in), d_out = x.shape, weight.shape[1]
    each = z.shape[0] > 1  # one draw an example
    across, down = (d_out + columns - 1) // columns, (n + rows - 1) // rows
    part, block = turn // (down * across), turn % (down * across)
    top, left = block // across * rows, block % across * columns
    bottom, right = min(n, top + rows), min(d_out, left + columns)
    high, wide = bottom - top, right - left
    gated_x = np.empty(high * depth if on_inputs else 0, x.dtype)
    gated_weight = np.empty(depth * wide if on_weights else 0, x.dtype)
    out = (y if part == 0 else others[part - 1])[top:bottom, left:right]
    first, end = part * units, min(d_in, (part + 1) * units)
    for start in range(first, end, depth):
        stop = min(end, start + depth)
        deep, more = stop - start, start > first
        if on_inputs:
            own = gated_x[: high * deep].reshape(high, deep)
            for row in range(high):
                gates = z[top + row if each else 0, start:stop]
                _gate(x[top + row, start:stop], gates, own[row])
            multiply(own, weight[start:stop, left:right], out, more)
        elif on_weights:
            own = gated_weight[: deep * wide].reshape(deep, wide)
            for i in range(deep):
                _gate(weight[start + i, left:right], z[start + i, left:right], own[i])
            multiply(x[top:bottom, start:stop], own, out, more)
        else:
            multiply(x[top:bottom, start:stop], weight[start:stop, left:right], out, more)


@inline
def _finish_row(row, bias, rectified, y, others, positive):  # type: ignore[no-untyped-def]
    """Add up what the parts of the inputs give, and the bias."""
    values, zero = y[row], y.dtype.type(0)
    for part in range(others.shape[0]):
        other = others[part, row]
        for o in range(values.shape[0]):
            values[o] += other[o]
    if rectified:
        above = positive[row]
        for o in range(values.shape[0]):
            value = values[o] + bias[o]
            values[o] = zero if value <= zero else value
            above[o] = value > zero
    else:
        for o in range(values.shape[0]):
            values[o] += bias[o]


@parallel
def affine_in_blocks(  # type: ignore[no-untyped-def]
    many, x, weight, bias, z, on_inputs, on_weights, rectified, units, rows, columns, depth,
    y, positive,
):  # fmt: skip
    """Let y be a dense layer of x, gated and rectified: blocks of y, over parts of the inputs.

    The parts, if there is more than one, are added up in their order. Of a rectified layer, note
    where y is positive.
    """
    (n, d_in), d_out = x.shape, weight.shape[1]
    across, down = (d_out + columns - 1) // columns, (n + rows - 1) // rows
    parts = (d_in + units - 1) // units
    others = np.empty((parts - 1, n, d_out), x.dtype)  # what the first part of the units lacks
    args = (x, weight, z, on_inputs, on_weights, units, rows, columns, depth, y, others)
    share_out(many, _affine_block, parts * down * across, args)
    share_out(many, _finish_row, n, (bias, rectified, y, others, positive))


@inline
def _pull_outputs(block, dy, positive, rectified, units, da, dbias):  # type: ignore[no-untyped-def]
    """Pull a block of output units back through the rectifier; and their biases."""
    n, d_out = dy.shape
    left, right = block * units, min(d_out, (block + 1) * units)
    total = dbias[left:right]
    for o in range(right - left):
        total[o] = 0
    for row in range(n):
        pulled, out = dy[row, left:right], da[row, left:right]
        if rectified:
            above = positive[row, left:right]
            for o in range(right - left):
                out[o] = pulled[o] * dy.dtype.type(above[o])
        for o in range(right - left):
            total[o] += out[o]


@inline
def _pull_inputs(  # type: ignore[no-untyped-def]
    block, x, weight, z, on_inputs, on_weights, need_dx, units, few, columns, depth,
    da, dx, dweight, dz,
):  # fmt: skip
    """Pull a block of input units back, a few of them at a time."""
    (n, d_in), d_out = x.shape, weight.shape[1]
    start, stop = block * units, min(d_in, (block + 1) * units)
    gated = np.empty((stop - start if on_weights and need_dx else 0, d_out), x.dtype)
    for low in range(start, stop, few):
        high = min(stop, low + few)
        for left in range(0, d_out, columns):
            right = min(d_out, left + columns)
            for first in range(0, n, depth):
                last = min(n, first + depth)
                out = dweight[low:high, left:right]
                multiply(x[first:last, low:high].T, da[first:last, left:right], out, first > 0)
        if on_inputs:
            for i in range(low, high):
                own, gate = dweight[i], z[0, i]
                dz[0, i] = inner(own, weight[i])
                for o in range(d_out):
                    own[o] *= gate
        elif on_weights:
            for i in range(low, high):
                own, theta, gates = dweight[i], weight[i], z[i]
                _gate(own, theta, dz[i])
                _gate(own, gates, own)
                if need_dx:
                    _gate(theta, gates, gated[i - start])
    if need_dx:
        out = dx[:, start:stop]
        if on_weights:
            multiply(da, gated.T, out, False)
        else:
            multiply(da, weight[start:stop].T, out, False)
        if on_inputs:
            for row in range(n):
                values = dx[row, start:stop]
                _gate(values, z[0, start:stop], values)


@parallel
def pull_in_blocks(  # type: ignore[no-untyped-def]
    many, dy, positive, x, weight, z, on_inputs, on_weights, rectified, need_dx, units, few,
    columns, depth, da, dx, dweight, dbias, dz,
):  # fmt: skip
    """Pull dy back through `affine_in_blocks`, a block of input units at a time."""
    d_in, d_out = weight.shape
    args = (dy, positive, rectified, units, da, dbias)
    share_out(many, _pull_outputs, (d_out + units - 1) // units, args)
    own = (
        x, weight, z, on_inputs, on_weights, need_dx, units, few, columns, depth,
        da, dx, dweight, dz,
    )  # fmt: skip
    share_out(many, _pull_inputs, (d_in + units - 1) // units, own)


def affine(
    x: Array, weight: Array, bias: Array, z: Array | None, on: str, *, rectified: bool
) -> tuple[Array, DenseResiduals]:
    """`dense`, with or without a rectifier behind it."""
    check_arrays(x, weight, bias, z)
    if x.ndim != 2 or weight.ndim != 2 or bias.ndim != 1:
        raise NotForKernel
    (n, d_in), (d_weight, d_out) = x.shape, weight.shape
    if d_in != d_weight or bias.shape[0] != d_out:
        raise NotForKernel
    x, weight = packed(x), packed(weight)
    gates = x[:1]
    on_inputs = on_weights = False
    if z is None:
        if on not in ("inputs", "weights", "outputs"):
            raise NotForKernel
    elif on == "inputs" and z.shape in ((d_in,), (n, d_in)):
        on_inputs, gates = True, packed(z).reshape(-1, d_in)
    elif on == "weights" and z.shape == weight.shape:
        on_weights, gates = True, packed(z)
    else:
        raise NotForKernel
    y = np.empty((n, d_out), x.dtype)
    # A mask, and not y itself, which is the caller's to change.
    positive = np.empty(y.shape, bool) if rectified else None
    affine_in_blocks.sized(
        n * weight.size // PER_NUMBER, x, weight, packed(bias), gates, on_inputs, on_weights,
        rectified, *forward_blocks(n, d_in, d_out, on_weights=on_weights), y,
        NO_MASK if positive is None else positive,
    )  # fmt: skip
    return y, DenseResiduals(x, weight, z, on, positive)


def pull(dy: Array, residuals: DenseResiduals, *, need_dx: bool) -> Gradients:
    """VJP of `affine`."""
    x, weight, z, on, positive = residuals
    (n, d_in), d_out = x.shape, weight.shape[1]
    check_cotangent(dy, (n, d_out))
    check_arrays(dy, x)
    dy = packed(dy)
    if z is not None and z.ndim == 2 and on == "inputs":
        # One draw an example: x z is what was multiplied, and dz needs dx / z, the plain layer's.
        whole = DenseResiduals(x * z, weight, None, on, positive)
        plain, dweight, dbias, _ = pull(dy, whole, need_dx=True)
        assert plain is not None
        return plain * z if need_dx else None, dweight, dbias, plain * x
    dweight, dbias = np.empty_like(weight), np.empty(d_out, x.dtype)
    da = dy if positive is None else np.empty_like(dy)
    dx = np.empty_like(x) if need_dx else dweight
    gates = dz = dweight
    if z is not None:
        gates = packed(z)
        dz = np.empty(z.shape, x.dtype)
    pull_in_blocks.sized(
        n * weight.size // PER_NUMBER, dy, NO_MASK if positive is None else positive, x, weight,
        gates.reshape(-1, gates.shape[-1]), z is not None and on == "inputs",
        z is not None and on == "weights", positive is not None, need_dx,
        *backward_blocks(d_in, d_out, need_dx=need_dx), da, dx, dweight, dbias,
        dz.reshape(-1, dz.shape[-1]),
    )  # fmt: skip
    return dx if need_dx else None, dweight, dbias, None if z is None else dz


@twin(ops.dense)
def dense(
    x: Array,
    weight: Array,
    bias: Array,
    z: Array | None = None,
    *,
    on: str = "inputs",
    gates_bias: bool = True,
) -> tuple[Array, DenseResiduals]:
    """Gated weights, and what is gated of x, are made where they are multiplied."""
    return affine(x, weight, bias, z, on, rectified=False)


@twin(ops.dense_vjp)
def dense_vjp(dy: Array, residuals: Any, *, need_dx: bool = True) -> Gradients:
    """Blocks of input units: the weights' gradient is gated while it is in cache."""
    if not isinstance(residuals, DenseResiduals):
        raise NotForKernel
    try:
        return pull(dy, residuals, need_dx=need_dx)
    except NotForKernel:
        return ops.dense_vjp(dy, residuals.originals, need_dx=need_dx)
