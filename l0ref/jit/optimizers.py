r"""Twins of `l0ref.optimizers`: one pass over memory for Adam and the temporal average.

A moment below the least normal number (10^-38 in float32) becomes 0 here. The moments of a weight
behind a closed gate shrink by 0.9 and by 0.999 a step, and would stay for ever at the least number
that there is, with which processors are a hundred times slower: a step of Adam would take ten times
as long, the longer the more is pruned. What is lost moves no parameter by more than lr 10^-27 a
step, at the usual eps.
"""

from __future__ import annotations

import itertools
import math
import operator
import weakref
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import optimizers
from ._addresses import addresses_of, numbers_at
from ._compile import FEW, elementwise, in_vectors, inline, parallel, rounded, share_out
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]
Params = dict[str, Array]

NEAR = 1024
"""Elements of one pass: what two passes over them read and write stays in the first cache."""

FAR = 2**14
"""Elements of one turn, where they are read once."""


@elementwise
def _move(  # type: ignore[no-untyped-def]
    i, theta, grad, m, v, average, old_1, new_1, old_2, new_2, eps, lr, old, new, least
):
    g, zero = grad[i], theta.dtype.type(0)
    first = rounded(old_1, m[i]) + new_1 * g
    second = rounded(old_2, v[i]) + new_2 * (g * g)
    first = zero if abs(first) < least else first
    second = zero if second < least else second
    m[i], v[i] = first, second
    # A root and a division take as long as the way of their numbers through memory, and run
    # meanwhile.
    value = theta[i] - lr * (first / (np.sqrt(second) + eps))
    theta[i] = value
    average[i] = rounded(old, average[i]) + new * value


@inline
def _move_some(turn, addresses, whose, turns, sizes, which, numbers):  # type: ignore[no-untyped-def]
    p, first = whose[turn], turns[turn]
    near = slice(first, min(sizes[p], first + NEAR))
    own = numbers[which[p]]
    args = (
        numbers_at(addresses[p, 1], sizes[p], numbers)[near],
        numbers_at(addresses[p, 0], sizes[p], numbers)[near],
        numbers_at(addresses[p, 2], sizes[p], numbers)[near],
        numbers_at(addresses[p, 3], sizes[p], numbers)[near],
        numbers_at(addresses[p, 4], sizes[p], numbers)[near],
        own[0], own[1], own[2], own[3], own[4], own[5], own[6], own[7], own[8],
    )  # fmt: skip
    in_vectors(_move, near.stop - near.start, args)


@parallel
def move_all(many, addresses, whose, turns, sizes, which, numbers):  # type: ignore[no-untyped-def]
    """Move every parameter, and Adam's and the average's numbers with it.

    Row p of `addresses` says where the gradient of parameter p is, the parameter, both its moments
    and its average. Turn t begins `turns[t]` numbers behind the beginning of parameter `whose[t]`.
    """
    share_out(many, _move_some, turns.shape[0], (addresses, whose, turns, sizes, which, numbers))


@inline
def _find_odd_some(block, values, found):  # type: ignore[no-untyped-def]
    here = values[block * FAR : min(values.shape[0], (block + 1) * FAR)]
    odd = False
    for i in range(here.shape[0]):
        odd |= here[i] - here[i] != 0
    found[block] = odd


@parallel
def find_odd(many, values, found):  # type: ignore[no-untyped-def]
    """Note for each turn whether a value is not finite."""
    share_out(many, _find_odd_some, found.shape[0], (values, found))


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
    """Adam's."""
    if type(optimizer) is not optimizers.Adam or type(average) is not optimizers.TemporalAverage:
        raise NotForKernel
    if params.keys() != grads.keys() or params.keys() & buffers.keys():
        raise NotForKernel
    kept = arrays_of(params, optimizer, average)
    own = [grads[name] for name in params]
    moves = _known.get(optimizer)
    if moves is None or not moves.are_of(params, kept):
        moves = Moves(params, kept)
        _known[optimizer] = moves
    moves.take(own)
    # From here on nothing can fail: all parameters move, or none has.
    moves(optimizer, average, buffers)


