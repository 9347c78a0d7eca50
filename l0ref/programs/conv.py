r"""A step of a LeNet-5 as a list of calls.

It takes convolutions, each with a rectifier and max pooling behind it and a gate on every map that
takes the map's bias with it; then a perceptron with a gate on every input. Which maps and units are
open is another matter at each step, so that the calls are made anew; but kernels, tables and room
are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import conditional
from ..jit import conv_block
from ..jit._registry import NotForKernel
from ..jit._vectors import BYTES
from ..jit.conv import PARTIALS, by_map
from ..jit.conv_block import PARTS, aligned
from ..jit.flatten import give_units, take_units
from ..jit.pack import gather
from ..layers import Conv2d, Dense, Flatten, MaxPool2d, ReLU
from ..network import Network
from .dense import Gated, Program, forget_old, perceptron

Array = NDArray[Any]
Index = NDArray[np.intp]


class _Room(NamedTuple):
    """For what a block makes of so many examples: each for all its maps, one after the other."""

    y: Array  # (C_out, N, places)
    dy: Array
    ungated: Array
    winner: NDArray[np.uint8]


class _Tables(NamedTuple):
    """What the VJP's kernel needs to know of so many input maps."""

    corner: Array
    inside: Array
    begin: Array
    seen: Array
    held: Array
    across: int  # numbers that hold a row of a window


