"""Known mistakes in what the gates are made to pay."""

# What a class is, its entry says.
# ruff: noqa: D101, D102

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..plain import Law, Plain
from .catalogue import AUTHORS, known

_l0 = partial(known, area="The expected L0", at="expected_l0")
_size = partial(known, area="What a gate governs", at="group_size")
_scale = partial(known, area="Lambda and N", at="penalty")
_norm = partial(known, area="The expected L2 and L1", at="expected_l2")


@_l0(
    "l0-without-group-size",
    formula="L0 = sum_g P(z_g != 0)",
    sentence="your expected L0 counts gates; it counts parameters: each gate |g| times",
    wild="asappresearch/flop, flop/hardconcrete.py, `l0_norm`; PolicyEngine/L0, "
    "l0/distributions.py, `get_penalty`",
)
class L0WithoutGroupSize(Plain):
    def expected_l0(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return super().expected_l0(log_alpha, np.ones_like(log_alpha), **law)

    def expected_l0_grad(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return super().expected_l0_grad(log_alpha, np.ones_like(log_alpha), **law)


class _DividedL0(Plain):
    """The expected L0 is divided by something."""

    def _divisor(self, group_size: Any) -> Any:
        raise NotImplementedError

    def expected_l0(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return super().expected_l0(log_alpha, group_size, **law) / self._divisor(group_size)

    def expected_l0_grad(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return super().expected_l0_grad(log_alpha, group_size, **law) / self._divisor(group_size)


@_l0(
    "l0-mean-over-gates",
    formula="L0 = mean_g |g| P(z_g != 0)",
    sentence="your expected L0 is averaged over the gates, not added up",
    wild="mims-harvard/GraphXAI, graphxai/explainers/graphmask/hard_concrete.py (of P alone)",
)
class L0MeanOverGates(_DividedL0):
    def _divisor(self, group_size: Any) -> Any:
        return np.size(group_size)


@_l0(
    "l0-mean-of-prob",
    formula="L0 = mean_g P(z_g != 0)",
    sentence="your expected L0 is the mean of P(z != 0) over the gates: neither added up nor "
    "weighted by |g|",
    wild="mims-harvard/GraphXAI, graphxai/explainers/graphmask/hard_concrete.py",
)
class L0MeanOfProb(L0MeanOverGates, L0WithoutGroupSize):
    pass


@_l0(
    "l0-is-density",
    formula="L0 = sum_g |g| P(z_g != 0) / sum_g |g|",
    sentence="your expected L0 is a share of all parameters; lambda multiplies a count",
    wild="gallego-posada/constrained_sparsity, sparse/l0_layers.py, `BaseL0Layer.regularization` "
    "(by design: a constraint is put on it)",
)
class L0IsDensity(_DividedL0):
    def _divisor(self, group_size: Any) -> Any:
        return np.sum(group_size)


@_l0(
    "l0-of-prob-squared",
    formula="L0 = sum_g |g| P(z_g != 0)^2",
    sentence="your expected L0 has P(z != 0) squared",
)
class L0OfProbSquared(Plain):
    def expected_l0(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return (self.prob_active(log_alpha, **law) ** 2 * group_size).sum()

    def expected_l0_grad(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        prob = self.prob_active(log_alpha, **law)
        return 2 * prob * self.prob_active_grad(log_alpha, **law) * group_size


@_l0(
    "l0-detached",
    at="expected_l0_grad",
    formula="dL0/dlog_alpha = 0",
    sentence="your penalty has no gradient in log_alpha: it is detached from the graph",
)
class L0Detached(Plain):
    def expected_l0_grad(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return np.zeros_like(log_alpha)


# --- |g| ---


@_size(
    "group-size-one",
    formula="|g| = 1",
    sentence="your |g| is 1 for every gate: it is the number of parameters that go with it",
)
class GroupSizeOne(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        return np.ones_like(super()._count(weight_shape, on, gates_bias))


@_size(
    "group-size-without-bias",
    formula="|g| = number of weights, though the bias goes with them",
    sentence="your |g| leaves out the bias that the gate switches off",
)
class GroupSizeWithoutBias(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        return super()._count(weight_shape, on, False)


@_size(
    "group-size-always-with-bias",
    formula="|g| = number of weights + 1, though the bias stays",
    sentence="your |g| counts a bias that stays on whatever the gate does",
)
class GroupSizeAlwaysWithBias(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        return super()._count(weight_shape, on, True)


@_size(
    "group-size-bias-subtracted",
    formula="|g| = number of weights - 1, where the bias goes with them",
    sentence="your |g| takes the gated bias off; it is added (a wrong sign before its lambda)",
    wild=f"{AUTHORS}, l0_layers.py, `L0Conv2d._reg_w` (its logpb has -lamba within a minus)",
)
class GroupSizeBiasSubtracted(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        without = super()._count(weight_shape, on, False)
        return without - 1 if self._bias_is_gated(on, gates_bias) else without


@_size(
    "group-size-of-other-side",
    formula="|g| = D_in for a gate on an input, D_out for one on an output",
    sentence="your |g| of a dense layer is the number of gates, not of the weights of each",
)
class GroupSizeOfOtherSide(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        size = super()._count(weight_shape, on, gates_bias)
        if len(weight_shape) != 2 or on == "weights":
            return size
        own, other = weight_shape if on == "inputs" else weight_shape[::-1]
        return size - other + own


@_size(
    "group-size-without-kernel",
    formula="|g| = C_in/groups, + 1 if the bias goes with the map",
    sentence="your |g| of a map leaves out the size of the kernel",
)
class GroupSizeWithoutKernel(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        if on == "weights":
            return super()._count(weight_shape, on, gates_bias)
        return super()._count(weight_shape[:2] + (1,) * len(weight_shape[2:]), on, gates_bias)


@_size(
    "group-size-square-kernel",
    formula="|g| = C_in/groups kh kh, + 1 if the bias goes with the map",
    sentence="your |g| of a map takes the kernel to be square",
)
class GroupSizeSquareKernel(Plain):
    def _count(self, weight_shape: tuple[int, ...], on: str, gates_bias: bool) -> Any:
        if on == "weights" or len(weight_shape) == 2:
            return super()._count(weight_shape, on, gates_bias)
        return super()._count((*weight_shape[:3], weight_shape[2]), on, gates_bias)


# --- lambda and N ---


@_scale(
    "lambda-not-divided-by-n",
    formula="penalty = lam L0 + l2/(2N) L2",
    sentence="your lambda is not divided by N, the number of training examples",
)
class LambdaNotDividedByN(Plain):
    def _l0_scale(self, lam: float, n_train: int) -> float:
        return lam


@_scale(
    "penalty-not-divided-by-n",
    formula="penalty = lam L0 + l2/2 L2",
    sentence="your penalty is not divided by N, the number of training examples",
)
class PenaltyNotDividedByN(LambdaNotDividedByN):
    def _l2_scale(self, l2: float, n_train: int) -> float:
        return l2 / 2


@_scale(
    "lambda-divided-twice",
    formula="penalty = lam/N^2 L0 + l2/(2N) L2",
    sentence="your lambda is divided by N twice",
)
class LambdaDividedTwice(Plain):
    def _l0_scale(self, lam: float, n_train: int) -> float:
        return lam / n_train**2


@_scale(
    "penalty-divided-twice",
    formula="penalty = lam/N^2 L0 + l2/(2N^2) L2",
    sentence="your penalty is divided by N twice",
)
class PenaltyDividedTwice(LambdaDividedTwice):
    def _l2_scale(self, l2: float, n_train: int) -> float:
        return l2 / (2 * n_train**2)


@_scale(
    "lambda-halved",
    formula="penalty = lam/(2N) L0 + l2/(2N) L2",
    sentence="your lambda is halved; only the L2 has a factor 1/2",
)
class LambdaHalved(Plain):
    def _l0_scale(self, lam: float, n_train: int) -> float:
        return lam / (2 * n_train)


@_scale(
    "lambda-on-density",
    formula="penalty = lam L0 / (number of parameters) + l2/(2N) L2",
    sentence="your lambda multiplies the share of parameters that are on; it multiplies their "
    "number, and is divided by N",
)
class LambdaOnDensity(LambdaNotDividedByN):
    def _l0(self, log_alpha: Any, weight: Any, on: str, gates_bias: bool, law: Any) -> Any:
        value, slope = super()._l0(log_alpha, weight, on, gates_bias, law)
        total = np.sum(self._count(weight.shape, on, gates_bias))
        return value / total, slope / total


@known(
    "penalty-divided-by-batch",
    area="Lambda and N",
    at="loss_and_grads",
    formula="loss = cross-entropy + lam/(batch) L0 + l2/(2 batch) L2",
    sentence="your penalty is divided by the size of the batch; N is the number of all training "
    "examples",
)
class PenaltyDividedByBatch(Plain):
    def _penalty_per_step(self, lam: float, l2: float, n_train: int, batch: int) -> Any:
        return lam, l2, batch


@known(
    "penalty-scaled-by-batch",
    area="Lambda and N",
    at="loss_and_grads",
    formula="loss = cross-entropy + (batch/N) (lam L0 + l2/2 L2)",
    sentence="your penalty is multiplied by the size of the batch: the data's loss is a mean, so "
    "the penalty is divided by N and nothing else",
)
class PenaltyScaledByBatch(Plain):
    def _penalty_per_step(self, lam: float, l2: float, n_train: int, batch: int) -> Any:
        return lam * batch, l2 * batch, n_train


@known(
    "penalty-forgotten",
    area="Lambda and N",
    at="loss_and_grads",
    formula="loss = cross-entropy",
    sentence="your training has no penalty in its loss",
)
class PenaltyForgotten(Plain):
    def _penalty_per_step(self, lam: float, l2: float, n_train: int, batch: int) -> Any:
        return 0.0, 0.0, n_train


@_scale(
    "l2-without-half",
    formula="penalty = lam/N L0 + l2/N L2",
    sentence="your L2 term lacks its factor 1/2",
)
class L2WithoutHalf(Plain):
    def _l2_scale(self, l2: float, n_train: int) -> float:
        return l2 / n_train


@_scale(
    "lambda-not-divided-by-n-l2-without-half",
    formula="penalty = lam L0 + l2/N L2",
    sentence="your lambda is not divided by N, the number of training examples, and your L2 term "
    "lacks its factor 1/2",
)
class LambdaNotDividedByNL2WithoutHalf(LambdaNotDividedByN):
    def _l2_scale(self, l2: float, n_train: int) -> float:
        return l2 / n_train


@_scale(
    "l2-not-divided-by-n",
    formula="penalty = lam/N L0 + l2/2 L2",
    sentence="your L2 term is not divided by N",
)
class L2NotDividedByN(Plain):
    def _l2_scale(self, l2: float, n_train: int) -> float:
        return l2 / 2


@_scale(
    "l2-forgotten",
    formula="penalty = lam/N L0",
    sentence="your penalty has no L2 term",
)
class L2Forgotten(Plain):
    def _l2_scale(self, l2: float, n_train: int) -> float:
        return 0.0


# --- the expected L2 and L1 ---


@_norm(
    "norm-without-prob",
    formula="L2 = sum_g sum_j theta_j^2",
    sentence="your L2 is not multiplied by P(z != 0) (Eq. 14): it is plain weight decay",
)
class NormWithoutProb(Plain):
    def _norm_weight(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return np.ones_like(log_alpha), np.zeros_like(log_alpha)


@_norm(
    "norm-with-test-gate-squared",
    formula="L2 = sum_g z_hat^2 sum_j theta_j^2",
    sentence="your L2 is that of the gated weights, (z_hat theta)^2; Eq. 14 has P(z != 0) theta^2, "
    "so that a gate's size does not shrink the weight",
    wild="cj-torres/L0_Regularization, L0_Regularizer.py, `count_l2`",
)
class NormWithTestGateSquared(Plain):
    def _norm_weight(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        z, slope = self._test_gate(log_alpha, beta, gamma, zeta)
        return z**2, 2 * z * slope


@_norm(
    "norm-with-test-gate",
    formula="L2 = sum_g z_hat sum_j theta_j^2",
    sentence="your L2 is weighted by the test gate; Eq. 14 has P(z != 0)",
)
class NormWithTestGate(Plain):
    def _norm_weight(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_gate(log_alpha, beta, gamma, zeta)


@_norm(
    "norm-with-second-moment",
    formula="L2 = sum_g E[z^2] sum_j theta_j^2",
    sentence="your L2 is weighted by E[z^2]; Eq. 14 has P(z != 0), so that a gate's size does not "
    "shrink the weight",
)
class NormWithSecondMoment(Plain):
    def _norm_weight(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        moments = self._moments(log_alpha, beta, gamma, zeta)
        return moments.mean**2 + moments.var, moments.d_second


@_norm(
    "norm-with-prob-squared",
    formula="L2 = sum_g P(z_g != 0)^2 sum_j theta_j^2",
    sentence="your L2 has P(z != 0) squared (the gate's probability is applied to the weights "
    "before they are squared)",
)
class NormWithProbSquared(Plain):
    def _norm_weight(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob, _, slope = self._prob(log_alpha, beta, gamma, zeta)
        return prob**2, 2 * prob * slope


@_norm(
    "norm-over-other-axis",
    formula="L2 = sum_g P(z_g != 0) sum_i theta_ig^2, for theta_gi: the other axis of the weights",
    sentence="your L2 applies P(z != 0) along the other axis of the weights: it is that of "
    "theta's transpose, if theta is square (and of theta reshaped to a row for each gate, if not)",
)
class NormOverOtherAxis(Plain):
    def _expected_norm(
        self,
        power: int,
        log_alpha: Any,
        weight: Any,
        bias: Any,
        on: str,
        gates_bias: bool,
        law: Law,
    ) -> Any:
        if on == "weights":
            return super()._expected_norm(power, log_alpha, weight, bias, on, gates_bias, law)
        is_first = self._gates_axis(weight.ndim, on) == 0
        turned = np.swapaxes(weight, 0, 1) if is_first else weight
        value, (by_log_alpha, by_weight, by_bias) = super()._expected_norm(
            power, log_alpha, np.zeros_like(weight), bias, on, gates_bias, law
        )
        prob, slope = self._norm_weight(log_alpha, **law)
        of_rows, d_rows = self._norm(power, turned.reshape(log_alpha.size, -1))
        sums = of_rows.sum(1)
        by_weight = (prob[:, None] * d_rows).reshape(turned.shape)
        by_weight = np.swapaxes(by_weight, 0, 1) if is_first else by_weight
        return value + (prob * sums).sum(), (by_log_alpha + slope * sums, by_weight, by_bias)


@_norm(
    "norm-grad-without-log-alpha",
    at="expected_l2_grad",
    formula="dL2/dlog_alpha = 0",
    sentence="your L2 has no gradient in log_alpha: P(z != 0) is detached in it",
    wild="gallego-posada/constrained_sparsity, sparse/l0_layers.py, `BaseL0Layer.l2_penalty` (with "
    "`l2_detach_gates`)",
)
class NormGradWithoutLogAlpha(Plain):
    def _norm_weight(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob, slope = super()._norm_weight(log_alpha, beta, gamma, zeta)
        return prob, np.zeros_like(slope)


@_norm(
    "norm-grad-without-two",
    at="expected_l2_grad",
    formula="dL2/dtheta = P theta",
    sentence="the gradient of your L2 in the weights lacks its factor 2",
)
class NormGradWithoutTwo(Plain):
    def _norm(self, power: int, x: Any) -> Any:
        value, slope = super()._norm(power, x)
        return value, slope / 2 if power == 2 else slope


@_norm(
    "norm-bias-forgotten",
    formula="L2 = sum_g P(z_g != 0) sum of the squares of its weights alone",
    sentence="your L2 and L1 leave out the bias that the gate switches off",
)
class NormBiasForgotten(Plain):
    def _expected_norm(
        self,
        power: int,
        log_alpha: Any,
        weight: Any,
        bias: Any,
        on: str,
        gates_bias: bool,
        law: Law,
    ) -> Any:
        return super()._expected_norm(power, log_alpha, weight, bias, on, False, law)


@_norm(
    "norm-with-every-bias",
    formula="L2 = sum_g P(z_g != 0) sum_j theta_j^2 + sum b^2",
    sentence="your L2 and L1 contain biases that no gate switches off",
    wild=f"{AUTHORS}, l0_layers.py, `L0Dense._reg_w`",
)
class NormWithEveryBias(Plain):
    def _expected_norm(
        self,
        power: int,
        log_alpha: Any,
        weight: Any,
        bias: Any,
        on: str,
        gates_bias: bool,
        law: Law,
    ) -> Any:
        value, (by_log_alpha, by_weight, by_bias) = super()._expected_norm(
            power, log_alpha, weight, bias, on, gates_bias, law
        )
        if not self._bias_is_gated(on, gates_bias):
            of_bias, slope = self._norm(power, bias)
            value, by_bias = value + of_bias.sum(), slope
        return value, (by_log_alpha, by_weight, by_bias)


@_norm(
    "norm-bias-not-weighted",
    formula="L2 = sum_g P(z_g != 0) sum of squares of its weights + sum b^2",
    sentence="in your L2 and L1 a gated bias is not multiplied by P(z != 0)",
)
class NormBiasNotWeighted(NormBiasForgotten):
    def _expected_norm(
        self,
        power: int,
        log_alpha: Any,
        weight: Any,
        bias: Any,
        on: str,
        gates_bias: bool,
        law: Law,
    ) -> Any:
        value, (by_log_alpha, by_weight, by_bias) = super()._expected_norm(
            power, log_alpha, weight, bias, on, gates_bias, law
        )
        if self._bias_is_gated(on, gates_bias):
            of_bias, slope = self._norm(power, bias)
            value, by_bias = value + of_bias.sum(), slope
        return value, (by_log_alpha, by_weight, by_bias)


@known(
    "l2-of-gated-layers-alone",
    area="The expected L2 and L1",
    at="loss_and_grads",
    formula="L2 over layers with gates, not over those without",
    sentence="your L2 leaves out the layers that have no gates; P = 1 there",
)
class L2OfGatedLayersAlone(Plain):
    def _layer_penalty(
        self, network: Any, layer: Any, lam: float, l2: float, n_train: int
    ) -> tuple[Any, dict[str, Any]]:
        if layer.get("on") is None:
            return 0.0, {}
        return super()._layer_penalty(network, layer, lam, l2, n_train)
