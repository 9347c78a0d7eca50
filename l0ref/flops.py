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

**Many networks at once.** Units and maps are on the last axis of every array here. Networks that
differ in their gates alone share a first axis, on which nothing is ever added up. Booleans stay
booleans, and give the same counts as 0 and 1 in floating point, sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .conditional import INPUT
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
from .network import Network

Array = NDArray[Any]
Pair = tuple[int, int]

_FREE = (ReLU, Tanh, Dropout, MaxPool2d, Normalize)


class Cost(NamedTuple):
    """Operations for one example, and parameters: counts, or expected counts.

    A float each; or an array of float64, (S,), for S networks at once.
    """

    flops: Any
    params: Any

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
    """How probable it is that each unit or map is on, and on whose gates that depends.

    `on` has shape (units,) or (S, units), of bool or float64.
    """

    on: Array
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


def _any(on: Array) -> Array:
    """Probability that at least one along the last axis is on, where they are independent."""
    return np.asarray(on.any(axis=-1) if on.dtype == np.bool_ else 1 - np.prod(1 - on, axis=-1))


def layer_costs(network: Network, on: Sequence[Array] | None = None) -> list[Cost]:
    """Cost of each layer, for one example; that of a residual connection is its layer's.

    Parameters
    ----------
    network : Network
    on : sequence of array, optional
        For each gated layer, of its gates' shape: 1 or True where a gate is open and 0 or False
        where it is closed, for the cost of that hard network; or the probabilities, for the
        expected cost. For S networks at once, every array has shape (S, *gates.shape). All open by
        default.

    Returns
    -------
    list of Cost
        Of floats; for S networks at once, of arrays of float64, (S,).

    Raises
    ------
    ValueError
        If `on` does not fit, a layer's cost is not known, or gates reach one sum by two ways.
    """
    gate, lead = _gate_values(network, on)
    shapes = network.shapes((1, *network.input_shape))
    inputs, outputs = shapes[:-1], [shapes[0]] * len(network.layers)
    for i, layer in enumerate(network.layers):
        outputs[i] = layer.output_shape(inputs[i])

    # Forward: which units and maps carry a signal.
    carries: dict[int, _Signal] = {INPUT: _Signal(_all_on(network.input_shape[0]))}
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
    read: dict[int, _Signal] = {last: _Signal(_all_on(outputs[last][1]))}
    costs = [Cost(0.0, 0.0)] * len(network.layers)
    for i in reversed(range(len(network.layers))):
        layer, source = network.layers[i], network.sources[i]
        costs[i] = _cost(layer, gate.get(i), carries[source].on, read[i].on, inputs[i], outputs[i])
        if i in network.skips:
            size = float(np.prod(outputs[i][2:]))
            adds = (costs_of_sums[i] * read[i].on).sum(axis=-1) * size
            costs[i] = costs[i].plus(Cost(adds, 0.0))
            skip_at = network.skips[i]
            read[skip_at] = read[i].either(read[skip_at]) if skip_at in read else read[i]
        reads = _reads(i, layer, read[i], gate, inputs[i])
        read[source] = reads.either(read[source]) if source in read else reads
    return [Cost(_spread(cost.flops, lead), _spread(cost.params, lead)) for cost in costs]


