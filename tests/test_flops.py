"""The cost of networks, against every operation of a forward pass counted as it happens."""

import itertools
import math
import re
from collections.abc import Sequence
from functools import cache, reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from l0ref.flops import (
    conv2d_flops,
    conv2d_params,
    dense_flops,
    dense_params,
    expected_cost,
    hard_cost,
    layer_costs,
    network_cost,
)
from l0ref.gates import Gates, by_label, per_input, per_output, per_weight
from l0ref.layers import (
    AddPattern,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Elementwise,
    Flatten,
    Layer,
    MaxPool2d,
    Normalize,
    ReLU,
    Select,
    Tanh,
)
from l0ref.network import INPUT, Network
from l0ref.networks import LeNet5, LeNet300100, WideResNet
from l0ref.pruning import compact
from tests.naive_conv import walk

EPS = np.finfo(np.float64).eps
OPEN, CLOSED = 5.0, -5.0  # log_alpha on the two sides of -log 11, where the test-time gate closes

Pair = tuple[int, int]
Masks = dict[int, Any]  # of each gated layer, by position: which gates are open


# --- a count of what happens ---


class Counted:
    """A number that does nothing but count what is done with it."""

    operations = 0

    def __add__(self, other: "Counted") -> "Counted":
        Counted.operations += 1
        return Counted()

    __mul__ = __add__


def gate_of_weight(layer: Any, mask: Any, o: int, c: int, i: int, j: int) -> bool:
    """Whether the gate of a single weight is open: to output o, from input c of its group."""
    gates: Gates | None = layer.gates
    if gates is None:
        return True
    place = (c, o) if isinstance(layer, Dense) else (o, c, i, j)
    if gates.labels is not None:
        return bool(mask[gates.labels[place]])
    return bool(mask[place] if gates.axis is None else mask[place[gates.axis]])


def gate_of_unit(layer: Any, mask: Any, side: str, unit: int) -> bool:
    """Whether the gate that lies on a whole input or output of a layer is open, if there is one."""
    inputs, outputs = (0, 1) if isinstance(layer, Dense) else (1, 0)
    gates: Gates | None = layer.gates
    if gates is None or gates.axis != {"inputs": inputs, "outputs": outputs}[side]:
        return True
    return bool(mask[unit % len(mask)])  # on an input: of each of a convolution's groups


