r"""How much rounding an honest implementation may show, function by function, input by input.

Every bound is first-order error analysis of the plain formula, evaluated in float64 at the input,
times `K` = 16: room for another order of operations, another library's exp and log, and for
conditioning that the formula does not name. eps is that of the dtype under check. A wrong formula
is off by 1e-3 or more of the same scale: in float32 a thousand times what is allowed, in float64
1e12 times.

With t for the argument of the outer sigmoid, s for its value,

- a gate's sigmoid moves by s(1-s) |dt| + eps, and |dt| is eps times the sum of the absolute values
  that t is made of (`_logit_error`); a probability that is *said* to be right relative to itself
  (`prob_active`, `sf`) gets that much of itself and no more;
- what is exactly 0 or 1, clear of the kink, must be exactly 0 or 1;
- a product of matrices, a convolution and their pull-backs are sums of products: eps times the
  number of terms times the same with every number replaced by its absolute value, which the
  reference computes (`_majorant`);
- for losses, gradients and training of whole networks, and their logits, no formula would be
  readable. The float64 reference is run again on inputs that are moved at random by `K`/2 eps of
  themselves (`_moved`); `SPREAD` times the largest change seen is allowed, with a floor of `K` eps
  times the largest number in the result. Where such a move crosses a kink of a ReLU or a pool, so
  may an honest implementation: the change is large then, and so is what is allowed. Where a loss is
  nearly 0, so is what moved inputs do to it, but not what rounding does (`_beside_1`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..network import Network
from .compare import Tolerance
from .reference import network_of, noise_of, reference

__all__ = ["CASES", "Case", "as_dtype", "sign_of", "tolerance_for"]

Args = Mapping[str, Any]
Floats = NDArray[np.float64]

K = 16
LOG1P = 8
"""`K` times this is how many eps a logarithm of 1-u may be off by, besides its own rounding.

XLA's for CPUs (JAX 0.10.2) is off by 65 in float64: 121 eps of itself, close to u = 0.4142.
"""
SPREAD = 8
MOVES = 3
"""How many moved inputs are tried for a network."""


class Case(NamedTuple):
    """How results of a function are judged on random inputs."""

    allowed: Callable[[Args, Any, float], Any]
    """Absolute errors allowed, from the inputs, the expected result and eps."""
    reason: str
    alternatives: Mapping[str, Callable[[Args], tuple[Any, Args]]] = {}
    """Results by other honest conventions, by their names: from the inputs, the result and the
    inputs from which ours would give it, as far as rounding is concerned."""


def as_dtype(value: Any, dtype: Any) -> Any:
    """Return the same with every floating array in it of this dtype."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(dtype)
    if isinstance(value, Mapping):
        return {key: as_dtype(part, dtype) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_dtype(part, dtype) for part in value)
    return value


def tolerance_for(function: str, args: Args, expected: Any, dtype: Any) -> Tolerance:
    """Return what is allowed on these inputs."""
    case = CASES[function]
    with np.errstate(all="ignore"):
        allowed = case.allowed(args, expected, float(np.finfo(dtype).eps))
    # Some libraries take numbers below the smallest normal one for 0, also on the way.
    flushed = 2**16 * float(np.finfo(dtype).tiny)
    return Tolerance(_plus(allowed, flushed), 0.0, case.reason)


def _plus(value: Any, more: float) -> Any:
    if isinstance(value, Mapping):
        return {key: _plus(part, more) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plus(part, more) for part in value]
    return value + more


# --- the law of one gate ---


def _law(args: Args) -> tuple[float, float, float]:
    return args["beta"], args["gamma"], args["zeta"]


def _logit_error(args: Args) -> Floats:
    """1 + the absolute values that the logit of P(z != 0) is made of, in units of eps."""
    beta, gamma, zeta = _law(args)
    total: Floats = 1 + np.abs(args["log_alpha"]) + abs(beta * log(-gamma / zeta))
    return total


