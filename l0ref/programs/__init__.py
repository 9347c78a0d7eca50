r"""A step of a network as a list of calls, which is made once.

The products of a small network take a fraction of a millisecond, and Python takes longer to find
out, twenty times a step, what to call with which arrays, and whether they are fit for it. Of a
network all that is the same at each step. So it is found out once: which kernels, with room for
what they give, one after the other (a program). A step then goes through the list. They are the
kernels of the twins, on the same arguments, and so the same numbers to the bit.

There are programs for the paper's perceptrons (`l0ref.programs.dense`) and for its LeNet-5
(`l0ref.programs.conv`): with one draw for the minibatch; and Adam. Everything else is the
original's. So is every step with something that is not finite: it is done
again by the original, which says what it is. A draw can be repeated; and nothing moves here before
all gradients are known to be finite.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import steps
from ..jit._registry import NotForKernel, check_arrays
from ..jit.noise import check_uniforms
from ..jit.optimizers import arrays_of
from ..jit.threads import one_blas_thread
from ..layers import Conv2d
from ..network import Loss, Network
from ..noise import Uniforms
from ..optimizers import Adam, Optimizer, TemporalAverage
from .conv import ConvProgram
from .dense import Program, run_calls

Array = NDArray[Any]

_programs: weakref.WeakKeyDictionary[Network, Program] = weakref.WeakKeyDictionary()


def _program(network: Network, optimizer: Adam, average: TemporalAverage) -> Program:
    """Return the network's, if it still fits; else make it anew."""
    known, named = _programs.get(network), network.params
    arrays = arrays_of(named, optimizer, average)
    if known and known.plan is network.plan and known.move.are_of(named, arrays):
        return known
    kind = ConvProgram if isinstance(network.layers[0], Conv2d) else Program
    _programs[network] = kind(network, named, arrays)
    return _programs[network]


def train_step(
    network: Network,
    optimizer: Optimizer,
    average: TemporalAverage,
    x: Array,
    labels: ArrayLike,
    noise: Mapping[int, Array | Uniforms],
    *,
    lam: Sequence[float],
    l2: float = 0.0,
    n_train: int,
    dense: bool = False,
    clamp: bool = False,
) -> steps.Stepped:
    """Do what `l0ref.steps.train_step` does: through the network's list of calls, if it has one.

    Parameters, results and errors are those of the original.
    """
    try:
        if l2 != 0 or clamp:
            raise NotForKernel
        return by_program(network, optimizer, average, x, labels, noise, lam, n_train, dense)
    except NotForKernel:
        return steps.train_step(
            network, optimizer, average, x, labels, noise,
            lam=lam, l2=l2, n_train=n_train, dense=dense, clamp=clamp,
        )  # fmt: skip


def by_program(
    network: Network,
    optimizer: Optimizer,
    average: TemporalAverage,
    x: Array,
    labels: ArrayLike,
    noise: Mapping[int, Any],
    lam: Sequence[float],
    n_train: int,
    dense: bool,
) -> steps.Stepped:
    """Go through the network's list of calls.

    Raises
    ------
    NotForKernel
        If it is for the original, and nothing has moved.
    """
    if type(optimizer) is not Adam or type(average) is not TemporalAverage:
        raise NotForKernel
    if getattr(network.evaluate, "__func__", None) is not Network.evaluate:  # it has its own
        raise NotForKernel
    if not n_train >= 1 or type(labels) is not np.ndarray:
        raise NotForKernel
    program = _program(network, optimizer, average)
    check_arrays(program.grads, x)
    if x.shape[1:] != program.input_shape or not x.flags.carray:
        raise NotForKernel
    if labels.dtype != np.int64 or labels.shape != x.shape[:1] or not labels.flags.carray:
        raise NotForKernel
    for gated in program.gates:
        u: Any = noise.get(gated.position)
        check_uniforms(u)
        if u.shape != gated.z.shape:
            raise NotForKernel
        gated.name[:] = *u.counter, *u.key
    program.penalize(list(lam), n_train)
    with one_blas_thread():
        run_calls(gated.draw for gated in program.gates)
        data = program.evaluate(x, labels, dense=dense)
        if not math.isfinite(data):
            raise NotForKernel
        run_calls(gated.combine for gated in program.gates)
        kernel, args = program.odd
        kernel(*args)
        if np.count_nonzero(program.found):
            raise NotForKernel
        program.move(optimizer, average)
    data = float(x.dtype.type(data))
    l0_term = 0.0
    for scale, gated in zip(program.scales, program.gates, strict=True):
        counts = gated.counts
        l0_term += scale * float(counts[0] if counts.size == 1 else counts.sum())
    loss = Loss(data + l0_term, data, l0_term, 0.0)
    return steps.Stepped(loss, {gated.position: gated.z for gated in program.gates})