def arrays_of(
    params: Params, optimizer: optimizers.Adam, average: optimizers.TemporalAverage
) -> list[tuple[Array, ...]]:
    """Return each parameter with its moments and its average: before the first step, new ones.

    These become the optimizer's and the average's own with the step (`Moves`), if it is taken.
    """
    m, v, averages = optimizer.m, optimizer.v, average.params
    if optimizer.t == average.t == 0 and not (m or v or averages):
        # At 0: the average's own share is then 0 times 0, whatever the parameter is.
        return [(theta, *(np.zeros_like(theta) for _ in range(3))) for theta in params.values()]
    try:
        return [(theta, m[name], v[name], averages[name]) for name, theta in params.items()]
    except KeyError:  # a parameter that joins later
        raise NotForKernel from None


class Moves:
    """A step of Adam and of the average, for arrays that are looked at once.

    Parameters
    ----------
    names : iterable of str
        Of the parameters.
    arrays : list of tuple of array
        Of each: theta, both moments, the average.

    Raises
    ------
    NotForKernel
        If they are not what a kernel takes.
    """

    def __init__(self, names: Iterable[str], arrays: Sequence[tuple[Array, ...]]) -> None:
        if not arrays:
            raise NotForKernel
        first = arrays[0][0]
        for group in arrays:
            check_arrays(first, *group)
            for a in group:
                if a.shape != group[0].shape or not a.flags.carray:  # in one piece, and writable
                    raise NotForKernel
        self._names, self._arrays = tuple(names), list(arrays)
        self._addresses = np.empty((len(arrays), 5), np.uint64)
        self._addresses[:, 1:] = [addresses_of(group) for group in arrays]
        sizes = np.array([group[0].size for group in arrays])
        n_turns = -(-sizes // NEAR)
        turns = np.arange(n_turns.sum()) - (n_turns.cumsum() - n_turns).repeat(n_turns)
        whose = np.arange(len(sizes)).repeat(n_turns)
        # The first half of every parameter first, as kernels share it out among threads: so each
        # thread finds in its cache the numbers that it has written.
        order = np.argsort(turns / n_turns[whose], kind="stable")
        turns, whose = turns[order], whose[order]
        which = np.array([int(optimizers.is_gate(name)) for name in self._names])
        self._least, self._rates = np.finfo(first.dtype).tiny, np.empty((2, 9), first.dtype)
        self._size = 2 * int(sizes.sum())
        self._arguments = self._addresses, whose, turns * NEAR, sizes, which, self._rates

    def are_of(self, names: Iterable[str], arrays: Sequence[tuple[Array, ...]]) -> bool:
        """Whether these are the very arrays that it was made for, and it may still move them."""
        if self._names != tuple(names):
            return False
        own, given = ([*itertools.chain.from_iterable(g)] for g in (self._arrays, arrays))
        return all(map(operator.is_, own, given)) and all(a.flags.writeable for a in given)

    def take(self, grads: Sequence[Array]) -> None:
        """Take the gradients of the steps that follow, which the caller keeps until then."""
        for g, (theta, *_) in zip(grads, self._arrays, strict=True):
            check_arrays(theta, g)
            if g.shape != theta.shape or not g.flags.carray:
                raise NotForKernel
        self._addresses[:, 0] = addresses_of(grads)

    def __call__(
        self,
        optimizer: optimizers.Adam,
        average: optimizers.TemporalAverage,
        buffers: Params = MappingProxyType({}),  # type: ignore[assignment]
    ) -> None:
        """Take a step; the average takes in buffers too."""
        if optimizer.t == 0:
            for name, (_, m, v, mean) in zip(self._names, self._arrays, strict=True):
                optimizer.m[name], optimizer.v[name], average.params[name] = m, v, mean
        optimizer.t += 1
        average.update(buffers)
        rescale, eps = optimizer.scales()
        w, b_1, b_2 = average.weight(), optimizer.beta1, optimizer.beta2
        self._rates[:] = [
            [b_1, 1 - b_1, b_2, 1 - b_2, eps, lr * rescale, 1 - w, w, self._least]
            for lr in (optimizer.lr, optimizer.gate_lr)
        ]
        move_all.sized(self._size, *self._arguments)


_known: weakref.WeakKeyDictionary[optimizers.Adam, Moves] = weakref.WeakKeyDictionary()