def _active(args: Args) -> Floats:
    probability: Floats = reference.prob_active(
        args["log_alpha"], **{name: args[name] for name in ("beta", "gamma", "zeta")}
    )
    return probability


def _prob_active(args: Args, expected: Any, eps: float) -> Any:
    return K * eps * _logit_error(args) * expected + _tiniest(eps)


def _tiniest(eps: float) -> float:
    """Below this a dtype has fewer digits."""
    return float(np.finfo(np.float32 if eps > 1e-10 else np.float64).tiny)


def _log_prob_active(args: Args, expected: Any, eps: float) -> Any:
    return K * eps * (1 + np.abs(expected) + _logit_error(args) * -np.expm1(expected))


def _prob_active_grad(args: Args, expected: Any, eps: float) -> Any:
    # 1 - P, where P is nearly 1, may come of a subtraction: relative to P, not to P (1-P)
    return K * eps * _logit_error(args) * _active(args) + _tiniest(eps)


class _At(NamedTuple):
    """The stretched concrete at x."""

    s: Floats
    below: Floats
    above: Floats
    error: Floats
    """Of the logit of Q, in units of eps."""

    @classmethod
    def of(cls, args: Args) -> _At:
        beta, gamma, zeta = _law(args)
        s = (args["x"] - gamma) / (zeta - gamma)
        s = np.clip(s, 1e-300, 1 - 1e-16)
        logit = np.log(s) - np.log1p(-s)
        t = beta * logit - args["log_alpha"]
        parts = np.abs(logit) + LOG1P + 1 / (s * (1 - s))
        error = 1 + np.abs(args["log_alpha"]) + beta * parts
        return cls(s, 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(t)), error)


def _inside(args: Args) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (args["x"] >= 0) & (args["x"] < 1)
    return inside


def _cdf(args: Args, expected: Any, eps: float) -> Any:
    at = _At.of(args)
    return np.where(_inside(args), K * eps * (1 + at.error * at.below * at.above), 0.0)


def _sf(args: Args, expected: Any, eps: float) -> Any:
    at = _At.of(args)
    relative = K * eps * at.above * (1 + at.error * at.below)
    return np.where(_inside(args), relative + _tiniest(eps), 0.0)


def _pdf(args: Args, expected: Any, eps: float) -> Any:
    at = _At.of(args)
    beta, gamma, zeta = _law(args)
    slope = beta / (zeta - gamma) / (at.s * (1 - at.s))
    relative = at.error + (2 + beta) / (at.s * (1 - at.s))
    # Q (1-Q) may come of a subtraction
    return K * eps * (relative * expected + slope)


def _logpdf(args: Args, expected: Any, eps: float) -> Any:
    at = _At.of(args)
    beta, *_ = _law(args)
    terms = np.abs(expected) + np.abs(np.log(at.s)) + np.abs(np.log1p(-at.s))
    # the logarithm of a density that came of a subtraction, as in `_pdf`
    subtraction = 1 / np.minimum(at.below, at.above)
    return K * eps * (at.error + (2 + beta) * (terms + 1 / (at.s * (1 - at.s))) + subtraction)


class _Path(NamedTuple):
    """The path from noise to a gate."""

    logistic: Floats
    s: Floats
    s_bar: Floats
    error: Floats
    """Of logit s, in units of eps."""

    @classmethod
    def of(cls, args: Args, noise: str = "u") -> _Path:
        beta, gamma, zeta = _law(args)
        u = args[noise]
        log_u, log_rest = np.log(u), np.log1p(-u)
        logistic = log_u - log_rest + args["log_alpha"]
        s = 1 / (1 + np.exp(-logistic / beta))
        parts = 1 + np.abs(log_u) + np.abs(log_rest) + LOG1P + np.abs(args["log_alpha"])
        return cls(logistic, s, s * (zeta - gamma) + gamma, parts / beta)

    @classmethod
    def at_test_time(cls, args: Args) -> _Path:
        _, gamma, zeta = _law(args)
        log_alpha = args["log_alpha"]
        s = 1 / (1 + np.exp(-log_alpha))
        return cls(log_alpha, s, s * (zeta - gamma) + gamma, 1 + np.abs(log_alpha))

    def moved(self, eps: float) -> Floats:
        """How far s may be off."""
        error: Floats = K * eps * (1 + self.s * (1 - self.s) * self.error)
        return error


