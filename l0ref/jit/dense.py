"""Twins of `l0ref.ops.dense`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ..ops.dense import DenseResiduals as OriginalResiduals
from ._compile import REASSOCIATE, parallel, prange
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]

ROWS, ROW_BLOCKS = 50, 4
"""Each block of examples is one BLAS call on one thread: of this many, and no more blocks."""

UNITS = 32
"""Input units a block of the weights' gradient."""


class DenseResiduals(NamedTuple):
    """What `dense_vjp` needs of the forward pass."""

    x: Array
    weight: Array
    product: Array  # the weights that were multiplied: gates on weights are in them
    z: Array | None
    on: str

    @property
    def originals(self) -> OriginalResiduals:
        """Those of `l0ref.ops.dense`; gates on outputs are its own."""
        return OriginalResiduals(self.x, self.weight, self.z, self.on, None, True)


PER_NUMBER = 8
"""Multiplications of a product that take as long as one number of an elementwise function."""


def _rows(n: int) -> int:
    # Of the shape alone, not of the threads: the sums are then the same to the bit on any number.
    return max(ROWS, -(-n // ROW_BLOCKS))


def _size(n: int, weight: Array) -> int:
    return n * weight.size // PER_NUMBER


@parallel()
def _affine(x, z, gated, weight, bias, rows, y):  # type: ignore[no-untyped-def]
    n, d_in = x.shape
    each = z.shape[0] > 1  # one draw an example
    for block in prange((n + rows - 1) // rows):
        start = block * rows
        stop = min(n, start + rows)
        out = y[start:stop]
        if gated:
            gated_x = np.empty((stop - start, d_in), x.dtype)
            for row in range(stop - start):
                gates = z[start + row if each else 0]
                values, out_row = x[start + row], gated_x[row]
                for i in range(d_in):
                    out_row[i] = values[i] * gates[i]
            np.dot(gated_x, weight, out)
        else:
            np.dot(x[start:stop], weight, out)
        for row in range(stop - start):
            values = out[row]
            for o in range(bias.shape[0]):
                values[o] += bias[o]


@parallel(fastmath=REASSOCIATE)
def _weight_gradient(x, dy, weight, z, on_inputs, on_weights, dweight, dz):  # type: ignore[no-untyped-def]
    n, d_in = x.shape
    zero = dy.dtype.type(0)
    for block in prange((d_in + UNITS - 1) // UNITS):
        start = block * UNITS
        stop = min(d_in, start + UNITS)
        # BLAS wants one block's x^T in one piece.
        columns = np.empty((stop - start, n), x.dtype)
        for row in range(n):
            values = x[row, start:stop]
            for i in range(stop - start):
                columns[i, row] = values[i]
        out = dweight[start:stop]
        np.dot(columns, dy, out)
        if on_inputs:
            for i in range(start, stop):
                own, theta = dweight[i], weight[i]
                total, gate = zero, z[0, i]
                for o in range(own.shape[0]):
                    total += own[o] * theta[o]
                for o in range(own.shape[0]):
                    own[o] *= gate
                dz[0, i] = total
        elif on_weights:
            for i in range(start, stop):
                own, theta, d_own, gate = dweight[i], weight[i], dz[i], z[i]
                for o in range(own.shape[0]):
                    d_own[o] = own[o] * theta[o]
                for o in range(own.shape[0]):
                    own[o] *= gate[o]


@parallel()
def _input_gradient(dy, weight, z, gated, rows, dx):  # type: ignore[no-untyped-def]
    n, d_in = dx.shape
    for block in prange((n + rows - 1) // rows):
        start = block * rows
        stop = min(n, start + rows)
        np.dot(dy[start:stop], weight.T, dx[start:stop])
        if gated:
            gates = z[0]
            for row in range(start, stop):
                values = dx[row]
                for i in range(d_in):
                    values[i] *= gates[i]


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
    """Multiply blocks of examples, each on its own thread."""
    check_arrays(x, weight, bias, z)
    if on not in ("inputs", "weights") and not (z is None and on == "outputs"):
        raise NotForKernel
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise NotForKernel
    if bias.shape != weight.shape[1:]:
        raise NotForKernel
    if z is not None and not (
        (on == "inputs" and z.shape in (x.shape[1:], x.shape))
        or (on == "weights" and z.shape == weight.shape)
    ):
        raise NotForKernel
    on_inputs = z is not None and on == "inputs"
    x, weight = packed(x), packed(weight)
    product = weight * z if z is not None and not on_inputs else weight
    gates = packed(z).reshape(-1, x.shape[1]) if z is not None and on_inputs else x[:1]
    y = np.empty((x.shape[0], weight.shape[1]), x.dtype)
    _affine.sized(
        _size(len(x), weight),
        x,
        gates,
        on_inputs,
        product,
        packed(bias),
        _rows(len(x)),
        y,
    )
    return y, DenseResiduals(x, weight, product, z, on)


@twin(ops.dense_vjp)
def dense_vjp(
    dy: Array, residuals: Any, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array, Array | None]:
    """Blocks of input units for the weights, blocks of examples for dx."""
    if not isinstance(residuals, DenseResiduals):
        raise NotForKernel
    x, weight, product, z, on = residuals
    check_cotangent(dy, (x.shape[0], weight.shape[1]))
    try:
        check_arrays(dy, x)
    except NotForKernel:
        return ops.dense_vjp(dy, residuals.originals, need_dx=need_dx)
    dy = packed(dy)
    n = len(x)
    dweight, dbias = np.empty_like(weight), dy.sum(axis=0)
    dx = np.empty_like(x) if need_dx else None
    if z is None or z.ndim == 1 or on == "weights":
        gates = dweight if z is None else packed(np.atleast_2d(z))
        dz = dweight if z is None else np.empty(gates.shape, x.dtype)
        on_inputs = z is not None and on == "inputs"
        on_weights = z is not None and on == "weights"
        _weight_gradient.sized(
            _size(n, weight), x, dy, weight, gates, on_inputs, on_weights, dweight, dz
        )
        if dx is not None:
            _input_gradient.sized(_size(n, weight), dy, product, gates, on_inputs, _rows(n), dx)
        return dx, dweight, dbias, None if z is None else dz.reshape(z.shape)
    # One draw an example: x z is what was multiplied, and dz needs dx / z, the plain layer's.
    plain = np.empty_like(x)
    _input_gradient(dy, weight, plain, False, _rows(n), plain)
    _weight_gradient(x * z, dy, weight, dweight, False, False, dweight, dweight)
    return plain * z if need_dx else None, dweight, dbias, plain * x
