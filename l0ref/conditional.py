r"""Conditional computation: what this minibatch's closed gates leave out of a step.

A gate is drawn as exactly 0 with positive probability, and a unit or feature map behind such a gate
takes no part in the minibatch. Two things follow, and both are exact:

* **forward**: a map whose gate is 0 (and whose bias goes with it) is 0, and stays 0 through an
  activation, dropout or pooling. A layer that reads it adds zeros: it is not **live**;
* **backward**: a unit that is only read through gates that are 0 has the derivative 0, and so have
  all weights, biases and gates that act through it alone: it is not **read**.

So each value in the network keeps the units that are both, the weights between them are packed side
by side, and the layers do the same work on smaller arrays. (A dense layer's weights are packed by
its product itself, as it reads them: `l0ref.ops.gated_matmul`.) With a draw for each example a unit
is left out if it is closed for all; where few of the gates of a dense layer's inputs are open, each
example goes through its own (`l0ref.ops.example_matmul`). Gradients of what was left out are exact
zeros. The products sum fewer terms, in another order: the result is that of the whole network to
rounding. (What is left out is not looked at: where it holds an infinity or a NaN, 0 times it is no
NaN here.)

Batch norm makes 0 into something else and has statistics of every map; it, and every layer that is
not named in this module, takes all units and gives all units.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .backends import Backend
from .gates import Gates
from .layers import (
    Conv2d,
    Dense,
    Dropout,
    Elementwise,
    Flatten,
    Layer,
    MaxPool2d,
    Pool,
    ReLU,
    Weighted,
)
from .ops.pack import PackResiduals

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Index = NDArray[np.intp]

INPUT = -1
WORTH = 1.5e7
"""Multiplications that a minibatch's products must lose for packing to be worth its own cost."""

OPEN_SHARE = 0.15
"""Share of a layer's gates, over all examples, up to which each example reads its own rows.

Of 784-300 for a hundred examples the kernels take, forward and back, on two cores of an AMD EPYC
two thirds of the time of whole products where a tenth is open, and as long at a quarter. The
reference is slower so, and does it all the same: what is looked at is no matter of the backend.
"""

ENOUGH = 10**6
"""Multiplications that this must spare a layer forward."""

_PASSING = (Elementwise, Dropout, Pool)
"""Layers that turn each unit or map into one, on its own, and 0 into 0."""