def _gate(path: _Path, args: Args, eps: float) -> Any:
    """Return the error of a gate: none where it is clipped, clear of the kink."""
    _, gamma, zeta = _law(args)
    error = (zeta - gamma) * path.moved(eps)
    clipped = (path.s_bar < -error) | (path.s_bar > 1 + error)
    return np.where(clipped, 0.0, error)


def _sample(args: Args, expected: Any, eps: float) -> Any:
    return _gate(_Path.of(args), args, eps)


def _ppf(args: Args, expected: Any, eps: float) -> Any:
    return _gate(_Path.of(args, "q"), args, eps)


def _test_time(args: Args, expected: Any, eps: float) -> Any:
    return _gate(_Path.at_test_time(args), args, eps)


def _open(path: _Path, error: Floats) -> Floats:
    """Derivatives where a gate is clipped are exactly 0; inputs lie clear of the kinks."""
    return np.where((path.s_bar > 0) & (path.s_bar < 1), error, 0.0)


def _sample_vjp(args: Args, expected: Any, eps: float) -> Any:
    path = _Path.of(args)
    beta, gamma, zeta = _law(args)
    return _open(path, np.abs(args["dz"]) * (zeta - gamma) / beta * path.moved(eps))


def _sample_partials(args: Args, expected: Any, eps: float) -> Any:
    path = _Path.of(args)
    beta, gamma, zeta = _law(args)
    scale = (zeta - gamma) / beta
    slope = scale * path.moved(eps)
    dbeta = (np.abs(path.logistic) * slope + K * eps * scale * path.error * beta) / beta
    return [_open(path, one) for one in (slope, dbeta, path.moved(eps), path.moved(eps))]


def _test_time_grad(args: Args, expected: Any, eps: float) -> Any:
    path = _Path.at_test_time(args)
    _, gamma, zeta = _law(args)
    return _open(path, (zeta - gamma) * path.moved(eps))


def _moment(args: Args, expected: Any, eps: float) -> Any:
    # There is no closed form; whoever integrates numerically stops somewhere.
    return K * eps * _logit_error(args) + QUADRATURE


QUADRATURE = 1e-9


# --- initialisation and penalties ---


def _init_log_alpha(args: Args, expected: Any, eps: float) -> Any:
    rate, normal = args["drop_rate"], args["normal"]
    return K * eps * (1 + abs(log(rate)) + abs(log(1 - rate)) + 0.01 * np.abs(normal))


def _relative(args: Args, expected: Any, eps: float) -> Any:
    return K * eps * np.abs(expected)


def _exact(args: Args, expected: Any, eps: float) -> Any:
    return 0.0


def _count(args: Args, expected: Any, eps: float) -> Any:
    # a count that was kept in the dtype under check
    return eps * abs(expected)


def _counts(args: Args, expected: Any, eps: float) -> Any:
    return {name: eps * abs(count) for name, count in expected.items()}


def _sum_error(args: Args) -> float:
    """Error of a sum over gates relative to it, in units of eps."""
    n = np.size(args["log_alpha"]) + np.size(args.get("weight", 0))
    return float(K * np.max(_logit_error(args)) + n)


def _expected_l0(args: Args, expected: Any, eps: float) -> Any:
    return eps * _sum_error(args) * expected