class _Block:
    """A convolution, rectifier and max pooling.

    Parameters
    ----------
    conv : Conv2d
    pool : MaxPool2d
    in_shape : tuple of int
        (C, H, W).
    gradients : pair of array
        Room for those of weights and biases.
    """

    def __init__(
        self,
        conv: Conv2d,
        pool: MaxPool2d,
        in_shape: tuple[int, ...],
        gradients: tuple[Array, Array],
    ) -> None:
        self.weight, self.bias = conv.params["weight"], conv.params["bias"]
        self.c_out, self.c_in, *_ = self.weight.shape
        _, self.height, self.width = in_shape
        self.dweight = gradients[0].reshape(self.c_out, self.c_in, -1)
        self.dbias = gradients[1]
        geometry = conv.geometry
        strides, pads, steps = (geometry[name] for name in ("stride", "padding", "dilation"))
        kernel = pool.kernel_size
        try:
            self.geometry, self.pool, simple, looks = conv_block.geometries(
                (1, *in_shape), self.weight.shape[2:], strides, pads, steps, kernel,
                pool.stride, pool.padding,
            )  # fmt: skip
        except ValueError:
            raise NotForKernel from None
        if not (simple and looks):
            raise NotForKernel
        self.pads, self.n_places = pads, kernel[0] * kernel[1]
        self.order, self.first = conv_block.layout(*in_shape[1:], self.geometry, self.pool)
        self.line = in_shape[2] + 2 * pads[1]
        ph, pw, q_h, q_w, *self.size = self.pool
        self.most = -(-ph // q_h) * -(-pw // q_w)
        self._all_rows, self._all_columns = np.arange(self.c_out), np.arange(self.c_in)
        self._elements = self.weight.reshape(self.c_out, self.c_in, -1)
        self._packed = np.empty(
            (self.c_out * self.c_in, self._elements.shape[2]), self.weight.dtype
        )
        self.lanes = BYTES // self.weight.itemsize
        self._tables: dict[int, _Tables] = {}
        self._rooms: dict[int, _Room] = {}

    @property
    def windows(self) -> int:
        """Numbers of a map that comes out."""
        return int(self.size[0] * self.size[1])

    @property
    def products(self) -> int:
        """Of one map with another, in an example."""
        return int(math.prod(self.weight.shape[2:]) * self.geometry[8] * self.geometry[9])

    def room(self, n: int) -> _Room:
        """Return that of n examples."""
        if n not in self._rooms:
            shape, dtype = (self.c_out, n, self.windows), self.weight.dtype
            y, dy, ungated = (np.empty(shape, dtype) for _ in range(3))
            forget_old(self._rooms)
            self._rooms[n] = _Room(y, dy, ungated, np.empty(shape, np.uint8))
        return self._rooms[n]

    def _tables_for(self, c_in: int) -> _Tables:
        if c_in not in self._tables:
            line, kernel = self.line * c_in, self.weight.shape[2:]
            corner, inside, begin = conv_block.places(self.geometry, self.pool, line, c_in)
            seen, held = conv_block.pieces(kernel, c_in, self.geometry[6] * line, self.lanes)
            across = -(-kernel[1] * c_in // self.lanes) * self.lanes
            self._tables[c_in] = _Tables(corner, inside, begin, seen, held, across)
        return self._tables[c_in]

    def forward(self, maps: Array, rows: Index | None, columns: Index | None, z: Array) -> Array:
        """Return some of its maps, (C, N, places), of some of the input's; None for all.

        Raises
        ------
        NotForKernel
            If something is not finite.
        """
        n, weight, bias = maps.shape[1], self.weight, self.bias
        if rows is not None or columns is not None:
            some = self._all_rows if rows is None else rows
            others = self._all_columns if columns is None else columns
            weight = self._packed[: some.size * others.size].reshape(some.size, others.size, -1)
            gather.sized(weight.size, self._elements, some, others, weight)
            bias, z = bias.take(some), z.take(some)
        count, parts = len(weight), min(n, PARTS)
        room, odd = self.room(n), np.empty(parts, np.bool_)
        y = room.y[:count]
        conv_block.forward(
            parts, maps, weight.reshape(count, -1), bias, z.reshape(1, -1), True, True, self.pads,
            self.n_places, self.order, self.first, y, room.winner[:count], room.ungated[:count],
            odd,
        )  # fmt: skip
        if odd.any():
            raise NotForKernel
        return y

    def backward(
        self,
        maps: Array,
        rows: Index | None,
        columns: Index | None,
        gated: Gated,
        dx: Array | None,
    ) -> None:
        """Pull `room.dy` of the maps that were made back: to all gradients, and to dx.

        Raises
        ------
        NotForKernel
            If something is not finite.
        """
        n, some, others = maps.shape[1], self._all_rows, self._all_columns
        some, others = some if rows is None else rows, others if columns is None else columns
        count, tables, z = some.size, self._tables_for(others.size), gated.z.take(some)
        kw, room = self.weight.shape[3], self.room(n)
        theta = aligned((count, len(tables.held) * self.lanes), maps.dtype)
        if dx is not None:
            weights_by_row = conv_block.weights_by_row
            weights_by_row.sized(theta.size, self._elements, some, others, kw, tables.across, theta)
        parts = min(n, PARTS, max(4, PARTIALS // theta.nbytes))
        dweights = np.empty((parts, *theta.shape), maps.dtype)
        odd, sums = np.empty(parts, np.bool_), np.empty((2, parts, count), maps.dtype)
        corner, inside, begin, seen, held, across = tables
        conv_block.pull(
            parts, room.dy[:count], room.winner[:count], room.ungated[:count], maps, theta,
            z.reshape(1, -1), True, True, dx is not None, self.pads, self.most, corner, inside,
            begin, seen, held, maps if dx is None else dx, dweights, sums[0], sums[1], odd,
        )  # fmt: skip
        if odd.any():
            raise NotForKernel
        whose = np.full(self.c_out, -1)
        whose[some] = self._all_rows[:count]
        conv_block.gradient_by_map.sized(
            dweights.size, dweights, whose, others, kw, across, self.dweight
        )
        for out, parted in zip((self.dbias, gated.dz), sums, strict=True):
            out.fill(0)
            out[some] = parted.sum(axis=0)


class _Kept(NamedTuple):
    """What of a network takes part in a minibatch."""

    rows: list[Index | None]  # maps of each block; None for all
    units: list[Index]  # inputs of each dense layer
    whose: Index  # among the last block's kept maps, that of each unit of the first dense layer
    where: Index  # and which of its places


class ConvProgram(Program):
    """The calls of a step of a network of convolutions and dense layers.

    Raises
    ------
    NotForKernel
        If it is another network, or its arrays are not what kernels take.
    """

    def __init__(
        self, network: Network, named: Mapping[str, Array], arrays: Sequence[tuple[Array, ...]]
    ) -> None:
        super().__init__(network, named, arrays)
        shapes = network.shapes((1, *network.input_shape))
        self.blocks = []
        for (i, conv), gradients in zip(self.convs, self.conv_gradients, strict=True):
            pool = network.layers[i + 2]
            assert isinstance(pool, MaxPool2d)
            self.blocks.append(_Block(conv, pool, shapes[i][1:], gradients))
        last = self.blocks[-1]
        self._everything = np.divmod(np.arange(last.c_out * last.windows), last.windows)

    @staticmethod
    def layers_of(network: Network) -> tuple[list[tuple[int, Conv2d]], list[tuple[int, Dense]]]:
        """Return its convolutions and its dense layers."""
        layers, convs = network.layers, []
        for i in range(0, len(layers), 3):
            conv = layers[i]
            if [type(one) for one in layers[i : i + 3]] != [Conv2d, ReLU, MaxPool2d]:
                break
            if i not in network.plan.blocks or not isinstance(conv, Conv2d):
                raise NotForKernel
            gates = conv.gates
            if gates is None or conv.per_example or not gates.gates_bias:
                raise NotForKernel
            if "bias" not in conv.params:
                raise NotForKernel
            convs.append((i, conv))
        first = 3 * len(convs)
        if not convs or type(layers[first]) is not Flatten:
            raise NotForKernel
        dense = perceptron(network, first + 1)
        if any(layer.gates is None or layer.gates.on != "inputs" for _, layer in dense):
            raise NotForKernel
        return convs, dense

    def evaluate(self, x: Array, labels: Array, *, dense: bool) -> float:
        """Go forward and back, when the gates are drawn; return the loss."""
        n, kept = len(x), None if dense else self.kept(len(x))
        rows: list[Index | None] = [None] * len(self.blocks) if kept is None else kept.rows
        columns = [None, *rows]
        whose, where = self._everything if kept is None else kept[2:]
        inputs, maps = [], by_map(x)
        for k, block in enumerate(self.blocks):
            inputs.append(maps.reshape(len(maps), n, block.height, block.width))
            maps = block.forward(inputs[k], rows[k], columns[k], self.gates[k].z)
        h = np.empty((n, whose.size), x.dtype)
        take_units.sized(h.size, maps, whose, where, h)
        if kept is None:
            loss, dh = self.evaluate_all(h, labels)
        else:
            loss, dh = self.evaluate_open(h, labels, kept.units)
        if not math.isfinite(loss):
            return loss
        dy = self.blocks[-1].room(n).dy[: len(maps)]
        give_units.sized(dy.size, dh, whose, where, dy)
        for k in reversed(range(len(self.blocks))):
            maps, dx = inputs[k], None
            if k:
                dx = self.blocks[k - 1].room(n).dy[: len(maps)].reshape(maps.shape)
            self.blocks[k].backward(maps, rows[k], columns[k], self.gates[k], dx)
        return loss

    def kept(self, n: int) -> _Kept | None:
        """Return what is open, if to leave out the rest is worth it; see `l0ref.conditional`."""
        if np.count_nonzero(self.z) == self.z.size:
            return None
        first = len(self.blocks)
        # A map behind which nothing is open is left out, and a unit whose map is closed.
        behind, closed = self.gates[first].z, self.gates[first - 1].z == 0
        units = (behind != 0).reshape(len(closed), -1)
        units[closed] = False
        rows = [gated.z.nonzero()[0] for gated in self.gates[: first - 1]]
        rows.append(units.any(axis=1).nonzero()[0])
        (taken,) = units.reshape(-1).nonzero()
        opened = [taken, *(gated.z.nonzero()[0] for gated in self.gates[first + 1 :])]
        counts = [len(index) for index in (*rows, *opened)]
        if not all(counts):  # one is kept of none: the original does that
            raise NotForKernel
        saved, before = 0, self.blocks[0].c_in
        for block, count in zip(self.blocks, counts, strict=False):
            saved += n * block.products * (block.c_in * block.c_out - before * count)
            before = count
        counts.append(self.dense[-1][1].params["bias"].size)
        for k, (_, layer) in enumerate(self.dense, first):
            saved += n * (layer.params["weight"].size - counts[k] * counts[k + 1])
        if saved < conditional.WORTH:
            return None
        some = [
            None if len(index) == block.c_out else index
            for index, block in zip(rows, self.blocks, strict=True)
        ]
        map_of, where = np.divmod(taken, self.blocks[-1].windows)
        whose: Index = np.asarray(rows[-1].searchsorted(map_of))
        return _Kept(some, opened, whose, where)
