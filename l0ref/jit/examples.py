"""Twins of `l0ref.ops.examples`: rows of the weights, or of dy, added up four at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ..ops.examples import ExampleMatmulResiduals
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from ._sums import dot
from ._vectors import in_whole_registers
from .dense import PER_NUMBER

Array = NDArray[Any]

INPUTS = 28
"""Inputs whose weights' gradients a turn makes: of 784 each of two threads has 14 turns."""


@inline
def _places(gates, places):  # type: ignore[no-untyped-def]
    """Note where gates are open; return how many are."""
    count = 0
    for i in range(gates.shape[0]):
        if gates[i] != 0:
            places[count] = i
            count += 1
    return count


@inline
def _add_four(f, a, b, c, d, total):  # type: ignore[no-untyped-def]
    in_whole_registers()
    f0, f1, f2, f3 = f[0], f[1], f[2], f[3]
    for o in range(total.shape[0]):
        total[o] = (((total[o] + f0 * a[o]) + f1 * b[o]) + f2 * c[o]) + f3 * d[o]


@inline
def _add_one(factor, a, total):  # type: ignore[no-untyped-def]
    in_whole_registers()
    for o in range(total.shape[0]):
        total[o] += factor * a[o]


@inline
def _add_rows(factors, places, count, rows, total):  # type: ignore[no-untyped-def]
    """Let the total be the sum of the rows at these places, each times its factor."""
    for o in range(total.shape[0]):
        total[o] = 0
    fours = count // 4 * 4
    for k in range(0, fours, 4):
        _add_four(
            factors[k : k + 4], rows[places[k]], rows[places[k + 1]], rows[places[k + 2]],
            rows[places[k + 3]], total,
        )  # fmt: skip
    for k in range(fours, count):
        _add_one(factors[k], rows[places[k]], total)


@inline
def _add_example(row, x, weight, z, y):  # type: ignore[no-untyped-def]
    places, factors = np.empty(x.shape[1], np.intp), np.empty(x.shape[1], x.dtype)
    count = _places(z[row], places)
    for k in range(count):
        factors[k] = x[row, places[k]] * z[row, places[k]]
    _add_rows(factors, places, count, weight, y[row])


@parallel
def add_open_rows(many, x, weight, z, y):  # type: ignore[no-untyped-def]
    """Let each row of y be what its example's open gates let through."""
    share_out(many, _add_example, x.shape[0], (x, weight, z, y))


@inline
def _pull_inputs(block, x, z, dy, dweight):  # type: ignore[no-untyped-def]
    n, d_in = x.shape
    places, factors = np.empty(n, np.intp), np.empty(n, x.dtype)
    for i in range(block * INPUTS, min(d_in, (block + 1) * INPUTS)):
        count = _places(z[:, i], places)
        for k in range(count):
            factors[k] = x[places[k], i] * z[places[k], i]
        _add_rows(factors, places, count, dy, dweight[i])


@inline
def _pull_example(row, x, weight, z, dy, dx, dz):  # type: ignore[no-untyped-def]
    own = dy[row]
    for i in range(x.shape[1]):
        gate = z[row, i]
        if gate != 0:
            slope = dot(own, weight[i])
            dx[row, i], dz[row, i] = gate * slope, x[row, i] * slope
        else:
            dx[row, i], dz[row, i] = 0, 0


@parallel
def pull_open_rows(many, x, weight, z, dy, dx, dweight, dz):  # type: ignore[no-untyped-def]
    """Pull dy back through `add_open_rows`, by blocks of inputs and then by examples."""
    n, d_in = x.shape
    share_out(many, _pull_inputs, (d_in + INPUTS - 1) // INPUTS, (x, z, dy, dweight))
    share_out(many, _pull_example, n, (x, weight, z, dy, dx, dz))


@twin(ops.example_matmul)
def example_matmul(x: Array, weight: Array, z: Array) -> tuple[Array, ExampleMatmulResiduals]:
    """Examples are shared out."""
    check_arrays(x, weight, z)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0] or z.shape != x.shape:
        raise NotForKernel
    x, weight, z = packed(x), packed(weight), packed(z)
    y = np.empty((len(x), weight.shape[1]), x.dtype)
    add_open_rows.sized(len(x) * weight.size // PER_NUMBER, x, weight, z, y)
    return y, ExampleMatmulResiduals(x, weight, z)


@twin(ops.example_matmul_vjp)
def example_matmul_vjp(
    dy: Array, residuals: ExampleMatmulResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    """Rows of dy add up to a weight's gradient; one dot product is for an input and its gate."""
    x, weight, z = residuals
    check_cotangent(dy, (len(x), weight.shape[1]))
    check_arrays(dy, x, weight, z)
    x, weight, z = packed(x), packed(weight), packed(z)
    dx, dweight, dz = np.empty_like(x), np.empty_like(weight), np.empty_like(z)
    size = len(x) * weight.size // PER_NUMBER
    pull_open_rows.sized(size, x, weight, z, packed(dy), dx, dweight, dz)
    return dx if need_dx else None, dweight, dz
