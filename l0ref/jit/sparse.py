"""Twin of `l0ref.ops.sparse`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.sparse import SparseWeights
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]

EXAMPLES = 256
"""Examples a block: a unit's values for all of them are 1 KB, and a few hundred units fit L2."""


@inline
def _sparse_affine_block(block, x, values, inputs, starts, bias, y):  # type: ignore[no-untyped-def]
    n, n_inputs = x.shape
    n_outputs = bias.shape[0]
    start = block * EXAMPLES
    size = min(n, start + EXAMPLES) - start
    # Units by rows: then one weight meets all examples of the block in one run of memory.
    columns = np.empty((n_inputs, size), x.dtype)
    for row in range(size):
        example = x[start + row]
        for i in range(n_inputs):
            columns[i, row] = example[i]
    total = np.empty(size, x.dtype)
    for o in range(n_outputs):
        total[:] = bias[o]
        k, end = starts[o], starts[o + 1]
        while k + 3 < end:  # four at a time: the sums are read and written a quarter as often
            w_0, w_1, w_2, w_3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            x_0, x_1 = columns[inputs[k]], columns[inputs[k + 1]]
            x_2, x_3 = columns[inputs[k + 2]], columns[inputs[k + 3]]
            for j in range(size):
                half = (total[j] + w_0 * x_0[j]) + w_1 * x_1[j]
                total[j] = (half + w_2 * x_2[j]) + w_3 * x_3[j]
            k += 4
        while k < end:
            w_0, x_0 = values[k], columns[inputs[k]]
            for j in range(size):
                total[j] += w_0 * x_0[j]
            k += 1
        for j in range(size):
            y[start + j, o] = total[j]


@parallel
def _sparse_affine(many, x, values, inputs, starts, bias, y):  # type: ignore[no-untyped-def]
    blocks = (x.shape[0] + EXAMPLES - 1) // EXAMPLES
    share_out(many, _sparse_affine_block, blocks, (x, values, inputs, starts, bias, y))


@twin(ops.sparse_dense)
def sparse_dense(x: Array, weights: SparseWeights, bias: Array) -> Array:
    """Each weight is read once for a block of examples."""
    check_arrays(x, weights.values, bias)
    if x.ndim != 2 or x.shape[1] != weights.n_inputs:
        raise NotForKernel
    if bias.shape != (len(weights.starts) - 1,):
        raise NotForKernel
    y = np.empty((len(x), len(bias)), x.dtype)
    values, inputs, starts = (packed(a) for a in weights[:3])
    _sparse_affine(packed(x), values, inputs, starts, packed(bias), y)
    return y
