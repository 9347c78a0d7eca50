r"""What a network costs: floating-point operations for one example, and parameters.

Counted are multiplications and additions of a forward pass at test time. Comparisons (ReLU, max
pooling), the activation tanh and the normalisation of the input are not. Batch norm is a
multiplication and an addition for each element.

**Both sides of a weight.** A weight costs something only if what it reads is on and what it writes
is on: the gates on its layer's inputs and on the outputs of the layer before, and the gates on its
layer's outputs and on the inputs of whatever reads them. The gates are independent, so the expected
cost of a weight is a product of probabilities, where an output that several gates read is off only
if all of them are closed.

The rule is local: it looks at the gates at a weight's two ends, and no further. What
`l0ref.pruning.compact` leaves can cost less, for closing a whole layer makes all that follows a
constant; or a little more, where constants of closed maps are folded into a convolution without a
bias: that is an addition an element, and a bias or the border's pattern to keep.

**One function for both costs.** With on = 0 or 1 for each gate, `layer_costs` counts the
operations of that hard network. It is a polynomial in the gates in which each occurs to the first
power only; the mean of such a polynomial of independent gates is the polynomial at their means. So
the same function at on = P(z != 0) is the exact expected cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .layers import (
    AddPattern,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    Normalize,
    ReLU,
    Select,
    Tanh,
    Weighted,
)
from .network import INPUT, Network

Array = NDArray[Any]
Pair = tuple[int, int]

_FREE = (ReLU, Tanh, Dropout, MaxPool2d, Normalize)


class Cost(NamedTuple):
    """Operations for one example, and parameters: counts, or expected counts."""

    flops: float
    params: float

    def plus(self, other: Cost) -> Cost:
        """Add up."""
        return Cost(self.flops + other.flops, self.params + other.params)


# --- single layers, whole ---


def dense_flops(n_in: int, n_out: int, *, bias: bool = True) -> int:
    """FLOPs of a dense layer, one example: (2 n_in - 1 + bias) n_out.

    Each output takes n_in multiplications, n_in - 1 additions, and the addition of its bias. An
    output that reads nothing is a constant and costs nothing.

    Examples
    --------
    >>> dense_flops(784, 300)
    470400
    """
    return _sum_flops(n_in, bias=bias) * n_out


def dense_params(n_in: int, n_out: int, *, bias: bool = True) -> int:
    """Weights and biases of a dense layer."""
    return (n_in + bias) * n_out


def conv2d_flops(
    c_in: int, c_out: int, kernel: Pair, output: Pair, *, groups: int = 1, bias: bool = True
) -> int:
    """FLOPs of a convolution, one example: (2 k - 1 + bias) C_out H_out W_out.

    With k = (C_in / groups) kh kw, the number of weights that an output reads; those that fall on
    the padding are counted like all others.

    Parameters
    ----------
    c_in, c_out : int
        Maps in and out.
    kernel : (int, int)
        (kh, kw).
    output : (int, int)
        (H_out, W_out), floored; see `l0ref.ops.conv_output_size`, which stride, padding and
        dilation enter.
    groups : int, optional
    bias : bool, optional

    Examples
    --------
    >>> conv2d_flops(20, 50, (5, 5), (8, 8))
    3200000
    """
    _check_groups(c_in, c_out, groups)
    k = c_in // groups * kernel[0] * kernel[1]
    return _sum_flops(k, bias=bias) * c_out * output[0] * output[1]


def conv2d_params(
    c_in: int, c_out: int, kernel: Pair, *, groups: int = 1, bias: bool = True
) -> int:
    """Weights and biases of a convolution."""
    _check_groups(c_in, c_out, groups)
    return (c_in // groups * kernel[0] * kernel[1] + bias) * c_out


def _check_groups(c_in: int, c_out: int, groups: int) -> None:
    if groups < 1 or c_in % groups or c_out % groups:
        raise ValueError(f"groups must divide C_in and C_out, {c_in} and {c_out}, got {groups}")


def _sum_flops(terms: int, *, bias: bool) -> int:
    return 2 * terms - 1 + bias if terms else 0


# --- networks ---


class _Signal(NamedTuple):
    """How probable it is that each unit or map is on, and on whose gates that depends."""

    on: NDArray[np.float64]
    gates: frozenset[int] = frozenset()

    def either(self, other: _Signal) -> _Signal:
        """Probability that one of the two is on."""
        shared = self.gates & other.gates
        if shared:
            raise ValueError(
                f"the gates of layer {min(shared)} reach the same sum by two ways: their "
                "probabilities are not independent there, and the expected cost is no product"
            )
        return _Signal(1 - (1 - self.on) * (1 - other.on), self.gates | other.gates)


def layer_costs(network: Network, on: Sequence[Array] | None = None) -> list[Cost]:
    """Cost of each layer, for one example; that of a residual connection is its layer's.

    Parameters
    ----------
    network : Network
    on : sequence of array, optional
        For each gated layer, of its gates' shape: 1 where a gate is open and 0 where it is closed,
        for the cost of that hard network; or the probabilities, for the expected cost. All open by
        default.

    Raises
    ------
    ValueError
        If `on` does not fit, a layer's cost is not known, or gates reach one sum by two ways.
    """
    gate = _gate_values(network, on)
    shapes = network.shapes((1, *network.input_shape))
    inputs, outputs = shapes[:-1], [shapes[0]] * len(network.layers)
    for i, layer in enumerate(network.layers):
        outputs[i] = layer.output_shape(inputs[i])

    # Forward: which units and maps carry a signal.
    carries: dict[int, _Signal] = {INPUT: _Signal(np.ones(network.input_shape[0]))}
    costs_of_sums = {}
    for i, layer in enumerate(network.layers):
        signal = _carried(i, layer, carries[network.sources[i]], gate, inputs[i])
        if i in network.skips:
            skip = carries[network.skips[i]]
            costs_of_sums[i] = signal.on * skip.on
            signal = signal.either(skip)
        carries[i] = signal

    # Backward: which of them something reads.
    last = len(network.layers) - 1
    read: dict[int, _Signal] = {last: _Signal(np.ones(outputs[last][1]))}
    costs = [Cost(0.0, 0.0)] * len(network.layers)
    for i in reversed(range(len(network.layers))):
        layer, source = network.layers[i], network.sources[i]
        costs[i] = _cost(layer, gate.get(i), carries[source].on, read[i].on, inputs[i], outputs[i])
        if i in network.skips:
            size = float(np.prod(outputs[i][2:]))
            adds = float((costs_of_sums[i] * read[i].on).sum()) * size
            costs[i] = costs[i].plus(Cost(adds, 0.0))
            skip_at = network.skips[i]
            read[skip_at] = read[i].either(read[skip_at]) if skip_at in read else read[i]
        reads = _reads(i, layer, read[i], gate, inputs[i])
        read[source] = reads.either(read[source]) if source in read else reads
    return costs


def network_cost(network: Network, on: Sequence[Array] | None = None) -> Cost:
    """Cost of the whole network, for one example; the parameters are those of `layer_costs`.

    Examples
    --------
    >>> from l0ref.networks import LeNet300100
    >>> network_cost(LeNet300100())
    Cost(flops=532400.0, params=266610.0)
    """
    total = Cost(0.0, 0.0)
    for cost in layer_costs(network, on):
        total = total.plus(cost)
    return total


def expected_cost(network: Network) -> Cost:
    """Expected cost under the gates' distribution, exact: `network_cost` at P(z != 0)."""
    return network_cost(
        network,
        [gates.law(layer.params["log_alpha"]).prob_active() for _, layer, gates in network.gated],
    )


