"""Known mistakes in a gate's value: the noise, the stretch, the derivative, the test gate."""

# What a class is, its entry says.
# ruff: noqa: D101

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..plain import Draw, Plain, logit, sigmoid
from .catalogue import AUTHORS, known

_draw = partial(known, area="Drawing a gate", at="sample")
_slope = partial(known, area="The derivative of a draw", at="sample_vjp")
_test = partial(known, area="The gate at test time", at="test_time")
_init = partial(known, area="Initialisation", at="init_log_alpha")


def _zero_or_one(is_one: Any, where: Any) -> Any:
    """Return numbers for booleans; not a number where there is none."""
    return np.where(np.isnan(where), np.nan, is_one)


# --- noise ---


@_draw(
    "noise-plus",
    formula="s = sigmoid((log u + log(1-u) + log_alpha) / beta)",
    sentence="your noise is log u + log(1-u), which is never positive; it is log u - log(1-u)",
    wild="moskomule/l0.pytorch, l0module.py at commit 340a683 (mended in e32da1b)",
)
class NoisePlus(Plain):
    def _noise(self, u: Any) -> Any:
        return np.log(u) + np.log1p(-u)


@_draw(
    "noise-reversed",
    formula="s = sigmoid((log(1-u) - log u + log_alpha) / beta)",
    sentence="your noise is log(1-u) - log u: the same law, but another gate for a given u, and "
    "quantiles that fall",
)
class NoiseReversed(Plain):
    def _noise(self, u: Any) -> Any:
        return -logit(u)


@_draw(
    "noise-one-sided",
    formula="s = sigmoid((log u + log_alpha) / beta)",
    sentence="your noise is log u alone; log(1-u) has to be taken off",
)
class NoiseOneSided(Plain):
    def _noise(self, u: Any) -> Any:
        return np.log(u)


@_draw(
    "noise-gumbel",
    formula="s = sigmoid((log_alpha - log(-log u)) / beta)",
    sentence="your noise is one Gumbel variable; two states need the difference of two, which is "
    "logistic: log u - log(1-u)",
    wild="rezashkv/diffusion_pruning, pdm/utils/estimation_utils.py, `gumbel_softmax_sample`",
)
class NoiseGumbel(Plain):
    def _noise(self, u: Any) -> Any:
        return -np.log(-np.log(u))


@_draw(
    "noise-is-u",
    formula="s = sigmoid((u + log_alpha) / beta)",
    sentence="your noise is u itself, not its logit",
)
class NoiseIsU(Plain):
    def _noise(self, u: Any) -> Any:
        return u


@_draw(
    "noise-logit-halved",
    formula="s = sigmoid(((log u - log(1-u)) / 2 + log_alpha) / beta)",
    sentence="your noise is half the logit of u",
)
class NoiseLogitHalved(Plain):
    def _noise(self, u: Any) -> Any:
        return logit(u) / 2


@_draw(
    "noise-u-clamped",
    formula="u is first clamped to [1e-6, 1 - 1e-6]",
    sentence="you clamp u to [1e-6, 1 - 1e-6]: draws in both tails are cut off",
    wild="AMLab-Amsterdam/L0_regularization, l0_layers.py, `get_eps`; princeton-nlp/CoFiPruning, "
    "models/l0_module.py, `get_eps` (u is drawn between these, which is the same up to the ends)",
)
class NoiseUClamped(Plain):
    def _noise(self, u: Any) -> Any:
        return logit(np.clip(u, 1e-6, 1 - 1e-6))


@_draw(
    "noise-epsilon-in-log",
    formula="noise = log(u + 1e-8) - log(1 - u)",
    sentence="you add 1e-8 to u in the logarithm: the lower tail of the noise is cut off",
    wild="google-research/google-research, state_of_sparsity/layers/l0_regularization/common.py, "
    "`hard_concrete_sample`",
)
class NoiseEpsilonInLog(Plain):
    def _noise(self, u: Any) -> Any:
        return np.log(u + 1e-8) - np.log1p(-u)