def _expected_l0_grad(args: Args, expected: Any, eps: float) -> Any:
    return K * eps * _logit_error(args) * _active(args) * args["group_size"] + _tiniest(eps)


def _penalty(args: Args, expected: Any, eps: float) -> Any:
    return eps * _sum_error(args) * abs(expected)


def _penalty_grads(args: Args, expected: Any, eps: float) -> Any:
    relative = eps * _sum_error(args)
    log_alpha, weight, bias = expected
    # P (1-P) may come of a subtraction, as in `prob_active_grad`
    rest = np.maximum(1 - _active(args), eps)
    return [relative * np.abs(log_alpha) / rest, relative * np.abs(weight), relative * np.abs(bias)]


# --- layers ---


def _majorant(function: str) -> Callable[[Args, Any, float], Any]:
    """Return an error: eps * (K + terms) * the same of all absolute values."""

    def allowed(args: Args, expected: Any, eps: float) -> Any:
        magnitudes = {
            name: np.abs(value) if isinstance(value, np.ndarray) else value
            for name, value in args.items()
        }
        terms = args["x"].size + args["weight"].size
        whole = getattr(reference, function)(**magnitudes)
        relative = eps * (K + terms)
        return [relative * part for part in whole] if isinstance(whole, tuple) else relative * whole

    return allowed


# --- training and networks ---


def _adam(args: Args, expected: Any, eps: float) -> Any:
    r"""Each step moves a parameter by lr times a ratio of at most \|m\| / sqrt(v) < 8.

    1 - 0.999^t, in the dtype under check, has an error of eps/2 that is divided by itself.
    """
    t = np.arange(1, len(args["grads"]) + 1).reshape(-1, *[1] * args["theta"].ndim)
    corrections = np.cumsum(1 + 0.5 / (1 - 0.999**t) + 0.5 / (1 - 0.9**t), axis=0)
    biggest = np.abs(args["theta"]) + np.max(np.abs(expected), axis=0)
    return K * eps * (t * biggest + 8 * args["lr"] * corrections)


def _temporal_average(args: Args, expected: Any, eps: float) -> Any:
    t = np.arange(1, len(args["values"]) + 1).reshape(-1, *[1] * (args["values"].ndim - 1))
    biggest = np.maximum.accumulate(np.abs(args["values"]), axis=0)
    return K * eps * biggest * (t + 1 / (1 - args["decay"] ** t))


def _average_from_first(args: Args) -> tuple[Any, Args]:
    values, decay = args["values"], args["decay"]
    after = [values[0]]
    for value in values[1:]:
        after.append(decay * after[-1] + (1 - decay) * value)
    return np.array(after), args


def _cost(args: Args, expected: Any, eps: float) -> Any:
    """Probabilities of both sides, each with the error of its logit, times counts."""
    network = args["network"]
    beta, gamma, zeta = _law(network)
    worst = 1 + abs(beta * log(-gamma / zeta))
    size = 0
    for layer in network["layers"]:
        if layer.get("on") is not None:
            worst = max(worst, 1 + np.abs(layer["log_alpha"]).max() - beta * log(-gamma / zeta))
        size += np.size(layer.get("weight", 0))
    # "2 k - 1" is a difference: what is subtracted is at most half of what is left and itself
    return {name: eps * (2 * K * worst + size) * (abs(v) + size) for name, v in expected.items()}


def _logits(args: Args, expected: Any, eps: float) -> Any:
    return _spread("predict", args, expected, eps)