def network_cost(network: Network, on: Sequence[Array] | None = None) -> Cost:
    """Cost of the whole network, for one example; the parameters are those of `layer_costs`.

    Examples
    --------
    >>> from l0ref.networks import LeNet300100
    >>> network_cost(LeNet300100())
    Cost(flops=532400.0, params=266610.0)

    Two networks at once, of all units and of 250 in the first hidden layer:

    >>> on = [np.ones((2, n), dtype=bool) for n in (784, 300, 100)]
    >>> on[1][1, 250:] = False
    >>> network_cost(LeNet300100(), on).flops
    array([532400., 444000.])
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


def _gate_values(
    network: Network, on: Sequence[Array] | None
) -> tuple[dict[int, Array], tuple[int, ...]]:
    """Return `on` by the position of its layer, and the axis of networks in front: (S,) or ()."""
    gated = network.gated
    if on is None:
        return {i: np.ones(gates.shape, dtype=np.bool_) for i, _, gates in gated}, ()
    if len(on) != len(gated):
        raise ValueError(f"on must have one array a gated layer ({len(gated)}), got {len(on)}")
    values: dict[int, Array] = {}
    lead: tuple[int, ...] = ()
    for (i, _, gates), given in zip(gated, on, strict=True):
        value = np.asarray(given)
        own = value.shape[: max(value.ndim - len(gates.shape), 0)]
        if value.shape != own + gates.shape or len(own) > 1:
            raise ValueError(
                f"on must have shape {gates.shape}, or that behind one axis of networks, for the "
                f"gates of layer {i}, got {value.shape}"
            )
        if values and own != lead:
            raise ValueError(
                "on must have the same axis of networks in front for every layer, got "
                f"{lead} and, for the gates of layer {i}, {own}"
            )
        if value.dtype != np.bool_:
            value = value.astype(np.float64, copy=False)
            if not ((value >= 0) & (value <= 1)).all():
                raise ValueError(f"on must lie in [0, 1], got otherwise for the gates of layer {i}")
        values[i], lead = value, own
    return values, lead


def _all_on(n: int) -> Array:
    """Units or maps without a gate, the same in all networks."""
    return np.ones(n, dtype=np.bool_)


def _spread(count: Any, lead: tuple[int, ...]) -> Any:
    """Give each network its count, where the gates did not tell them apart, too."""
    return np.broadcast_to(count, lead).astype(np.float64) if lead else float(count)


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
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    return np.tile(gate, groups) if groups > 1 else gate


def _carried(
    i: int, layer: Any, signal: _Signal, gate: dict[int, Any], x_shape: tuple[int, ...]
) -> _Signal:
    if isinstance(layer, Weighted):
        if _lies_on(layer, "outputs"):
            return _Signal(gate[i], frozenset({i}))
        return _Signal(_all_on(layer.params["weight"].shape[layer.output_axis]))
    if isinstance(layer, Flatten):
        return signal._replace(on=np.repeat(signal.on, int(np.prod(x_shape[2:])), axis=-1))
    if isinstance(layer, Select):
        return signal._replace(on=signal.on[..., layer.index])
    if isinstance(layer, (*_FREE, AvgPool2d, BatchNorm, AddPattern)):
        return signal
    raise ValueError(f"the cost of a {type(layer).__name__} layer is not known")


def _reads(
    i: int, layer: Any, read: _Signal, gate: dict[int, Any], x_shape: tuple[int, ...]
) -> _Signal:
    if isinstance(layer, Weighted):
        if _lies_on(layer, "inputs"):
            return _Signal(_over_inputs(layer, gate[i]), frozenset({i}))
        return _Signal(_all_on(x_shape[1]))
    if isinstance(layer, Flatten):
        return read._replace(on=_any(_split(read.on, x_shape[1])))
    if isinstance(layer, Select):
        on = np.zeros((*read.on.shape[:-1], x_shape[1]), dtype=read.on.dtype)
        on[..., layer.index] = read.on
        return read._replace(on=on)
    return read


def _split(on: Array, parts: int) -> Array:
    """Split the last axis into (parts, the rest); no maps at all have no places either."""
    return on.reshape(*on.shape[:-1], parts, on.shape[-1] // max(parts, 1))


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
    if carries.shape[-1] != read.shape[-1]:  # Flatten and Select
        return Cost(0.0, 0.0)
    elements = (carries * read).sum(axis=-1)
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
            spread = gates.expand(gate)
            lead = gate.shape[: gate.ndim - len(gates.shape)]
            within = np.broadcast_to(spread, lead + weight.shape)
    # Everything as a convolution's weight: (groups, outputs, inputs, taps).
    groups = layer.groups if isinstance(layer, Conv2d) else 1
    taps = int(np.prod(weight.shape[2:]))
    ins, outs = _split(inputs, groups), _split(outputs, groups)
    if within is None:
        terms = (outs.sum(axis=-1) * ins.sum(axis=-1) * taps).sum(axis=-1)
    else:
        if isinstance(layer, Dense):
            within = np.swapaxes(within, -1, -2)[..., None]
        within = within.reshape(*lead, groups, outs.shape[-1], ins.shape[-1], taps)
        terms = _weights_on(within, ins, outs)
        if not has_bias and gates is not None and gates.shape != gates.weight_shape:
            raise ValueError(
                "the expected cost of a layer without a bias is known for a gate a weight, an "
                "input or an output, or no gates, got others that share weights"
            )
    flops = 2 * terms
    if not has_bias:  # one addition fewer, where there is a sum at all
        reads = ins[..., None, :] * (taps > 0 if within is None else _any(within))
        flops = flops - (outs * _any(reads)).sum(axis=(-2, -1))
    params = terms + (outputs.sum(axis=-1) if has_bias else 0.0)
    return Cost(flops * places, params)


def _weights_on(within: Array, ins: Array, outs: Array) -> Array:
    """Sum over the weights of P(its own gate) P(what it reads) P(what it writes)."""
    if within.dtype == np.bool_ and ins.all() and outs.all():
        # Its own gates are all there is, and to count them at a stretch is by far the fastest.
        many = within if within.ndim > 4 else within[None]
        counts = np.array([np.count_nonzero(one) for one in many])
        return counts.reshape(within.shape[:-4])
    # In float64: what einsum adds up of booleans is a boolean.
    terms = np.einsum("...goit,...gi,...go->...", within, ins, outs, dtype=np.float64)
    return np.asarray(terms)
