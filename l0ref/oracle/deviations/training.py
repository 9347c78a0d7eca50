"""Known mistakes in training, averaging, whole networks and compaction."""

# What a class is, its entry says.
# ruff: noqa: D101, D102

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..plain import Draw, Plain, law_of
from .catalogue import AUTHORS, known

_adam = partial(known, area="Training", at="adam")
_average = partial(known, area="Training", at="temporal_average")
_loss = partial(known, area="Training", at="loss_and_grads")
_net = partial(known, area="Networks", at="predict")
_compact = partial(known, area="Compaction", at="compact")


@_adam(
    "adam-not-debiased",
    formula="theta -= lr m / (sqrt(v) + eps)",
    sentence="your Adam does not correct the bias of its moments",
)
class AdamNotDebiased(Plain):
    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return lr * m / (np.sqrt(v) + 1e-8)


@_adam(
    "adam-first-moment-not-debiased",
    formula="theta -= lr m / (sqrt(v / (1 - b2^t)) + eps)",
    sentence="your Adam corrects the bias of its second moment alone",
)
class AdamFirstNotDebiased(Plain):
    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return lr * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


@_adam(
    "adam-second-moment-not-debiased",
    formula="theta -= lr m / (1 - b1^t) / (sqrt(v) + eps)",
    sentence="your Adam corrects the bias of its first moment alone",
)
class AdamSecondNotDebiased(Plain):
    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return lr * m / (1 - 0.9**t) / (np.sqrt(v) + 1e-8)


@_adam(
    "adam-epsilon-in-root",
    formula="theta -= lr m_hat / sqrt(v_hat + eps)",
    sentence="your Adam adds epsilon under the root; it is added to the root",
)
class AdamEpsilonInRoot(Plain):
    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return lr * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t) + 1e-8)


@_adam(
    "adam-epsilon-hat",
    formula="theta -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)",
    sentence="your Adam corrects the bias in the learning rate alone: epsilon is added to a root "
    "that is not corrected, and weighs more in the first steps (Kingma and Ba's epsilon hat)",
)
class AdamEpsilonHat(Plain):
    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)


@_adam(
    "adam-step-late",
    formula="theta -= lr m_hat / (sqrt(v_hat) + eps) with t + 1 for t in the corrections",
    sentence="your Adam corrects the bias with a step count that is one ahead",
)
class AdamStepLate(Plain):
    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return super()._adam_step(m, v, t + 1, lr)


@_adam(
    "adam-decays-swapped",
    formula="b1 = 0.999, b2 = 0.9",
    sentence="your Adam has its two decays the other way round",
)
class AdamDecaysSwapped(Plain):
    def _moment_decays(self) -> Any:
        return 0.999, 0.9


@_adam(
    "adam-second-decay",
    formula="b2 = 0.99",
    sentence="your Adam has 0.99 for its second decay; it is 0.999",
)
class AdamSecondDecay(Plain):
    def _moment_decays(self) -> Any:
        return 0.9, 0.99


@_adam(
    "adam-is-sgd",
    formula="theta -= lr g",
    sentence="your Adam is plain gradient descent",
)
class AdamIsSgd(Plain):
    def _moments_of(self, m: Any, v: Any, g: Any) -> Any:
        return g, g

    def _adam_step(self, m: Any, v: Any, t: int, lr: float) -> Any:
        return lr * m


# --- the temporal average ---


@_average(
    "average-started-and-debiased",
    formula="a_0 = theta_0, a_t = d a + (1-d) theta_t, result a_t / (1 - d^t)",
    sentence="your average starts at the parameters and is divided by 1 - decay^t all the same: "
    "many times too large in the first steps",
    wild=f"{AUTHORS}, models.py, `update_ema` and `load_ema_params`",
)
class AverageStartedAndDebiased(Plain):
    def _average(self, values: Any, decay: float, start: Any) -> Any:
        average, path = start, []
        for t, value in enumerate(values, 1):
            average = decay * average + (1 - decay) * value
            path.append(average / (1 - decay**t))
        return np.stack(path)