def _moved(value: Any, size: float, generator: np.random.Generator, name: str = "") -> Any:
    """Move every floating array by a random part of itself, noise within (0, 1)."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        sign = generator.choice((-size, size), size=value.shape)
        moved = value * (1 + sign)
        return np.where((moved > 0) & (moved < 1), moved, value) if name == "u" else moved
    if isinstance(value, Mapping):
        return {key: _moved(part, size, generator, key) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(part, size, generator, name) for part in value)
    return value


def _spread(function: str, args: Args, expected: Any, eps: float) -> Any:
    generator = np.random.default_rng(0)
    others = [
        getattr(reference, function)(**_moved(args, K / 2 * eps, generator)) for _ in range(MOVES)
    ]
    return _differences(expected, others, K * eps * _largest(expected))


def _largest(value: Any) -> float:
    if isinstance(value, Mapping):
        return max((_largest(part) for part in value.values()), default=0.0)
    if isinstance(value, list | tuple):
        return max((_largest(part) for part in value), default=0.0)
    return float(np.max(np.abs(value), initial=0.0))


def _differences(expected: Any, others: list[Any], floor: float) -> Any:
    if isinstance(expected, Mapping):
        return {
            key: _differences(part, [other[key] for other in others], floor)
            for key, part in expected.items()
        }
    if isinstance(expected, list | tuple):
        return [
            _differences(part, [other[i] for other in others], floor)
            for i, part in enumerate(expected)
        ]
    changes = [np.abs(np.asarray(other) - expected) for other in others]
    return floor + SPREAD * np.max(changes, axis=0)


def _beside_1(made: Network, x: Floats, u: list[Floats], eps: float) -> dict[str, Any]:
    """Return what rounding beside 1, and beside the logits, does to a loss and its gradient.

    The loss of an example is the log of a sum of 1 and smaller numbers, or a difference of numbers
    as large as the logits; its derivative in a logit is softmax - 1.
    """
    logits, residuals = made.forward(x, noise_of(made, u))
    generator = np.random.default_rng(0)
    moved = []
    for _ in range(MOVES):
        signs = generator.choice((-1.0, 1.0), size=logits.shape)
        moved.append(made.backward(K / 2 * eps / len(x) * signs, residuals)[1])
    return {
        "loss": K * eps * (1 + _largest(logits)),
        "grads": {
            name: SPREAD * np.max([np.abs(g[name]) for g in moved], axis=0) for name in moved[0]
        },
    }


def _add(errors: dict[str, Any], more: Mapping[str, Any]) -> None:
    errors["loss"] = errors["loss"] + more["loss"]
    errors["grads"] = {name: error + more["grads"][name] for name, error in errors["grads"].items()}


def _loss_and_grads(args: Args, expected: Any, eps: float) -> Any:
    allowed = _spread("loss_and_grads", args, expected, eps)
    _add(allowed, _beside_1(network_of(args["network"]), args["x"], args["u"], eps))
    return allowed


def _train(args: Args, expected: Any, eps: float) -> Any:
    # the floor of Adam's own rounding is in `lr`, that of the rest in the largest parameter
    allowed = _spread("train", args, expected, eps)
    made = network_of(args["network"])
    off: dict[str, Floats] = {}  # how far Adam may have moved parameters by now
    for t, step in enumerate(allowed):
        u = [one[t] for one in args["u"]]
        _add(step, _beside_1(made, args["x"][t], u, eps))
        if t:
            _add(step, _from_there(made, off, args, t))
        made = made.with_params(expected[t]["params"])
        own = K * eps * 8 * args["lr"] * (t + 1) * (1 + 0.5 / (1 - 0.999))
        for name in expected[t]["grads"]:
            grads, errors = ([s["grads"][name] for s in so[: t + 1]] for so in (expected, allowed))
            off[name] = args["lr"] * _moved_by_adam(grads, errors)
            for result in ("params", "average"):
                step[result][name] = step[result][name] + own + off[name]
    return allowed


def _from_there(made: Network, off: dict[str, Floats], args: Args, t: int) -> dict[str, Any]:
    """Return what parameters that may be off do to the loss and the gradient of step t."""
    x, labels = args["x"][t], args["labels"][t]
    options = {"lam": [args["lam"]], "l2": args["l2"], "n_train": args["n_train"]}
    noise = noise_of(made, [one[t] for one in args["u"]])
    loss, grads = made.loss_and_grads(x, labels, noise, **options)
    generator, moved = np.random.default_rng(0), []
    for _ in range(MOVES):
        there = made.with_params(
            {n: p + generator.choice((-1, 1), p.shape) * off[n] for n, p in made.params.items()}
        )
        found = there.loss_and_grads(x, labels, noise, **options)
        moved.append({"loss": found[0].total, "grads": found[1]})
    change: dict[str, Any] = _differences({"loss": loss.total, "grads": grads}, moved, 0.0)
    return change


def _moved_by_adam(grads: list[Floats], errors: list[Floats]) -> Floats:
    """Return how far errors of the gradients so far have moved what Adam trains, in units of lr.

    It divides a gradient by its size: where that is small, of a loss that is nearly 0, rounding of
    the gradient that is small beside 1, as in softmax - 1, is none beside the gradient. What is
    exactly 0, behind a closed gate, has no rounding. The first step is g / (|g| + 1e-8), which only
    that 1e-8 makes depend on the size of g.
    """
    total, v, error = np.zeros_like(grads[0]), np.zeros_like(grads[0]), np.zeros_like(grads[0])
    for t, (g, more) in enumerate(zip(grads, errors, strict=True), 1):
        v, error = 0.999 * v + 0.001 * g * g, np.maximum(error, np.where(g == 0, 0.0, more))
        size = np.sqrt(v / (1 - 0.999**t)) + 1e-8
        # no step is longer than a few lr
        total = total + np.minimum(error / size * (1e-8 / size if t == 1 else 1.0), 4.0)
    return total


def _mirrored(args: Args) -> Args:
    """Return the inputs with 1 - u for u."""
    u = args["u"]
    return {**args, "u": [1 - one for one in u] if isinstance(u, list) else 1 - u}


def _with_mirrored_noise(function: str) -> Callable[[Args], tuple[Any, Args]]:
    def alternative(args: Args) -> tuple[Any, Args]:
        mirrored = _mirrored(args)
        return getattr(reference, function)(**mirrored), mirrored

    return alternative


def _with_average_from(start: str, *, mirrored: bool) -> Callable[[Args], tuple[Any, Args]]:
    """Return a training whose average starts at the initial or the first parameters, undivided."""

    def alternative(args: Args) -> tuple[Any, Args]:
        if mirrored:
            args = _mirrored(args)
        steps = [dict(step) for step in reference.train(**args)]
        decay, layers = args["decay"], args["network"]["layers"]
        average: dict[str, Any] = dict(steps[0]["params"])
        if start == "initial":
            for name in average:
                position, _, own = name.partition(".")
                average[name] = layers[int(position)][own]
        for t, step in enumerate(steps):
            if t or start == "initial":
                average = {
                    name: decay * average[name] + (1 - decay) * value
                    for name, value in step["params"].items()
                }
            step["average"] = average
        return steps, args

    return alternative


# The words are those of the vectors' alternatives.
_OTHER_SIGN = "the noise enters with the other sign: u and 1-u have one law"
_FROM_FIRST = "an average that starts at the first value, and is not divided"
_FROM_INITIAL = "an average that starts at the initial parameters, and is not divided"
_ALSO = "the noise with the other sign, "


def sign_of(conventions: Iterable[str]) -> str:
    """Return the sign of the noise, "+" or "-", that conventions agree on; "" if they do not.

    They are all by which a result is right; ours is "". There must be one.
    """
    signs = {"-" if one == _OTHER_SIGN or one.startswith(_ALSO) else "+" for one in conventions}
    return signs.pop() if len(signs) == 1 else ""


_SIGMOID = f"{K} eps of what the sigmoid's argument is made of"
_SUM = f"{K} eps of the logits, and eps for each term of the sum"
_PRODUCT = f"eps for each of the terms and {K} more, of all absolute values"
_NETWORK = f"{SPREAD} times what moving the inputs by {K // 2} eps does"

CASES: dict[str, Case] = {
    "prob_active": Case(_prob_active, _SIGMOID + ", relative"),
    "log_prob_active": Case(_log_prob_active, _SIGMOID),
    "prob_active_grad": Case(_prob_active_grad, _SIGMOID),
    "cdf": Case(_cdf, _SIGMOID),
    "sf": Case(_sf, _SIGMOID + ", relative"),
    "pdf": Case(_pdf, _SIGMOID),
    "logpdf": Case(_logpdf, _SIGMOID),
    "ppf": Case(_ppf, _SIGMOID),
    "mean": Case(_moment, f"{_SIGMOID}, and {QUADRATURE:g} for quadrature"),
    "var": Case(_moment, f"{_SIGMOID}, and {QUADRATURE:g} for quadrature"),
    "sample": Case(_sample, _SIGMOID, {_OTHER_SIGN: _with_mirrored_noise("sample")}),
    "sample_vjp": Case(_sample_vjp, _SIGMOID, {_OTHER_SIGN: _with_mirrored_noise("sample_vjp")}),
    "sample_partials": Case(
        _sample_partials, _SIGMOID, {_OTHER_SIGN: _with_mirrored_noise("sample_partials")}
    ),
    "test_time": Case(_test_time, _SIGMOID),
    "test_time_grad": Case(_test_time_grad, _SIGMOID),
    "init_log_alpha": Case(_init_log_alpha, f"{K} eps of its terms"),
    "init_weight": Case(_relative, f"{K} eps"),
    "group_size": Case(_exact, "a count is exact"),
    "expected_l0": Case(_expected_l0, _SUM),
    "expected_l0_grad": Case(_expected_l0_grad, _SIGMOID),
    "expected_l2": Case(_penalty, _SUM),
    "expected_l2_grad": Case(_penalty_grads, _SUM),
    "expected_l1": Case(_penalty, _SUM),
    "expected_l1_grad": Case(_penalty_grads, _SUM),
    "penalty": Case(_penalty, _SUM),
    "penalty_grad": Case(_penalty_grads, _SUM),
    "dense": Case(_majorant("dense"), _PRODUCT),
    "dense_vjp": Case(_majorant("dense_vjp"), _PRODUCT),
    "conv2d": Case(_majorant("conv2d"), _PRODUCT),
    "conv2d_vjp": Case(_majorant("conv2d_vjp"), _PRODUCT),
    "dense_flops": Case(_count, "a count, to eps"),
    "dense_params": Case(_count, "a count, to eps"),
    "conv2d_flops": Case(_count, "a count, to eps"),
    "conv2d_params": Case(_count, "a count, to eps"),
    "expected_cost": Case(_cost, _SUM),
    "hard_cost": Case(_counts, "a count, to eps"),
    "adam": Case(_adam, f"{K} eps of parameters and steps, and of the bias corrections"),
    "temporal_average": Case(
        _temporal_average,
        f"{K} eps of the largest value, and of the bias correction",
        {_FROM_FIRST: _average_from_first},
    ),
    "predict": Case(_logits, _NETWORK),
    "loss_and_grads": Case(
        _loss_and_grads, _NETWORK, {_OTHER_SIGN: _with_mirrored_noise("loss_and_grads")}
    ),
    "train": Case(
        _train,
        _NETWORK,
        {
            _OTHER_SIGN: _with_mirrored_noise("train"),
            _FROM_FIRST: _with_average_from("first", mirrored=False),
            _FROM_INITIAL: _with_average_from("initial", mirrored=False),
            _ALSO + _FROM_FIRST: _with_average_from("first", mirrored=True),
            _ALSO + _FROM_INITIAL: _with_average_from("initial", mirrored=True),
        },
    ),
    "compact": Case(_exact, _NETWORK),
}
