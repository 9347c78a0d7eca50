r"""A step of a network of dense layers as a list of calls.

It takes the paper's perceptrons: dense layers with rectifiers between them, and a gate on every
input, or on every weight, or none, with one draw for the minibatch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import conditional
from ..gates import Gates
from ..jit._compile import FEW, Kernel
from ..jit._places import ALL, Index
from ..jit._registry import NotForKernel
from ..jit.cross_entropy import loss_and_derivative
from ..jit.dense import (
    NO_MASK,
    PER_NUMBER,
    affine_in_blocks,
    backward_blocks,
    forward_blocks,
    pull_in_blocks,
)
from ..jit.hard_concrete import checked_law, draw_with_noise
from ..jit.matmul import Operand, product
from ..jit.optimizers import FAR, Moves, find_odd
from ..jit.penalties import GATES, combine_gradients
from ..jit.penalties import checked_law as checked_penalty
from ..layers import Conv2d, Dense, ReLU, Weighted
from ..network import Network, check_lam

Array = NDArray[Any]

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A kernel, on as many threads as suit, and its arguments."""

_NO_SIZES = np.empty(0, np.int64)
_KEPT = 4  # numbers of examples whose room is kept: a training set mostly has one, and a rest


def call_of(kernel: Kernel, size: int, *args: Any) -> Call:
    """Make the call of a kernel, on one thread if there are few numbers."""
    return (kernel.alone if size < FEW else kernel), args


def run_calls(calls: Iterable[Call]) -> None:
    """Make calls, one after the other."""
    for kernel, args in calls:
        kernel(*args)


