"""Known mistakes in counting operations and parameters."""

# What a class is, its entry says.
# ruff: noqa: D101

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..plain import Plain
from .catalogue import AUTHORS, known

_conv = partial(known, area="Counted cost", at="conv2d_flops")
_net = partial(known, area="Counted cost", at="expected_cost")
_COUNT = f"{AUTHORS}, l0_layers.py, `L0Conv2d.count_expected_flops_and_l0`"


@_conv(
    "flops-size-from-channels",
    formula="(H_out, W_out) from (C, H) for (H, W)",
    sentence="your output size takes (C, H) for (H, W): the input's shape is read one axis too "
    "early",
    wild=_COUNT,
)
class FlopsSizeFromChannels(Plain):
    def _places(
        self, c_in: int, kernel: Any, size: Any, stride: Any, padding: Any, dilation: Any
    ) -> Any:
        return super()._places(c_in, kernel, (c_in, size[0]), stride, padding, dilation)


@_conv(
    "flops-not-floored",
    formula="H_out = (H + 2p - e (k-1) - 1) / s + 1, a fraction",
    sentence="your output size is not floored",
    wild=_COUNT,
)
class FlopsNotFloored(Plain):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1


@_conv(
    "flops-rounded-up",
    formula="H_out = ceil((H + 2p - e (k-1) - 1) / s) + 1",
    sentence="your output size is rounded up; it is floored",
)
class FlopsRoundedUp(Plain):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return -((size + 2 * padding - dilation * (kernel - 1) - 1) // -stride) + 1


@_conv(
    "flops-dilation-ignored",
    formula="H_out = floor((H + 2p - k) / s) + 1",
    sentence="your output size ignores the dilation",
    wild=_COUNT,
)
class FlopsDilationIgnored(Plain):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return super()._output_size(size, kernel, stride, padding, 1)


@_conv(
    "flops-padding-once",
    formula="H_out = floor((H + p - e (k-1) - 1) / s) + 1",
    sentence="your output size adds the padding once; it is on both sides",
)
class FlopsPaddingOnce(Plain):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


@_conv(
    "flops-padding-ignored",
    formula="H_out = floor((H - e (k-1) - 1) / s) + 1",
    sentence="your output size ignores the padding",
)
class FlopsPaddingIgnored(Plain):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return super()._output_size(size, kernel, stride, 0, dilation)


@_conv(
    "flops-stride-ignored",
    formula="H_out = H + 2p - e (k-1)",
    sentence="your output size ignores the stride",
)
class FlopsStrideIgnored(Plain):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return super()._output_size(size, kernel, 1, padding, dilation)


@_conv(
    "flops-at-input-size",
    formula="(2 k - 1 + bias) C_out H W",
    sentence="you count a convolution at its input's size, not its output's",
)
class FlopsAtInputSize(Plain):
    def _places(
        self, c_in: int, kernel: Any, size: Any, stride: Any, padding: Any, dilation: Any
    ) -> Any:
        return size[0] * size[1]


@_conv(
    "conv-counts-ignore-groups",
    formula="k = C_in kh kw, whatever the groups",
    sentence="your counts of a convolution ignore its groups: a map reads C_in/groups maps",
    wild=_COUNT,
)
class ConvCountsIgnoreGroups(Plain):
    def _conv_reads(self, c_in: int, kernel: Any, groups: int) -> int:
        return int(c_in * kernel[0] * kernel[1])


@_conv(
    "conv-counts-ignore-kernel",
    formula="k = C_in/groups",
    sentence="your counts of a convolution leave out the kernel's size",
)
class ConvCountsIgnoreKernel(Plain):
    def _conv_reads(self, c_in: int, kernel: Any, groups: int) -> int:
        return c_in // groups


@_conv(
    "conv-counts-square-kernel",
    formula="k = C_in/groups kh^2",
    sentence="your counts of a convolution take the kernel to be square",
)
class ConvCountsSquareKernel(Plain):
    def _conv_reads(self, c_in: int, kernel: Any, groups: int) -> int:
        return int(c_in // groups * kernel[0] ** 2)


@_conv(
    "flops-of-multiply-adds",
    formula="k C_out H_out W_out",
    sentence="you count a multiplication and an addition as one; they are two FLOPs",
)
class FlopsOfMultiplyAdds(Plain):
    def _flops(self, terms: Any, sums: Any, bias: bool) -> Any:
        return terms


@_conv(
    "flops-doubled",
    formula="2 (2 k - 1 + bias) C_out H_out W_out",
    sentence="your FLOPs are twice what they are: multiplications and additions are counted one by "
    "one, and then doubled as if they were pairs",
)
class FlopsDoubled(Plain):
    def _flops(self, terms: Any, sums: Any, bias: bool) -> Any:
        return 2 * super()._flops(terms, sums, bias)


@_conv(
    "flops-one-addition-too-many",
    formula="(2 k + bias) C_out H_out W_out",
    sentence="you count k additions for a sum of k terms; it takes k - 1",
)
class FlopsOneAdditionTooMany(Plain):
    def _flops(self, terms: Any, sums: Any, bias: bool) -> Any:
        return 2 * terms + sums * bias


@_conv(
    "flops-always-with-bias",
    formula="2 k C_out H_out W_out, with a bias and without",
    sentence="you count the addition of a bias where there is none",
)
class FlopsAlwaysWithBias(Plain):
    def _flops(self, terms: Any, sums: Any, bias: bool) -> Any:
        return 2 * terms


@_conv(
    "flops-without-bias",
    formula="(2 k - 1) C_out H_out W_out",
    sentence="you do not count the addition of the bias",
)
class FlopsWithoutBias(Plain):
    def _flops(self, terms: Any, sums: Any, bias: bool) -> Any:
        return super()._flops(terms, sums, False)


@known(
    "params-without-bias",
    area="Counted cost",
    at="dense_params",
    formula="number of weights",
    sentence="your count of parameters leaves out the biases",
)
class ParamsWithoutBias(Plain):
    def _params(self, terms: Any, outputs: Any, bias: bool) -> Any:
        return terms


@known(
    "params-always-with-bias",
    area="Counted cost",
    at="dense_params",
    formula="weights and biases, with a bias and without",
    sentence="your count of parameters has biases where there are none",
)
class ParamsAlwaysWithBias(Plain):
    def _params(self, terms: Any, outputs: Any, bias: bool) -> Any:
        return terms + outputs


# --- networks ---


@_net(
    "cost-one-sided",
    formula="each layer's cost by its own gates alone",
    sentence="you count only one side of a weight: it costs nothing unless both what it reads and "
    "what it writes are on",
    wild=f"{AUTHORS}, l0_layers.py, `count_expected_flops_and_l0`",
)
class CostOneSided(Plain):
    def _both_sides(self, own: Any, other: Any) -> Any:
        return own


@_net(
    "cost-lesser-side",
    formula="min of the probabilities of both sides, for their product",
    sentence="you count a weight by the lesser of its two sides' probabilities; gates are "
    "independent, so it is their product",
)
class CostLesserSide(Plain):
    def _weight_on(self, reads: Any, writes: Any) -> Any:
        return np.minimum(reads, writes)


@_net(
    "cost-all-open",
    formula="the cost with every gate open",
    sentence="your cost does not see the gates: it is that of the whole network",
)
class CostAllOpen(Plain):
    def _open_gates(self, network: Any, *, probability: bool) -> Any:
        gates = super()._open_gates(network, probability=probability)
        return [None if gate is None else np.ones_like(gate) for gate in gates]


@_net(
    "flops-all-open",
    formula="FLOPs with every gate open; parameters with the gates as they are",
    sentence="your FLOPs do not see the gates, and your count of parameters does",
)
class FlopsAllOpen(Plain):
    def _network_cost(self, network: Any, on: Any) -> dict[str, Any]:
        is_open = [None if gate is None else np.ones_like(gate) for gate in on]
        flops = super()._network_cost(network, is_open)["flops"]
        return {**super()._network_cost(network, on), "flops": flops}


@_net(
    "flops-of-dense-layers-open",
    formula="FLOPs of dense layers with every gate open, of convolutions with the gates as they "
    "are",
    sentence="your FLOPs of dense layers do not see the gates; those of convolutions and your "
    "count of parameters do",
)
class FlopsOfDenseLayersOpen(Plain):
    def _layer_cost(self, layer: Any, gate: Any, carries: Any, read: Any, shape: Any) -> Any:
        flops, params = super()._layer_cost(layer, gate, carries, read, shape)
        if layer["kind"] == "dense":
            gate = None if gate is None else np.ones_like(gate)
            carries, read = np.ones_like(carries), np.ones_like(read)
            flops, _ = super()._layer_cost(layer, gate, carries, read, shape)
        return flops, params


@_net(
    "expected-cost-of-test-gates",
    formula="the expected cost at z_hat for P(z != 0)",
    sentence="your expected cost multiplies by the test gates; it multiplies by P(z != 0)",
)
class ExpectedCostOfTestGates(Plain):
    def _expected_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_gate(log_alpha, beta, gamma, zeta)[0]


@_net(
    "expected-cost-of-open-gates",
    formula="the cost with the gates that Eq. 13 leaves open",
    sentence="your expected cost is that of the network at test time",
)
class ExpectedCostOfOpenGates(Plain):
    def _expected_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._is_on(log_alpha, beta, gamma, zeta).astype(float)


_hard = partial(_net, at="hard_cost")


@_hard(
    "hard-cost-by-prob",
    formula="a gate is open if P(z != 0) > 1/2",
    sentence="your cost at test time takes a gate to be open if P(z != 0) > 1/2; it is open if "
    "Eq. 13 gives more than 0",
)
class HardCostByProb(Plain):
    def _is_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._prob(log_alpha, beta, gamma, zeta)[0] > 0.5


@_hard(
    "hard-cost-by-sign",
    formula="a gate is open if log_alpha > 0",
    sentence="your cost at test time takes a gate to be open if log_alpha > 0; it is open if "
    "Eq. 13 gives more than 0, from log(-gamma/zeta) on",
)
class HardCostBySign(Plain):
    def _is_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha > 0


@_hard(
    "hard-cost-by-half",
    formula="a gate is open if z_hat > 1/2",
    sentence="your cost at test time takes a gate to be open if it is above 1/2; it costs the "
    "same whatever its size, unless it is 0",
)
class HardCostByHalf(Plain):
    def _is_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_gate(log_alpha, beta, gamma, zeta)[0] > 0.5


@_hard(
    "hard-cost-by-threshold",
    formula="a gate is open if z_hat > 0.01",
    sentence="your cost at test time takes a gate to be open only above a threshold, such as "
    "0.01; it costs the same whatever its size, unless it is 0",
)
class HardCostByThreshold(Plain):
    def _is_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_gate(log_alpha, beta, gamma, zeta)[0] > 0.01


@_conv(
    "flops-of-the-authors",
    formula="one side; (C, H) for (H, W); not floored; dilation and groups ignored",
    sentence="you count like the paper's own code: one side of each weight, (C, H) for (H, W), "
    "fractions of places, no dilation and no groups",
    wild=_COUNT,
)
class FlopsOfTheAuthors(FlopsSizeFromChannels, ConvCountsIgnoreGroups, CostOneSided):
    def _output_size(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Any:
        return (size + 2 * padding - kernel) / stride + 1