@_draw(
    "noise-epsilon-in-logs",
    formula="noise = log(u + 1e-8) - log(1 - u + 1e-8)",
    sentence="you add 1e-8 to u and to 1 - u in the logarithms: both tails of the noise are cut "
    "off",
)
class NoiseEpsilonInLogs(Plain):
    def _noise(self, u: Any) -> Any:
        return np.log(u + 1e-8) - np.log(1 - u + 1e-8)


# --- temperature ---


@_draw(
    "beta-on-noise-only",
    formula="s = sigmoid((log u - log(1-u)) / beta + log_alpha)",
    sentence="you divide only the noise by beta; log_alpha has to be divided, too",
)
class BetaOnNoiseOnly(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return noise / beta + location, slope, -noise / beta**2


@_draw(
    "beta-on-log-alpha-only",
    formula="s = sigmoid(log u - log(1-u) + log_alpha / beta)",
    sentence="you divide only log_alpha by beta; the noise has to be divided, too",
)
class BetaOnLogAlphaOnly(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return noise + location / beta, slope / beta, -location / beta**2


@_draw(
    "beta-omitted",
    formula="s = sigmoid(log u - log(1-u) + log_alpha)",
    sentence="your draw has no beta: noise and log_alpha are not divided by it",
)
class BetaOmitted(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return noise + location, slope, 0.0


@_draw(
    "beta-multiplies",
    formula="s = sigmoid((log u - log(1-u) + log_alpha) beta)",
    sentence="your draw multiplies by beta; Eq. 10 divides",
)
class BetaMultiplies(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return (noise + location) * beta, slope * beta, noise + location


@_draw(
    "beta-after-sigmoid",
    formula="s = sigmoid(log u - log(1-u) + log_alpha) / beta",
    sentence="you divide by beta behind the sigmoid, not in it",
)
class BetaAfterSigmoid(BetaOmitted):
    def _squash(self, t: Any, beta: float) -> Any:
        s, slope, _ = super()._squash(t, beta)
        return s / beta, slope / beta, -s / beta**2


@_draw(
    "alpha-for-log-alpha",
    formula="s = sigmoid((log u - log(1-u) + exp(log_alpha)) / beta)",
    sentence="your draw adds alpha; Eq. 10 adds its logarithm",
)
class AlphaForLogAlpha(Plain):
    def _location(self, log_alpha: Any) -> Any:
        return np.exp(log_alpha), np.exp(log_alpha)


@_draw(
    "log-alpha-clamped",
    formula="log_alpha is first clamped to [log 0.01, log 100], in the graph",
    sentence="you clamp log_alpha to [log 0.01, log 100] in the formulas: its gradient is 0 "
    "beyond, and no gate can come back",
    wild=f"{AUTHORS}, l0_layers.py, `constrain_parameters` (there on the parameters, after each "
    "step)",
)
class LogAlphaClamped(Plain):
    LIMIT = float(np.log(100))

    def _clamp(self, log_alpha: Any) -> Any:
        inside = np.abs(log_alpha) < self.LIMIT
        return np.clip(log_alpha, -self.LIMIT, self.LIMIT), inside

    def _location(self, log_alpha: Any) -> Any:
        clamped, inside = self._clamp(log_alpha)
        return clamped, inside.astype(float)

    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        clamped, inside = self._clamp(log_alpha)
        z, slope = super()._test_gate(clamped, beta, gamma, zeta)
        return z, slope * inside

    def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        clamped, inside = self._clamp(log_alpha)
        prob, log_prob, slope = super()._prob(clamped, beta, gamma, zeta)
        return prob, log_prob, slope * inside


@known(
    "log-alpha-clamped-at-20",
    area="Drawing a gate",
    at="log_prob_active",
    formula="log_alpha is first clamped to [-20, 20], in the graph",
    sentence="you clamp log_alpha to [-20, 20] in the formulas: its gradient is 0 beyond",
    wild="PolicyEngine/L0, l0/distributions.py, `LOG_ALPHA_BOUND`",
)
class LogAlphaClampedAt20(LogAlphaClamped):
    LIMIT = 20.0


# --- stretch and clip ---


@_draw(
    "stretch-plus",
    formula="s_bar = s (zeta + gamma) + gamma",
    sentence="your stretch multiplies by zeta + gamma; it is zeta - gamma",
)
class StretchPlus(Plain):
    def _stretch(self, s: Any, gamma: float, zeta: float) -> Any:
        return s * (zeta + gamma) + gamma, zeta + gamma, s + 1, s


@_draw(
    "stretch-without-shift",
    formula="s_bar = s (zeta - gamma)",
    sentence="your stretch does not add gamma: no gate is ever closed",
)
class StretchWithoutShift(Plain):
    def _stretch(self, s: Any, gamma: float, zeta: float) -> Any:
        return s * (zeta - gamma), zeta - gamma, -s, s


@_draw(
    "stretch-to-zeta-plus-gamma",
    formula="s_bar = s zeta + gamma",
    sentence="your stretch multiplies by zeta; it is zeta - gamma, so that s = 1 gives zeta",
)
class StretchToZetaPlusGamma(Plain):
    def _stretch(self, s: Any, gamma: float, zeta: float) -> Any:
        return s * zeta + gamma, zeta, np.ones_like(s), s


@_draw(
    "stretch-forgotten",
    formula="z = s",
    sentence="your gates are not stretched: the plain concrete is never exactly 0 or 1",
)
class StretchForgotten(Plain):
    def _stretch(self, s: Any, gamma: float, zeta: float) -> Any:
        return s, 1.0, np.zeros_like(s), np.zeros_like(s)


@_draw(
    "clip-forgotten",
    formula="z = s (zeta - gamma) + gamma, between gamma and zeta",
    sentence="your gates are not clipped to [0, 1] after the stretch (to clip before it does "
    "nothing)",
)
class ClipForgotten(Plain):
    def _clip(self, s_bar: Any) -> Any:
        return s_bar, np.ones_like(s_bar)


@_draw(
    "clip-forgotten-in-draws",
    formula="z = s (zeta - gamma) + gamma in training, clipped at test time",
    sentence="your drawn gates are not clipped to [0, 1] after the stretch; those at test time are",
)
class ClipForgottenInDraws(Plain):
    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        return ClipForgotten()._draw(log_alpha, u, beta, gamma, zeta)


@_draw(
    "draw-binarised",
    formula="z = 1 if the gate is above 1/2, else 0; the derivative is the gate's",
    sentence="your draws are rounded to 0 or 1, with the soft gate's derivative (straight through)",
    wild="mims-harvard/GraphXAI, graphxai/explainers/graphmask/hard_concrete.py; "
    "lena-voita/the-story-of-heads, lib/layers/concrete_gate.py, `get_gates` (with `hard`)",
)
class DrawBinarised(Plain):
    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        draw = super()._draw(log_alpha, u, beta, gamma, zeta)
        return draw._replace(z=_zero_or_one(draw.z > 0.5, draw.z))


@_draw(
    "noise-one-for-all-gates",
    formula="one u a draw, for all gates",
    sentence="all your gates have the same noise: they open and close together",
)
class NoiseOneForAllGates(Plain):
    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        u = np.asarray(u)
        first = u.reshape(-1)[0] if u.shape == np.shape(log_alpha) else u.reshape(len(u), -1)[:, 0]
        spread = np.reshape(first, np.shape(first) + (1,) * (u.ndim - np.ndim(first)))
        return super()._draw(log_alpha, np.broadcast_to(spread, u.shape), beta, gamma, zeta)


@known(
    "noise-one-for-all-draws",
    area="Drawing a gate",
    at="draw",
    formula="the same u in each of the n draws",
    sentence="all your draws are the same draw: the noise is not drawn anew",
)
class NoiseOneForAllDraws(Plain):
    def _uniform(self, shape: tuple[int, ...], n: int, seed: int) -> Any:
        return np.broadcast_to(super()._uniform(shape, 1, seed), (n, *shape))


# --- the derivative ---


class _Scaled(Plain):
    """The derivative in log_alpha is off by a factor, and nothing else is."""

    def _factor(self, draw: Draw, beta: float, gamma: float, zeta: float) -> Any:
        raise NotImplementedError

    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        draw = super()._draw(log_alpha, u, beta, gamma, zeta)
        factor = self._factor(draw, beta, gamma, zeta)
        return draw._replace(d_log_alpha=draw.d_log_alpha * factor)


@_slope(
    "draw-grad-without-beta",
    formula="dz/dlog_alpha = (zeta - gamma) s (1-s)",
    sentence="your derivative of a draw lacks the factor 1/beta",
)
class DrawGradWithoutBeta(_Scaled):
    def _factor(self, draw: Draw, beta: float, gamma: float, zeta: float) -> Any:
        return beta


@_slope(
    "draw-grad-without-stretch",
    formula="dz/dlog_alpha = s (1-s) / beta",
    sentence="your derivative of a draw lacks the factor zeta - gamma",
)
class DrawGradWithoutStretch(_Scaled):
    def _factor(self, draw: Draw, beta: float, gamma: float, zeta: float) -> Any:
        return 1 / (zeta - gamma)


@_slope(
    "draw-grad-times-beta",
    formula="dz/dlog_alpha = beta (zeta - gamma) s (1-s)",
    sentence="your derivative of a draw multiplies by beta; it divides",
)
class DrawGradTimesBeta(_Scaled):
    def _factor(self, draw: Draw, beta: float, gamma: float, zeta: float) -> Any:
        return beta**2


@_slope(
    "draw-grad-negative",
    formula="dz/dlog_alpha = -(zeta - gamma) s (1-s) / beta",
    sentence="your derivative of a draw has the wrong sign",
)
class DrawGradNegative(_Scaled):
    def _factor(self, draw: Draw, beta: float, gamma: float, zeta: float) -> Any:
        return -1.0


@_slope(
    "draw-grad-at-z",
    formula="dz/dlog_alpha = (zeta - gamma) z (1-z) / beta",
    sentence="your derivative of a draw has z (1-z) for s (1-s): the sigmoid's own slope is at s, "
    "before the stretch",
)
class DrawGradAtZ(Plain):
    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        draw = super()._draw(log_alpha, u, beta, gamma, zeta)
        return draw._replace(d_log_alpha=(zeta - gamma) * draw.z * (1 - draw.z) / beta)


@_slope(
    "draw-grad-through-clip",
    formula="dz/dlog_alpha = (zeta - gamma) s (1-s) / beta, also where z is 0 or 1",
    sentence="your derivative of a draw goes on where z is clipped to 0 or 1; it is 0 there",
)
class DrawGradThroughClip(Plain):
    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        z = super()._draw(log_alpha, u, beta, gamma, zeta).z
        return ClipForgotten()._draw(log_alpha, u, beta, gamma, zeta)._replace(z=z)


@_slope(
    "draw-grad-of-one-less",
    formula="dz/dlog_alpha = (zeta - gamma) s / beta",
    sentence="your derivative of a draw has s for s (1-s)",
)
class DrawGradOfOneLess(_Scaled):
    def _draw(self, log_alpha: Any, u: Any, beta: float, gamma: float, zeta: float) -> Draw:
        draw = Plain._draw(self, log_alpha, u, beta, gamma, zeta)
        is_open = (draw.z > 0) & (draw.z < 1)
        slope = np.where(is_open, (draw.z - gamma) / beta, 0.0)
        return draw._replace(d_log_alpha=slope)


@known(
    "beta-partial-positive",
    area="The derivative of a draw",
    at="sample_partials",
    formula="dz/dbeta = +(zeta-gamma) s (1-s) (logit u + log_alpha) / beta^2",
    sentence="your derivative of a draw in beta has the wrong sign",
)
class BetaPartialPositive(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        t, by_location, by_beta = super()._heat(noise, location, slope, beta)
        return t, by_location, -by_beta


@known(
    "gamma-partial-one",
    area="The derivative of a draw",
    at="sample_partials",
    formula="dz/dgamma = 1",
    sentence="your derivative of a draw in gamma is 1; gamma is in the width of the stretch, too, "
    "which makes it 1 - s",
)
class GammaPartialOne(Plain):
    def _stretch(self, s: Any, gamma: float, zeta: float) -> Any:
        s_bar, by_s, _, by_zeta = super()._stretch(s, gamma, zeta)
        return s_bar, by_s, np.ones_like(s), by_zeta


# --- test time (Eq. 13) ---


@_test(
    "test-gate-median",
    formula="z_hat = min(1, max(0, sigmoid(log_alpha/beta) (zeta-gamma) + gamma))",
    sentence="your test gate is sigmoid(log_alpha/beta), stretched and clipped: the median gate, "
    "not Eq. 13, which has no beta",
    wild="PolicyEngine/L0, l0/distributions.py, `_deterministic_gates`; "
    "gallego-posada/constrained_sparsity, sparse/l0_layers.py, `evaluation_gates`",
)
class TestGateMedian(Plain):
    def _test_score(self, log_alpha: Any, beta: float) -> Any:
        s, slope = super()._test_score(log_alpha / beta, beta)
        return s, slope / beta


@_test(
    "test-gate-times-beta",
    formula="z_hat = min(1, max(0, sigmoid(beta log_alpha) (zeta-gamma) + gamma))",
    sentence="your test gate multiplies log_alpha by beta; Eq. 13 has no beta",
)
class TestGateTimesBeta(Plain):
    def _test_score(self, log_alpha: Any, beta: float) -> Any:
        s, slope = super()._test_score(log_alpha * beta, beta)
        return s, slope * beta


@_test(
    "test-gate-magic-number",
    formula="z_hat = min(1, max(0, sigmoid(0.8 log_alpha/beta) (zeta-gamma) + gamma))",
    sentence="your test gate has 0.8 log_alpha / beta in the sigmoid; Eq. 13 has log_alpha",
)
class TestGateMagicNumber(Plain):
    def _test_score(self, log_alpha: Any, beta: float) -> Any:
        s, slope = super()._test_score(0.8 * log_alpha / beta, beta)
        return s, 0.8 * slope / beta


class _Score(Plain):
    """The test gate is a score in (0, 1) as it is."""

    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return self._test_score(log_alpha, beta)


@_test(
    "test-gate-unstretched",
    formula="z_hat = sigmoid(log_alpha)",
    sentence="your test gate is sigmoid(log_alpha), not stretched and clipped: no gate is closed",
)
class TestGateUnstretched(_Score):
    pass


@_test(
    "test-gate-unstretched-median",
    formula="z_hat = sigmoid(log_alpha/beta)",
    sentence="your test gate is sigmoid(log_alpha/beta), not stretched and clipped",
)
class TestGateUnstretchedMedian(_Score, TestGateMedian):
    pass


@_test(
    "test-gate-unstretched-magic-number",
    formula="z_hat = sigmoid(0.8 log_alpha/beta)",
    sentence="your test gate is sigmoid(0.8 log_alpha/beta), not stretched and clipped",
)
class TestGateUnstretchedMagicNumber(_Score, TestGateMagicNumber):
    pass


@_test(
    "test-gate-top-k",
    formula="z_hat = sigmoid(0.8 log_alpha/beta), the round(n - sum P) smallest set to 0",
    sentence="your test gate is sigmoid(0.8 log_alpha/beta) with as many of the smallest set to 0 "
    "as are expected to be: it depends on the other gates",
    wild="princeton-nlp/CoFiPruning, models/l0_module.py, `_deterministic_z`; "
    "asappresearch/flop, flop/hardconcrete.py (without beta)",
)
class TestGateTopK(TestGateMagicNumber):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        s, slope = self._test_score(np.ravel(log_alpha), beta)
        prob = self._prob(np.ravel(log_alpha), beta, gamma, zeta)[0]
        closed = round(float(s.size - prob.sum())) if np.isfinite(prob).all() else 0
        smallest = np.argsort(s, kind="stable")[:closed]
        s[smallest], slope[smallest] = 0.0, 0.0
        return s.reshape(np.shape(log_alpha)), slope.reshape(np.shape(log_alpha))


@_test(
    "test-gate-is-prob",
    formula="z_hat = P(z != 0)",
    sentence="your test gate is P(z != 0)",
)
class TestGateIsProb(Plain):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        prob, _, slope = self._prob(log_alpha, beta, gamma, zeta)
        return prob, slope


@_test(
    "test-gate-is-mean",
    formula="z_hat = E[z]",
    sentence="your test gate is E[z]: never exactly 0, so that nothing can be taken out",
)
class TestGateIsMean(Plain):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        moments = self._moments(log_alpha, beta, gamma, zeta)
        return moments.mean, moments.d_mean


@_test(
    "test-gate-shifted",
    formula="z_hat = min(1, max(0, P (zeta-gamma) + gamma)) with P = P(z != 0)",
    sentence="your test gate stretches and clips P(z != 0): the shift by beta log(-gamma/zeta) "
    "belongs in Eq. 12 alone",
)
class TestGateShifted(Plain):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        shifted = self._active_logit(log_alpha, beta, gamma, zeta)
        return super()._test_gate(shifted, beta, gamma, zeta)


class _Binary(Plain):
    """The test gate is 0 or 1, and has no derivative."""

    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        on = _zero_or_one(self._is_one(log_alpha, beta, gamma, zeta), log_alpha)
        return on, np.zeros_like(on)

    def _is_one(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        raise NotImplementedError


@_test(
    "test-gate-rounded",
    formula="z_hat = 1 if log_alpha > 0, else 0",
    sentence="your test gate is rounded to 0 or 1 at log_alpha = 0",
)
class TestGateRounded(_Binary):
    def _is_one(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return np.asarray(log_alpha > 0)


@_test(
    "test-gate-open-is-one",
    formula="z_hat = 1 where Eq. 13 gives more than 0, else 0",
    sentence="your test gate is 1 wherever Eq. 13 leaves the gate open: its size is lost",
)
class TestGateOpenIsOne(_Binary):
    def _is_one(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return Plain._test_gate(self, log_alpha, beta, gamma, zeta)[0] > 0


@_test(
    "test-gate-prob-rounded",
    formula="z_hat = 1 if P(z != 0) > 1/2, else 0",
    sentence="your test gate is P(z != 0), rounded to 0 or 1",
)
class TestGateProbRounded(_Binary):
    def _is_one(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        return np.asarray(self._active_logit(log_alpha, beta, gamma, zeta) > 0)


@_test(
    "test-gate-not-clipped",
    formula="z_hat = sigmoid(log_alpha) (zeta-gamma) + gamma",
    sentence="your test gate is not clipped to [0, 1]; drawn gates are",
)
class TestGateNotClipped(Plain):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        s, slope = self._test_score(log_alpha, beta)
        s_bar, by_s, _, _ = self._stretch(s, gamma, zeta)
        return s_bar, by_s * slope


@known(
    "test-gate-grad-through-clip",
    area="The gate at test time",
    at="test_time_grad",
    formula="dz_hat/dlog_alpha = (zeta-gamma) s (1-s), also where z_hat is 0 or 1",
    sentence="your derivative of the test gate goes on where it is clipped; it is 0 there",
)
class TestGateGradThroughClip(Plain):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        z, _ = super()._test_gate(log_alpha, beta, gamma, zeta)
        return z, (zeta - gamma) * sigmoid(log_alpha) * sigmoid(-log_alpha)


@known(
    "test-gate-grad-without-stretch",
    area="The gate at test time",
    at="test_time_grad",
    formula="dz_hat/dlog_alpha = s (1-s)",
    sentence="your derivative of the test gate lacks the factor zeta - gamma",
)
class TestGateGradWithoutStretch(Plain):
    def _test_gate(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
        z, slope = super()._test_gate(log_alpha, beta, gamma, zeta)
        return z, slope / (zeta - gamma)


# --- initialisation ---


@_init(
    "init-keep-for-drop",
    formula="log_alpha = log(p / (1-p)) + 0.01 normal",
    sentence="your initial log_alpha takes the drop rate for a keep rate",
)
class InitKeepForDrop(Plain):
    def _init_location(self, drop_rate: float) -> float:
        return -super()._init_location(drop_rate)


@_init(
    "init-rate-for-log-odds",
    formula="log_alpha = (1 - p) + 0.01 normal",
    sentence="your initial log_alpha is the keep rate itself, not its log odds",
)
class InitRateForLogOdds(Plain):
    def _init_location(self, drop_rate: float) -> float:
        return 1 - drop_rate


@_init(
    "init-log-of-keep",
    formula="log_alpha = log(1 - p) + 0.01 normal",
    sentence="your initial log_alpha is the log of the keep rate, not its log odds",
)
class InitLogOfKeep(Plain):
    def _init_location(self, drop_rate: float) -> float:
        return float(np.log1p(-drop_rate))


@_init(
    "init-log10",
    formula="log_alpha = log10((1-p) / p) + 0.01 normal",
    sentence="your initial log_alpha takes a logarithm to base 10",
)
class InitLog10(Plain):
    def _init_location(self, drop_rate: float) -> float:
        return super()._init_location(drop_rate) / float(np.log(10))


@_init(
    "init-spread-of-tenth",
    formula="log_alpha = log((1-p)/p) + 0.1 normal",
    sentence="your initial log_alpha has a standard deviation of 0.1; 0.01 is the standard "
    "deviation, not the variance",
)
class InitSpreadOfTenth(Plain):
    def _init_spread(self) -> float:
        return 0.1


@_init(
    "init-without-noise",
    formula="log_alpha = log((1-p)/p)",
    sentence="your initial log_alpha has no noise",
    wild="PolicyEngine/L0, l0/distributions.py, `reset_parameters`",
)
class InitWithoutNoise(Plain):
    def _init_spread(self) -> float:
        return 0.0


_fan = partial(_init, at="init_weight")


@_fan(
    "init-fan-out",
    formula="weight = sqrt(2 / fan_out) normal",
    sentence="your initial weights are scaled by the outputs, not by the inputs: weights here are "
    "(D_in, D_out), and (C_out, C_in/groups, kh, kw)",
    wild="gallego-posada/constrained_sparsity, sparse/l0_layers.py, `L0Linear` (its weights are "
    "(D_out, D_in), and divided by the keep rate besides)",
)
class InitFanOut(Plain):
    def _fan_in(self, shape: tuple[int, ...]) -> int:
        return shape[1] if len(shape) == 2 else shape[0] * int(np.prod(shape[2:]))


@_fan(
    "init-fan-of-first-axis",
    formula="weight = sqrt(2 / len(weight)) normal",
    sentence="your initial weights are scaled by their first axis, which is not what a map of a "
    "convolution reads",
)
class InitFanOfFirstAxis(Plain):
    def _fan_in(self, shape: tuple[int, ...]) -> int:
        return shape[0]


@_fan(
    "init-fan-without-kernel",
    formula="weight = sqrt(2 / C_in) normal",
    sentence="your initial convolutions leave the kernel's size out of the fan",
)
class InitFanWithoutKernel(Plain):
    def _fan_in(self, shape: tuple[int, ...]) -> int:
        return shape[0] if len(shape) == 2 else shape[1]


@_fan(
    "init-gain-one",
    formula="weight = sqrt(1 / fan_in) normal",
    sentence="your initial weights lack the factor 2 under the root, which makes up for ReLU",
)
class InitGainOne(Plain):
    def _init_gain(self) -> float:
        return 1.0


@_fan(
    "init-glorot",
    formula="weight = sqrt(2 / (fan_in + fan_out)) normal",
    sentence="your initial weights are Glorot's, scaled by inputs and outputs; He's are scaled by "
    "the inputs",
    wild="cj-torres/L0_Regularization, L0_Regularizer.py, `reset_parameters` (from uniform noise)",
)
class InitGlorot(InitFanOut):
    def _fan_in(self, shape: tuple[int, ...]) -> int:
        return super()._fan_in(shape) + Plain._fan_in(self, shape)