@_average(
    "average-not-debiased",
    formula="a_0 = 0, a_t = d a + (1-d) theta_t",
    sentence="your average starts at 0 and is not divided by 1 - decay^t: near 0 in the first "
    "steps",
)
class AverageNotDebiased(Plain):
    def _average(self, values: Any, decay: float, start: Any) -> Any:
        t = np.arange(1, len(values) + 1).reshape(-1, *[1] * np.ndim(values[0]))
        return super()._average(values, decay, start) * (1 - decay**t)


@_average(
    "average-weights-swapped",
    formula="a_t = (1-d) a + d theta_t",
    sentence="your average weighs the newest parameters with the decay, and the old ones with the "
    "rest",
)
class AverageWeightsSwapped(Plain):
    def _average(self, values: Any, decay: float, start: Any) -> Any:
        return super()._average(values, 1 - decay, start)


@_average(
    "average-plain-mean",
    formula="mean of theta_1 to theta_t",
    sentence="your average weighs all steps alike; weights fall with the decay",
)
class AveragePlainMean(Plain):
    def _average(self, values: Any, decay: float, start: Any) -> Any:
        count = np.arange(1, len(values) + 1).reshape(-1, *[1] * np.ndim(values[0]))
        return np.cumsum(values, axis=0) / count


@_average(
    "average-step-late",
    formula="a_t / (1 - d^(t+1)) with a_0 = 0",
    sentence="your average is divided by 1 - decay^(t+1): the step count is one ahead",
)
class AverageStepLate(Plain):
    def _average(self, values: Any, decay: float, start: Any) -> Any:
        t = np.arange(1, len(values) + 1).reshape(-1, *[1] * np.ndim(values[0]))
        right = super()._average(values, decay, start)
        return right * (1 - decay**t) / (1 - decay ** (t + 1))


@known(
    "average-is-the-parameters",
    area="Training",
    at="temporal_average",
    formula="theta_t",
    sentence="your average is not one: it gives back the newest parameters",
)
class AverageIsTheParameters(Plain):
    def _average(self, values: Any, decay: float, start: Any) -> Any:
        return np.stack(values)


@known(
    "average-before-the-step",
    area="Training",
    at="train",
    formula="the average of theta_0 to theta_(t-1), at step t",
    sentence="you average the parameters before the step, not after it",
)
class AverageBeforeTheStep(Plain):
    def train(self, network: Any, x: Any, labels: Any, u: Any, **rates: Any) -> Any:
        steps = super().train(network, x, labels, u, **rates)
        names = steps[0]["params"]
        first = {
            name: network["layers"][int(name.split(".")[0])][name.split(".")[1]] for name in names
        }
        states = [first, *(step["params"] for step in steps)]
        for t, step in enumerate(steps, 1):
            step["average"] = {
                n: self._average([s[n] for s in states[:t]], rates["decay"], first[n])[-1]
                for n in names
            }
        return steps


# --- the loss ---


@_loss(
    "cross-entropy-summed",
    formula="loss = sum over the batch + penalty",
    sentence="your cross-entropy is added up over the batch; it is averaged",
)
class CrossEntropySummed(Plain):
    def _cross_entropy(self, logits: Any, labels: Any) -> Any:
        value, slope = super()._cross_entropy(logits, labels)
        return value * len(labels), slope * len(labels)


@_loss(
    "cross-entropy-over-classes",
    formula="loss = mean over examples and classes + penalty",
    sentence="your cross-entropy is divided by the number of classes, too",
)
class CrossEntropyOverClasses(Plain):
    def _cross_entropy(self, logits: Any, labels: Any) -> Any:
        value, slope = super()._cross_entropy(logits, labels)
        return value / logits.shape[1], slope / logits.shape[1]


