r"""A step of a network of dense layers as a list of calls, which is made once.

The products of a small network take a fraction of a millisecond, and Python takes longer to find
out, twenty times a step, what to call with which arrays, and whether they are fit for it. Of a
network all that is the same at each step. So it is found out once: which kernels, with room for
what they give, one after the other (`_Program`). A step then goes through the list. They are the
kernels of the twins, on the same arguments, and so the same numbers to the bit.

It takes the paper's perceptrons: dense layers with rectifiers between them, and a gate on every
input, or on every weight, or none, with one draw for the minibatch; Adam, from its second step on.
Everything else is the original's. So is every step with something that is not finite: it is done
again by the original, which says what it is. A draw can be repeated; and nothing moves here before
all gradients are known to be finite.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import conditional, steps
from .gates import Gates
from .jit._compile import FEW, Kernel
from .jit._places import ALL, Index
from .jit._registry import NotForKernel, check_arrays
from .jit.cross_entropy import loss_and_derivative
from .jit.dense import (
    NO_MASK,
    PER_NUMBER,
    affine_in_blocks,
    backward_blocks,
    forward_blocks,
    pull_in_blocks,
)
from .jit.hard_concrete import checked_law, draw_with_noise
from .jit.matmul import Operand, product
from .jit.noise import check_uniforms
from .jit.optimizers import FAR, Moves, arrays_of, find_odd
from .jit.penalties import GATES, combine_gradients
from .jit.penalties import checked_law as checked_penalty
from .jit.threads import one_blas_thread
from .layers import Dense, ReLU
from .network import Loss, Network, check_lam
from .noise import Uniforms
from .optimizers import Adam, Optimizer, TemporalAverage

Array = NDArray[Any]

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A kernel, on as many threads as suit, and its arguments."""

_NO_SIZES = np.empty(0, np.int64)
_KEPT = 4  # numbers of examples whose room is kept: a training set mostly has one, and a rest


def _call(kernel: Kernel, size: int, *args: Any) -> Call:
    return (kernel.alone if size < FEW else kernel), args


def _run(calls: Iterable[Call]) -> None:
    for kernel, args in calls:
        kernel(*args)


