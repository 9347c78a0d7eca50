"""Compaction of graphs with feature maps: equal outputs, and nothing left that could go.

Dense stacks are in `test_pruning`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0ref.gates import Gates, by_label, per_input, per_output, per_weight
from l0ref.layers import (
    AddPattern,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    Normalize,
    ReLU,
    Select,
    Tanh,
    Weighted,
)
from l0ref.network import INPUT, Network
from l0ref.networks import LeNet5, WideResNet
from l0ref.pruning import CompactNetwork, compact, prune
from l0ref.storage import FileError, load_arrays, save_arrays
from tests import naive_conv

# On both sides of -log 11, where the test-time gate closes.
SHUT, OPEN = np.array([-30.0, -2.41]), np.array([-2.39, -0.7, 0.4, 3.0])

PLAIN = ("conv", "conv", "norm", "relu", "tanh", "max", "avg", "dropout", "select", "pattern")


class Plan(NamedTuple):
    """What a random network is made of; the numbers follow from the seed."""

    stages: list[str]
    n_dense: int
    seed: int
    dtype: Any
    padding: bool = True
    skips: bool = False

    def network(self) -> Network:
        return _Build(self).network


class _Build:
    """Adds layer after layer, each with random numbers that fit."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.rng = plan, np.random.default_rng(plan.seed)
        self.layers: list[Layer] = []
        self.sources: dict[int, int] = {}
        self.skips: dict[int, int] = {}
        height, width = self.rng.permutation(np.arange(3, 9))[:2]
        self.shapes = {INPUT: (int(self.rng.integers(1, 5)), int(height), int(width))}
        self.here = INPUT
        if self.rng.uniform() < 0.3:
            n = self.shape[0]
            self.add(Normalize(self.rng.normal(size=n), self.rng.uniform(0.3, 3.0, n)))
        for stage in plan.stages:
            getattr(self, f"_{stage}")()
        if plan.n_dense:
            self.add(Flatten())
        for k in range(plan.n_dense):
            self._dense()
            if k < plan.n_dense - 1:
                self.add([ReLU(), Tanh(), self.norm(), Dropout(0.5)][self.rng.integers(4)])
        if not any(isinstance(layer, Weighted) for layer in self.layers):
            self._conv() if len(self.shape) == 3 else self._dense()
        self.network = Network(
            self.layers, input_shape=self.shapes[INPUT], sources=self.sources, skips=self.skips
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[self.here]

    def add(self, layer: Layer, *, source: int | None = None, skip: int | None = None) -> int:
        i = len(self.layers)
        source = self.here if source is None else source
        if source != i - 1:
            self.sources[i] = source
        self.shapes[i] = layer.output_shape((1, *self.shapes[source]))[1:]
        if skip is None and self.plan.skips and self.rng.uniform() < 0.3:
            same = [j for j in range(INPUT, i) if self.shapes[j] == self.shapes[i]]
            skip = int(self.rng.choice(same)) if same else None
        if skip is not None:
            self.skips[i] = skip
        self.layers.append(layer)
        self.here = i
        return i

    # --- numbers ---

    def numbers(self, *shape: int) -> Any:
        """Away from 0, or exactly 0."""
        values = self.rng.choice([-1, 1], shape) * self.rng.uniform(0.2, 1.5, shape)
        zeros = self.rng.choice([0.0, 0.3, 0.7])
        return np.where(self.rng.uniform(size=shape) < zeros, 0, values).astype(self.plan.dtype)

    def gates(self, shape: tuple[int, ...], output: int, bias: bool) -> tuple[Gates | None, Any]:
        """Of any kind, with any share of them open; None too."""
        labels = np.unique(self.rng.integers(0, 5, shape), return_inverse=True)[1].reshape(shape)
        families = [
            None,
            per_output(shape, axis=output, gates_bias=False),
            per_output(shape, axis=output, gates_bias=bias),
            per_input(shape, axis=1 - output),
            per_weight(shape),
            by_label(labels),
        ]
        family = families[self.rng.integers(len(families))]
        if family is None:
            return None, None
        shut = self.rng.choice([0.0, 0.4, 0.8, 1.0], p=[0.3, 0.35, 0.25, 0.1])
        log_alpha = np.where(
            self.rng.uniform(size=family.shape) < shut,
            self.rng.choice(SHUT, family.shape),
            self.rng.choice(OPEN, family.shape),
        )
        return family, log_alpha.astype(self.plan.dtype)

    # --- stages ---

    def conv(
        self, c_in: int, c_out: int, kernel: tuple[int, ...], groups: int = 1, **geometry: Any
    ) -> Conv2d:
        shape = (c_out, c_in // groups, *kernel)
        weight = self.numbers(*shape) / np.sqrt(np.prod(shape[1:])).astype(self.plan.dtype)
        bias = self.numbers(c_out) if self.rng.uniform() < 0.6 else None
        family, log_alpha = self.gates(shape, 0, bias is not None)
        return Conv2d(weight, bias, family, log_alpha, groups=groups, **geometry)

    def _axis(self, size: int) -> tuple[int, int, int, int]:
        """Kernel, stride, padding and dilation that fit an axis."""
        kernel, dilation = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3))
        padding = int(self.rng.integers(0, 3)) if self.plan.padding else 0
        while dilation * (kernel - 1) + 1 > size + 2 * padding:
            kernel -= 1
        return kernel, int(self.rng.integers(1, 3)), padding, dilation

    def _conv(self, groups: int = 1, c_out: int | None = None) -> None:
        c_in, *size = self.shape
        kernel, stride, padding, dilation = zip(*map(self._axis, size), strict=True)
        c_out = int(self.rng.integers(1, 7)) if c_out is None else c_out
        self.add(
            self.conv(
                c_in, c_out, kernel, groups, stride=stride, padding=padding, dilation=dilation
            )
        )

    def _grouped(self) -> None:
        c_in = self.shape[0]
        groups = int(self.rng.choice([g for g in range(1, c_in + 1) if c_in % g == 0]))
        self._conv(groups, groups * int(self.rng.integers(1, 4)))

    def _depthwise(self) -> None:
        self._conv(self.shape[0], self.shape[0] * int(self.rng.integers(1, 3)))

    def _dense(self) -> None:
        d_in, d_out = self.shape[0], int(self.rng.integers(1, 8))
        weight = self.numbers(d_in, d_out) / np.sqrt(d_in).astype(self.plan.dtype)
        family, log_alpha = self.gates(weight.shape, 1, True)
        self.add(Dense(weight, self.numbers(d_out), family, log_alpha))

    def norm(self) -> BatchNorm:
        n = self.shape[0]
        var = self.rng.uniform(0.3, 3.0, n).astype(self.plan.dtype)
        return BatchNorm(self.numbers(n), self.numbers(n), self.numbers(n), var)

    def _norm(self) -> None:
        self.add(self.norm())

    def _relu(self) -> None:
        self.add(ReLU())

    def _tanh(self) -> None:
        self.add(Tanh())

    def _dropout(self) -> None:
        self.add(Dropout(0.5))

    def _pool(self, kind: Any) -> None:
        kernel = [int(self.rng.integers(1, min(size, 3) + 1)) for size in self.shape[1:]]
        padding = [int(self.rng.integers(0, k // 2 + 1)) * self.plan.padding for k in kernel]
        stride = self.rng.integers(1, 3, 2).tolist()
        self.add(kind(tuple(kernel), stride=tuple(stride), padding=tuple(padding)))

    def _max(self) -> None:
        self._pool(MaxPool2d)

    def _avg(self) -> None:
        self._pool(AvgPool2d)

    def _select(self) -> None:
        n = self.shape[0]
        self.add(Select(self.rng.permutation(n)[: self.rng.integers(1, n + 1)]))

    def _pattern(self) -> None:
        if self.plan.padding:
            self.add(AddPattern.of(self.numbers(*self.shape)))

    def _block(self) -> None:
        """A residual block, whose skip is the identity or a 1x1 projection of the same stride."""
        carried = self.here
        c_in = self.shape[0]
        maps, stride = (c_in, 1) if self.rng.uniform() < 0.5 else (int(self.rng.integers(1, 7)), 2)
        start = carried
        if stride != 1:
            projection = self.conv(c_in, maps, (1, 1), stride=stride)
            carried = self.add(projection, source=start)
        inner = int(self.rng.integers(1, 7))
        self.add(self.conv(c_in, inner, (3, 3), padding=1, stride=stride), source=start)
        self.add(self.norm())
        self.add([ReLU(), Tanh()][self.rng.integers(2)])
        self.add(self.conv(inner, maps, (3, 3), padding=1), skip=carried)


def plans(*, skips: bool = False, **fixed: Any) -> st.SearchStrategy[Plan]:
    stages = PLAIN + (("block", "block", "block", "grouped", "depthwise") if skips else ())
    return st.builds(
        Plan,
        stages=st.lists(st.sampled_from(stages), min_size=1, max_size=9),
        n_dense=st.integers(0, 2),
        seed=st.integers(0, 2**32 - 1),
        dtype=st.sampled_from([np.float32, np.float64]),
        skips=st.just(skips),
        **{name: st.just(value) for name, value in fixed.items()},
    )


def reach(network: Network, x: Any) -> Any:
    """Bound what any sum on the way can reach: the network of absolute values, linear."""
    layers: list[Layer] = []
    for layer in network.layers:
        a = {name: np.abs(v) for name, v in (layer.params | layer.buffers).items()}
        if isinstance(layer, Conv2d):
            layers.append(Conv2d(a["weight"], a.get("bias"), **layer.geometry))
        elif isinstance(layer, Dense):
            layers.append(Dense(a["weight"], a["bias"]))
        elif isinstance(layer, BatchNorm):
            mean = -a["running_mean"]
            layers.append(BatchNorm(a["weight"], a["bias"], mean, a["running_var"], eps=layer.eps))
        elif isinstance(layer, Normalize):
            layers.append(Normalize(-np.abs(layer.mean), layer.std))
        elif isinstance(layer, AddPattern):
            layers.append(AddPattern(a["table"], layer.rows, layer.columns))
        elif isinstance(layer, (ReLU, Tanh)):
            layers.append(Dropout(0.5))  # neither makes anything larger, nor an error
        else:
            layers.append(layer)
    sources = dict(enumerate(network.sources))
    bound = Network(layers, input_shape=network.input_shape, sources=sources, skips=network.skips)
    return bound.predict(np.abs(x))


def check_equal_outputs(network: Network, small: CompactNetwork, n: int = 3, seed: int = 1) -> None:
    """Sums of up to some hundred terms, in another order: some hundred roundings of the scale.

    On the way no slope is above that of the network of absolute values, which so bounds the errors
    as it bounds the numbers.
    """
    dtype = next(iter(network.params.values())).dtype
    x = np.random.default_rng(seed).normal(size=(n, *network.input_shape)).astype(dtype)
    expected, got = network.predict(x), small.predict(x)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype == dtype
    promised = 1e-5 if dtype == np.float32 else 1e-12
    assert (np.abs(got - expected) <= promised * reach(network, x)).all()
    for array in small.network.params.values():
        assert array.dtype == dtype
    assert small.predict(x[:0]).shape == (0, *expected.shape[1:])


def arrays_of(network: Network) -> dict[str, bytes]:
    return {name: a.tobytes() for name, a in (network.params | network.buffers).items()}


# What must be left, by a search from unit to unit


def what_units_read(layer: Layer, shape: tuple[int, ...]) -> list[set[int]]:
    """For each unit or map of a layer's output, those of its input (of that shape) that it reads.

    A weight that is 0, or behind a closed gate, reads nothing; nor does a batch norm of scale 0.
    """
    if isinstance(layer, Weighted):
        weight, _ = layer.test_time_weights()
        if isinstance(layer, Dense):
            return [{int(i) for i in np.flatnonzero(column)} for column in weight.T]
        assert isinstance(layer, Conv2d)
        n_out, per_group = weight.shape[:2]
        first = [o // (n_out // layer.groups) * per_group for o in range(n_out)]
        return [
            {first[o] + c for c in range(per_group) if np.count_nonzero(weight[o, c])}
            for o in range(n_out)
        ]
    if isinstance(layer, Flatten):
        maps, height, width = shape
        return [{c} for c in range(maps) for _ in range(height) for _ in range(width)]
    if isinstance(layer, Select):
        return [{int(i)} for i in layer.index]
    if isinstance(layer, BatchNorm):
        return [{c} if w != 0 else set() for c, w in enumerate(layer.params["weight"])]
    return [{c} for c in range(shape[0])]


def survivors(network: Network) -> dict[int, list[int]]:
    """For each layer (and the input) the units that an input reaches and that reach an output."""
    shapes = network.shapes((1, *network.input_shape))
    last = len(network.layers) - 1
    reads = [
        what_units_read(layer, shape[1:])
        for layer, shape in zip(network.layers, shapes[:-1], strict=True)
    ]
    fed = {(INPUT, u) for u in range(network.input_shape[0])}
    for i, units in enumerate(reads):
        for u, read in enumerate(units):
            before = {(network.sources[i], v) for v in read}
            if i in network.skips:
                before.add((network.skips[i], u))
            if before & fed:
                fed.add((i, u))
    wanted = {(last, u) for u in range(len(reads[last]))}
    for i in range(last, INPUT, -1):
        for u, read in enumerate(reads[i]):
            if (i, u) in wanted:
                before = {(network.sources[i], v) for v in read}
                if i in network.skips:
                    before.add((network.skips[i], u))
                wanted |= before & fed
    found = {i: sorted(u for j, u in wanted & fed if j == i) for i in range(INPUT, last)}
    return found | {last: list(range(len(reads[last])))}


def expected_kept(network: Network, left: dict[int, list[int]]) -> list[list[int]]:
    return [
        left[network.sources[i] if isinstance(layer, Dense) else i] for i, layer in network.sites
    ]


def check_chain(network: Network, small: CompactNetwork) -> None:
    """A chain keeps what the search keeps: the very weights, and nothing beside them."""
    left = survivors(network)
    assert small.inputs.tolist() == left[INPUT]
    assert small.is_constant == (not left[INPUT])
    assert [kept.tolist() for kept in small.kept] == expected_kept(network, left)
    assert small.architecture == [len(kept) for kept in expected_kept(network, left)]
    assert len(small.weights) == len(network.weighted)
    for got, (i, layer) in zip(small.weights, network.weighted, strict=True):
        weight, _ = layer.test_time_weights()
        ins, outs = left[network.sources[i]], left[i]
        whole = weight[np.ix_(ins, outs) if isinstance(layer, Dense) else np.ix_(outs, ins)]
        np.testing.assert_array_equal(got, whole)
        if not small.is_constant:
            over = got if isinstance(layer, Dense) else got.any(axis=(2, 3)).T
            assert over.any(axis=1).all()  # every unit that is left feeds one
            assert i == network.weighted[-1][0] or over.any(axis=0).all()  # and is fed


# Random graphs


@given(plans())
def test_chains(plan: Plan) -> None:
    network = plan.network()
    before = arrays_of(network)
    small = compact(network)
    assert arrays_of(network) == before  # the trained network is still whole
    check_equal_outputs(network, small)
    if plan.n_dense:
        check_chain(network, small)


@given(plans(skips=True))
def test_residual_graphs_and_groups(plan: Plan) -> None:
    """Maps that are added go together or not at all: more may stay than must, but never less."""
    network = plan.network()
    before = arrays_of(network)
    small = compact(network)
    assert arrays_of(network) == before
    check_equal_outputs(network, small)
    left = survivors(network)
    assert set(left[INPUT]) <= set(small.inputs.tolist())
    for kept, least in zip(small.kept, expected_kept(network, left), strict=True):
        assert set(least) <= set(kept.tolist())
        assert (np.diff(kept) > 0).all()


@given(plans(padding=False))
def test_without_padding_a_constant_is_a_number(plan: Plan) -> None:
    """However the products are rounded: no pattern is left where each place sees the same."""
    small = compact(plan.network())
    assert not any(isinstance(layer, AddPattern) for layer in small.network.layers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_larger_sums_are_even_too(dtype: Any) -> None:
    """Sums of 180 terms at 9 x 13 places: a matrix product does not round each of them alike."""
    rng = np.random.default_rng(6)
    maps, size = 20, (11, 15)
    shut = per_output((maps, 2, 1, 1), axis=0)
    network = Network(
        [
            Conv2d(
                rng.normal(size=(maps, 2, 1, 1)).astype(dtype),
                rng.normal(size=maps).astype(dtype),
                shut,
                np.where(np.arange(maps) < 17, -9.0, 9.0).astype(dtype),
            ),
            Tanh(),
            Conv2d(rng.normal(size=(7, maps, 3, 3)).astype(dtype)),
        ],
        input_shape=(2, *size),
    )
    small = compact(network)
    assert [type(layer) for layer in small.network.layers] == [Conv2d, Tanh, Conv2d]
    assert small.biases[1].shape == (7,)
    check_equal_outputs(network, small)


@given(plans(skips=True))
def test_a_compact_network_is_compact(plan: Plan) -> None:
    """Compacted again, even where it has no units left, it gives the same."""
    small = compact(plan.network())
    again = compact(small.network)
    assert again.n_params <= small.n_params
    assert again.flops <= small.flops
    check_equal_outputs(small.network, again)
    if not plan.skips:
        assert again.n_params == small.n_params


@given(plans(skips=True))
def test_hard_pruning_keeps_shapes_and_outputs(plan: Plan) -> None:
    network = plan.network()
    before = arrays_of(network)
    hard = prune(network)
    assert hard.gated == []
    shapes = {name: array.shape for name, array in network.params.items()}
    assert {name: array.shape for name, array in hard.params.items()} == {
        name: shape for name, shape in shapes.items() if not name.endswith("log_alpha")
    }
    x = np.random.default_rng(2).normal(size=(2, *network.input_shape)).astype(plan.dtype)
    promised = 1e-5 if plan.dtype == np.float32 else 1e-12
    off = np.abs(hard.predict(x) - network.predict(x))
    assert (off <= promised * reach(network, x)).all()
    for array in (hard.params | hard.buffers).values():
        array[...] = 99.0  # copies, all of them
    assert arrays_of(network) == before


# The architectures of the paper


def trained(network: Network, seed: int, share_open: float, shut_site: int | None = None) -> Any:
    """Give a network numbers as if of training: gates, biases, statistics, some exact zeros."""
    rng = np.random.default_rng(seed)
    for k, (_, layer, _) in enumerate(network.gated):
        log_alpha = layer.params["log_alpha"]
        shut = rng.uniform(size=log_alpha.shape) >= (0 if k == shut_site else share_open)
        log_alpha[...] = np.where(shut, -9.0, rng.choice(OPEN, log_alpha.shape))
    for name, array in (network.params | network.buffers).items():
        if name.endswith(("bias", "running_mean")):
            array[...] = rng.normal(size=array.shape)
        elif name.endswith("running_var"):
            array[...] = rng.uniform(0.5, 2.0, array.shape)
        elif name.endswith("weight"):
            array[rng.uniform(size=array.shape) < 0.05] = 0
    return network


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gates_bias", [False, True])
@pytest.mark.parametrize(("share", "shut_site"), [(0.4, None), (0.9, None), (0.7, 1), (0.05, None)])
def test_lenet5(dtype: Any, gates_bias: bool, share: float, shut_site: int | None) -> None:
    network = LeNet5(gates_bias=gates_bias, normalisation=([0.13], [0.31]), dtype=dtype)
    network = trained(network, 5, share, shut_site)
    small = compact(network)
    check_equal_outputs(network, small)
    check_chain(network, small)
    assert small.names == ["conv 1", "conv 2", "dense 1", "dense 2"]
    assert small.is_constant == (shut_site == 1)
    assert not any(isinstance(layer, AddPattern) for layer in small.network.layers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [10, 16])
@pytest.mark.parametrize(("share", "shut_site"), [(0.5, None), (0.9, 2), (0.6, 0), (0.0, None)])
def test_wide_resnet(dtype: Any, depth: int, share: float, shut_site: int | None) -> None:
    """Inner maps go with their gates; what the skips carry stays, whatever is closed."""
    network: Network = WideResNet(depth, 1, image_shape=(3, 8, 12), dropout=0.2, dtype=dtype)
    network = trained(network, 7, share, shut_site)
    small = compact(network)
    check_equal_outputs(network, small)
    kept = []
    for (i, layer, _), is_open in zip(network.gated, network.open_gates(), strict=True):
        norm = network.layers[i + 1].params["weight"] != 0
        kept.append(np.flatnonzero(is_open & norm & layer.params["weight"].any(axis=(1, 2, 3))))
    assert [one.tolist() for one in small.kept] == [one.tolist() for one in kept]
    assert small.inputs.tolist() == [0, 1, 2]
    assert not small.is_constant  # a block that is closed still hands its input on


def lenet_9_18_65_25(gates_bias: bool) -> Network:
    """Open: 9 and 18 maps; 65 units, some on each open map and beside them some on closed ones.

    65 = 18 x 3 + 11; 4 x 4 places a map.
    """
    network = trained(LeNet5(gates_bias=gates_bias), 9, 1.0)
    for array in network.params.values():
        array[array == 0] = 0.5  # whatever is open is read
    first, second, third, fourth = (layer.params["log_alpha"] for _, layer, _ in network.gated)
    rng = np.random.default_rng(10)
    maps = rng.permutation(50)
    first[rng.permutation(20)[9:]] = -9.0
    second[maps[18:]] = -9.0
    third[...] = -9.0
    for k, c in enumerate(maps[:18]):
        places = rng.permutation(16)[: 3 + (k < 11)]
        third[16 * c + places] = 9.0
    third[16 * maps[18] : 16 * maps[18] + 7] = 9.0
    third[16 * maps[40] + 5] = 9.0
    fourth[rng.permutation(500)[25:]] = -9.0
    return network


@pytest.mark.parametrize("gates_bias", [False, True])
def test_cost_of_a_small_lenet5(gates_bias: bool) -> None:
    r"""9-18-65-25: 2 multiplications and additions a weight at every place that it is used.

    .. math:: 2 (24^2 \cdot 9 \cdot 25 + 8^2 \cdot 18 \cdot 9 \cdot 25 + 65 \cdot 25
              + 25 \cdot 10) = 781\,350

    and 9 (25 + 1) + 18 (9 25 + 1) + 25 (65 + 1) + 10 (25 + 1) = 6,212 parameters. Units that are
    open but lie in a closed map are constants, and go.
    """
    network = lenet_9_18_65_25(gates_bias)
    assert [int(np.sum(is_open)) for is_open in network.open_gates()] == [9, 18, 65 + 8, 25]
    small = compact(network)
    assert small.architecture == [9, 18, 65, 25]
    assert small.flops == 781_350
    assert small.n_params == 6_212
    check_equal_outputs(network, small)
    check_chain(network, small)


# By hand: what closed maps leave


def test_units_of_a_map_lie_side_by_side() -> None:
    """Maps are copies, 2 and 3 times the input; unit 6 c + 3 h + w is at (h, w) of map c.

    Units 4 and 8: (1, 1) of map 0 and (0, 2) of map 1. Map 2 is not read. Were the order (h, w,
    c), units 4 and 8 would be maps 1 and 2.
    """
    weight = np.zeros((18, 2))
    weight[4, 0], weight[8, 1] = 5.0, 7.0
    network = Network(
        [
            Conv2d(np.array([2.0, 3.0, 11.0]).reshape(3, 1, 1, 1)),
            Flatten(),
            Dense(weight, np.zeros(2)),
        ],
        input_shape=(1, 2, 3),
    )
    small = compact(network)
    assert [kept.tolist() for kept in small.kept] == [[0, 1], [4, 8]]
    assert [w.ravel().tolist() for w in small.weights] == [[2.0, 3.0], [5.0, 0.0, 0.0, 7.0]]
    x = np.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    assert small.predict(x).tolist() == [[5 * 2 * 5.0, 7 * 3 * 3.0]]


def with_a_closed_map(
    *behind: Layer, bias: Any = (0.25, 0.5, -0.25), gates_bias: bool = False
) -> Network:
    """Return a network on (1, 6, 7) that begins with 1x1 maps 0, 1, 2, of which 1 is closed."""
    shape = (3, 1, 1, 1)
    family = per_output(shape, axis=0, gates_bias=gates_bias)
    shift = None if bias is None else np.array(bias)
    log_alpha = np.array([9.0, -9.0, 9.0])
    first = Conv2d(np.array([1.0, 2.0, -1.0]).reshape(shape), shift, family, log_alpha)
    return Network([first, *behind], input_shape=(1, 6, 7))


def kernels(*shape: int) -> Any:
    """Multiples of 1/8: sums of their products are exact."""
    return np.random.default_rng(11).integers(-8, 9, shape) / 8


@pytest.mark.parametrize("gates_bias", [False, True])
def test_a_closed_map_goes_into_the_bias(gates_bias: bool) -> None:
    """Map 1 is relu(0.5), through pooling too, or with its bias closed relu(0)."""
    weight, bias = kernels(4, 3, 2, 3), kernels(4)
    network = with_a_closed_map(ReLU(), MaxPool2d(2), Conv2d(weight, bias), gates_bias=gates_bias)
    small = compact(network)
    assert small.kept[0].tolist() == [0, 2]
    assert [type(layer) for layer in small.network.layers] == [Conv2d, ReLU, MaxPool2d, Conv2d]
    c = 0 if gates_bias else 0.5
    np.testing.assert_array_equal(small.biases[1], bias + c * weight[:, 1].sum(axis=(1, 2)))
    np.testing.assert_array_equal(small.weights[1], weight[:, [0, 2]])
    check_equal_outputs(network, small)


def test_a_closed_map_is_a_bias_where_there_was_none() -> None:
    weight = kernels(4, 3, 2, 3)
    small = compact(with_a_closed_map(ReLU(), Conv2d(weight)))
    np.testing.assert_array_equal(small.biases[1], 0.5 * weight[:, 1].sum(axis=(1, 2)))
    assert small.n_params == 2 * 2 + 4 * 2 * 6 + 4
    nothing = compact(with_a_closed_map(ReLU(), Conv2d(weight), gates_bias=True))
    assert nothing.biases[1] is None
    assert nothing.n_params == 2 * 2 + 4 * 2 * 6


def test_a_closed_map_behind_padding_is_a_pattern() -> None:
    """The explicit loop: each place adds up the taps that fall inside the map."""
    weight, bias = kernels(4, 3, 3, 3), kernels(4)
    network = with_a_closed_map(ReLU(), Conv2d(weight, bias, padding=1), Tanh())
    small = compact(network)
    assert [type(layer) for layer in small.network.layers] == [
        *(Conv2d, ReLU, Conv2d, AddPattern, Tanh)
    ]
    expected = np.zeros((4, 6, 7))
    for o, h, w in np.ndindex(4, 6, 7):
        total = bias[o]
        for i in range(3):
            for j in range(3):
                if 0 <= h + i - 1 < 6 and 0 <= w + j - 1 < 7:
                    total += 0.5 * weight[o, 1, i, j]
        expected[o, h, w] = total
    pattern = small.network.layers[3]
    assert isinstance(pattern, AddPattern)
    np.testing.assert_array_equal(pattern.pattern, expected)
    assert pattern.params["table"].shape == (4, 3, 3)  # first, middle and last rows and columns
    assert small.biases[1] is None
    assert small.n_params == 2 * 2 + 4 * 2 * 9 + 4 * 9
    assert small.flops == 6 * 7 * (2 * 2 + (2 * 18 - 1) * 4 + 4)
    check_equal_outputs(network, small)


def norm_of_three() -> BatchNorm:
    """Map 1, if 0 before, is 1/2 - 2 (-3/4) / sqrt(4) = 5/4; map 2 is 3/8 whatever it reads."""
    weight, bias = np.array([1.0, 2.0, 0.0]), np.array([0.0, 0.5, 0.375])
    mean, var = np.array([0.5, -0.75, 2.0]), np.array([1.0, 4.0, 9.0])
    return BatchNorm(weight, bias, mean, var, eps=1e-300)


def test_a_closed_map_through_batch_norm() -> None:
    weight = kernels(4, 3, 2, 2)
    network = with_a_closed_map(norm_of_three(), ReLU(), Conv2d(weight), bias=None)
    small = compact(network)
    assert small.kept[0].tolist() == [0]
    sums = weight.sum(axis=(2, 3))
    np.testing.assert_array_equal(small.biases[1], 1.25 * sums[:, 1] + 0.375 * sums[:, 2])
    norm = small.network.layers[1]
    assert [a.tolist() for a in (norm.params | norm.buffers).values()] == [[1], [0], [0.5], [1]]
    check_equal_outputs(network, small)


def test_a_closed_map_through_mean_pooling_with_padding() -> None:
    """Padding counts as zeros there: the corner of the constant's mean is a quarter of it."""
    weight = kernels(4, 3, 1, 1)
    pool = AvgPool2d(2, stride=1, padding=1)
    network = with_a_closed_map(pool, Conv2d(weight))
    small = compact(network)
    share = np.ones((7, 8))
    share[[0, -1]] /= 2
    share[:, [0, -1]] /= 2
    pattern = small.network.layers[3]
    assert isinstance(pattern, AddPattern)
    expected = 0.5 * weight[:, 1] * share
    np.testing.assert_array_equal(pattern.pattern, expected)
    check_equal_outputs(network, small)


def test_a_pattern_through_another_padded_convolution() -> None:
    """Map 0 of the second layer reads the closed map alone: a pattern, and not yet the last."""
    second, third = kernels(2, 3, 3, 3), kernels(3, 2, 3, 5)
    second[0, [0, 2]] = 0
    bias = np.array([0.125, -0.5])
    network = with_a_closed_map(
        Conv2d(second, bias, padding=1), ReLU(), Conv2d(third, padding=(1, 2))
    )
    small = compact(network)
    closed = np.full((1, 1, 6, 7), 0.5)
    behind = naive_conv.conv2d(closed.tolist(), second[:, 1:2].tolist(), bias, padding=(1, 1))
    constant = np.maximum(np.array(behind)[:, :1], 0)
    expected = naive_conv.conv2d(constant.tolist(), third[:, :1].tolist(), padding=(1, 2))
    patterns = [one for one in small.network.layers if isinstance(one, AddPattern)]
    np.testing.assert_array_equal(patterns[0].pattern, np.array(behind)[0, 1:])
    np.testing.assert_array_equal(patterns[1].pattern, np.array(expected)[0])
    assert [w.shape[:2] for w in small.weights] == [(2, 1), (1, 2), (3, 1)]
    check_equal_outputs(network, small)


def test_a_closed_map_in_a_wide_resnet() -> None:
    """Batch norm makes it relu(b - w m / sqrt(v + eps)), and the block adds its pattern."""
    network = trained(WideResNet(10, 1, image_shape=(3, 8, 12), dtype=np.float64), 12, 1.0)
    for array in network.params.values():
        array[array == 0] = 0.5  # no other map is a constant
    at, first, _ = network.gated[0]
    first.params["log_alpha"][5] = -9.0
    norm, second = network.layers[at + 1], network.layers[at + 3]
    norm.params["weight"][5], norm.params["bias"][5] = 0.5, 1.5
    mean, var = norm.buffers["running_mean"][5], norm.buffers["running_var"][5]
    c = max(1.5 - 0.5 * mean / np.sqrt(var + norm.eps), 0)
    assert c > 0
    small = compact(network)
    assert small.kept[0].tolist() == [k for k in range(16) if k != 5]
    constant = np.full((1, 1, 8, 12), c).tolist()
    weight = second.params["weight"][:, 5:6].tolist()
    expected = np.array(naive_conv.conv2d(constant, weight, padding=(1, 1)))[0]
    (found,) = (one for one in small.network.layers if isinstance(one, AddPattern))
    np.testing.assert_allclose(found.pattern, expected, rtol=0, atol=1e-14 * np.abs(c))
    assert found.params["table"].shape == (16, 3, 3)
    check_equal_outputs(network, small)


def test_maps_that_are_added_go_together() -> None:
    """Map 1 is closed in the convolution, but the input that is added is not: it stays.

    Map 0 is closed and nothing reads the sum there; map 2 is read.
    """
    shape = (3, 3, 1, 1)
    family = per_output(shape, axis=0)
    weight, bias = kernels(*shape), np.array([0.25, 0.5, -0.25])
    dense = np.zeros((3 * 6, 2))
    dense[6:] = kernels(12, 2)
    network = Network(
        [
            Conv2d(weight, bias, family, np.array([-9.0, -9.0, 9.0])),
            Flatten(),
            Dense(dense, np.zeros(2)),
        ],
        input_shape=(3, 2, 3),
        skips={0: INPUT},
    )
    weight[2] = [[[0.0]], [[1.0]], [[2.0]]]
    small = compact(network)
    assert small.inputs.tolist() == [1, 2]
    assert small.kept[0].tolist() == [1, 2]
    assert small.network.skips == {0: INPUT}
    assert small.weights[0].reshape(2, 2).tolist() == [[0, 0], [1, 2]]
    np.testing.assert_array_equal(small.biases[0], bias[1:])
    check_equal_outputs(network, small)


def test_groups_stay_of_one_size() -> None:
    """Of two groups of two maps one is closed on one side; then the other has a spare."""
    weight = np.arange(1.0, 9.0).reshape(4, 2, 1, 1)
    family = per_output((4, 2, 1, 1), axis=0)
    log_alpha = np.array([9.0, 9.0, 9.0, -9.0])

    def network(log_alpha: Any) -> Network:
        layers = [Conv2d(weight, None, family, log_alpha, groups=2), Flatten()]
        return Network([*layers, Dense(kernels(8, 3) + 2, np.zeros(3))], input_shape=(4, 1, 2))

    small = compact(network(log_alpha))
    assert small.kept[0].tolist() == [0, 1, 2, 3]
    small = compact(network(np.array([9.0, -9.0, 9.0, -9.0])))
    assert small.kept[0].tolist() == [0, 2]
    assert small.weights[0].ravel().tolist() == [1, 2, 5, 6]
    small = compact(network(np.array([-9.0, -9.0, 9.0, -9.0])))  # the first group goes as a whole
    assert small.inputs.tolist() == [2, 3]
    assert small.weights[0].shape == (1, 2, 1, 1)


def test_groups_are_evened_out_when_needs_come_late() -> None:
    """The grouped convolution needs map 2 alone, until layer 0 makes that of input map 0.

    For layer 0 adds its input, input map 0 is also map 0, in the first group; that group then has
    an input and must have an output.
    """
    weight = np.zeros((4, 4, 1, 1))
    weight[2, 0] = 3.0
    grouped = np.arange(1.0, 9.0).reshape(4, 2, 1, 1)
    grouped[[0, 2], 1] = 0
    dense = np.zeros((8, 2))
    dense[4:6] = [[1.0, 2.0], [3.0, 4.0]]  # map 2
    network = Network(
        [Conv2d(weight), Conv2d(grouped, groups=2), Flatten(), Dense(dense, np.zeros(2))],
        input_shape=(4, 1, 2),
        skips={0: INPUT},
    )
    small = compact(network)
    assert small.inputs.tolist() == [0, 2]
    assert [w.shape[:2] for w in small.weights] == [(2, 2), (2, 1), (2, 2)]
    check_equal_outputs(network, small)


def test_a_closed_map_before_groups() -> None:
    """Map 1 of 4 is 0.5: outputs 0 to 2, of the first group, have it in their biases."""
    family = per_output((4, 1, 1, 1), axis=0)
    first = Conv2d(kernels(4, 1, 1, 1) + 2, np.full(4, 0.5), family, np.array([9.0, -9, 9, 9]))
    weight, bias = kernels(6, 2, 2, 3), kernels(6)
    network = Network([first, Conv2d(weight, bias, groups=2)], input_shape=(1, 5, 6))
    small = compact(network)
    expected = bias.copy()
    expected[:3] += 0.5 * weight[:3, 1].sum(axis=(1, 2))
    np.testing.assert_array_equal(small.biases[1], expected)
    check_equal_outputs(network, small)


def test_a_closed_map_in_another_order() -> None:
    """Selected as maps 1, 2, 0: the constant is the first."""
    weight = kernels(4, 3, 2, 2)
    network = with_a_closed_map(Select(np.array([1, 2, 0])), Conv2d(weight))
    small = compact(network)
    np.testing.assert_array_equal(small.biases[1], 0.5 * weight[:, 0].sum(axis=(1, 2)))
    assert small.kept[0].tolist() == [0, 2]
    assert [
        layer.index.tolist() for layer in small.network.layers if isinstance(layer, Select)
    ] == [[1, 0]]
    check_equal_outputs(network, small)


def test_an_input_that_is_not_read_is_not_normalised() -> None:
    weight = kernels(4, 3, 2, 2)
    weight[:, 0] = 0
    mean, std = np.array([0.5, 1.5, 2.5]), np.array([1.0, 2.0, 4.0])
    network = Network([Normalize(mean, std), Conv2d(weight)], input_shape=(3, 4, 5))
    small = compact(network)
    assert small.inputs.tolist() == [1, 2]
    normalize = small.network.layers[0]
    assert isinstance(normalize, Normalize)
    assert (normalize.mean.tolist(), normalize.std.tolist()) == ([1.5, 2.5], [2.0, 4.0])
    check_equal_outputs(network, small)


@pytest.mark.parametrize("shut", [0, 1, 2, 3])
def test_all_closed_in_a_layer(shut: int) -> None:
    """LeNet-5 without an open gate at one site, whichever: the biases alone are left."""
    network = trained(LeNet5(gates_bias=False, dtype=np.float64), 13, 1.0, shut)
    small = compact(network)
    assert small.is_constant
    assert small.architecture == [0, 0, 0, 0]
    assert (small.n_params, small.flops) == (10, 0)
    assert small.inputs.tolist() == []
    check_equal_outputs(network, small)
    x = np.random.default_rng(14).normal(size=(3, 1, 28, 28))
    got = small.predict(x)
    np.testing.assert_array_equal(got, np.tile(small.biases[-1], (3, 1)))
    assert small.predict(x[:0]).shape == (0, 10)


def test_a_constant_of_maps() -> None:
    """All closed before a padded convolution that is the end: a pattern is the whole answer."""
    family = per_output((2, 1, 1, 1), axis=0)
    bias, weight = np.array([0.5, -0.75]), kernels(3, 2, 3, 3)
    network = Network(
        [
            Conv2d(np.ones((2, 1, 1, 1)), bias, family, np.full(2, -9.0)),
            Conv2d(weight, padding=1),
        ],
        input_shape=(1, 4, 6),
    )
    small = compact(network)
    assert small.is_constant
    constant = np.broadcast_to(bias[:, None, None], (1, 2, 4, 6)).tolist()
    expected = naive_conv.conv2d(constant, weight.tolist(), padding=(1, 1))
    got = small.predict(np.zeros((2, 1, 4, 6)))
    np.testing.assert_array_equal(got, np.tile(expected, (2, 1, 1, 1)))
    assert small.predict(np.zeros((0, 1, 4, 6))).shape == (0, 3, 4, 6)
    assert small.n_params == 3 * 3 * 3


# Files


@given(plans(skips=True))
def test_saved_and_loaded_it_is_the_same(tmp_path_factory: Any, plan: Plan) -> None:
    path = tmp_path_factory.mktemp("compact") / "small.npz"
    small = compact(plan.network())
    small.save(path)
    again = CompactNetwork.load(path)
    x = np.random.default_rng(2).normal(size=(3, *small.input_shape)).astype(plan.dtype)
    assert again.predict(x).tobytes() == small.predict(x).tobytes()
    assert arrays_of(again.network) == arrays_of(small.network)
    assert again.network.sources == small.network.sources
    assert again.network.skips == small.network.skips
    assert (again.names, again.input_shape) == (small.names, small.input_shape)
    assert (again.n_params, again.flops) == (small.n_params, small.flops)
    for one, other in zip([again.inputs, *again.kept], [small.inputs, *small.kept], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def of_all_kinds() -> CompactNetwork:
    """One layer of each kind at least, a branch and a skip; nothing but a map and a unit goes."""
    rng = np.random.default_rng(15)
    family = per_output((4, 2, 3, 3), axis=0)
    table = kernels(4, 2, 3)
    weight = rng.uniform(1.0, 2.0, (3 * 1 * 3, 5))
    weight[1] = 0
    norm = BatchNorm(*rng.uniform(0.5, 2.0, (4, 4)), eps=0.01, momentum=0.5)
    network = Network(
        [
            Normalize(np.array([0.5, 1.5]), np.array([2.0, 4.0])),
            Conv2d(rng.normal(size=(4, 2, 1, 1)), stride=2),
            Conv2d(
                rng.normal(size=(4, 2, 3, 3)), rng.normal(size=4), family,
                np.array([9.0, 9.0, -9.0, 9.0]), stride=(2, 2), padding=1,
            ),
            norm,
            ReLU(),
            Conv2d(rng.normal(size=(4, 4, 3, 3)), rng.normal(size=4), padding=1),
            AddPattern(table, np.array([0, 1, 0]), np.array([2, 1, 0, 2])),
            Select(np.array([3, 0, 2])),
            Tanh(),
            MaxPool2d((2, 3), stride=1, padding=(0, 1)),
            AvgPool2d((1, 2), stride=(2, 1)),
            Conv2d(rng.normal(size=(3, 1, 1, 2)), groups=3, dilation=(1, 2), padding=(0, 1)),
            Flatten(),
            Dense(weight, rng.normal(size=5)),
        ],
        input_shape=(2, 6, 8),
        sources={2: 0},
        skips={6: 1},
        names={2: "inner"},
    )  # fmt: skip
    return compact(network)


def test_all_kinds_of_layers_in_a_file(tmp_path: Path) -> None:
    small = of_all_kinds()
    kinds = {type(layer) for layer in small.network.layers}
    assert kinds == {
        *(Normalize, Conv2d, BatchNorm, ReLU, AddPattern, Select, Tanh, MaxPool2d, AvgPool2d),
        *(Flatten, Dense),
    }
    path = tmp_path / "small.npz"
    small.save(path)
    again = CompactNetwork.load(path)
    x = np.random.default_rng(16).normal(size=(4, 2, 6, 8))
    assert again.predict(x).tobytes() == small.predict(x).tobytes()
    assert again.predict(x.astype(np.float32)).shape == (4, 5)
    norm = next(layer for layer in again.network.layers if isinstance(layer, BatchNorm))
    assert (norm.eps, norm.momentum) == (0.01, 0.5)
    assert again.names == ["inner"]


def layer_of(about: Any, kind: str, nth: int = 0) -> Any:
    return [entry for entry in about["layers"] if entry["kind"] == kind][nth]


def setting(kind: str, nth: int = 0, /, **settings: Any) -> Callable[[Any], None]:
    return lambda about: layer_of(about, kind, nth).update(settings)


BAD_LISTS = {
    "unknown kind": (setting("Tanh", kind="Maxout"), "unknown layer 'Maxout'"),
    "kind of another sort": (setting("Tanh", kind=[1]), "."),
    "no kind": (lambda about: layer_of(about, "Tanh").pop("kind"), "lacks kind"),
    "no arrays": (lambda about: layer_of(about, "Tanh").pop("arrays"), "lacks arrays"),
    "arrays that are a text": (setting("Dense", arrays="weight_0"), "."),
    "an array that is not there": (
        lambda about: layer_of(about, "Dense")["arrays"].update(weight="weight_99"),
        "lacks weight_99",
    ),
    "an array too few": (lambda about: layer_of(about, "Dense")["arrays"].pop("bias"), "bias"),
    "a setting that is unknown": (setting("Tanh", slope=2), "slope"),
    "a setting too few": (lambda about: layer_of(about, "MaxPool2d").pop("kernel_size"), "."),
    "a stride of 0": (setting("Conv2d", stride=[0, 1]), "stride"),
    "a stride of three": (setting("Conv2d", stride=[1, 1, 1]), "."),
    "groups that do not divide": (setting("Conv2d", groups=5), "groups"),
    "too large a padding": (setting("MaxPool2d", padding=9), "padding"),
    "another padding": (setting("Conv2d", 2, padding=0), "."),
    "a source behind": (setting("Tanh", source=9), "must take from one before it"),
    "a source before the input": (setting("Tanh", source=-2), "must take from one before it"),
    "a source that is none": (setting("Tanh", source="x"), "."),
    "a source of another shape": (setting("Tanh", source=-1), "."),
    "a skip behind": (setting("Tanh", skip=12), "must take from one before it"),
    "a skip of another shape": (setting("Tanh", skip=-1), "."),
    "a momentum of 0": (setting("BatchNorm", momentum=0), "momentum"),
    "no layers": (lambda about: about.pop("layers"), "lacks layers"),
    "an empty list": (lambda about: about.update(layers=[]), "are no layers"),
    "a layer that is a text": (lambda about: about["layers"].append("Tanh"), "."),
    "no names": (lambda about: about.pop("names"), "lacks names"),
    "a name too many": (lambda about: about["names"].append("more"), "lacks kept_1"),
    "no input shape": (lambda about: about.pop("input_shape"), "lacks input_shape"),
    "another input shape": (lambda about: about.update(input_shape=[2, 6, 9]), "."),
    "an empty input shape": (lambda about: about.update(input_shape=[]), "."),
    "a negative input shape": (lambda about: about.update(input_shape=[2, -6, 8]), "."),
}


@pytest.mark.parametrize("what", BAD_LISTS)
def test_lists_of_layers_that_do_not_fit(tmp_path: Path, what: str) -> None:
    change, message = BAD_LISTS[what]
    path = tmp_path / "small.npz"
    of_all_kinds().save(path)
    arrays = load_arrays(path)
    about = json.loads(str(arrays["layers"]))
    change(about)
    save_arrays(path, arrays | {"layers": np.array(json.dumps(about))})
    with pytest.raises(FileError, match=message) as caught:
        CompactNetwork.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Conv2d", "weight", np.ones((4, 2, 1))),
        ("Conv2d", "weight", np.ones((4, 3, 1, 1))),
        ("Conv2d", "weight", np.array("heavy")),
        ("BatchNorm", "running_mean", np.ones(2)),
        ("BatchNorm", "weight", np.ones((3, 1))),
        ("Normalize", "std", np.array([1.0, -1.0])),
        ("Normalize", "mean", np.ones(3)),
        ("Select", "index", np.array([0, 1, 1])),
        ("Select", "index", np.array([-1, 0, 1])),
        ("Select", "index", np.array([0, 1, 9])),
        ("Select", "index", np.array([0, 1])),
        ("Select", "index", np.array([0.0, 1.0, 2.0])),
        ("AddPattern", "table", np.ones((3, 2, 2))),
        ("AddPattern", "table", np.ones((4, 3, 3))),
        ("AddPattern", "rows", np.array([0, 1, 9])),
        ("AddPattern", "rows", np.array([0, 1])),
        ("AddPattern", "columns", np.array([0.0, 1.0, 2.0, 2.0])),
        ("Dense", "bias", np.ones(4)),
        ("Dense", "weight", np.ones((9, 5))),
        ("Dense", "weight", None),
        ("AddPattern", "table", None),
        ("BatchNorm", "running_var", None),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, kind: str, name: str, value: Any) -> None:
    path = tmp_path / "small.npz"
    of_all_kinds().save(path)
    arrays = load_arrays(path)
    stored = layer_of(json.loads(str(arrays["layers"])), kind)["arrays"][name]
    arrays.pop(stored)
    save_arrays(path, arrays if value is None else arrays | {stored: value})
    with pytest.raises(FileError, match=f"lacks {stored}" if value is None else ".") as caught:
        CompactNetwork.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["bias", "log_alpha"])
def test_a_nan_is_still_there_in_the_compact_network(name: str) -> None:
    network = LeNet5(dtype=np.float64)
    network.gated[0][1].params[name][3] = np.nan
    x = np.random.default_rng(1).random((2, 1, 28, 28))
    assert np.isnan(network.predict(x)).all()
    assert np.isnan(compact(network).predict(x)).all()