class Count:
    """One forward pass of one example through a hard network, in numbers that count.

    What is off is None: it is in no sum. A unit or map is off if its own gate is closed, or if
    every gate through which it is read is. What is on may still be a constant (its bias, say).

    The zeros of a convolution's padding are numbers like all others: a weight that meets one is
    multiplied with it.
    """

    def __init__(self, network: Network, masks: Masks) -> None:
        self.network, self.masks, self.layers = network, masks, network.layers
        self.costs: list[tuple[int, int]] = []
        self.is_read = cache(self._is_read)
        height, width = self.size(0)
        start = [[[Counted()] * width] * height] * network.input_shape[0]
        values: dict[int, list[Any]] = {INPUT: start}
        for i, layer in enumerate(self.layers):
            Counted.operations, self.used = 0, 0
            y = self.apply(i, layer, values[network.sources[i]])
            if i in network.skips:
                pairs = zip(y, values[network.skips[i]], strict=True)
                y = [self.sum_of(i, c, a, b) for c, (a, b) in enumerate(pairs)]
            values[i] = y
            self.costs.append((Counted.operations, self.used))

    def size(self, i: int) -> Pair:
        """Height and width of what a layer takes; a unit is a map of 1x1."""
        shape = self.network.shapes((1, *self.network.input_shape))[i][2:]
        return (shape[0], shape[1]) if shape else (1, 1)

    def _is_read(self, node: int, c: int) -> bool:
        if node == len(self.layers) - 1:
            return True
        for j, layer in enumerate(self.layers):
            if self.network.skips.get(j) == node and self.is_read(j, c):
                return True
            if self.network.sources[j] != node:
                continue
            if isinstance(layer, (Dense, Conv2d)):
                if gate_of_unit(layer, self.masks.get(j), "inputs", c):
                    return True
            elif isinstance(layer, Flatten):
                n = math.prod(self.size(j))
                if any(self.is_read(j, c * n + p) for p in range(n)):
                    return True
            elif self.is_read(j, c):
                return True
        return False

    def apply(self, i: int, layer: Any, x: list[Any]) -> list[Any]:
        if isinstance(layer, Flatten):
            off = [None] * math.prod(self.size(i))
            units = itertools.chain(*(off if m is None else itertools.chain(*m) for m in x))
            return [None if unit is None else [[unit]] for unit in units]
        if isinstance(layer, (Dense, Conv2d)):
            n_out = layer.params["weight"].shape[layer.output_axis]
            return [self.output(i, layer, o, x) for o in range(n_out)]
        return [
            None if image is None or not self.is_read(i, c) else self.mapped(layer, image)
            for c, image in enumerate(x)
        ]

    def mapped(self, layer: Any, image: Any) -> Any:
        """One map through a layer that takes each on its own."""
        if isinstance(layer, BatchNorm):
            self.used += 2
            scale, shift = Counted(), Counted()
            return [[value * scale + shift for value in row] for row in image]
        if isinstance(layer, AvgPool2d):
            one_over_size = Counted()
            return [
                [total(window) * one_over_size for window in row]
                for row in windows(image, layer.kernel_size, layer.stride, layer.padding, (1, 1))
            ]
        if isinstance(layer, MaxPool2d):
            return [
                [window[0] for window in row]
                for row in windows(image, layer.kernel_size, layer.stride, layer.padding, (1, 1))
            ]
        assert isinstance(layer, (ReLU, Tanh, Dropout, Normalize))
        return image

    def output(self, i: int, layer: Any, o: int, x: list[Any]) -> Any:
        """One output unit or map of a layer with weights."""
        mask = self.masks.get(i)
        if not (gate_of_unit(layer, mask, "outputs", o) and self.is_read(i, o)):
            return None
        if isinstance(layer, Dense):
            geometry = ((1, 1), (1, 1), (0, 0), (1, 1))
            group, n_in = 0, len(x)
        else:
            weight = layer.params["weight"]
            geometry = (weight.shape[2:], layer.stride, layer.padding, layer.dilation)
            n_in = weight.shape[1]
            group = o // (len(weight) // layer.groups)
        down, across = (
            len(walk(size, *along))
            for size, along in zip(self.size(i), zip(*geometry, strict=True), strict=True)
        )
        taps = list(itertools.product(*map(range, geometry[0])))
        terms: Any = [[[] for _ in range(across)] for _ in range(down)]
        for c in range(n_in):
            image = x[group * n_in + c]
            if image is None:
                continue
            weights = {at: Counted() for at in taps if gate_of_weight(layer, mask, o, c, *at)}
            self.used += len(weights)
            for h, row in enumerate(windows(image, *geometry)):
                for w, window in enumerate(row):
                    for at, value in zip(taps, window, strict=True):
                        if at in weights:
                            terms[h][w].append(value * weights[at])
        bias = Counted() if "bias" in layer.params else None
        self.used += bias is not None
        return [[total(products, bias) for products in row] for row in terms]

    def sum_of(self, i: int, c: int, a: Any, b: Any) -> Any:
        if not self.is_read(i, c):
            return None
        if a is None or b is None:
            return b if a is None else a
        return [[p + q for p, q in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def total(terms: list[Counted], bias: Counted | None = None) -> Counted:
    """Add up, the bias last; nothing is added to a sum of nothing."""
    if not terms:
        return Counted()
    value = reduce(add, terms)
    return value if bias is None else value + bias


def windows(
    image: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> list[list[list[Counted]]]:
    """What the kernel covers at each of its places; zeros where it covers the padding."""
    height, width = len(image), len(image[0])
    return [
        [
            [
                image[r][c] if 0 <= r < height and 0 <= c < width else Counted()
                for r in rows
                for c in columns
            ]
            for columns in walk(width, kernel[1], stride[1], padding[1], dilation[1])
        ]
        for rows in walk(height, kernel[0], stride[0], padding[0], dilation[0])
    ]


def count(network: Network, on: Sequence[Any] | None = None) -> list[tuple[int, int]]:
    """FLOPs and parameters of each layer; with all gates open by default."""
    if on is None:
        on = [np.ones(gates.shape) for _, _, gates in network.gated]
    masks = {i: mask for (i, _, _), mask in zip(network.gated, on, strict=True)}
    return Count(network, masks).costs


# --- random networks ---


class Builder:
    """Makes networks of every layer and every kind of gates, small enough to be counted."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.layers: list[Layer] = []
        self.sources: dict[int, int] = {}
        self.skips: dict[int, int] = {}

    def one_of(self, *values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def add(self, layer: Layer, source: int | None = None) -> int:
        if source is not None:
            self.sources[len(self.layers)] = source
        self.layers.append(layer)
        return len(self.layers) - 1

    def gates(self, shape: tuple[int, ...], output_axis: int, bias: bool) -> Gates | None:
        kinds = ["none", "output", "output", "input", "input", "weight"]
        if bias:
            kinds += ["label", "last axis"]
        kind = self.one_of(*kinds)
        if kind == "output":
            return per_output(shape, axis=output_axis, gates_bias=bias and self.one_of(True, False))
        if kind == "input":
            return per_input(shape, axis=1 - output_axis)
        if kind == "last axis":  # of a convolution: a gate a column of all its kernels
            return per_input(shape, axis=-1) if len(shape) == 4 else per_output(shape)
        if kind == "weight":
            return per_weight(shape)
        if kind == "label":
            n = min(math.prod(shape), self.one_of(1, 3, 5))
            return by_label(self.rng.permutation(np.arange(math.prod(shape)) % n).reshape(shape))
        return None

    def conv(self, c_in: int, c_out: int, kernel: Pair, source: int | None = None, **g: Any) -> int:
        groups = self.one_of(*[n for n in (1, 2, 2, 3) if c_in % n == 0 and c_out % n == 0])
        shape = (c_out, c_in // groups, *kernel)
        bias = self.one_of(True, False)
        gates = self.gates(shape, 0, bias)
        layer = Conv2d(
            self.rng.normal(size=shape),
            self.rng.normal(size=c_out) if bias else None,
            gates,
            None if gates is None else self.rng.normal(0, 2, gates.shape),
            groups=groups,
            **g,
        )
        return self.add(layer, source)

    def dense(self, n_in: int, n_out: int) -> int:
        gates = self.gates((n_in, n_out), 1, True)
        log_alpha = None if gates is None else self.rng.normal(0, 2, gates.shape)
        weight, bias = self.rng.normal(size=(n_in, n_out)), self.rng.normal(size=n_out)
        return self.add(Dense(weight, bias, gates, log_alpha))

    def norm(self, channels: int) -> int:
        values = self.rng.normal(size=(3, channels))
        return self.add(BatchNorm(*values, self.rng.uniform(0.5, 2, channels)))

    def block(self, c_in: int) -> int:
        """A residual connection, with the input itself or a 1x1 convolution of it; maps out."""
        start, c_out = len(self.layers) - 1, c_in
        if self.one_of(True, False):
            self.norm(c_in)
            self.add(ReLU())
        carried, activated = start, len(self.layers) - 1
        if self.one_of(True, False):
            c_out = self.one_of(2, 3, 4, 4)
            carried = self.conv(c_in, c_out, (1, 1), activated)
        middle = self.one_of(1, 3, 4, 4)
        self.conv(c_in, middle, (3, 1), activated, padding=(1, 0))
        if self.one_of(True, False):
            self.norm(middle)
        self.add(ReLU())
        last = self.conv(middle, c_out, (1, 3), padding=(0, 1))
        if self.one_of(True, False):
            last = self.norm(c_out)
        self.skips[last] = carried
        return c_out

    def pool(self, size: Pair) -> None:
        kernel = self.one_of((min(size[0], 2), 1), (1, min(size[1], 2)))
        stride = self.one_of((1, 2), (2, 1), (1, 1))
        padding = self.one_of((0, 0), (kernel[0] // 2, 0))
        kind = self.one_of(AvgPool2d, MaxPool2d)
        self.add(kind(kernel, stride=stride, padding=padding))

    def shape_so_far(self, shape: tuple[int, ...]) -> Any:
        network = Network(self.layers, input_shape=shape, sources=self.sources, skips=self.skips)
        return network.shapes((1, *shape))[-1]

    def network(self) -> Network:
        shape = (self.one_of(1, 2, 3), *self.one_of((5, 6), (6, 5), (5, 7)))
        maps = self.one_of(2, 3, 4, 4)
        self.conv(
            shape[0], maps, self.one_of((3, 2), (1, 3), (2, 2)),
            stride=self.one_of((1, 2), (2, 1), (1, 1)), padding=self.one_of((0, 1), (1, 0), (0, 0)),
            dilation=self.one_of((1, 1), (1, 2)),
        )  # fmt: skip
        self.add(self.one_of(ReLU, Tanh)())
        for _ in range(self.rng.integers(0, 3)):
            maps = self.block(maps)
        if self.one_of(True, False):
            self.norm(maps)
        self.pool(self.shape_so_far(shape)[2:])
        self.add(Flatten())
        units = self.shape_so_far(shape)[1]
        hidden = self.one_of(1, 3, 4)
        self.dense(units, hidden)
        self.add(ReLU())
        self.dense(hidden, 2)
        return Network(self.layers, input_shape=shape, sources=self.sources, skips=self.skips)


seeds = st.integers(0, 2**32 - 1)


def with_gates(network: Network, log_alpha: Sequence[Any]) -> Network:
    """Set every log_alpha, **in place**."""
    for (_, layer, _), values in zip(network.gated, log_alpha, strict=True):
        layer.params["log_alpha"][...] = values
    return network


def opened(network: Network, on: Sequence[Any]) -> Network:
    """Open and close the gates through log_alpha, **in place**."""
    return with_gates(network, [np.where(mask, OPEN, CLOSED) for mask in on])


# --- single layers ---


@given(st.integers(1, 7), st.integers(1, 7))
@example(3, 2)
def test_dense_against_a_count(n_in: int, n_out: int) -> None:
    network = Network([Dense(np.zeros((n_in, n_out)), np.zeros(n_out))])
    expected = count(network)[0]
    assert (dense_flops(n_in, n_out), dense_params(n_in, n_out)) == expected
    assert network_cost(network) == expected
    # Without its bias an output has one addition and one parameter less.
    assert dense_flops(n_in, n_out, bias=False) == expected[0] - n_out
    assert dense_params(n_in, n_out, bias=False) == expected[1] - n_out


@given(st.data())
def test_convolutions_against_a_count(data: st.DataObject) -> None:
    """Any stride, padding, dilation and groups, on images and with kernels that are no squares."""

    def two(low: int, high: int) -> Pair:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups, bias = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    c_in, c_out = (groups * n for n in two(1, 3))
    kernel, stride, padding, dilation = two(1, 3), two(1, 3), two(0, 2), two(1, 2)
    height, width = (
        max(1, d * (k - 1) + 1 - 2 * p) + extra
        for k, p, d, extra in zip(kernel, padding, dilation, two(0, 4), strict=True)
    )
    weight = np.zeros((c_out, c_in // groups, *kernel))
    layer = Conv2d(
        weight, np.zeros(c_out) if bias else None,
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    network = Network([layer], input_shape=(c_in, height, width))
    places = tuple(
        len(walk(size, k, s, p, d))
        for size, k, s, p, d in zip(
            (height, width), kernel, stride, padding, dilation, strict=True
        )
    )  # fmt: skip
    expected = count(network)[0]
    assert conv2d_flops(c_in, c_out, kernel, places, groups=groups, bias=bias) == expected[0]
    assert conv2d_params(c_in, c_out, kernel, groups=groups, bias=bias) == expected[1]
    assert network_cost(network) == expected


def test_convolution_by_hand() -> None:
    """6 maps of 5x7 to 4, in 2 groups, kernel 3x2, stride 2x3: 2x2 places, k = 3 * 3 * 2 = 18.

    (5 - 3) / 2 + 1 = 2 rows; (7 - 2) / 3 + 1 = 2.67 columns, of which the last is not whole.
    """
    layer = Conv2d(np.zeros((4, 3, 3, 2)), np.zeros(4), stride=(2, 3), groups=2)
    cost = network_cost(Network([layer], input_shape=(6, 5, 7)))
    assert cost == (2 * 18 * 4 * (2 * 2), (18 + 1) * 4) == (576, 76)
    assert conv2d_flops(6, 4, (3, 2), (2, 2), groups=2, bias=False) == 576 - 16


def test_the_layers_without_weights() -> None:
    """On 3 maps of 4x6: batch norm 2 an element, average pooling k an output, a sum 1 an element.

    The others cost nothing.
    """
    one = np.ones(3)
    network = Network(
        [
            Normalize(one, one),
            BatchNorm(one, one, one, one),
            ReLU(),
            Tanh(),
            Dropout(0.5),
            BatchNorm(one, one, one, one),
            AvgPool2d((2, 3), stride=(2, 1)),  # to 2x4
            MaxPool2d((2, 3), stride=1),  # to 1x2
            Select(np.array([2, 0])),
            AddPattern.of(np.arange(4.0).reshape(2, 1, 2)),
            Flatten(),
            Dense(np.zeros((4, 5)), np.zeros(5)),
        ],
        input_shape=(3, 4, 6),
        skips={5: 0},
    )
    element, free = 3 * 4 * 6, (0, 0)
    # What Select leaves out is read by nobody: 2 of the 3 maps cost something.
    two = element * 2 // 3
    assert layer_costs(network) == [
        free, (2 * two, 4), free, free, free, (2 * two + two, 4), (2 * 3 * 2 * (2 * 4), 0), free,
        free, (4, 4), free, (2 * 4 * 5, 25),
    ]  # fmt: skip


def test_selected_maps_keep_their_gates() -> None:
    """Of 4 maps, 0 and 1 are closed; of 3 and 0, which are selected, 3 is left."""
    shape = (4, 1, 1, 1)
    gated = Conv2d(np.ones(shape), np.ones(4), per_output(shape, axis=0), np.zeros(4))
    behind = Conv2d(np.ones((5, 2, 1, 1)), np.ones(5))
    network = Network([gated, Select(np.array([3, 0])), behind], input_shape=(1, 2, 3))
    assert layer_costs(network, [[0, 0, 1, 1]]) == [(2 * 6, 2), (0, 0), (2 * 5 * 6, 5 + 5)]
    # Maps 1 and 2 are read by nobody.
    assert layer_costs(network)[0] == (2 * 2 * 6, 2 + 2)


def test_what_reads_nothing_costs_nothing() -> None:
    """An output that reads nothing is its bias: a parameter, and no operation."""
    assert (
        dense_flops(0, 3)
        == dense_flops(0, 3, bias=False)
        == conv2d_flops(0, 3, (5, 5), (2, 4))
        == 0
    )
    assert (dense_params(0, 3), conv2d_params(0, 3, (5, 5))) == (3, 3)
    for gates in (None, per_weight((0, 3))):
        log_alpha = None if gates is None else np.zeros((0, 3))
        network = Network([Dense(np.zeros((0, 3)), np.zeros(3), gates, log_alpha)])
        assert network_cost(network) == (0, 3)


def test_flattened_maps_of_which_there_are_none() -> None:
    """As compaction leaves them where it closes them all: the last layer's biases."""
    layers = [Conv2d(np.zeros((0, 2, 3, 3))), Flatten(), Dense(np.zeros((0, 3)), np.zeros(3))]
    assert layer_costs(Network(layers, input_shape=(2, 5, 6))) == [(0, 0), (0, 0), (0, 3)]


# --- whole networks, by hand ---


def test_lenet_300_100_by_hand() -> None:
    """784-300-100-10, and the paper's 266-88-33 units of it."""
    whole = [(470_400, 235_500), (60_000, 30_100), (2_000, 1_010)]
    network = LeNet300100()
    assert [cost for cost in layer_costs(network) if cost.params] == whole
    assert network_cost(network) == (532_400, 266_610)
    rng = np.random.default_rng(1)
    on = [rng.permutation(n) < left for n, left in ((784, 266), (300, 88), (100, 33))]
    pruned = [(46_816, 23_496), (5_808, 2_937), (660, 340)]
    assert [cost for cost in layer_costs(network, on) if cost.params] == pruned
    assert hard_cost(opened(network, on)) == (53_284, 26_773)


def lenet5_left() -> tuple[LeNet5, list[Any]]:
    """9-18-65-25 units of LeNet-5: a unit in each open map, and none in a closed one."""
    rng = np.random.default_rng(2)
    maps = rng.permutation(50)[:18]
    units = maps * 16 + rng.integers(0, 16, 18)  # unit j is of map j // 16
    others = np.setdiff1d((maps[:, None] * 16 + np.arange(16)).ravel(), units)
    units = np.concatenate([units, rng.permutation(others)[: 65 - 18]])
    on = [rng.permutation(20) < 9, np.isin(np.arange(50), maps), np.isin(np.arange(800), units)]
    on.append(rng.permutation(500) < 25)
    return LeNet5(), on


def test_lenet_5_by_hand() -> None:
    """24x24 places of the first convolution, 8x8 of the second, and 16 units a map.

    576,000 + 3,200,000 + 800,000 + 10,000 = 4,586,000 FLOPs.
    """
    network, on = lenet5_left()
    weighted = [0, 3, 7, 9]
    costs = layer_costs(network)
    assert [costs[i].flops for i in weighted] == [
        2 * 25 * 20 * (24 * 24),
        2 * (20 * 25) * 50 * (8 * 8),
        2 * 800 * 500,
        2 * 500 * 10,
    ]
    assert [costs[i].params for i in weighted] == [520, 25_050, 400_500, 5_010]
    assert network_cost(network) == (4_586_000, 431_080)
    assert network_cost(network, on) == hard_cost(opened(network, on)) == (
        2 * 25 * 9 * (24 * 24) + 2 * (9 * 25) * 18 * (8 * 8) + 2 * 65 * 25 + 2 * 25 * 10,
        9 * 26 + 18 * (9 * 25 + 1) + (65 + 1) * 25 + (25 + 1) * 10,
    )  # fmt: skip
    assert hard_cost(network) == (781_350, 6_212)
    small = compact(network)
    assert small.architecture == [9, 18, 65, 25]
    assert (small.flops, small.n_params) == (781_350, 6_212)


class NoNoise:
    """All initial values 0: the count does not look at them."""

    def normal(self, stream: Any, shape: tuple[int, ...], *, layer: int = 0) -> Any:
        return np.zeros(shape)


@pytest.mark.parametrize(
    ("depth", "width", "published"),
    [
        (40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 4, 2.7), (16, 8, 11.0), (22, 8, 17.2),
        (16, 10, 17.1), (28, 10, 36.5),
    ],
)  # fmt: skip
def test_wide_residual_networks_have_their_published_size(
    depth: int, width: int, published: float
) -> None:
    """Millions of parameters, to one decimal (Zagoruyko & Komodakis 2016, the tables of CIFAR)."""
    network = WideResNet(depth, width, noise=NoNoise())
    params = network_cost(network).params
    assert round(params / 1e6, 1) == published
    assert params == sum(p.size for name, p in network.params.items() if "log_alpha" not in name)
    if (depth, width) == (28, 10):
        assert params == 36_479_194
    if (depth, width) == (40, 2):
        assert params == 2_243_546


def test_a_wide_residual_network_by_hand() -> None:
    """WRN-28-10 in closed form, for 10 and 100 classes; each class has 640 weights and a bias."""
    k, blocks = 10, 4
    maps, sizes = [16 * k, 32 * k, 64 * k], [32, 16, 8]
    params, flops, c = 3 * 9 * 16, (2 * 27 - 1) * 16 * 32**2, 16
    for m, size in zip(maps, sizes, strict=True):
        before = size if m == maps[0] else 2 * size
        for block in range(blocks):
            # The norm on what comes in, at the resolution of the group before.
            params += 2 * c + 9 * c * m + 2 * m + 9 * m * m + (c * m if block == 0 else 0)
            flops += 2 * c * (before if block == 0 else size) ** 2
            flops += ((2 * 9 * c - 1) + 2 + (2 * 9 * m - 1) + 1) * m * size**2
            flops += (2 * c - 1) * m * size**2 if block == 0 else 0
            c = m
    params += 2 * c
    flops += (2 + 1) * c * 8**2  # norm and mean
    ten = WideResNet(28, 10, gates="none", noise=NoNoise())
    assert network_cost(ten) == (flops + 2 * c * 10, params + (c + 1) * 10)
    assert params + (c + 1) * 10 == 36_479_194
    assert params + (c + 1) * 100 == 36_536_884
    ten.layers[-1] = Dense(np.zeros((640, 100)), np.zeros(100))
    assert network_cost(ten).params == 36_536_884


# --- hard networks ---


@given(seeds, seeds)
@settings(max_examples=150)
def test_hard_networks_against_a_count(seed: int, mask_seed: int) -> None:
    """Every layer, exactly, whatever is wired to what and whatever gates are closed."""
    network = Builder(seed).network()
    rng = np.random.default_rng(mask_seed)
    rate = rng.choice([0.4, 0.7, 0.9])
    on = [rng.uniform(size=gates.shape) < rate for _, _, gates in network.gated]
    costs = layer_costs(network, on)
    assert costs == count(network, on)
    assert network_cost(network, on) == tuple(map(sum, zip(*costs, strict=True)))
    assert hard_cost(opened(network, on)) == network_cost(network, on)


def test_gates_on_the_inputs_of_groups() -> None:
    """4 maps in 2 groups, and 2 gates: the first is on maps 0 and 2, the second on 1 and 3.

    With map 1 closed on its own, and the first gate: 0, 1 and 2 are off, and the second group of
    outputs reads map 3.
    """
    behind = Conv2d(np.ones((4, 3, 1, 1)), None, per_output((4, 3, 1, 1), axis=0), np.zeros(4))
    shape = (6, 2, 1, 2)
    grouped = Conv2d(np.ones(shape), None, per_input(shape, axis=1), np.zeros(2), groups=2)
    network = Network([behind, grouped], input_shape=(3, 4, 6))
    first, second = layer_costs(network, [[1, 0, 1, 1], [0, 1]])
    assert first == ((2 * 3 - 1) * (4 * 6), 3)
    assert second == ((2 * 2 - 1) * 3 * (4 * 5), 3 * 2)


def test_one_reader_is_enough() -> None:
    """3 maps read by two gated convolutions and by a sum: needed whatever is closed."""
    shape = (3, 3, 1, 1)

    def gated() -> Conv2d:
        return Conv2d(np.ones(shape), np.ones(3), per_input(shape, axis=1), np.zeros(3))

    first = Conv2d(np.ones((3, 2, 1, 1)), np.ones(3))
    layers = [first, gated(), gated()]
    network = Network(layers, input_shape=(2, 4, 5), sources={2: 0}, skips={1: 0, 2: 1})
    on = [np.array([1, 0, 0]), np.array([0, 1, 0])]
    n = 4 * 5
    closed_weights = [((2 * 1 + 1) * 3 * n, 3 + 3)] * 2  # and the sum
    assert layer_costs(network, on) == [(2 * 2 * 3 * n, 9), *closed_weights] == count(network, on)
    # Without the sum that reads it whole, the map that both gates close is off.
    network = Network(layers, input_shape=(2, 4, 5), sources={2: 0}, skips={2: 1})
    assert layer_costs(network, on)[0] == count(network, on)[0] == (2 * 2 * 2 * n, 6)


@given(seeds)
def test_all_open_by_default(seed: int) -> None:
    network = Builder(seed).network()
    assert layer_costs(network) == count(network)
    opened_all = [np.ones(gates.shape, bool) for _, _, gates in network.gated]
    assert layer_costs(network, opened_all) == layer_costs(network)


def test_the_builder_makes_all_there_is() -> None:
    """Every kind of gates on every kind of layer, groups with them, and every sum."""
    met = set()
    for seed in range(400):
        network = Builder(seed).network()
        for _, layer, gates in network.gated:
            kind = "label" if gates.labels is not None else (gates.on, gates.axis)
            grouped = isinstance(layer, Conv2d) and layer.groups > 1
            met.add((type(layer).__name__, kind, "bias" in layer.params, grouped))
        met |= {type(network.layers[i]).__name__ for i in network.skips}
    dense = {("inputs", 0), ("outputs", 1), ("weights", None), "label"}
    assert {("Dense", kind, True, False) for kind in dense} <= met
    conv = {("inputs", 1), ("outputs", 0), ("weights", None)}
    every = itertools.product(["Conv2d"], conv, [True, False], [True, False])
    shared = itertools.product(["Conv2d"], [("inputs", 3), "label"], [True], [True, False])
    assert {*every, *shared} <= met
    assert {"Conv2d", "BatchNorm"} <= met


# --- many networks at once ---


@given(seeds, seeds, st.integers(0, 5))
@settings(max_examples=60)
@example(0, 0, 0)
@example(0, 0, 1)
def test_many_networks_at_once(seed: int, mask_seed: int, n: int) -> None:
    """The same as one at a time: every layer, whatever is wired to what, a bias or none."""
    network = Builder(seed).network()
    assume(network.gated)
    rng = np.random.default_rng(mask_seed)
    on = [rng.uniform(size=(n, *gates.shape)) for _, _, gates in network.gated]
    rate = rng.choice([0.4, 0.7, 0.9])
    masks = [a < rate for a in on]
    for values_on, tolerance in (
        (masks, 0),
        ([m.astype(np.float32) for m in masks], 0),
        ([m if k % 2 else m.astype(np.int8) for k, m in enumerate(masks)], 0),
        (on, 1000 * EPS),  # as in MEAN: sums may be added up in another order
    ):
        many = layer_costs(network, values_on)
        singles = [layer_costs(network, [a[s] for a in values_on]) for s in range(n)]
        for i, cost in enumerate(many):
            for values, which in zip(cost, ("flops", "params"), strict=True):
                assert values.dtype == np.float64
                expected = [getattr(single[i], which) for single in singles]
                # Where a probability of near 1 is left from others, what is lost is below 1000 eps
                # of the layer whole.
                whole = getattr(layer_costs(network)[i], which)
                np.testing.assert_allclose(
                    values, np.array(expected), rtol=0, atol=tolerance * whole
                )
        total = network_cost(network, values_on)
        assert total.flops.shape == total.params.shape == (n,)
        np.testing.assert_array_equal(total.flops, sum(cost.flops for cost in many))
        np.testing.assert_array_equal(total.params, sum(cost.params for cost in many))


@given(seeds, seeds)
@settings(max_examples=40)
def test_many_hard_networks_against_a_count(seed: int, mask_seed: int) -> None:
    network = Builder(seed).network()
    assume(network.gated)
    rng = np.random.default_rng(mask_seed)
    on = [rng.uniform(size=(3, *gates.shape)) < 0.7 for _, _, gates in network.gated]
    costs = layer_costs(network, on)
    for s in range(3):
        expected = count(network, [m[s] for m in on])
        assert [(cost.flops[s], cost.params[s]) for cost in costs] == expected


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("behind", ["open", "gated"])
def test_many_gates_a_weight(behind: str, bias: bool) -> None:
    """Counted at a stretch where all around them is on, and weight by weight where it is not.

    5 maps of 1x2 to 3, in a layer with and without a bias. Nothing of the closed third network is
    left but the biases.
    """
    rng = np.random.default_rng(7)
    shape = (3, 5, 1, 2)
    gated = Conv2d(np.ones(shape), np.ones(3) if bias else None, per_weight(shape), np.zeros(shape))
    layers: list[Layer] = [gated]
    on = [rng.uniform(size=(3, *shape)) < 0.4]
    on[0][2] = False
    reads = np.ones((3, 3), bool)
    if behind == "gated":
        family = per_input((1, 3, 1, 1), axis=1)
        layers.append(Conv2d(np.ones((1, 3, 1, 1)), np.ones(1), family, np.zeros(3)))
        reads[:2] = [[1, 0, 1], [0, 1, 1]]
        on.append(reads)
    cost = layer_costs(Network(layers, input_shape=(5, 4, 6)), on)[0]
    left = (on[0] & reads[:, :, None, None, None]).sum(axis=(2, 3, 4))  # of each output
    biases = bias * reads.sum(axis=1)
    sums = (left > 0).sum(axis=1)
    flops = 2 * left.sum(axis=1) - (0 if bias else sums)
    assert cost.params.tolist() == (left.sum(axis=1) + biases).tolist()
    assert cost.flops.tolist() == (flops * (4 * 5)).tolist()
    assert cost.flops[2] == 0


def test_many_networks_whose_gates_a_layer_does_not_feel() -> None:
    """Each has a cost of its own even where it is the same; nobody else sees it change."""
    network = LeNet300100(noise=NoNoise())
    costs = layer_costs(network, [np.ones((4, n), bool) for n in (784, 300, 100)])
    assert [cost.flops.tolist() for cost in costs if cost.flops.any()] == [
        [470_400.0] * 4,
        [60_000.0] * 4,
        [2_000.0] * 4,
    ]
    costs[0].flops[1] = 5
    assert costs[0].flops.tolist() == [470_400, 5, 470_400, 470_400]
    cost = network_cost(LeNet300100(gates="none", noise=NoNoise()), [])
    assert cost == (532_400, 266_610)
    assert {type(value) for value in cost} == {float}


# --- the expected cost ---


def prob_active(log_alpha: float) -> float:
    """Eq. 12 at the default beta = 2/3, gamma = -0.1, zeta = 1.1."""
    return 1 / (1 + math.exp(-(log_alpha - 2 / 3 * math.log(0.1 / 1.1))))


def mean_over_all_hard_networks(network: Network) -> tuple[float, float]:
    """Every mask, weighed by its probability. At log_alpha = +-inf a gate is fixed."""
    shapes = [gates.shape for _, _, gates in network.gated]
    log_alpha = np.concatenate([layer.params["log_alpha"].ravel() for _, layer, _ in network.gated])
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    free = np.flatnonzero(np.isfinite(log_alpha))
    on = (log_alpha > 0).astype(float)
    flops, params = [], []
    for mask in itertools.product([0, 1], repeat=len(free)):
        on[free] = mask
        masks = [m.reshape(shape) for m, shape in zip(np.split(on, ends), shapes, strict=True)]
        cost = network_cost(network, masks)
        probabilities = [
            prob_active(a) if is_on else 1 - prob_active(a)
            for a, is_on in zip(log_alpha[free], mask, strict=True)
        ]
        flops.append(math.prod(probabilities) * cost.flops)
        params.append(math.prod(probabilities) * cost.params)
    return math.fsum(flops), math.fsum(params)


# Sums of a few hundred terms, in which no digits are lost but in 1 - (1 - p)(1 - q), each a product
# of at most 10 probabilities, of a few roundings each: below 1000 eps.
MEAN = {"rel": 1000 * EPS, "abs": 0}


@given(seeds, seeds)
@settings(max_examples=30)
def test_the_expected_cost_is_the_mean_over_all_hard_networks(seed: int, gate_seed: int) -> None:
    """8 gates at random and the others fixed, open or closed: 256 networks, each counted."""
    network = Builder(seed).network()
    assume(network.gated)
    rng = np.random.default_rng(gate_seed)
    log_alpha = [
        rng.choice([-np.inf, np.inf, np.inf], gates.shape) for _, _, gates in network.gated
    ]
    places = [(k, at) for k, a in enumerate(log_alpha) for at in np.ndindex(a.shape)]
    for g in rng.permutation(len(places))[:8]:
        k, at = places[g]
        log_alpha[k][at] = rng.normal(0, 2)
    with_gates(network, log_alpha)
    assert expected_cost(network) == pytest.approx(mean_over_all_hard_networks(network), **MEAN)


def test_the_expected_cost_where_gates_meet() -> None:
    """Sums of two gated maps, convolutions with nothing to add up, a map that two units read."""
    rng = np.random.default_rng(6)

    def conv(c_out: int, family: Gates) -> Conv2d:
        weight = np.ones((c_out, 2, 1, 1))
        return Conv2d(weight, None, family, rng.normal(-1, 1, family.shape))

    by_map = per_output((2, 2, 1, 1), axis=0)
    units = per_input((2, 3))
    head = Dense(np.ones((2, 3)), np.ones(3), units, rng.normal(-1, 1, units.shape))
    last = conv(1, per_weight((1, 2, 1, 1)))
    network = Network(
        [conv(2, by_map), ReLU(), conv(2, by_map), ReLU(), last, Flatten(), head],
        input_shape=(2, 1, 2),
        skips={2: 0},
    )
    assert sum(math.prod(gates.shape) for _, _, gates in network.gated) == 8
    assert expected_cost(network) == pytest.approx(mean_over_all_hard_networks(network), **MEAN)


def test_a_map_is_off_if_all_that_read_it_are() -> None:
    """One map of two places, read by units at P and Q: on with 1 - (1 - P)(1 - Q)."""
    gates = per_input((2, 3))
    log_alpha = np.array([-1.5, -0.4])
    network = Network(
        [
            Conv2d(np.ones((1, 4, 1, 1))),
            Flatten(),
            Dense(np.ones((2, 3)), np.ones(3), gates, log_alpha),
        ],
        input_shape=(4, 1, 2),
    )
    p, q = map(prob_active, log_alpha)
    is_read = 1 - (1 - p) * (1 - q)
    convolution, flatten, dense = layer_costs(network, [np.array([p, q])])
    assert convolution == pytest.approx(((2 * 4 - 1) * 2 * is_read, 4 * is_read), rel=10 * EPS)
    assert flatten == (0, 0)
    assert dense == pytest.approx((2 * 3 * (p + q), 3 * (p + q) + 3), rel=10 * EPS)


@pytest.mark.parametrize("gates_bias", [True, False])
def test_the_expected_cost_is_the_mean_of_networks_that_were_drawn(gates_bias: bool) -> None:
    """LeNet-5, 800 draws, FLOPs and parameters: false alarms at 5 sigma, 6e-7 each."""
    rng = np.random.default_rng(3)
    network = LeNet5(gates_bias=gates_bias, dtype=np.float64)
    with_gates(network, [rng.normal(-1, 2, gates.shape) for _, _, gates in network.gated])
    costs = []
    for _ in range(800):
        on = []
        for _, layer, gates in network.gated:
            z, _ = gates.draw(layer.params["log_alpha"], rng.uniform(size=gates.shape))
            on.append(z != 0)
        costs.append(network_cost(network, on))
    mean, sigma = np.mean(costs, axis=0), np.std(costs, axis=0, ddof=1) / math.sqrt(len(costs))
    z_scores = (mean - expected_cost(network)) / sigma
    assert (np.abs(z_scores) < 5).all(), z_scores
    # The bound is sharp: one side alone, or the test-time gates, are hundreds of sigma away.
    assert (np.abs(hard_cost(network) - mean) > 50 * sigma).all()


def test_a_weight_between_two_gates_costs_a_product() -> None:
    """3-2-1: with P of the three inputs and Q of the two units, (sum P)(sum Q) weights are on."""
    network = Network(
        [
            Dense(np.ones((3, 2)), np.ones(2), per_input((3, 2)), np.array([0.4, -1.0, 2.0])),
            ReLU(),
            Dense(np.ones((2, 1)), np.ones(1), per_input((2, 1)), np.array([-0.7, 1.3])),
        ]
    )
    p, q = (sum(map(prob_active, a)) for a in ((0.4, -1.0, 2.0), (-0.7, 1.3)))
    assert expected_cost(network) == pytest.approx(
        (2 * p * q + 2 * q, p * q + q + q + 1), rel=10 * EPS
    )


# --- and what compaction leaves ---


@given(seeds)
@settings(max_examples=15)
def test_hard_cost_is_that_of_the_compact_lenet_5(seed: int) -> None:
    """Where a closed map takes its bias along there are no constants, if each layer reads."""
    rng = np.random.default_rng(seed)
    network = LeNet5(noise=None, image_shape=(2, 20, 16))  # 50 maps of 2x1: 100 units
    on = [rng.uniform(size=gates.shape) < rng.choice([0.1, 0.5]) for _, _, gates in network.gated]
    for mask in on:
        mask[rng.integers(len(mask))] = True
    on[1][np.flatnonzero(on[2])[0] // 2] = True  # an open unit in an open map
    cost = hard_cost(opened(network, on))
    small = compact(network)
    assert (small.flops, small.n_params) == cost
    assert type(small.flops) is type(small.n_params) is int


def dense_net(rng: Any, make: Any) -> Network:
    widths = [int(n) for n in rng.integers(1, 7, 4)]
    layers: list[Layer] = []
    for shape in itertools.pairwise(widths):
        gates = make(shape)
        log_alpha = rng.choice([OPEN, CLOSED], gates.shape)
        layers += [
            Dense(rng.normal(size=shape), rng.normal(size=shape[1]), gates, log_alpha),
            Tanh(),
        ]
    return Network(layers[:-1])


@given(seeds)
def test_hard_cost_is_that_of_a_compact_dense_net(seed: int) -> None:
    """A dense layer has a bias, into which constants are folded at no cost."""
    rng = np.random.default_rng(seed)
    network = dense_net(rng, per_input)
    for _, layer, gates in network.gated:
        layer.params["log_alpha"][rng.integers(gates.shape[0])] = OPEN
    small = compact(network)
    assert (small.flops, small.n_params) == hard_cost(network)


@given(seeds)
def test_a_compact_dense_net_never_costs_more(seed: int) -> None:
    """The rule is local; compaction also sees what closed layers do to all behind them."""
    network = dense_net(np.random.default_rng(seed), per_input)
    small, cost = compact(network), hard_cost(network)
    assert small.flops <= cost.flops
    assert small.n_params <= cost.params


def test_compaction_goes_further_than_the_local_rule() -> None:
    """1-2-1-1 with the middle unit closed: all is a constant, and the first layer is no use."""
    network = Network(
        [
            Dense(np.ones((1, 2)), np.ones(2)),
            ReLU(),
            Dense(np.ones((2, 1)), np.ones(1)),
            ReLU(),
            Dense(np.ones((1, 1)), np.ones(1), per_input((1, 1)), np.array([CLOSED])),
        ]
    )
    assert hard_cost(network) == (2 * 2, 4 + 1)
    assert (compact(network).flops, compact(network).n_params) == (0, 1)


def test_patterns_of_a_wide_residual_network_add_to_the_compact_cost() -> None:
    """Closed maps behind batch norm are constants; a padded convolution makes patterns of them.

    One for each of the block's maps: an addition an element, and 3x3 different values (a border,
    the middle, a border) as parameters. Where the constants are 0, nothing is added.
    """
    rng = np.random.default_rng(4)
    network = WideResNet(10, 2, image_shape=(3, 12, 20), dtype=np.float64)
    on = [rng.uniform(size=gates.shape) < 0.5 for _, _, gates in network.gated]
    cost = hard_cost(opened(network, on))
    assert cost.params < network_cost(network).params
    small = compact(network)
    assert (small.flops, small.n_params) == cost  # relu(batch norm(0)) = 0 at the start
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.params["bias"][...] = rng.uniform(0.5, 1, len(layer.params["bias"]))
    small = compact(network)
    elements = 32 * 12 * 20 + 64 * 6 * 10 + 128 * 3 * 5
    assert small.flops == cost.flops + elements
    assert small.n_params == cost.params + 9 * (32 + 64 + 128)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_what_a_folded_constant_adds_to_a_convolution(bias: bool, padding: int) -> None:
    """Of 3 maps of 4x5 with an ungated bias, one is closed: a constant for the 3x3 behind it.

    Without padding, it goes into a bias: one that is there, or a new one, with an addition an
    element. With padding, a pattern of 3x3 different values a map stands in for the bias.
    """
    rng = np.random.default_rng(5)
    shape = (3, 1, 1, 1)
    first = Conv2d(
        rng.normal(size=shape), np.array([1.0, 2.0, 3.0]), per_output(shape, axis=0),
        np.array([OPEN, CLOSED, OPEN]),
    )  # fmt: skip
    second = Conv2d(
        rng.normal(size=(2, 3, 3, 3)), rng.normal(size=2) if bias else None, padding=padding
    )
    n = 4 * 5 if padding else 2 * 3
    head = Dense(rng.normal(size=(2 * n, 2)), rng.normal(size=2))
    network = Network([first, second, Flatten(), head], input_shape=(1, 4, 5))
    cost, small = hard_cost(network), compact(network)
    assert small.flops == cost.flops + (0 if bias else 2 * n)
    values = 9 if padding else 1
    assert small.n_params == cost.params + 2 * (values - bias)


# --- what is counted wrong elsewhere ---


def test_counted_on_one_side() -> None:
    """Each layer by its own gates alone: 1.9 times what a 9-18-65-25 LeNet-5 costs."""
    network, on = lenet5_left()
    one_sided = 2 * 25 * 9 * 576 + 2 * 500 * 18 * 64 + 2 * 65 * 500 + 2 * 25 * 10
    assert one_sided == 1_476_700
    assert network_cost(network, on).flops == 781_350


def test_counted_with_maps_for_rows() -> None:
    """(C, H) taken for (H, W): 16x8 places of LeNet-5's second convolution, which has 8x8."""
    rows_of_maps = (20 - 5) + 1
    wrong = conv2d_flops(20, 50, (5, 5), (rows_of_maps, 8))
    assert (layer_costs(LeNet5())[3].flops, wrong) == (3_200_000, 6_400_000)
    # Of the first, which has a single map: a negative number of rows, and of operations.
    assert conv2d_flops(1, 20, (5, 5), ((1 - 5) + 1, 24)) == -72_000
    # And a network that is no square shows whether H and W are told apart.
    high, wide = (LeNet5(image_shape=(1, *size)) for size in ((36, 24), (24, 36)))
    assert network_cost(high) == network_cost(wide)
    layer = Conv2d(np.zeros((2, 1, 3, 1)), np.zeros(2))
    places = [
        network_cost(Network([layer], input_shape=(1, *size))).flops / (2 * 3 * 2)
        for size in ((4, 9), (9, 4))
    ]
    assert places == [2 * 9, 7 * 4]


def test_counted_without_the_floor() -> None:
    """3x3 at stride 2 with padding 1 on 32x32: 16x16 places, not 16.5x16.5, which is 6 % more."""
    layer = Conv2d(np.zeros((2, 3, 3, 3)), np.zeros(2), stride=2, padding=1)
    cost = network_cost(Network([layer], input_shape=(3, 32, 32)))
    per_place = 2 * 27 * 2
    assert cost.flops == per_place * 16**2 == 27_648
    assert per_place * ((32 + 2 - 3) / 2 + 1) ** 2 == 29_403


def test_counted_without_the_groups() -> None:
    """8 maps to 8 in 4 groups: each reads 2, not 8."""
    layer = Conv2d(np.zeros((8, 2, 3, 3)), np.zeros(8), groups=4)
    cost = network_cost(Network([layer], input_shape=(8, 6, 5)))
    assert cost == (2 * 18 * 8 * 12, 19 * 8) == (3_456, 152)
    assert (conv2d_flops(8, 8, (3, 3), (4, 3)), conv2d_params(8, 8, (3, 3))) == (13_824, 584)


# --- errors ---


def small_mlp() -> Network:
    return Network([Dense(np.ones((3, 2)), np.ones(2), per_input((3, 2)), np.zeros(3))])


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ([], r"on must have one array a gated layer \(1\), got 0"),
        ([np.ones(3), np.ones(3)], r"on must have one array a gated layer \(1\), got 2"),
        ([np.ones(2)], r"on must have shape \(3,\), or .* gates of layer 0, got \(2,\)"),
        ([np.ones((3, 1))], r"on must have shape \(3,\), or .* gates of layer 0, got \(3, 1\)"),
        ([np.ones((2, 4, 3))], r"on must have shape \(3,\), or that behind one axis of networks"),
        ([1.0], r"on must have shape \(3,\), or .* gates of layer 0, got \(\)"),
        ([[[0.5, 1, 0], [0, 1, 1.1]]], r"on must lie in \[0, 1\], got .* gates of layer 0"),
        ([[0.5, 1.1, 0]], r"on must lie in \[0, 1\], got otherwise for the gates of layer 0"),
        ([[0.5, -0.1, 0]], r"on must lie in \[0, 1\]"),
        ([[0.5, math.nan, 0]], r"on must lie in \[0, 1\]"),
    ],
)
def test_gates_that_do_not_fit(on: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_costs(small_mlp(), on)


@pytest.mark.parametrize(("one", "other"), [((), (4,)), ((4,), ()), ((4,), (5,)), ((1,), (5,))])
def test_as_many_networks_for_every_layer(one: Any, other: Any) -> None:
    """Not even one network is spread over several."""
    layers = [
        Dense(np.ones((3, n)), np.ones(n), per_input((3, n)), np.zeros(3)) for n in (3, 2)
    ]  # fmt: skip
    message = f"networks in front for every layer, got {one} and, for the gates of layer 1, {other}"
    with pytest.raises(ValueError, match=re.escape(message)):
        network_cost(Network(layers), [np.ones((*one, 3)), np.ones((*other, 3))])


def test_a_probability_that_is_no_number() -> None:
    network = with_gates(small_mlp(), [np.array([0.3, np.nan, 1.0])])
    with pytest.raises(ValueError, match=r"on must lie in \[0, 1\]"):
        expected_cost(network)


def test_a_layer_of_unknown_cost() -> None:
    class Square(Elementwise):
        _op = "square"

    with pytest.raises(ValueError, match="the cost of a Square layer is not known"):
        layer_costs(Network([Square()], input_shape=(3,)))


def test_gates_that_reach_one_sum_by_two_ways() -> None:
    """x + relu(x) of a gated x: on together or off together, and no product of probabilities."""
    shape = (3, 2, 1, 1)
    gated = Conv2d(np.ones(shape), None, per_output(shape, axis=0), np.zeros(3))
    network = Network([gated, ReLU()], input_shape=(2, 4, 5), skips={1: 0})
    with pytest.raises(ValueError, match="gates of layer 0 reach the same sum by two ways"):
        expected_cost(network)
    # And of what the same gates read twice.
    layers = [Conv2d(np.ones(shape)), ReLU(), Flatten(), small_mlp().layers[0]]
    layers[3] = Dense(np.ones((60, 2)), np.ones(2), per_input((60, 2)), np.zeros(60))
    network = Network(layers, input_shape=(2, 4, 5), skips={1: 0})
    with pytest.raises(ValueError, match="gates of layer 3 reach the same sum by two ways"):
        expected_cost(network)


def test_gates_that_share_the_weights_of_a_layer_without_a_bias() -> None:
    """How many of its sums are empty would need the joint law of the shared gates."""
    labels = np.arange(12).reshape(2, 3, 1, 2) % 5
    for bias in (None, np.zeros(2)):
        layer = Conv2d(np.ones(labels.shape), bias, by_label(labels), np.zeros(5))
        network = Network([layer], input_shape=(3, 4, 5))
        if bias is None:
            with pytest.raises(ValueError, match="got others that share weights"):
                expected_cost(network)
        else:
            assert expected_cost(network).params == pytest.approx(12 * prob_active(0) + 2)


@pytest.mark.parametrize("groups", [0, 2, 4])
def test_groups_that_do_not_divide_have_no_cost(groups: int) -> None:
    with pytest.raises(ValueError, match=rf"groups must divide .* 5 and 4, got {groups}"):
        conv2d_flops(5, 4, (3, 3), (4, 4), groups=groups)
    with pytest.raises(ValueError, match=r"groups must divide"):
        conv2d_params(5, 4, (3, 3), groups=groups)
