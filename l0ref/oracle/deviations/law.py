"""Known mistakes in the law of a gate: P(z != 0), the distribution function, the moments."""

# What a class is, its entry says.
# ruff: noqa: D101, D102

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..plain import Plain, sigmoid
from .catalogue import AUTHORS, known

_prob = partial(known, area="P(z != 0)", at="prob_active")
_law = partial(known, area="The law of a gate")

# --- P(z != 0), Eq. 12 ---


@_prob(
    "prob-plus-sign",
    formula="P = sigmoid(log_alpha + beta log(-gamma/zeta))",
    sentence="your P(z != 0) adds beta log(-gamma/zeta) where Eq. 12 subtracts it "
    "(or has zeta and gamma the other way round in the logarithm)",
)
class ProbPlusSign(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha + beta * np.log(-gamma / zeta)


@_prob(
    "prob-without-beta",
    formula="P = sigmoid(log_alpha - log(-gamma/zeta))",
    sentence="your P(z != 0) does not multiply log(-gamma/zeta) by beta",
)
class ProbWithoutBeta(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha - np.log(-gamma / zeta)


@_prob(
    "prob-beta-divides",
    formula="P = sigmoid(log_alpha - log(-gamma/zeta) / beta)",
    sentence="your P(z != 0) divides log(-gamma/zeta) by beta; Eq. 12 multiplies",
)
class ProbBetaDivides(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha - np.log(-gamma / zeta) / beta


@_prob(
    "prob-over-beta",
    formula="P = sigmoid((log_alpha - beta log(-gamma/zeta)) / beta)",
    sentence="your P(z != 0) divides everything in the sigmoid by beta; in Eq. 12 beta stands "
    "with log(-gamma/zeta) alone",
)
class ProbOverBeta(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha / beta - np.log(-gamma / zeta)

    def _active_slope(self, beta: float) -> float:
        return 1 / beta


@_prob(
    "prob-unshifted",
    formula="P = sigmoid(log_alpha)",
    sentence="your P(z != 0) is sigmoid(log_alpha): that of a gate that was never stretched",
)
class ProbUnshifted(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha


@_prob(
    "prob-of-closed",
    formula="P = 1 - sigmoid(log_alpha - beta log(-gamma/zeta))",
    sentence="your P(z != 0) is P(z = 0): the penalty opens gates",
)
class ProbOfClosed(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return beta * np.log(-gamma / zeta) - log_alpha

    def _active_slope(self, beta: float) -> float:
        return -1.0


@_prob(
    "prob-of-one",
    formula="P = P(z = 1) = sigmoid(log_alpha - beta log((1-gamma)/(zeta-1)))",
    sentence="your P(z != 0) is P(z = 1): it is taken at the other end of the stretch",
)
class ProbOfOne(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha - beta * np.log((1 - gamma) / (zeta - 1))


@_prob(
    "prob-below-one",
    formula="P = P(z < 1) = sigmoid(beta log((1-gamma)/(zeta-1)) - log_alpha)",
    sentence="your P(z != 0) is P(z < 1): the distribution function at 1, not its complement at 0",
)
class ProbBelowOne(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return beta * np.log((1 - gamma) / (zeta - 1)) - log_alpha

    def _active_slope(self, beta: float) -> float:
        return -1.0


@_prob(
    "prob-log10",
    formula="P = sigmoid(log_alpha - beta log10(-gamma/zeta))",
    sentence="your P(z != 0) takes a logarithm to base 10; all of them are natural",
)
class ProbLog10(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha - beta * np.log10(-gamma / zeta)


@_prob(
    "prob-log-of-gamma",
    formula="P = sigmoid(log_alpha - beta log(-gamma)/zeta)",
    sentence="your P(z != 0) has zeta outside of the logarithm",
)
class ProbLogOfGamma(Plain):
    def _active_logit(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return log_alpha - beta * np.log(-gamma) / zeta


@_prob(
    "prob-clamped",
    formula="P = 1 - clamp(Q(0), 1e-6, 1 - 1e-6), and dP = 0 where it clamps",
    sentence="your P(z != 0) is clamped to [1e-6, 1 - 1e-6]: the gradient of the penalty is "
    "exactly 0 beyond |log_alpha| of about 14, and its log and tail are wrong",
    wild=f"{AUTHORS}, l0_layers.py, `cdf_qz`; princeton-nlp/CoFiPruning, models/l0_module.py; "
    "lena-voita/the-story-of-heads, lib/layers/concrete_gate.py, `get_penalty`",
)
class ProbClamped(Plain):
    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob, _, slope = super()._prob(log_alpha, beta, gamma, zeta)
        inside = (prob > 1e-6) & (prob < 1 - 1e-6)
        clamped = np.clip(prob, 1e-6, 1 - 1e-6)
        return clamped, np.log(clamped), np.where(inside, slope, 0.0)


@known(
    "prob-by-subtraction",
    area="P(z != 0)",
    at="log_prob_active",
    given=2,
    formula="P = 1 - sigmoid(beta log(-gamma/zeta) - log_alpha), in floating point",
    sentence="your P(z != 0) is 1 minus a number close to 1: of a small P only noise is left, "
    "and its log is -inf",
    wild=f"{AUTHORS}, l0_layers.py, `_reg_w` (1 - cdf_qz(0)); "
    "bobondemon/l0_regularization_practice, sparsereg/model/basic_l0_blocks.py, "
    "`mask_is_non_zero_probability`",
)
class ProbBySubtraction(Plain):
    LOSES_DIGITS = ("prob_active",)

    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob = 1 - sigmoid(-self._active_logit(log_alpha, beta, gamma, zeta))
        return prob, np.log(prob), prob * (1 - prob)


@known(
    "log-prob-underflows",
    area="P(z != 0)",
    at="log_prob_active",
    given=3,
    formula="log P = log(sigmoid(...)), in floating point",
    sentence="your log P(z != 0) is the log of a P that has become 0: -inf, where the log of a "
    "sigmoid is min(x, 0) - log1p(exp(-|x|)), and finite",
)
class LogProbUnderflows(Plain):
    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob, _, slope = super()._prob(log_alpha, beta, gamma, zeta)
        return prob, np.log(prob), slope


@_prob(
    "prob-is-test-gate",
    formula="P = min(1, max(0, sigmoid(log_alpha) (zeta-gamma) + gamma))",
    sentence="your P(z != 0) is the test gate of Eq. 13: a size, not a probability",
)
class ProbIsTestGate(Plain):
    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        z, slope = self._test_gate(log_alpha, beta, gamma, zeta)
        return z, np.log(z), slope


@_prob(
    "prob-is-mean",
    formula="P = E[z]",
    sentence="your P(z != 0) is E[z]: that is an expected L1 norm of the gates",
)
class ProbIsMean(Plain):
    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        moments = self._moments(log_alpha, beta, gamma, zeta)
        return moments.mean, np.log(moments.mean), moments.d_mean


@_prob(
    "prob-counts-open-gates",
    formula="P = 1 if the test gate is above 0, else 0; dP = 0",
    sentence="your P(z != 0) is 0 or 1, as the test gate is closed or open: it has no gradient",
)
class ProbCountsOpenGates(Plain):
    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        on = (self._test_gate(log_alpha, beta, gamma, zeta)[0] > 0).astype(float)
        return on, np.log(on), np.zeros_like(on)


@known(
    "prob-grad-without-complement",
    area="P(z != 0)",
    at="prob_active_grad",
    formula="dP/dlog_alpha = P",
    sentence="your derivative of P(z != 0) is P; it is P (1 - P)",
)
class ProbGradWithoutComplement(Plain):
    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob, log_prob, _ = super()._prob(log_alpha, beta, gamma, zeta)
        return prob, log_prob, prob


# --- distribution function and density ---


@_law(
    "cdf-unstretched",
    at="cdf",
    formula="Q(x) = sigmoid(beta logit(x) - log_alpha)",
    sentence="your distribution function is that of s, not of the stretched gate: x has to "
    "become (x - gamma) / (zeta - gamma) first",
)
class CdfUnstretched(Plain):
    def _unit(self, x: Any, gamma: float, zeta: float) -> Any:
        return np.log(x) - np.log1p(-x), 1 / x + 1 / (1 - x)


@_law(
    "cdf-divided-by-beta",
    at="cdf",
    formula="Q(x) = sigmoid(logit((x-gamma)/(zeta-gamma)) / beta - log_alpha)",
    sentence="your distribution function divides the logit by beta; the draw divides by beta, so "
    "its inverse multiplies",
)
class CdfDividedByBeta(Plain):
    def _cdf_logit(
        self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        place, slope = self._unit(x, gamma, zeta)
        return place / beta - log_alpha, slope / beta


@_law(
    "cdf-beta-on-log-alpha",
    at="cdf",
    formula="Q(x) = sigmoid(beta (logit((x-gamma)/(zeta-gamma)) - log_alpha))",
    sentence="your distribution function multiplies log_alpha by beta, too",
)
class CdfBetaOnLogAlpha(Plain):
    def _cdf_logit(
        self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        place, slope = self._unit(x, gamma, zeta)
        return beta * (place - log_alpha), beta * slope


@_law(
    "cdf-without-beta",
    at="cdf",
    formula="Q(x) = sigmoid(logit((x-gamma)/(zeta-gamma)) - log_alpha)",
    sentence="your distribution function has no beta",
)
class CdfWithoutBeta(Plain):
    def _cdf_logit(
        self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        place, slope = self._unit(x, gamma, zeta)
        return place - log_alpha, slope


@_law(
    "cdf-adds-log-alpha",
    at="cdf",
    formula="Q(x) = sigmoid(beta logit((x-gamma)/(zeta-gamma)) + log_alpha)",
    sentence="your distribution function adds log_alpha: the larger it is, the smaller are gates",
)
class CdfAddsLogAlpha(Plain):
    def _cdf_logit(
        self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        return super()._cdf_logit(x, -log_alpha, beta, gamma, zeta)


@_law(
    "cdf-without-atoms",
    at="cdf",
    formula="Q(x) = P(s_bar <= x), also below 0 and from 1 on",
    sentence="your distribution function is that of s_bar before it is clipped: below 0 it is not "
    "0, and at 1 it is not 1",
)
class CdfWithoutAtoms(Plain):
    def _with_atoms(self, inside: Any, x: Any, below: float, above: float) -> Any:
        law = np.where(np.isnan(inside), np.where(x > 0.5, above, below), inside)
        return np.where(np.isnan(x), np.nan, law)


@_law(
    "sf-by-subtraction",
    at="sf",
    formula="P(z > x) = 1 - cdf(x), in floating point",
    sentence="your P(z > x) is 1 minus the distribution function: nothing is left of a small one",
)
class SfBySubtraction(Plain):
    LOSES_DIGITS = ("sf",)

    def sf(self, x: Any, log_alpha: Any, **law: float) -> Any:
        return 1 - self.cdf(x, log_alpha, **law)


@_law(
    "pdf-without-stretch",
    at="pdf",
    formula="q(x) = q_s((x-gamma)/(zeta-gamma))",
    sentence="your density lacks the factor 1 / (zeta - gamma) of the stretch",
)
class PdfWithoutStretch(Plain):
    def _unit(self, x: Any, gamma: float, zeta: float) -> Any:
        place, slope = super()._unit(x, gamma, zeta)
        return place, slope * (zeta - gamma)


@_law(
    "pdf-without-beta",
    at="pdf",
    formula="q(x) = Q (1-Q) (1/(x-gamma) + 1/(zeta-x))",
    sentence="your density lacks the factor beta",
)
class PdfWithoutBeta(Plain):
    def _cdf_logit(
        self, x: Any, log_alpha: Any, beta: float, gamma: float, zeta: float
    ) -> tuple[Any, Any]:
        t, slope = super()._cdf_logit(x, log_alpha, beta, gamma, zeta)
        return t, slope / beta


# --- moments ---


class _OtherMean(Plain):
    """E[z] is something else; the variance is right."""

    def _mean(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        raise NotImplementedError

    def _moments(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        moments = super()._moments(log_alpha, beta, gamma, zeta)
        return moments._replace(mean=self._mean(log_alpha, beta, gamma, zeta))


@_law(
    "mean-is-test-gate",
    at="mean",
    formula="E[z] = min(1, max(0, sigmoid(log_alpha) (zeta-gamma) + gamma))",
    sentence="your E[z] is the test gate of Eq. 13, which is not the mean",
    wild="google-research/google-research, state_of_sparsity/layers/l0_regularization/common.py, "
    "`hard_concrete_mean` (as a name for Eq. 13)",
)
class MeanIsTestGate(_OtherMean):
    def _mean(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_gate(log_alpha, beta, gamma, zeta)[0]


@_law(
    "mean-is-median",
    at="mean",
    formula="E[z] = min(1, max(0, sigmoid(log_alpha/beta) (zeta-gamma) + gamma))",
    sentence="your E[z] is the median: the draw at u = 1/2",
    wild="PolicyEngine/L0, l0/distributions.py, `_deterministic_gates` (called the mean there)",
)
class MeanIsMedian(_OtherMean):
    def _mean(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        half = np.full(np.shape(log_alpha), 0.5)
        return self._draw(log_alpha, half, beta, gamma, zeta).z


@_law(
    "mean-is-prob",
    at="mean",
    formula="E[z] = P(z != 0)",
    sentence="your E[z] is P(z != 0), as if a gate that is not 0 were 1",
)
class MeanIsProb(_OtherMean):
    def _mean(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._prob(log_alpha, beta, gamma, zeta)[0]


@_law(
    "var-is-second-moment",
    at="var",
    formula="Var[z] = E[z^2]",
    sentence="your Var[z] is E[z^2]: the square of the mean is not taken off",
)
class VarIsSecondMoment(Plain):
    def _moments(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        moments = super()._moments(log_alpha, beta, gamma, zeta)
        return moments._replace(var=moments.var + moments.mean**2)


@_law(
    "var-of-bernoulli",
    at="var",
    formula="Var[z] = P (1 - P)",
    sentence="your Var[z] is P (1 - P): that of a gate that is 0 or 1 and nothing between",
)
class VarOfBernoulli(Plain):
    def _moments(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob = self._prob(log_alpha, beta, gamma, zeta)[0]
        return super()._moments(log_alpha, beta, gamma, zeta)._replace(var=prob * (1 - prob))