def hard_cost(network: Network) -> Cost:
    """Cost of the network with the test-time gates (Eq. 13)."""
    return network_cost(network, network.open_gates())


def _gate_values(network: Network, on: Sequence[Array] | None) -> dict[int, NDArray[np.float64]]:
    gated = network.gated
    if on is None:
        return {i: np.ones(gates.shape) for i, _, gates in gated}
    if len(on) != len(gated):
        raise ValueError(f"on must have one array a gated layer ({len(gated)}), got {len(on)}")
    values = {}
    for (i, _, gates), given in zip(gated, on, strict=True):
        value = np.asarray(given, dtype=np.float64)
        if value.shape != gates.shape:
            raise ValueError(
                f"on must have shape {gates.shape} for the gates of layer {i}, got {value.shape}"
            )
        if not ((value >= 0) & (value <= 1)).all():
            raise ValueError(f"on must lie in [0, 1], got otherwise for the gates of layer {i}")
        values[i] = value
    return values


def _lies_on(layer: Weighted, side: str) -> bool:
    """Whether the layer's gates are one an input, or one an output, unit or map."""
    gates = layer.gates
    if gates is None or gates.axis is None:
        return False
    if side == "outputs":
        return gates.axis == layer.output_axis
    return gates.axis == 1 - layer.output_axis