class _OtherDraws(Plain):
    """Training with other gates than those that were drawn."""

    def _draw_layers(self, network: Any, u: Sequence[Any]) -> list[Draw | None]:
        law = law_of(network)
        return [
            None if layer.get("on") is None else self._other(layer["log_alpha"], **law)
            for layer in network["layers"]
        ]

    def _other(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Draw:
        raise NotImplementedError


@_loss(
    "training-with-test-gates",
    formula="z = z_hat in training",
    sentence="you train with the gates of the test: the noise does not enter",
)
class TrainingWithTestGates(_OtherDraws):
    def _other(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Draw:
        z, slope = self._test_gate(log_alpha, beta, gamma, zeta)
        return Draw(z, slope, slope, slope, slope)


@_loss(
    "training-without-gates",
    formula="z = 1 in training",
    sentence="you train without the gates: they are all 1",
)
class TrainingWithoutGates(_OtherDraws):
    def _other(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Draw:
        zero = np.zeros_like(log_alpha)
        return Draw(np.ones_like(log_alpha), zero, zero, zero, zero)


@_loss(
    "gates-detached-in-training",
    formula="dloss/dlog_alpha = that of the penalty alone",
    sentence="the data's loss has no gradient in your log_alpha: the draw is detached",
)
class GatesDetached(Plain):
    def _draw_layers(self, network: Any, u: Sequence[Any]) -> list[Draw | None]:
        return [
            None if draw is None else draw._replace(d_log_alpha=np.zeros_like(draw.z))
            for draw in super()._draw_layers(network, u)
        ]


@_loss(
    "weight-decay-in-gradients",
    formula="dweight = data's + l2 / N theta, without P(z != 0), while the loss has it",
    sentence="your gradients have plain weight decay, and your loss the expected L2 of Eq. 14",
)
class WeightDecayInGradients(Plain):
    def _penalty(self, log_alpha: Any, weight: Any, bias: Any, *rest: Any) -> Any:
        value, (by_log_alpha, _, by_bias) = super()._penalty(log_alpha, weight, bias, *rest)
        on, gates_bias, _, l2, n_train, _ = rest
        scale = self._l2_scale(l2, n_train)
        if self._bias_is_gated(on, gates_bias):
            by_bias = 2 * scale * bias
        return value, (by_log_alpha, 2 * scale * weight, by_bias)


class _DecayInOptimizer(Plain):
    """The L2 of all parameters is left to the optimiser, and out of the loss."""

    def _penalty_per_step(self, lam: float, l2: float, n_train: int, batch: int) -> Any:
        return lam, 0.0, n_train


_step = partial(known, area="Training", at="train")


@_step(
    "weight-decay-in-adam",
    formula="loss without L2; Adam takes g + l2/N theta for g, of every parameter",
    sentence="your L2 is the optimiser's weight decay, added to the gradient before Adam's "
    "moments, which rescale it: it has no P(z != 0), and pulls log_alpha to 0; Eq. 14 is part of "
    "the loss",
)
class WeightDecayInAdam(_DecayInOptimizer):
    def _update(
        self, theta: Any, g: Any, m: Any, v: Any, t: int, lr: float, decay: float
    ) -> tuple[Any, Any, Any]:
        return super()._update(theta, g + decay * theta, m, v, t, lr, decay)


@_step(
    "weight-decay-decoupled",
    formula="loss without L2; theta -= lr (m_hat / (sqrt(v_hat) + eps) + l2/N theta)",
    sentence="your L2 is decoupled weight decay (AdamW) of every parameter: it has no "
    "P(z != 0), and pulls log_alpha to 0; Eq. 14 is part of the loss",
)
class WeightDecayDecoupled(_DecayInOptimizer):
    def _update(
        self, theta: Any, g: Any, m: Any, v: Any, t: int, lr: float, decay: float
    ) -> tuple[Any, Any, Any]:
        after, m, v = super()._update(theta, g, m, v, t, lr, decay)
        return after - lr * decay * theta, m, v


# --- networks ---


@_net(
    "predict-without-gates",
    formula="z = 1 at test time",
    sentence="your network predicts without its gates",
)
class PredictWithoutGates(Plain):
    def predict(self, network: Any, x: Any) -> Any:
        for layer in network["layers"]:
            gates = np.ones_like(layer["log_alpha"]) if layer.get("on") else None
            x = self._apply(layer, x, gates, training=False)
        return x


class _UnitsMapsLast(Plain):
    """The units that some maps take once they are flat are sought in the order (H, W, C)."""

    def _units_of_maps(self, maps: Sequence[int], shape: tuple[int, ...]) -> list[int]:
        area = int(np.prod(shape[1:]))
        return [k * shape[0] + c for k in range(area) for c in maps]


@_net(
    "flatten-maps-last",
    formula="units in the order (H, W, C)",
    sentence="you flatten maps in the order (H, W, C); it is (C, H, W)",
)
class FlattenMapsLast(_UnitsMapsLast):
    def _flat(self, x: Any) -> Any:
        return super()._flat(np.moveaxis(x, 1, -1))

    def _flat_vjp(self, dy: Any, shape: tuple[int, ...]) -> Any:
        n, c, *places = shape
        return np.moveaxis(dy.reshape(n, *places, c), -1, 1)


# --- compaction ---


@_compact(
    "compact-flatten-order",
    formula="units of the maps that stay, in the order (H, W, C)",
    sentence="your compaction takes the units behind a flatten in the order (H, W, C); it is "
    "(C, H, W)",
)
class CompactFlattenOrder(_UnitsMapsLast):
    pass


@_compact(
    "compact-gate-not-folded",
    formula="W of units that stay, not z_hat W",
    sentence="your compaction does not multiply what stays by its gate, which is not 1",
)
class CompactGateNotFolded(Plain):
    def _folded(self, z: Any) -> Any:
        return (z > 0).astype(float)


@_compact(
    "compact-constants-dropped",
    formula="closed units taken as 0",
    sentence="your compaction forgets that a closed unit with a bias of its own hands on a "
    "constant: it has to be folded into what reads it",
)
class CompactConstantsDropped(Plain):
    def _constant(self, values: Any) -> Any:
        return np.zeros_like(values)


@_compact(
    "compact-gate-folded-twice",
    formula="z_hat^2 W",
    sentence="your compaction multiplies what stays by its gate twice",
)
class CompactGateFoldedTwice(Plain):
    def _folded(self, z: Any) -> Any:
        return z * z


@_compact(
    "compact-bias-not-folded",
    formula="b of units that stay, not z_hat b, though the gate switches the bias off",
    sentence="your compaction does not multiply the bias of what stays by its gate",
)
class CompactBiasNotFolded(Plain):
    def _folded_bias(self, z: Any) -> Any:
        return np.ones_like(z)


@_compact(
    "compact-bias-folded",
    formula="z_hat b, though the gate leaves the bias alone",
    sentence="your compaction multiplies a bias by its gate that the gate leaves alone",
)
class CompactBiasFolded(Plain):
    def compact(self, network: Any) -> Any:
        layers = [
            {**one, "gates_bias": True} if one.get("on") == "outputs" else one
            for one in network["layers"]
        ]
        return super().compact({**network, "layers": layers})


@_compact(
    "compact-by-median",
    formula="units that the median gate closes are taken out",
    sentence="your compaction goes by sigmoid(log_alpha/beta), stretched and clipped; prediction "
    "goes by Eq. 13",
)
class CompactByMedian(Plain):
    def compact(self, network: Any) -> Any:
        layers = [
            {**one, "log_alpha": one["log_alpha"] / network["beta"]} if one.get("on") else one
            for one in network["layers"]
        ]
        return super().compact({**network, "layers": layers})