class Gated(NamedTuple):
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
    def of(cls, position: int, gates: Gates, log_alpha: Array, gradient: Array, z: Array) -> Gated:
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
        draw = call_of(
            draw_with_noise, 4 * flat.size, flat, name, *checked_law(*law, dtype), z, slope
        )
        combine = call_of(
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
    dx : array or None
        Where something lies before the first layer: the derivative in x.
    """

    forward: list[Call]
    backward: list[Call]
    logits: Array
    dlogits: Array
    dx: Array | None


class Program:
    """The calls of a step of a network of dense layers, and the arrays that they work on.

    Raises
    ------
    NotForKernel
        If it is another network, or its arrays are not what kernels take.
    """

    def __init__(
        self, network: Network, named: Mapping[str, Array], arrays: Sequence[tuple[Array, ...]]
    ) -> None:
        self.convs, self.dense = self.layers_of(network)  # first: most networks have no program
        self.input_shape = network.input_shape
        self.plan = network.plan
        self.move = Moves(named, arrays)
        params = list(named.values())
        dtype = params[0].dtype
        sizes = {name: a.size for name, a in named.items()}
        # One after the other, and those of dense layers' weights first.
        weights = {f"{i}.weight" for i, _ in self.dense}
        names = sorted(sizes, key=lambda name: name not in weights)
        self.grads = np.empty(sum(sizes.values()), dtype)
        own = dict(zip(names, _parts(self.grads, [sizes[n] for n in names]), strict=True))
        layers: list[tuple[int, Weighted]] = [*self.convs, *self.dense]
        drawn = [0 if la.gates is None else la.params["log_alpha"].size for _, la in layers]
        self.z = np.empty(sum(drawn), dtype)  # of all layers
        gates_of = _parts(self.z, drawn)
        gated: list[Gated | None] = []
        gradients: list[tuple[Array, Array]] = []
        for (i, layer), z in zip(layers, gates_of, strict=True):
            shape, gates = layer.params["weight"].shape, layer.gates
            gradients.append((own[f"{i}.weight"].reshape(shape), own[f"{i}.bias"]))
            gated.append(
                None
                if gates is None
                else Gated.of(i, gates, layer.params["log_alpha"], own[f"{i}.log_alpha"], z)
            )
        self.gates = [one for one in gated if one is not None]
        first = len(self.convs)
        self.gated, self.gradients = gated[first:], gradients[first:]  # of the dense layers
        self.conv_gradients = gradients[:first]
        # The derivative in a gate is the sum of those in what it multiplies, each times a weight:
        # where one of them is not finite, it is not finite either. So with gates all are known to
        # be finite when those of the gates and biases are.
        hidden = sum(sizes[name] for name in weights) if self.gates else 0
        looked_at = self.grads[hidden:]
        self.found = np.empty(-(-looked_at.size // FAR), bool)
        self.odd = call_of(find_odd, looked_at.size, looked_at, self.found)
        self.move.take([own[name].reshape(theta.shape) for name, theta in named.items()])
        self._products: dict[int, _Products] = {}
        # Which rows and columns of a weight's gradient are other than 0; None: any may be.
        self._written: list[tuple[Index, Index] | None] = [None] * len(self.dense)
        self._penalized: Any = None
        self.scales: tuple[float, ...] = ()

    @staticmethod
    def layers_of(network: Network) -> tuple[list[tuple[int, Conv2d]], list[tuple[int, Dense]]]:
        """Return its convolutions, of which there are none, and its dense layers."""
        return [], perceptron(network)

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
            forget_old(self._products)
            known = self._products[n] = self._make_products(n)
        return known

    def _make_products(self, n: int) -> _Products:
        dtype, last = self.grads.dtype, len(self.dense) - 1
        values = [np.empty((n, layer.params["bias"].size), dtype) for _, layer in self.dense]
        pulled = [np.empty_like(y) for y in values]  # the derivative in each
        above = [np.empty(y.shape, bool) for y in values]
        forward, backward = [], []
        d_in = self.dense[0][1].params["weight"].shape[0]
        dx = np.empty((n, d_in), dtype) if self.convs else None
        for k in range(last + 1):
            # What comes before the first is the minibatch, which is another one at each step.
            h, dh = (values[k - 1], pulled[k - 1]) if k else (None, dx)
            forward.append(self._affine(k, h, values[k], above[k]))
            backward.append(self._pull(k, h, pulled[k], above[k], dh))
        return _Products(forward, backward, values[-1], pulled[-1], dx)

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
        blocks = forward_blocks(len(y), *weight.shape, on_weights=on_weights)
        args = weight, bias, z, on_inputs, on_weights, k < len(self.dense) - 1, *blocks, y, above
        size = len(y) * weight.size // PER_NUMBER
        return call_of(affine_in_blocks, size, *(() if h is None else (h,)), *args)

    def _pull(self, k: int, h: Array | None, dy: Array, above: Array, dh: Array | None) -> Call:
        """Return the call that pulls dy back; h may be given later, as the third argument."""
        weight, rectified = self.dense[k][1].params["weight"], k < len(self.dense) - 1
        z, on_inputs, on_weights = self._gates_of(k)
        dz = self._gates_of(k, slopes=True)[0]
        dweight, dbias = self.gradients[k]
        da = np.empty_like(dy) if rectified else dy
        blocks = backward_blocks(*weight.shape, need_dx=dh is not None)
        return call_of(
            pull_in_blocks, len(dy) * weight.size // PER_NUMBER, dy,
            above if rectified else NO_MASK, *(() if h is None else (h,)), weight, z, on_inputs,
            on_weights, rectified, dh is not None, *blocks, da, dweight if dh is None else dh,
            dweight, dbias, dz,
        )  # fmt: skip

    def _clear(self, k: int, rows: Index, columns: Index) -> None:
        """Let a weight's gradient be 0, before these rows and columns of it are written."""
        (dweight, _), before = self.gradients[k], self._written[k]
        self._written[k] = rows, columns
        if before is not None:
            first, second = (
                index if index.size else np.arange(size)
                for index, size in zip(before, dweight.shape, strict=True)
            )
            if first.size * second.size < dweight.size // 16:  # else it takes longer to find them
                dweight[first[:, None], second] = 0
                return
        dweight.fill(0)

    def _gate(self, k: int) -> Gated:
        return self.gates[len(self.convs) + k]

    # --- a step ---

    def evaluate(self, x: Array, labels: Array, *, dense: bool) -> float:
        """Go forward and back, when the gates are drawn; return the loss.

        If that is not finite, the gradients are nothing.
        """
        opened = None if dense else self.open_places(len(x))
        if opened is None:
            return self.evaluate_all(x, labels)[0]
        return self.evaluate_open(x, labels, opened)[0]

    def evaluate_all(self, x: Array, labels: Array) -> tuple[float, Array | None]:
        """Go through the dense layers with all units; return the loss, and its derivative in x."""
        forward, backward, logits, dlogits, dx = self.products(len(x))
        self._written = [None] * len(self.dense)
        (first, args), *others = forward
        first(x, *args)
        run_calls(others)
        loss = float(loss_and_derivative(logits, labels, dlogits))
        if math.isfinite(loss):
            (last, args), *others = backward
            run_calls(reversed(others))
            last(*args[:2], x, *args[2:])
        return loss, dx

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

    def evaluate_open(
        self, x: Array, labels: Array, opened: list[Index]
    ) -> tuple[float, Array | None]:
        """Do the same without what closed gates hide, whose gradients are zeros.

        Of what convolutions make, x has only what is open.
        """
        places = [
            ALL if index.size == gated.z.size else index
            for index, gated in zip(opened, self.gates[len(self.convs) :], strict=True)
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
                whole = not (k or self.convs) and rows.size
                a = Operand.of(h, None, rows if whole else None)
                b = Operand.of(weight, rows, columns)
                z = self._gate(k).z
                z = z[rows] if rows.size else z
                operands = a, b, z
                product(a, b, Operand.of(y), factors=z)
                y += bias[columns] if columns.size else bias
                if k < last:
                    np.greater(y, 0, out=above)
                    np.maximum(y, 0, out=y)
            else:
                run_calls([self._affine(k, h, y, above)])
            kept.append((h, operands, above))
            h = y
        dy = np.empty_like(h)
        loss = float(loss_and_derivative(h, labels, dy))
        dh = None
        if not math.isfinite(loss):
            return loss, dh
        for k in reversed(range(last + 1)):
            (h, operands, above), rows, columns = kept[k], places[k], places[k + 1]
            dh = np.empty_like(h) if k or self.convs else None
            if operands is None:
                self._written[k] = None
                run_calls([self._pull(k, h, dy, above, dh)])
            else:
                a, b, z = operands
                if k < last:
                    dy *= above
                dweight, dbias = self.gradients[k]
                self._clear(k, rows, columns)
                dbias.fill(0)
                dbias[columns if columns.size else slice(None)] = dy.sum(axis=0)
                cotangent, own = Operand.of(dy), b._replace(numbers=dweight.reshape(-1))
                weight, dz = self.dense[k][1].params["weight"], self._gate(k).dz
                dots = product(a.transposed, cotangent, own, scales=z, other=weight)
                dz.fill(0)
                dz[opened[k]] = dots[0]
                if dh is not None:
                    product(cotangent, b.transposed, Operand.of(dh))
                    dh *= z
            dy = dy if dh is None else dh
        return loss, dh


def forget_old(rooms: dict[int, Any]) -> None:
    """Make place for one more."""
    while len(rooms) >= _KEPT:
        del rooms[next(iter(rooms))]


def _parts(whole: Array, sizes: Iterable[int]) -> list[Array]:
    """Return parts of these sizes, one after the other."""
    return [whole[i:j] for i, j in itertools.pairwise(itertools.accumulate(sizes, initial=0))]


def perceptron(network: Network, first: int = 0) -> list[tuple[int, Dense]]:
    """Return the dense layers of a network that has rectifiers between them and nothing else.

    Raises
    ------
    NotForKernel
        If there is something else from the first layer on.
    """
    layers = network.layers[first:]
    kinds = [Dense if k % 2 == 0 else ReLU for k in range(len(layers))]
    if [type(layer) for layer in layers] != kinds or kinds[-1:] != [Dense]:
        raise NotForKernel
    if network.skips or network.sources != list(range(-1, len(network.layers) - 1)):
        raise NotForKernel
    dense = [(i, layer) for i, layer in enumerate(layers, first) if isinstance(layer, Dense)]
    known = {None, "inputs", "weights"}
    on = {None if layer.gates is None else layer.gates.on for _, layer in dense}
    if len(on) > 1 or not on <= known:
        raise NotForKernel
    if any(layer.per_example or layer.spread for _, layer in dense):
        raise NotForKernel
    return dense