class _Gated(NamedTuple):
    """A layer's gates, and room for what a step finds out about them."""

    position: int
    on: str
    z: Array
    dz: Array
    name: Array  # of the noise; new at each step
    penalty: Array  # its numbers; new where lambda is
    counts: Array  # expected number of parameters on, in parts
    draw: Call
    combine: Call  # dz and the penalty to the gradient of log_alpha

    @classmethod
    def of(cls, position: int, gates: Gates, log_alpha: Array, gradient: Array, z: Array) -> _Gated:
        """Make room; gates that the kernels do not take are the original's."""
        law = gates.beta, gates.gamma, gates.zeta
        if not all(isinstance(value, float | int) for value in law):
            raise NotForKernel
        if any(gates.group_size.strides) or gates.group_size.dtype != np.int64:  # of several sizes
            raise NotForKernel
        dtype, flat = log_alpha.dtype, log_alpha.reshape(-1)
        slope, dz = np.empty(flat.size, dtype), np.empty(flat.size, dtype)
        name, penalty = np.empty(5, np.uint64), np.empty(3, dtype)
        counts = np.empty(-(-flat.size // GATES))
        size = gates.group_size.item(0)
        rows = dz.reshape(1, -1), slope.reshape(1, -1), flat
        draw = _call(
            draw_with_noise, 4 * flat.size, flat, name, *checked_law(*law, dtype), z, slope
        )
        combine = _call(
            combine_gradients, 4 * flat.size, *rows, _NO_SIZES, size, penalty, gradient, counts
        )
        z, dz = z.reshape(gates.shape), dz.reshape(gates.shape)
        return cls(position, gates.on, z, dz, name, penalty, counts, draw, combine)


class _Products(NamedTuple):
    """Those of a minibatch of so many examples where nothing is left out.

    Attributes
    ----------
    forward, backward : list of Call
        Of each layer, in the order of the network. Those of the first lack x.
    logits, dlogits : array
    """

    forward: list[Call]
    backward: list[Call]
    logits: Array
    dlogits: Array


class _Program:
    """The calls of a step of a network of dense layers, and the arrays that they work on.

    Raises
    ------
    NotForKernel
        If it is another network, or its arrays are not what kernels take.
    """

    def __init__(
        self, network: Network, named: Mapping[str, Array], arrays: Sequence[tuple[Array, ...]]
    ) -> None:
        self.dense = _perceptron(network)  # first: most networks are none, and ask at each step
        self.plan = network.plan
        self.move = Moves(named, arrays)
        params = list(named.values())
        dtype = params[0].dtype
        sizes = {name: a.size for name, a in named.items()}
        # One after the other, and those of weights first.
        names = sorted(sizes, key=lambda name: not name.endswith(".weight"))
        self.grads = np.empty(sum(sizes.values()), dtype)
        own = dict(zip(names, _parts(self.grads, [sizes[n] for n in names]), strict=True))
        drawn = [0 if la.gates is None else la.params["log_alpha"].size for _, la in self.dense]
        self.z = np.empty(sum(drawn), dtype)  # of all layers
        gates_of = _parts(self.z, drawn)
        self.gated: list[_Gated | None] = []
        self.gradients: list[tuple[Array, Array]] = []
        for (i, layer), z in zip(self.dense, gates_of, strict=True):
            shape, gates = layer.params["weight"].shape, layer.gates
            self.gradients.append((own[f"{i}.weight"].reshape(shape), own[f"{i}.bias"]))
            self.gated.append(
                None
                if gates is None
                else _Gated.of(i, gates, layer.params["log_alpha"], own[f"{i}.log_alpha"], z)
            )
        self.gates = [gated for gated in self.gated if gated is not None]
        # The derivative in a gate is the sum of those in what it multiplies, each times a weight:
        # where one of them is not finite, it is not finite either. So with gates all are known to
        # be finite when those of the gates and biases are.
        hidden = sum(sizes[name] for name in names if name.endswith(".weight") and self.gates)
        looked_at = self.grads[hidden:]
        self.found = np.empty(-(-looked_at.size // FAR), bool)
        self.odd = _call(find_odd, looked_at.size, looked_at, self.found)
        self.move.take([own[name].reshape(theta.shape) for name, theta in named.items()])
        self._products: dict[int, _Products] = {}
        self._penalized: Any = None
        self.scales: tuple[float, ...] = ()

    def penalize(self, lam: list[float], n_train: int) -> None:
        """Set lambda."""
        if self._penalized == (lam, n_train):
            return
        gates = [g for _, _, g in self.plan.gated]
        scales = tuple(value / n_train for value in check_lam(lam, len(gates)))
        dtype = self.grads.dtype
        for scale, gated, g in zip(scales, self.gates, gates, strict=True):
            gated.penalty[:] = checked_penalty(scale, g.beta, g.gamma, g.zeta, dtype)
        self._penalized, self.scales = (list(lam), n_train), scales

    def products(self, n: int) -> _Products:
        """Return those of n examples; made when first asked for."""
        known = self._products.get(n)
        if known is None:
            while len(self._products) >= _KEPT:
                del self._products[next(iter(self._products))]
            known = self._products[n] = self._make_products(n)
        return known

    def _make_products(self, n: int) -> _Products:
        dtype, last = self.grads.dtype, len(self.dense) - 1
        values = [np.empty((n, layer.params["bias"].size), dtype) for _, layer in self.dense]
        pulled = [np.empty_like(y) for y in values]  # the derivative in each
        above = [np.empty(y.shape, bool) for y in values]
        forward, backward = [], []
        for k in range(last + 1):
            # What comes before the first is the minibatch, which is another one at each step.
            h, dh = (values[k - 1], pulled[k - 1]) if k else (None, None)
            forward.append(self._affine(k, h, values[k], above[k]))
            backward.append(self._pull(k, h, pulled[k], above[k], dh))
        return _Products(forward, backward, values[-1], pulled[-1])

    def _gates_of(self, k: int, *, slopes: bool = False) -> tuple[Array, bool, bool]:
        """Return z or dz of a layer, and whether it is on inputs, or on weights."""
        gated, (_, layer) = self.gated[k], self.dense[k]
        if gated is None:  # nobody looks at it
            return layer.params["weight"], False, False
        z = gated.dz if slopes else gated.z
        return z.reshape(-1, z.shape[-1]), gated.on == "inputs", gated.on == "weights"

    def _affine(self, k: int, h: Array | None, y: Array, above: Array) -> Call:
        """Return the call that makes y of h, which may be given later, as the first argument."""
        weight, bias = (self.dense[k][1].params[name] for name in ("weight", "bias"))
        z, on_inputs, on_weights = self._gates_of(k)
        blocks = forward_blocks(*y.shape, on_weights=on_weights)
        args = weight, bias, z, on_inputs, on_weights, k < len(self.dense) - 1, *blocks, y, above
        size = len(y) * weight.size // PER_NUMBER
        return _call(affine_in_blocks, size, *(() if h is None else (h,)), *args)

    def _pull(self, k: int, h: Array | None, dy: Array, above: Array, dh: Array | None) -> Call:
        """Return the call that pulls dy back; h may be given later, as the third argument."""
        weight, rectified = self.dense[k][1].params["weight"], k < len(self.dense) - 1
        z, on_inputs, on_weights = self._gates_of(k)
        dz = self._gates_of(k, slopes=True)[0]
        dweight, dbias = self.gradients[k]
        da = np.empty_like(dy) if rectified else dy
        blocks = backward_blocks(*weight.shape, need_dx=dh is not None)
        return _call(
            pull_in_blocks, len(dy) * weight.size // PER_NUMBER, dy,
            above if rectified else NO_MASK, *(() if h is None else (h,)), weight, z, on_inputs,
            on_weights, rectified, dh is not None, *blocks, da, dweight if dh is None else dh,
            dweight, dbias, dz,
        )  # fmt: skip

    # --- a step ---

    def evaluate(self, x: Array, labels: Array) -> float:
        """Go forward and back with all units; return the loss."""
        forward, backward, logits, dlogits = self.products(len(x))
        (first, args), *others = forward
        first(x, *args)
        _run(others)
        loss = float(loss_and_derivative(logits, labels, dlogits))
        if math.isfinite(loss):
            (last, args), *others = backward
            _run(reversed(others))
            last(*args[:2], x, *args[2:])
        return loss

    def open_places(self, n: int) -> list[Index] | None:
        """Return the open gates of each layer, if to leave out the others is worth it."""
        if not self.gates or self.gates[0].on != "inputs":
            return None
        if np.count_nonzero(self.z) == self.z.size:
            return None
        opened = [np.flatnonzero(gated.z) for gated in self.gates]
        counts = [max(index.size, 1) for index in opened]
        counts.append(self.dense[-1][1].params["bias"].size)
        saved = 0
        for k, (_, layer) in enumerate(self.dense):
            saved += n * (layer.params["weight"].size - counts[k] * counts[k + 1])
        if saved < conditional.WORTH:
            return None
        # Of none, one is kept, as in `l0ref.conditional`.
        return [index if index.size else np.zeros(1, np.intp) for index in opened]

    def evaluate_open(self, x: Array, labels: Array, opened: list[Index]) -> float:
        """Do the same without what closed gates hide, whose gradients are zeros."""
        places = [
            ALL if index.size == gated.z.size else index
            for index, gated in zip(opened, self.gates, strict=True)
        ]
        places.append(ALL)
        last, h, kept = len(self.dense) - 1, x, []
        for k, (_, layer) in enumerate(self.dense):
            weight, bias = layer.params["weight"], layer.params["bias"]
            rows, columns = places[k], places[k + 1]
            y = np.empty((len(x), columns.size or bias.size), x.dtype)
            above, operands = np.empty(y.shape, bool), None
            if rows.size or columns.size:
                # Of x all is there; of a hidden value, what is open.
                a = Operand.of(h, None, None if k or not rows.size else rows)
                b = Operand.of(weight, rows, columns)
                z = self.gates[k].z
                z = z[rows] if rows.size else z
                operands = a, b, z
                product(a, b, Operand.of(y), factors=z)
                y += bias[columns] if columns.size else bias
                if k < last:
                    np.greater(y, 0, out=above)
                    np.maximum(y, 0, out=y)
            else:
                _run([self._affine(k, h, y, above)])
            kept.append((h, operands, above))
            h = y
        dy = np.empty_like(h)
        loss = float(loss_and_derivative(h, labels, dy))
        if not math.isfinite(loss):
            return loss
        for k in reversed(range(last + 1)):
            (h, operands, above), columns = kept[k], places[k + 1]
            dh = np.empty_like(h) if k else None
            if operands is None:
                _run([self._pull(k, h, dy, above, dh)])
            else:
                a, b, z = operands
                if k < last:
                    dy *= above
                dweight, dbias = self.gradients[k]
                dweight.fill(0)
                dbias.fill(0)
                dbias[columns if columns.size else slice(None)] = dy.sum(axis=0)
                cotangent, own = Operand.of(dy), b._replace(numbers=dweight.reshape(-1))
                weight, dz = self.dense[k][1].params["weight"], self.gates[k].dz
                dots = product(a.transposed, cotangent, own, scales=z, other=weight)
                dz.fill(0)
                dz[opened[k]] = dots[0]
                if dh is not None:
                    product(cotangent, b.transposed, Operand.of(dh))
                    dh *= z
            dy = dy if dh is None else dh
        return loss


def _parts(whole: Array, sizes: Iterable[int]) -> list[Array]:
    """Return parts of these sizes, one after the other."""
    return [whole[i:j] for i, j in itertools.pairwise(itertools.accumulate(sizes, initial=0))]


def _perceptron(network: Network) -> list[tuple[int, Dense]]:
    """Return the dense layers of a network that has rectifiers between them and nothing else."""
    layers = network.layers
    kinds = [Dense if i % 2 == 0 else ReLU for i in range(len(layers))]
    if [type(layer) for layer in layers] != kinds or kinds[-1] is ReLU:
        raise NotForKernel
    if network.skips or network.sources != list(range(-1, len(layers) - 1)):
        raise NotForKernel
    dense = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, Dense)]
    known = {None, "inputs", "weights"}
    on = {None if layer.gates is None else layer.gates.on for _, layer in dense}
    if len(on) > 1 or not on <= known:
        raise NotForKernel
    if any(layer.per_example or layer.spread for _, layer in dense):
        raise NotForKernel
    return dense


_programs: weakref.WeakKeyDictionary[Network, _Program] = weakref.WeakKeyDictionary()


def _program(network: Network, optimizer: Adam, average: TemporalAverage) -> _Program:
    """Return the network's, if it still fits; else make it anew."""
    known, named = _programs.get(network), network.params
    arrays = arrays_of(named, optimizer, average)
    if known and known.plan is network.plan and known.move.are_of(named, arrays):
        return known
    _programs[network] = _Program(network, named, arrays)
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
    inputs = program.dense[0][1].params["weight"].shape[0]
    if x.ndim != 2 or x.shape[1] != inputs or not x.flags.carray:
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
        _run(gated.draw for gated in program.gates)
        opened = None if dense else program.open_places(len(x))
        if opened is None:
            data = program.evaluate(x, labels)
        else:
            data = program.evaluate_open(x, labels, opened)
        if not math.isfinite(data):
            raise NotForKernel
        _run(gated.combine for gated in program.gates)
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
