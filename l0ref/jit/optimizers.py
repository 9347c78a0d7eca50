r"""Twins of `l0ref.optimizers`: one pass over memory for Adam and the temporal average.

A moment below the least normal number (10^-38 in float32) becomes 0 here. The moments of a weight
behind a closed gate shrink by 0.9 and by 0.999 a step, and would stay for ever at the least number
that there is, with which processors are a hundred times slower: a step of Adam would take ten times
as long, the longer the more is pruned. What is lost moves no parameter by more than lr 10^-27 a
step, at the usual eps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import optimizers
from ._addresses import addresses_of, numbers_at
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
    least, zero = numbers[8], theta.dtype.type(0)
    # Three loops, not one: of five arrays that may overlap, for all that it knows, the compiler
    # makes no vectors; of three it does, after a check when it runs.
    for i in range(theta.shape[0]):
        g = grad[i]
        first, second = old_1 * m[i] + new_1 * g, old_2 * v[i] + new_2 * (g * g)
        m[i] = zero if abs(first) < least else first
        v[i] = zero if second < least else second
    for i in range(theta.shape[0]):
        theta[i] -= lr * (m[i] / (np.sqrt(v[i]) + eps))
    for i in range(theta.shape[0]):
        average[i] = old * average[i] + new * theta[i]


@parallel
def move_all(addresses, whose, turns, sizes, which, numbers):  # type: ignore[no-untyped-def]
    """Move every parameter, and Adam's and the average's numbers with it.

    Row p of `addresses` says where parameter p is, its gradient, both moments and the average.
    Turn t begins `turns[t]` numbers behind the beginning of parameter `whose[t]`.
    """
    for turn in prange(turns.shape[0]):
        p, first = whose[turn], turns[turn]
        near = slice(first, min(sizes[p], first + NEAR))
        _move(
            numbers_at(addresses[p, 0], sizes[p], numbers)[near],
            numbers_at(addresses[p, 1], sizes[p], numbers)[near],
            numbers_at(addresses[p, 2], sizes[p], numbers)[near],
            numbers_at(addresses[p, 3], sizes[p], numbers)[near],
            numbers_at(addresses[p, 4], sizes[p], numbers)[near],
            numbers[which[p]],
        )


@parallel
def find_odd(values, found):  # type: ignore[no-untyped-def]
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
    find_odd(packed(values).reshape(-1), found)
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
    dtype, moves = None, []
    for name, theta in params.items():
        if name not in m or name not in averages:
            raise NotForKernel
        arrays = theta, grads[name], m[name], v[name], averages[name]
        check_arrays(*arrays)
        for a in arrays:
            if a.shape != theta.shape or not a.flags.carray:  # in one piece, and writable
                raise NotForKernel
        if dtype not in (None, theta.dtype):
            raise NotForKernel
        dtype = theta.dtype
        moves.append(arrays)
    if dtype is None:
        raise NotForKernel
    # From here on nothing can fail: all parameters move, or none has.
    Moves(params, moves)(optimizer, average, buffers)


class Moves:
    """A step of Adam and of the average for some arrays, which are not looked at again.

    Parameters
    ----------
    names : tuple of str
        Of the parameters.
    arrays : list of tuple of array
        Of each: theta, gradient, both moments, the average; of one shape, C-contiguous, writable,
        all of one dtype.
    """

    def __init__(self, names: Iterable[str], arrays: Sequence[Sequence[Array]]) -> None:
        self._kept = arrays
        addresses = addresses_of(a for group in arrays for a in group).reshape(-1, 5)
        sizes = np.array([group[0].size for group in arrays])
        n_turns = -(-sizes // NEAR)
        turns = np.arange(n_turns.sum()) - (n_turns.cumsum() - n_turns).repeat(n_turns)
        whose = np.arange(len(sizes)).repeat(n_turns)
        which = np.array([int(optimizers.is_gate(name)) for name in names])
        dtype = arrays[0][0].dtype
        self._least, self._rates = np.finfo(dtype).tiny, np.empty((2, 9), dtype)
        self._size = 2 * int(sizes.sum())
        self._arguments = addresses, whose, turns * NEAR, sizes, which, self._rates

    def __call__(
        self,
        optimizer: optimizers.Adam,
        average: optimizers.TemporalAverage,
        buffers: Params = MappingProxyType({}),  # type: ignore[assignment]
    ) -> None:
        """Take it; the average takes in buffers too."""
        optimizer.t += 1
        average.update(buffers)
        rescale, eps = optimizer.scales()
        w, b_1, b_2 = average.weight(), optimizer.beta1, optimizer.beta2
        self._rates[:] = [
            [b_1, 1 - b_1, b_2, 1 - b_2, eps, lr * rescale, 1 - w, w, self._least]
            for lr in (optimizer.lr, optimizer.gate_lr)
        ]
        move_all.sized(self._size, *self._arguments)