class Wiring(Protocol):
    """What this module needs to know of a network: its layers, and who takes from whom."""

    layers: list[Layer]
    sources: list[int]
    skips: dict[int, int]

    @property
    def backend(self) -> Backend:
        """Of the layers."""

    @property
    def plan(self) -> Plan:
        """What is known before a pass."""

    def shapes(self, x_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Of each layer's input, and of the logits."""

    def output_shapes(self, x_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Of each layer's output."""


class Role(NamedTuple):
    """What a pass that leaves something out asks of a layer.

    Attributes
    ----------
    weighted : Weighted or None
        The layer, if it has weights.
    passes : bool
        It turns each unit or map into one, on its own, and 0 into 0.
    flattens : bool
        It makes units of maps.
    packs : bool
        It can do with some of its inputs and give some of its outputs.
    gathers : bool
        It is a dense layer with one gate an input, or none: its product takes what is open where it
        lies.
    by_example : bool
        It is a dense layer with a gate an input and an example.
    silences : bool
        Behind a closed gate its output is 0.
    ignores : bool
        Before a closed gate its input is not read.
    """

    weighted: Weighted | None
    passes: bool
    flattens: bool
    packs: bool
    gathers: bool
    by_example: bool
    silences: bool
    ignores: bool

    @classmethod
    def of(cls, layer: Layer) -> Role:
        """Ask a layer."""
        passes, flattens = isinstance(layer, _PASSING), isinstance(layer, Flatten)
        if not isinstance(layer, Weighted):
            return cls(None, passes, flattens, False, False, False, False, False)
        packs, gathers = _packs(layer), isinstance(layer, Dense) and not layer.spread
        by_example = silences = ignores = False
        if layer.gates is not None:
            gates, no_bias = layer.gates, "bias" not in layer.params
            on_outputs = gates.axis == layer.output_axis
            silences = packs and on_outputs and (gates.gates_bias or no_bias)
            ignores = packs and gates.axis == 1 - layer.output_axis
            by_example = gathers and ignores and layer.per_example
            gathers = gathers and ignores and not layer.per_example
        return cls(layer, False, False, packs, gathers, by_example, silences, ignores)


class Plan(NamedTuple):
    """What can be told of a network without a minibatch, and is asked for in every pass.

    Attributes
    ----------
    gated : list
        Position, layer and gates of each layer that has gates.
    needed_later : set of int
        Layers whose output is not the next layer's alone.
    wanted : set of int
        Layers whose output depends on a parameter: only their derivatives are of use.
    blocks : dict of int to int
        Layers in a row that a backend may run as one: first, last.
    roles : list of Role
        Of each layer.
    """

    gated: list[tuple[int, Weighted, Gates]]
    needed_later: set[int]
    wanted: set[int]
    blocks: dict[int, int]
    roles: list[Role]

    @classmethod
    def of(cls, layers: Sequence[Layer], sources: Sequence[int], skips: Mapping[int, int]) -> Plan:
        """Make the plan of a network."""
        weighted = ((i, layer) for i, layer in enumerate(layers) if isinstance(layer, Weighted))
        gated = [(i, layer, layer.gates) for i, layer in weighted if layer.gates is not None]
        wanted: set[int] = set()
        for i, layer in enumerate(layers):
            if layer.params or sources[i] in wanted or skips.get(i) in wanted:
                wanted.add(i)
        needed_later = {*skips.values(), *sources}
        roles = [Role.of(layer) for layer in layers]
        return cls(gated, needed_later, wanted, _blocks(layers, sources, skips), roles)


def _blocks(
    layers: Sequence[Layer], sources: Sequence[int], skips: Mapping[int, int]
) -> dict[int, int]:
    """Dense layer and ReLU, or convolution, ReLU and max pooling, that nothing else looks into."""
    readers = [*sources, *skips.values()]
    found = {}
    for i, layer in enumerate(layers):
        kinds = [type(follower) for follower in layers[i + 1 : i + 3]]
        if isinstance(layer, Dense) and _packs(layer) and kinds[:1] == [ReLU]:
            last = i + 1
        elif isinstance(layer, Conv2d) and kinds == [ReLU, MaxPool2d] and _gates_maps(layer):
            last = i + 2
        else:
            continue
        inside = range(i, last)
        # What is added behind the last may be in other units than those that the first has.
        added = any(j in skips for j in range(i, last + 1))
        in_a_row = all(sources[j + 1] == j and readers.count(j) == 1 for j in inside)
        if in_a_row and not added:
            found[i] = last
    return found


def _gates_maps(conv: Conv2d) -> bool:
    """Whether it is one convolution, whose gates, if any, are on its output maps."""
    gates = conv.gates
    on_maps = gates is None or (gates.axis == conv.output_axis and not conv.spread)
    return conv.groups == 1 and on_maps


@dataclass(frozen=True, slots=True)
class Units:
    """Some of a value's units: as a mask, and as their positions, which are asked for often."""

    mask: Mask | None  # None for all
    index: Index | None  # None for all
    count: int
    size: int

    @classmethod
    def of(cls, mask: Mask | None, size: int) -> Units:
        """Find the positions; of none, keep one, which is 0 or unread: no array is empty."""
        if mask is None:
            return cls(None, None, size, size)
        (index,) = mask.nonzero()
        if size and not len(index):
            return cls.of(np.arange(size) == 0, size)
        return cls.of(None, size) if len(index) == size else cls(mask, index, len(index), size)

    def among(self, values: Array) -> Array:
        """Put values where the units are along the last axis, and exact zeros elsewhere."""
        if self.index is None:
            return values
        spread = np.zeros((*values.shape[:-1], self.size), values.dtype)
        spread[..., self.index] = values
        return spread

    def out_of(self, values: Array) -> Array:
        """Return those of values along the last axis that belong to the units."""
        return values if self.index is None else values[..., self.index]


class Move(NamedTuple):
    """From the units that a value keeps to those that a layer takes."""

    take: Index | None  # positions among those kept; None for all, in order
    place: Index | None  # positions among those taken; None for all, in order
    n_kept: int
    n_taken: int

    @classmethod
    def between(cls, kept: Units, taken: Units) -> Move | None:
        """Return the move, or None where nothing moves."""
        if kept is taken:
            return None
        take, place = taken.index, kept.index
        if kept.mask is not None and taken.mask is not None:
            both = kept.mask & taken.mask
            count = np.count_nonzero(both)
            take = None if count == kept.count else both[kept.mask].nonzero()[0]
            place = None if count == taken.count else both[taken.mask].nonzero()[0]
        if take is None and place is None:
            return None
        return cls(take, place, kept.count, taken.count)

    def forward(self, x: Array, ops: Backend) -> Array:
        """Leave out what is not taken, and put zeros for what is taken but was known to be 0."""
        y: Array = x if self.take is None else ops.pack(x, None, self.take)[0]
        return y if self.place is None else _spread(y, self.place, self.n_taken, ops)

    def backward(self, dy: Array, ops: Backend) -> Array:
        """Pull dy back."""
        dx: Array = dy if self.place is None else ops.pack(dy, None, self.place)[0]
        return dx if self.take is None else _spread(dx, self.take, self.n_kept, ops)


def _spread(x: Array, columns: Index, n: int, ops: Backend) -> Array:
    """Spread the columns of x over n, with zeros between them."""
    shape = (x.shape[0], n, *x.shape[2:])
    spread: Array = ops.pack_vjp(x, PackResiduals(shape, None, columns))
    return spread


class _Gathered(NamedTuple):
    """Residuals of a dense layer whose product took what is open."""

    product: Any
    positive: Mask | None  # behind a rectifier: where it let through
    by_example: bool  # each example took its own


class Packing:
    """Which units each value of a network keeps, and each layer takes, in one minibatch.

    Parameters
    ----------
    network : Network
    gates : mapping of int to array
        z of each gated layer, by position.
    x_shape : tuple of int
        Of the minibatch.

    Attributes
    ----------
    kept : dict of int to Units
        Units of the output of layer i (INPUT: of the network's input) that are computed.
    taken : dict of int to Units
        Units of its input that layer i reads.
    moves : dict of int to Move
        From what its source keeps to what layer i takes; under ``len(layers)``, from what the last
        layer keeps to the logits.
    skip_moves : dict of int to Move
        From what the source of its skip keeps to what layer i keeps.
    """

    def __init__(
        self, network: Wiring, gates: Mapping[int, Array], x_shape: tuple[int, ...]
    ) -> None:
        self.network = network
        roles, sources, skips = network.plan.roles, network.sources, network.skips
        self._outputs = network.output_shapes(x_shape)
        opened = {
            i: _open(gates[i]) for i, role in enumerate(roles) if role.silences or role.ignores
        }
        n_units = {INPUT: x_shape[1]} | {i: shape[1] for i, shape in enumerate(self._outputs)}

        live: dict[int, Mask | None] = {INPUT: None}
        for i, role in enumerate(roles):
            live[i] = self._live(role, live[sources[i]], opened.get(i), n_units[i])
            if i in skips:
                live[i] = _either(live[i], live[skips[i]])

        last = len(roles) - 1
        read: dict[int, Mask | None] = {last: None}
        reads: dict[int, Mask | None] = {}

        def add_reader(source: int, mask: Mask | None) -> None:
            read[source] = _either(read[source], mask) if source in read else mask

        for i in reversed(range(len(roles))):
            reads[i] = self._reads(roles[i], read[i], opened.get(i), n_units[sources[i]])
            add_reader(sources[i], reads[i])
            if i in skips:
                add_reader(skips[i], read[i])

        everything = {v: Units.of(None, n) for v, n in n_units.items()}
        self.kept: dict[int, Units] = {INPUT: everything[INPUT]}
        self.taken: dict[int, Units] = {}
        self.moves: dict[int, Move | None] = {}
        self.skip_moves: dict[int, Move | None] = {}
        for i, role in enumerate(roles):
            j, n = sources[i], n_units[i]
            source = self.kept[j]
            if role.flattens:
                # Whole maps, of which a unit counts: by itself, or by what a skip adds to it.
                units = _both(live[i], read[i])
                taken = Units.of(_by_map(units, source.size), source.size)
                whole = None if taken.mask is None else taken.mask.repeat(n // source.size)
                kept = Units.of(whole, n)
            elif role.passes or role.packs:
                # What its source keeps passes, if nothing is added to it and nobody else reads it.
                own = j != INPUT and (roles[j].passes or roles[j].packs)
                same = role.passes and own and live[i] is live[j] and read[i] is read[j]
                kept = source if same else Units.of(_both(live[i], read[i]), n)
                taken = kept if role.passes else self._taken(source, _both(live[j], reads[i]))
            else:
                kept, taken = everything[i], everything[j]
            self.kept[i], self.taken[i] = kept, taken
            self.moves[i] = Move.between(source, taken)
            if i in skips:
                # To the output of layer i is added what lies in the places of its own kept units.
                self.skip_moves[i] = Move.between(self.kept[skips[i]], kept)
        self.moves[last + 1] = Move.between(self.kept[last], everything[last])

    @staticmethod
    def _live(role: Role, source: Mask | None, opened: Mask | None, n: int) -> Mask | None:
        """Units of the layer's output that may be other than 0."""
        if role.passes:
            return source
        if role.flattens:
            return None if source is None else source.repeat(n // len(source))
        return opened if role.silences else None

    @staticmethod
    def _reads(role: Role, read: Mask | None, opened: Mask | None, n: int) -> Mask | None:
        """Units of the layer's input that have a way to what is read."""
        if role.passes:
            return read
        if role.flattens:
            return _by_map(read, n)
        return opened if role.ignores else None

    @staticmethod
    def _taken(source: Units, mask: Mask | None) -> Units:
        """Units that a layer takes; of none, one that its source has."""
        if mask is None or mask.any() or source.mask is None:
            return Units.of(mask, source.size)
        return Units.of(np.arange(source.size) == source.mask.argmax(), source.size)

    def saved(self) -> float:
        """Multiplications that the minibatch is spared in each of the layers' products."""
        saved = 0.0
        for i, role in enumerate(self.network.plan.roles):
            if role.weighted is None:
                continue
            n, _, *size = self._outputs[i]
            inputs, outputs = self.taken[i], self.kept[i]
            left = inputs.count * outputs.count / (inputs.size * outputs.size)
            saved += n * math.prod(size) * role.weighted.params["weight"].size * (1 - left)
        return saved


def _packs(layer: Weighted) -> bool:
    """Whether the layer can do with some of its inputs and give some of its outputs."""
    if isinstance(layer, Conv2d) and layer.groups > 1:
        return False
    gates = layer.gates
    if gates is None or not layer.per_example:
        return True
    # A gate a weight and an example: nothing is closed for the minibatch.
    return gates.axis is not None and not layer.spread


def _open(z: Array) -> Mask:
    """Which gates are open, for any example."""
    mask: Mask = z != 0
    return mask if mask.ndim == 1 else np.asarray(mask.any(axis=0))


def _both(a: Mask | None, b: Mask | None) -> Mask | None:
    """Units in both; None is all."""
    return b if a is None else a if b is None else a & b


def _by_map(units: Mask | None, n: int) -> Mask | None:
    """Which of n maps have one of the units."""
    return None if units is None else np.asarray(units.reshape(n, -1).any(axis=1))


def _either(a: Mask | None, b: Mask | None) -> Mask | None:
    """Units in either."""
    return None if a is None or b is None else a | b


class Pass:
    """One way through a network and back, without what this minibatch's gates close.

    Parameters
    ----------
    network : Network
    x : array, (N, *input_shape)
    noise : mapping of int to array, or None
        u for each layer of `network.noise_shapes(x.shape)`; None for test time, from where there is
        no way back.
    dense : bool, optional
        Leave nothing out.

    Attributes
    ----------
    logits : array, (N, K)
    gates, slopes : dict of int to array
        z of each gated layer, by position, and dz/dlog_alpha (at test time None): all of them.
    residuals : list
        One for each layer; None within a block of layers that is run as one.
    packing : Packing or None
        None where nothing is left out.
    """

    def __init__(
        self, network: Wiring, x: Array, noise: Mapping[int, Any] | None, *, dense: bool = False
    ) -> None:
        self._network, self._ops, self._plan = network, network.backend, network.plan
        shapes = network.shapes(x.shape)
        self.gates: dict[int, Array] = {}
        self.slopes: dict[int, Array] = {}
        for i, layer, _ in self._plan.gated:
            u = None if noise is None else noise[i]
            self.gates[i], self.slopes[i] = layer.draw(shapes[i], u)
        self._dense = dense
        self.packing = None if dense else self._worthwhile(x.shape)
        self._moves = self.packing.moves if self.packing else {}
        self._skip_moves = self.packing.skip_moves if self.packing else {}
        self._blocks = self._plan.blocks if self._ops.fuses else {}
        self.residuals: list[Any] = [None] * len(network.layers)
        self.logits = self._forward(x, noise)

    def _worthwhile(self, x_shape: tuple[int, ...]) -> Packing | None:
        masks = (_open(self.gates[i]) for i, _, gates in self._plan.gated if gates.axis is not None)
        if all(mask.all() for mask in masks):
            return None
        packing = Packing(self._network, self.gates, x_shape)
        return packing if packing.saved() >= WORTH else None

    # --- forward ---

    def _moved(self, x: Array, move: Move | None) -> Array:
        return x if move is None else move.forward(x, self._ops)

    def _forward(self, x: Array, noise: Mapping[int, Any] | None) -> Array:
        network, ops, training = self._network, self._ops, noise is not None
        values = {INPUT: x}
        i = 0
        while i < len(network.layers):
            source, role = network.sources[i], self._plan.roles[i]
            x = self._moved(values[source], self._moves.get(i))
            weighted = role.weighted
            if i in self._blocks and isinstance(weighted, Conv2d):
                y = self._forward_block(i, x)
            elif weighted is not None:
                z, op = self.gates.get(i), self._op(i)
                rectified = op is not None
                own = self._few(i, weighted, z) if role.by_example else None
                if own is not None:
                    y, self.residuals[i] = self._apply_by_example(i, weighted, x, own, rectified)
                elif self._gathers(i, role):
                    y, self.residuals[i] = self._apply_gathered(i, weighted, x, z, rectified)
                elif self.packing and role.packs:
                    y, self.residuals[i] = self._apply_packed(i, weighted, x, z, op)
                else:
                    y, self.residuals[i] = weighted.apply(x, z, op)
            else:
                u, layer = None if noise is None else noise.get(i), network.layers[i]
                if self.packing and isinstance(layer, Dropout) and u is not None:
                    taken = self.packing.taken[i].index
                    u = u if taken is None else np.asarray(u)[:, taken]
                y, self.residuals[i] = layer.forward(x, u, training=training)
            i = self._blocks.get(i, i)
            if i in network.skips:
                other = self._moved(values[network.skips[i]], self._skip_moves.get(i))
                y, _ = ops.add(y, other)
            if i in self._plan.needed_later:
                values[i] = y
            i += 1
        return self._moved(y, self._moves.get(i))

    def _op(self, i: int) -> str | None:
        """Name of the op of a dense layer and what follows it; None for the layer's own."""
        return "dense_relu" if i in self._blocks else None

    def _index(self, i: int, layer: Weighted) -> tuple[Index | None, Index | None]:
        """Positions along the weights' first and second axis that the pass has."""
        assert self.packing is not None
        outputs, inputs = self.packing.kept[i].index, self.packing.taken[i].index
        return (outputs, inputs) if layer.output_axis == 0 else (inputs, outputs)

    def _gathers(self, i: int, role: Role) -> bool:
        """Whether the layer's product leaves out what is closed, as there is something closed."""
        if self.packing is None or not role.gathers:
            return False
        return not (self.packing.taken[i].index is None and self.packing.kept[i].index is None)

    def _apply_gathered(
        self, i: int, layer: Weighted, x: Array, z: Array | None, rectified: bool
    ) -> tuple[Array, _Gathered]:
        """Multiply what is open where it lies: weights in place, x already moved."""
        assert self.packing is not None
        inputs, outputs = self.packing.taken[i], self.packing.kept[i]
        z = None if z is None else inputs.out_of(z)
        y, product = self._ops.gated_matmul(
            x, layer.params["weight"], z, rows=inputs.index, columns=outputs.index
        )
        y += outputs.out_of(layer.params["bias"])
        y, positive = self._ops.relu(y) if rectified else (y, None)
        return y, _Gathered(product, positive, False)

    def _pull_gathered(
        self, i: int, dy: Array, product: Any, *, need_dx: bool
    ) -> tuple[Any, dict[str, Array], Array | None]:
        assert self.packing is not None
        dx, dweight, dz = self._ops.gated_matmul_vjp(dy, product, need_dx=need_dx)
        dz = None if dz is None else self.packing.taken[i].among(dz)
        dbias = self.packing.kept[i].among(dy.sum(axis=0))
        return dx, {"weight": dweight, "bias": dbias}, dz

    def _few(self, i: int, layer: Weighted, z: Array | None) -> Array | None:
        """Return the gates of the inputs that are there, if few enough of them are open."""
        if self._dense or z is None:
            return None
        n_outputs = layer.params["bias"].size
        if self.packing is not None:
            z, n_outputs = self.packing.taken[i].out_of(z), self.packing.kept[i].count
        n_open = np.count_nonzero(z)
        few = n_open <= OPEN_SHARE * z.size and (z.size - n_open) * n_outputs >= ENOUGH
        return z if few else None

    def _apply_by_example(
        self, i: int, layer: Weighted, x: Array, z: Array, rectified: bool
    ) -> tuple[Array, _Gathered]:
        params = layer.params if self.packing is None else self._packed(i, layer)
        y, product = self._ops.example_matmul(x, params["weight"], z)
        y += params["bias"]
        y, positive = self._ops.relu(y) if rectified else (y, None)
        return y, _Gathered(product, positive, True)

    def _packed(self, i: int, layer: Weighted) -> dict[str, Array]:
        """Return the layer's packed weights, and the bias of the units that are left."""
        assert self.packing is not None
        params = {"weight": self._ops.pack(layer.params["weight"], *self._index(i, layer))[0]}
        if "bias" in layer.params:
            params["bias"] = self.packing.kept[i].out_of(layer.params["bias"])
        return params

    def _packed_gates(self, i: int, layer: Weighted, z: Array) -> tuple[Array, str, bool]:
        """Return the gates as the op on packed weights takes them."""
        gates = layer.gates
        assert gates is not None
        assert self.packing is not None
        if layer.spread or gates.axis is None:
            over_weights = np.broadcast_to(gates.expand(z), gates.weight_shape)
            return self._ops.pack(over_weights, *self._index(i, layer))[0], "weights", True
        outputs = gates.axis == layer.output_axis
        units = (self.packing.kept if outputs else self.packing.taken)[i]
        return units.out_of(z), gates.on, gates.gates_bias

    def _apply_packed(
        self, i: int, layer: Weighted, x: Array, z: Array | None, op: str | None
    ) -> tuple[Array, Any]:
        small = copy.copy(layer)
        small.params = self._packed(i, layer)
        if z is None:
            return small.apply_op(x, None, "weights", True, op)
        return small.apply_op(x, *self._packed_gates(i, layer, z), op)

    def _forward_block(self, i: int, x: Array) -> Array:
        """Run a convolution, ReLU and max pooling as one op."""
        conv, pool = self._network.layers[i], self._network.layers[i + 2]
        assert isinstance(conv, Conv2d)
        assert isinstance(pool, MaxPool2d)
        z = self.gates.get(i)
        params = self._packed(i, conv) if self.packing else conv.params
        gates, gates_bias = z, True
        if z is not None and conv.gates is not None:
            gates_bias = conv.gates.gates_bias and "bias" in conv.params
            if self.packing:
                gates = self._packed_gates(i, conv, z)[0]
        y, self.residuals[i] = self._ops.conv_relu_pool(
            x,
            params["weight"],
            params.get("bias"),
            gates,
            gates_bias=gates_bias,
            **conv.geometry,
            kernel_size=pool.kernel_size,
            pool_stride=pool.stride,
            pool_padding=pool.padding,
        )
        return y

    # --- backward ---

    def backward(self, dlogits: Array) -> tuple[dict[str, Array], dict[int, Array]]:
        """Return the gradients of weights, biases and batch norm, and dz of each gated layer."""
        network, ops, wanted = self._network, self._ops, self._plan.wanted
        grads: dict[str, Array] = {}
        dgates: dict[int, Array] = {}
        ends = {last: first for first, last in self._blocks.items()}
        cotangents: dict[int, Array] = {}

        def arrive(source: int, move: Move | None, dy: Array) -> None:
            if source not in wanted:
                return
            dy = dy if move is None else move.backward(dy, ops)
            cotangents[source] = cotangents[source] + dy if source in cotangents else dy

        i = len(network.layers) - 1
        arrive(i, self._moves.get(i + 1), dlogits)
        while i >= 0:
            if i not in cotangents:
                i -= 1
                continue
            dy = cotangents.pop(i)
            if i in network.skips:
                arrive(network.skips[i], self._skip_moves.get(i), dy)
            i = ends.get(i, i)
            layer, source, r = network.layers[i], network.sources[i], self.residuals[i]
            role = self._plan.roles[i]
            if role.weighted is not None:
                dx, own, dz = self._pull(i, role.weighted, dy, r, need_dx=source in wanted)
                if dz is not None:
                    dgates[i] = dz
            else:
                dx, own = layer.backward(dy, r, need_dx=source in wanted)
            if dx is not None:
                arrive(source, self._moves.get(i), dx)
            grads |= {f"{i}.{name}": g for name, g in own.items()}
            i -= 1
        return grads, dgates

    def _pull(
        self, i: int, layer: Weighted, dy: Array, residuals: Any, *, need_dx: bool
    ) -> tuple[Any, dict[str, Array], Array | None]:
        packed, op = self.packing is not None and self._plan.roles[i].packs, self._op(i)
        if isinstance(residuals, _Gathered):
            if residuals.positive is not None:
                dy = self._ops.relu_vjp(dy, residuals.positive)
            if not residuals.by_example:
                return self._pull_gathered(i, dy, residuals.product, need_dx=need_dx)
            dx, dweight, dz = self._ops.example_matmul_vjp(dy, residuals.product, need_dx=need_dx)
            dbias = dy.sum(axis=0)
        elif i in self._blocks and isinstance(layer, Conv2d):
            dx, dweight, dbias, dz = self._ops.conv_relu_pool_vjp(dy, residuals, need_dx=need_dx)
        elif packed:
            dx, dweight, dbias, dz = layer.pull_op(dy, residuals, need_dx, op)
        else:
            return layer.pull(dy, residuals, need_dx=need_dx, op=op)
        if self.packing is not None and packed:
            whole = PackResiduals(layer.params["weight"].shape, *self._index(i, layer))
            dweight = self._ops.pack_vjp(dweight, whole)
            dbias = None if dbias is None else self.packing.kept[i].among(dbias)
            dz = None if dz is None else self._whole_gates(i, layer, dz, whole)
        own = {"weight": dweight} if dbias is None else {"weight": dweight, "bias": dbias}
        return dx, own, dz

    def _whole_gates(self, i: int, layer: Weighted, dz: Array, whole: PackResiduals) -> Array:
        """Return dz of all gates from that of `_packed_gates`."""
        gates = layer.gates
        assert gates is not None
        assert self.packing is not None
        if layer.spread or gates.axis is None:
            dz = self._ops.pack_vjp(dz, whole)
            return gates.contract(dz) if layer.spread else dz
        outputs = gates.axis == layer.output_axis
        return (self.packing.kept if outputs else self.packing.taken)[i].among(dz)
