"""Twins of `l0ref.optimizers`: one pass over memory for Adam and the temporal average."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import optimizers
from ._compile import FEW, inline, parallel, prange
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]
Params = dict[str, Array]

NEAR = 1024
"""Elements of one pass: what three passes over them read and write stays in the first cache."""

FAR = 2**14
"""Elements of one turn, where they are read once."""


@inline
def _move(theta, grad, m, v, average, numbers):  # type: ignore[no-untyped-def]
    old_1, new_1, old_2, new_2 = numbers[0], numbers[1], numbers[2], numbers[3]
    eps, lr, old, new = numbers[4], numbers[5], numbers[6], numbers[7]
    # Three loops, not one: of five arrays that may overlap, for all that it knows, the compiler
    # makes no vectors; of three it does, after a check when it runs.
    for i in range(theta.shape[0]):
        g = grad[i]
        m[i] = old_1 * m[i] + new_1 * g
        v[i] = old_2 * v[i] + new_2 * (g * g)
    for i in range(theta.shape[0]):
        theta[i] -= lr * (m[i] / (np.sqrt(v[i]) + eps))
    for i in range(theta.shape[0]):
        average[i] = old * average[i] + new * theta[i]


@parallel
def _move_all(theta, grad, m, v, average, numbers):  # type: ignore[no-untyped-def]
    n = theta.shape[0]
    for block in prange((n + NEAR - 1) // NEAR):
        near = slice(block * NEAR, min(n, (block + 1) * NEAR))
        _move(theta[near], grad[near], m[near], v[near], average[near], numbers)


@parallel
def _find_odd(values, found):  # type: ignore[no-untyped-def]
    """Note for each turn whether a value is not finite."""
    for block in prange(found.shape[0]):
        here = values[block * FAR : min(values.shape[0], (block + 1) * FAR)]
        odd = False
        for i in range(here.shape[0]):
            odd |= here[i] - here[i] != 0
        found[block] = odd


@twin(optimizers.all_finite)
def all_finite(values: Array) -> bool:
    """Without a mask."""
    check_arrays(values)
    if values.size < FEW:
        # A sum of squares that is finite is one of finite numbers; any other may have overflowed.
        if math.isfinite(np.vdot(values, values)):
            return True
        raise NotForKernel
    found = np.empty(-(-values.size // FAR), np.bool_)
    _find_odd(packed(values).reshape(-1), found)
    return not found.any()


@twin(optimizers.step_and_average)
def step_and_average(
    optimizer: optimizers.Optimizer,
    average: optimizers.TemporalAverage,
    params: Params,
    grads: Params,
    buffers: Params,
) -> None:
    """Adam's; from its second step on, when there is something to update."""
    if type(optimizer) is not optimizers.Adam or type(average) is not optimizers.TemporalAverage:
        raise NotForKernel
    if params.keys() != grads.keys() or params.keys() & buffers.keys():
        raise NotForKernel
    m, v, averages = optimizer.m, optimizer.v, average.params
    moves = []
    for name, theta in params.items():
        if name not in m or name not in averages:
            raise NotForKernel
        arrays = theta, grads[name], m[name], v[name], averages[name]
        check_arrays(*arrays)
        shape = theta.shape
        for a in arrays:
            if a.shape != shape or not a.flags.carray:  # in one piece, and writable
                raise NotForKernel
        flat = arrays if theta.ndim == 1 else [a.reshape(-1) for a in arrays]
        moves.append((flat, (optimizers.is_gate(name), theta.dtype)))
    # From here on nothing can fail: all parameters move, or none has.
    optimizer.t += 1
    rescale, eps = optimizer.scales()
    average.update(buffers)
    w = average.weight()
    b_1, b_2 = optimizer.beta1, optimizer.beta2
    numbers = {}
    for flat, kind in moves:
        if kind not in numbers:
            lr = optimizer.gate_lr if kind[0] else optimizer.lr
            values = [b_1, 1 - b_1, b_2, 1 - b_2, eps, lr * rescale, 1 - w, w]
            numbers[kind] = np.array(values, kind[1])
        _move_all.sized(2 * flat[0].size, *flat, numbers[kind])