def _over_inputs(layer: Weighted, gate: Array) -> Array:
    """Spread gates on the inputs over all maps: with groups, each is on one map of each group."""
    return np.tile(gate, layer.groups if isinstance(layer, Conv2d) else 1)


def _carried(
    i: int, layer: Any, signal: _Signal, gate: dict[int, Any], x_shape: tuple[int, ...]
) -> _Signal:
    if isinstance(layer, Weighted):
        if _lies_on(layer, "outputs"):
            return _Signal(gate[i], frozenset({i}))
        return _Signal(np.ones(layer.params["weight"].shape[layer.output_axis]))
    if isinstance(layer, Flatten):
        return signal._replace(on=np.repeat(signal.on, int(np.prod(x_shape[2:]))))
    if isinstance(layer, Select):
        return signal._replace(on=signal.on[layer.index])
    if isinstance(layer, (*_FREE, AvgPool2d, BatchNorm, AddPattern)):
        return signal
    raise ValueError(f"the cost of a {type(layer).__name__} layer is not known")


def _reads(
    i: int, layer: Any, read: _Signal, gate: dict[int, Any], x_shape: tuple[int, ...]
) -> _Signal:
    if isinstance(layer, Weighted):
        if _lies_on(layer, "inputs"):
            return _Signal(_over_inputs(layer, gate[i]), frozenset({i}))
        return _Signal(np.ones(x_shape[1]))
    if isinstance(layer, Flatten):
        units = read.on.reshape(x_shape[1], int(np.prod(x_shape[2:])))
        return read._replace(on=1 - np.prod(1 - units, axis=1))
    if isinstance(layer, Select):
        on = np.zeros(x_shape[1])
        on[layer.index] = read.on
        return read._replace(on=on)
    return read


def _cost(
    layer: Any,
    gate: Array | None,
    carries: Array,
    read: Array,
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
) -> Cost:
    places = float(np.prod(y_shape[2:]))
    if isinstance(layer, Weighted):
        return _weighted_cost(layer, gate, carries, read, places)
    elements = float((carries * read).sum()) if len(carries) == len(read) else 0.0
    if isinstance(layer, BatchNorm):
        return Cost(2 * elements * places, 2 * elements)
    if isinstance(layer, AvgPool2d):
        window = layer.kernel_size[0] * layer.kernel_size[1]  # k - 1 additions, one product
        return Cost(elements * places * window, 0.0)
    if isinstance(layer, AddPattern):
        return Cost(elements * places, float(layer.params["table"].size))
    return Cost(0.0, 0.0)


def _weighted_cost(
    layer: Weighted, gate: Array | None, carries: Array, read: Array, places: float
) -> Cost:
    weight, gates, has_bias = layer.params["weight"], layer.gates, "bias" in layer.params
    inputs, outputs, within = carries, read, None
    if gates is not None and gate is not None:
        if _lies_on(layer, "outputs"):
            outputs = outputs * gate
        elif _lies_on(layer, "inputs"):
            inputs = inputs * _over_inputs(layer, gate)
        else:
            within = np.broadcast_to(gates.expand(gate), weight.shape)
    # Everything as a convolution's weight: (groups, outputs, inputs, taps).
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    taps = int(np.prod(weight.shape[2:]))
    if within is not None:
        if isinstance(layer, Dense):
            within = within.T[:, :, None]
        within = within.reshape(groups, len(outputs) // groups, len(inputs) // groups, taps)
    ins = inputs.reshape(groups, -1)
    outs = outputs.reshape(groups, -1)
    if within is None:
        terms = outs.sum(axis=1) * ins.sum(axis=1) * taps
        nothing = np.prod(1 - ins * (taps > 0), axis=1)[:, None]
    else:
        terms = np.einsum("goit,gi,go->g", within, ins, outs)
        if not has_bias and gates is not None and gates.shape != gates.weight_shape:
            raise ValueError(
                "the expected cost of a layer without a bias is known for a gate a weight, an "
                "input or an output, or no gates, got others that share weights"
            )
        silent = 1 - ins[:, None, :] * (1 - np.prod(1 - within, axis=3))
        nothing = np.prod(silent, axis=2)
    flops = 2 * terms.sum()
    if not has_bias:  # one addition fewer, where there is a sum at all
        flops -= (outs * (1 - nothing)).sum()
    params = terms.sum() + (outputs.sum() if has_bias else 0.0)
    return Cost(float(flops * places), float(params))
