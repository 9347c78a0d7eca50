"""Bugs planted in the example targets of the oracle, which must be found, and most of them named.

Each is a file of `l0ref/oracle/examples` with one snippet replaced. Nothing in it knows how the
catalogue of deviations is made: it says only by what name the oracle ought to call the bug, or that
the catalogue does not have it. Whoever changes a line that a mutant quotes brings the mutant along.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

EXAMPLES = Path(__file__).parents[2] / "l0ref" / "oracle" / "examples"

NUMPY, TORCH, JAX = "numpy_functions.py", "torch_functions.py", "jax_functions.py"
MODULE, JAVASCRIPT = "torch_module.py", "javascript.js"


class TargetMutant(NamedTuple):
    """A bug in an example.

    `deviation` is what the oracle must call it; None if the catalogue does not have it. `functions`
    are those to check in the fast tests; all of them count in the slow ones.
    """

    name: str
    file: str
    original: str
    mutated: str
    deviation: str | None
    functions: tuple[str, ...]


def mutate(mutant: TargetMutant) -> str:
    """Return the example's source with the bug in it.

    Raises
    ------
    ValueError
        If the original is not there just once.
    """
    source = (EXAMPLES / mutant.file).read_text(encoding="utf-8")
    found = source.count(mutant.original)
    if found != 1:
        raise ValueError(
            f"{mutant.name} is stale: {mutant.original!r} must be in {mutant.file} once, "
            f"got {found} times"
        )
    return source.replace(mutant.original, mutant.mutated)


@contextmanager
def planted(mutant: TargetMutant, folder: Path) -> Iterator[Any]:
    """Give the target with the bug in it, as `check` takes it."""
    path = folder / mutant.file
    path.write_text(mutate(mutant), encoding="utf-8")
    if mutant.file == JAVASCRIPT:
        yield f"command: node {path}"
        return
    name = f"planted_{mutant.name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # the examples look themselves up there
    try:
        spec.loader.exec_module(module)
        yield _target(module)
    finally:
        del sys.modules[name]


def _target(module: ModuleType) -> Any:
    return getattr(module, "target", module)


PROB = ("prob_active", "log_prob_active", "prob_active_grad", "expected_l0", "expected_l0_grad")
SAMPLE = ("sample", "sample_vjp", "test_time")
TEST = ("test_time", "test_time_grad", "predict", "sample")
PENALTY = ("group_size", "expected_l0", "expected_l2", "expected_l2_grad", "expected_l1", "penalty",
           "penalty_grad")  # fmt: skip
COUNTS = ("dense_flops", "dense_params", "conv2d_flops", "conv2d_params")
TRAIN = ("penalty", "loss_and_grads", "train")

# The example has no cost of a network: it gets one, in which some layers have the FLOPs of open
# gates.
_COST_OF_LAYERS = """\
from l0ref.flops import layer_costs
from l0ref.layers import Conv2d
from l0ref.oracle.reference import network_of


def _cost(network, on):
    right, whole = layer_costs(network, on), layer_costs(network)
    parts = zip(network.layers, right, whole)
    flops = sum(b.flops if WHICH else a.flops for layer, a, b in parts)
    return {"flops": flops, "params": sum(a.params for a in right)}


def expected_cost(network):
    made = network_of(network)
    gates = [one.law(layer.params["log_alpha"]) for _, layer, one in made.gated]
    return _cost(made, [one.prob_active() for one in gates])


def hard_cost(network):
    made = network_of(network)
    return _cost(made, made.open_gates())


def adam(theta,"""

# All that goes into the example's functions is made float32, and so is what comes out.
_IN_SINGLE = """\
right = from_torch(sys.modules[__name__])


def _single(value):
    if isinstance(value, dict):
        return {key: _single(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_single(part) for part in value]
    return value.astype("float32") if getattr(value, "dtype", None) == "float64" else value


def _in_single(function):
    return lambda **args: function(**_single(args))


target = {name: _in_single(one) for name, one in vars(right).items() if name != "name"}
target = type("Single", (), {name: staticmethod(one) for name, one in target.items()})()
"""

TARGET_MUTANTS = (
    # --- plain NumPy: formulas that are right on their own, and wrong within another function ---
    TargetMutant(
        "numpy-open-is-one-in-dense",
        NUMPY,
        "def dense(x, weight, bias, z, *, on, gates_bias):\n",
        "def dense(x, weight, bias, z, *, on, gates_bias):\n    z = (z > 0).astype(z.dtype)\n",
        "test-gate-open-is-one",
        ("dense", "test_time", "predict"),
    ),
    TargetMutant(
        "numpy-size-one-in-penalty",
        NUMPY,
        "lam / n_train * expected_l0(log_alpha, sizes, **law) + l2",
        "lam / n_train * prob_active(log_alpha, **law).sum() + l2",
        "l0-without-group-size",
        ("group_size", "expected_l0", "penalty"),
    ),
    # --- plain NumPy: P(z != 0) ---
    TargetMutant(
        "numpy-prob-plus",
        NUMPY,
        "return log_alpha - beta * math.log(-gamma / zeta)",
        "return log_alpha + beta * math.log(-gamma / zeta)",
        "prob-plus-sign",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-zeta-over-gamma",
        NUMPY,
        "math.log(-gamma / zeta)  # Eq. 12",
        "math.log(-zeta / gamma)",
        "prob-plus-sign",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-beta-divides",
        NUMPY,
        "log_alpha - beta * math.log(-gamma / zeta)",
        "log_alpha - math.log(-gamma / zeta) / beta",
        "prob-beta-divides",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-no-beta",
        NUMPY,
        "log_alpha - beta * math.log(-gamma / zeta)",
        "log_alpha - math.log(-gamma / zeta)",
        "prob-without-beta",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-log10",
        NUMPY,
        "beta * math.log(-gamma / zeta)",
        "beta * math.log10(-gamma / zeta)",
        "prob-log10",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-plain-sigmoid",
        NUMPY,
        "return sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "require(beta, gamma, zeta)\n    return sigmoid(log_alpha)",
        "prob-unshifted",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-one-minus",
        NUMPY,
        "return sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "return 1 - sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "prob-of-closed",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-clamped",
        NUMPY,
        "return sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "p = sigmoid(_log_odds(log_alpha, beta, gamma, zeta))\n"
        "    return np.clip(p, 1e-6, 1 - 1e-6).astype(p.dtype)",
        "prob-clamped",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-one-minus-cdf",
        NUMPY,
        "return sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "return 1 - sigmoid(-_log_odds(log_alpha, beta, gamma, zeta))",
        "prob-by-subtraction",
        PROB,
    ),
    TargetMutant(
        "numpy-log-of-prob",
        NUMPY,
        "return log_sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "with np.errstate(divide='ignore'):\n"
        "        return np.log(sigmoid(_log_odds(log_alpha, beta, gamma, zeta)))",
        "log-prob-underflows",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-slope-is-p",
        NUMPY,
        "return sigmoid(t) * sigmoid(-t)\n\n\ndef _logit_cdf",
        "return sigmoid(t)\n\n\ndef _logit_cdf",
        "prob-grad-without-complement",
        PROB,
    ),
    TargetMutant(
        "numpy-prob-plus-below-zero",
        NUMPY,
        "return log_alpha - beta * math.log(-gamma / zeta)",
        "shift = beta * math.log(-gamma / zeta)\n"
        "    return log_alpha - np.where(log_alpha < 0, -shift, shift).astype(log_alpha.dtype)",
        "prob-plus-sign",
        ("prob_active", "log_prob_active", "prob_active_grad"),
    ),
    # --- plain NumPy: the law ---
    TargetMutant(
        "numpy-cdf-beta-divides",
        NUMPY,
        "return beta * (np.log(inside - gamma) - np.log(zeta - inside)) - log_alpha",
        "return (np.log(inside - gamma) - np.log(zeta - inside)) / beta - log_alpha",
        "cdf-divided-by-beta",
        ("cdf", "sf"),
    ),
    TargetMutant(
        "numpy-cdf-plus-log-alpha",
        NUMPY,
        "np.log(zeta - inside)) - log_alpha",
        "np.log(zeta - inside)) + log_alpha",
        "cdf-adds-log-alpha",
        ("cdf", "sf", "pdf"),
    ),
    TargetMutant(
        "numpy-cdf-beta-on-both",
        NUMPY,
        "return beta * (np.log(inside - gamma) - np.log(zeta - inside)) - log_alpha",
        "return beta * (np.log(inside - gamma) - np.log(zeta - inside) - log_alpha)",
        "cdf-beta-on-log-alpha",
        ("cdf", "sf", "pdf"),
    ),
    TargetMutant(
        "numpy-sf-subtracts",
        NUMPY,
        "value = sigmoid(-_logit_cdf(x, log_alpha, beta, gamma, zeta))",
        "value = 1 - sigmoid(_logit_cdf(x, log_alpha, beta, gamma, zeta))",
        "sf-by-subtraction",
        ("cdf", "sf"),
    ),
    TargetMutant(
        "numpy-pdf-no-beta",
        NUMPY,
        "slope = beta * (zeta - gamma) / ((inside - gamma) * (zeta - inside))",
        "slope = (zeta - gamma) / ((inside - gamma) * (zeta - inside))",
        "pdf-without-beta",
        ("pdf", "logpdf"),
    ),
    TargetMutant(
        "numpy-pdf-no-jacobian",
        NUMPY,
        "slope = beta * (zeta - gamma) / ((inside - gamma) * (zeta - inside))",
        "slope = beta * (zeta - gamma) ** 2 / ((inside - gamma) * (zeta - inside))",
        "pdf-without-stretch",
        ("pdf", "logpdf"),
    ),
    # --- plain NumPy: the gate ---
    TargetMutant(
        "numpy-noise-sum-of-logs",
        NUMPY,
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "return sigmoid((np.log(u) + np.log1p(-u) + log_alpha) / beta)",
        "noise-plus",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-noise-other-sign",
        NUMPY,
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "return sigmoid((np.log1p(-u) - np.log(u) + log_alpha) / beta)",
        "noise-reversed",
        ("sample", "ppf"),
    ),
    TargetMutant(
        "numpy-noise-gumbel",
        NUMPY,
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "return sigmoid((log_alpha - np.log(-np.log(u))) / beta)",
        "noise-gumbel",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-beta-on-noise",
        NUMPY,
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "return sigmoid((np.log(u) - np.log1p(-u)) / beta + log_alpha)",
        "beta-on-noise-only",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-beta-left-out",
        NUMPY,
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "return sigmoid(np.log(u) - np.log1p(-u) + log_alpha)",
        "beta-omitted",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-beta-times",
        NUMPY,
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) * beta)",
        "beta-multiplies",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-alpha",
        NUMPY,
        "np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "np.log1p(-u) + np.exp(log_alpha)) / beta)",
        "alpha-for-log-alpha",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-u-clamped",
        NUMPY,
        "    return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10",
        "    u = np.clip(u, 1e-6, 1 - 1e-6).astype(u.dtype)\n"
        "    return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)",
        "noise-u-clamped",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-stretch-sum",
        NUMPY,
        "return clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta - gamma) + gamma)",
        "return clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta + gamma) + gamma)",
        "stretch-plus",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-no-stretch",
        NUMPY,
        "return clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta - gamma) + gamma)",
        "return clip(_concrete(log_alpha, u, beta, gamma, zeta))",
        "stretch-forgotten",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-clip-before-stretch",
        NUMPY,
        "return clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta - gamma) + gamma)",
        "return clip(_concrete(log_alpha, u, beta, gamma, zeta)) * (zeta - gamma) + gamma",
        "clip-forgotten-in-draws",
        SAMPLE,
    ),
    TargetMutant(
        "numpy-slope-no-beta",
        NUMPY,
        "slope = inside * (zeta - gamma) * s * (1 - s) / beta",
        "slope = inside * (zeta - gamma) * s * (1 - s)",
        "draw-grad-without-beta",
        ("sample", "sample_vjp"),
    ),
    TargetMutant(
        "numpy-slope-no-width",
        NUMPY,
        "slope = inside * (zeta - gamma) * s * (1 - s) / beta",
        "slope = inside * s * (1 - s) / beta",
        "draw-grad-without-stretch",
        ("sample", "sample_vjp"),
    ),
    TargetMutant(
        "numpy-slope-straight-through",
        NUMPY,
        "slope = inside * (zeta - gamma) * s * (1 - s) / beta",
        "slope = (zeta - gamma) * s * (1 - s) / beta",
        "draw-grad-through-clip",
        ("sample", "sample_vjp", "test_time_grad"),
    ),
    TargetMutant(
        "numpy-slope-of-z",
        NUMPY,
        "slope = inside * (zeta - gamma) * s * (1 - s) / beta",
        "z = clip(s_bar)\n    slope = inside * (zeta - gamma) * z * (1 - z) / beta",
        "draw-grad-at-z",
        ("sample", "sample_vjp"),
    ),
    TargetMutant(
        "numpy-gamma-slope",
        NUMPY,
        "return slope, d_beta, inside * (1 - s), inside * s",
        "return slope, d_beta, inside, inside * s",
        "gamma-partial-one",
        ("sample", "sample_partials"),
    ),
    TargetMutant(
        "numpy-beta-slope-sign",
        NUMPY,
        "d_beta = -slope * np",
        "d_beta = slope * np",
        "beta-partial-positive",
        ("sample", "sample_partials"),
    ),
    TargetMutant(
        "numpy-median",
        NUMPY,
        "return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)  # Eq. 13: no beta",
        "return clip(sigmoid(log_alpha / beta) * (zeta - gamma) + gamma)",
        "test-gate-median",
        TEST,
    ),
    TargetMutant(
        "numpy-test-fixed-stretch",
        NUMPY,
        "return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)  # Eq. 13: no beta",
        "return clip(sigmoid(log_alpha) * 1.2 - 0.1)",
        "stretch-hard-coded",
        TEST,
    ),
    TargetMutant(
        "numpy-prob-fixed-law",
        NUMPY,
        "return log_alpha - beta * math.log(-gamma / zeta)",
        "return log_alpha - 2 / 3 * math.log(0.1 / 1.1)",
        "law-hard-coded",
        PROB,
    ),
    TargetMutant(
        "numpy-test-unstretched",
        NUMPY,
        "return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)  # Eq. 13: no beta",
        "return sigmoid(log_alpha)",
        "test-gate-unstretched",
        TEST,
    ),
    TargetMutant(
        "numpy-test-rounded",
        NUMPY,
        "return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)  # Eq. 13: no beta",
        "return (log_alpha > 0).astype(log_alpha.dtype)",
        "test-gate-rounded",
        TEST,
    ),
    TargetMutant(
        "numpy-test-is-prob",
        NUMPY,
        "return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)  # Eq. 13: no beta",
        "return prob_active(log_alpha, beta=beta, gamma=gamma, zeta=zeta)",
        "test-gate-is-prob",
        TEST,
    ),
    TargetMutant(
        "numpy-test-slope-no-width",
        NUMPY,
        "return (zeta - gamma) * s * rest * ((s_bar > 0) & (s_bar < 1))",
        "return s * rest * ((s_bar > 0) & (s_bar < 1))",
        "test-gate-grad-without-stretch",
        TEST,
    ),
    # --- plain NumPy: its own draws, initialisation ---
    TargetMutant(
        "numpy-draw-of-clamped",
        NUMPY,
        "return sample(log_alpha, u, **law).astype(log_alpha.dtype)",
        "clamped = np.clip(log_alpha, math.log(0.01), math.log(100))\n"
        "    return sample(clamped, u, **law).astype(log_alpha.dtype)",
        "log-alpha-clamped",
        ("draw",),
    ),
    TargetMutant(
        "numpy-one-noise",
        NUMPY,
        "k = np.random.default_rng(seed).integers(2**52, size=(n, *shape))",
        "k = np.random.default_rng(seed).integers(2**52, size=(n, *[1] * len(shape)))\n"
        "    k = np.broadcast_to(k, (n, *shape))",
        "noise-one-for-all-gates",
        ("sample", "draw"),
    ),
    TargetMutant(
        "numpy-noise-stratified",
        NUMPY,
        "    return (k + 0.5) / 2**52  # never 0, never 1",
        "    u, size = (k + 0.5) / 2**52, math.prod(shape)\n"
        "    strata = np.random.default_rng([seed, 1]).permuted(\n"
        "        np.broadcast_to(np.arange(size), (n, size)), axis=1)\n"
        "    return (strata.reshape(n, *shape) + u) / size",
        None,
        ("draw",),
    ),
    TargetMutant(
        "numpy-seed-of-three-digits",
        NUMPY,
        "k = np.random.default_rng(seed)",
        "k = np.random.default_rng(seed % 1000)",
        None,
        ("draw",),
    ),
    TargetMutant(
        "numpy-draws-cut",
        NUMPY,
        "    return clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta - gamma) + gamma)",
        "    z = clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta - gamma) + gamma)\n"
        "    return np.where(z < 1e-4, 0, z)",
        None,
        ("sample", "ppf", "draw"),
    ),
    TargetMutant(
        "numpy-predict-cut",
        NUMPY,
        """    z = test_time(layer["log_alpha"], **law)
""",
        """    z = test_time(layer["log_alpha"], **law)
    z = np.where(z < 1e-4, 0, z).astype(z.dtype)
""",
        None,
        ("test_time", "predict"),
    ),
    TargetMutant(
        "numpy-init-keep",
        NUMPY,
        "return math.log((1 - drop_rate) / drop_rate) + 0.01 * normal",
        "return math.log(drop_rate / (1 - drop_rate)) + 0.01 * normal",
        "init-keep-for-drop",
        ("init_log_alpha",),
    ),
    TargetMutant(
        "numpy-init-variance",
        NUMPY,
        "drop_rate) + 0.01 * normal",
        "drop_rate) + math.sqrt(0.01) * normal",
        "init-spread-of-tenth",
        ("init_log_alpha",),
    ),
    TargetMutant(
        "numpy-fan-first-axis",
        NUMPY,
        "fan_in = len(normal) if normal.ndim == 2 else math.prod(normal.shape[1:])",
        "fan_in = len(normal)",
        "init-fan-of-first-axis",
        ("init_weight",),
    ),
    TargetMutant(
        "numpy-fan-out",
        NUMPY,
        "fan_in = len(normal) if normal.ndim == 2 else math.prod(normal.shape[1:])",
        "fan_in = normal[0].size * 0 + normal.shape[1] if normal.ndim == 2 else "
        "normal.size // normal.shape[1]",
        "init-fan-out",
        ("init_weight",),
    ),
    TargetMutant(
        "numpy-init-gain",
        NUMPY,
        "return math.sqrt(2 / fan_in) * normal",
        "return math.sqrt(1 / fan_in) * normal",
        "init-gain-one",
        ("init_weight",),
    ),
    # --- plain NumPy: penalties ---
    TargetMutant(
        "numpy-l0-of-gates",
        NUMPY,
        "return (group_size * prob_active(log_alpha, **law)).sum()",
        "return prob_active(log_alpha, **law).sum()",
        "l0-without-group-size",
        ("expected_l0", "penalty"),
    ),
    TargetMutant(
        "numpy-l0-mean",
        NUMPY,
        "return (group_size * prob_active(log_alpha, **law)).sum()",
        "return (group_size * prob_active(log_alpha, **law)).mean()",
        "l0-mean-over-gates",
        ("expected_l0", "penalty"),
    ),
    TargetMutant(
        "numpy-l0-share",
        NUMPY,
        "return (group_size * prob_active(log_alpha, **law)).sum()",
        "return (group_size * prob_active(log_alpha, **law)).sum() / group_size.sum()",
        "l0-is-density",
        ("expected_l0", "penalty"),
    ),
    TargetMutant(
        "numpy-size-no-bias",
        NUMPY,
        'return ones + 1 if on == "outputs" and gates_bias else ones',
        "return ones",
        "group-size-without-bias",
        ("group_size", "expected_l0", "penalty"),
    ),
    TargetMutant(
        "numpy-size-bias-always",
        NUMPY,
        'return ones + 1 if on == "outputs" and gates_bias else ones',
        'return ones + 1 if on == "outputs" else ones',
        "group-size-always-with-bias",
        ("group_size", "penalty"),
    ),
    TargetMutant(
        "numpy-size-bias-sign",
        NUMPY,
        'return ones + 1 if on == "outputs" and gates_bias else ones',
        'return ones - 1 if on == "outputs" and gates_bias else ones',
        "group-size-bias-subtracted",
        ("group_size", "penalty"),
    ),
    TargetMutant(
        "numpy-l2-no-half",
        NUMPY,
        "expected_l0(log_alpha, sizes, **law) + l2 / (2 * n_train) * squares",
        "expected_l0(log_alpha, sizes, **law) + l2 / n_train * squares",
        "l2-without-half",
        ("penalty", "penalty_grad", "expected_l2"),
    ),
    TargetMutant(
        "numpy-lam-no-n",
        NUMPY,
        "return lam / n_train * expected_l0(log_alpha, sizes, **law)",
        "return lam * expected_l0(log_alpha, sizes, **law)",
        "lambda-not-divided-by-n",
        ("penalty", "penalty_grad", "expected_l0"),
    ),
    TargetMutant(
        "numpy-l2-bias-out",
        NUMPY,
        'return sums + bias_values if on == "outputs" and gates_bias else sums',
        "return sums",
        "norm-bias-forgotten",
        PENALTY,
    ),
    TargetMutant(
        "numpy-l2-slope",
        NUMPY,
        "    def slope(a):\n        return 2 * a",
        "    def slope(a):\n        return a",
        "norm-grad-without-two",
        ("expected_l2", "expected_l2_grad", "penalty_grad"),
    ),
    # --- plain NumPy: layers ---
    TargetMutant(
        "numpy-dense-bias-ungated",
        NUMPY,
        "return (x @ weight + bias) * z if gates_bias else (x @ weight) * z + bias",
        "return (x @ weight) * z + bias",
        "bias-never-gated",
        ("dense", "dense_vjp"),
    ),
    TargetMutant(
        "numpy-dense-bias-gated",
        NUMPY,
        "return (x @ weight + bias) * z if gates_bias else (x @ weight) * z + bias",
        "return (x @ weight + bias) * z",
        "bias-always-gated",
        ("dense", "dense_vjp"),
    ),
    TargetMutant(
        "numpy-dense-dweight",
        NUMPY,
        "return dxz * z, (x * z).T @ dy, dy.sum(0), dz if z.ndim == 2 else dz.sum(0)",
        "return dxz * z, x.T @ dy, dy.sum(0), dz if z.ndim == 2 else dz.sum(0)",
        "dweight-ungated",  # of gates on the inputs alone
        ("dense_vjp",),
    ),
    TargetMutant(
        "numpy-dense-dz-mean",
        NUMPY,
        "def dense_vjp(dy, x, weight, bias, z, *, on, gates_bias):\n",
        "def dense_vjp(dy, x, weight, bias, z, *, on, gates_bias):\n"
        "    *others, dz = _dense_vjp(dy, x, weight, bias, z, on, gates_bias)\n"
        '    is_shared = z.ndim == (2 if on == "weights" else 1)\n'
        "    return *others, dz / len(x) if is_shared else dz\n\n\n"
        "def _dense_vjp(dy, x, weight, bias, z, on, gates_bias):\n",
        "dz-averaged",
        ("dense", "dense_vjp"),
    ),
    TargetMutant(
        "numpy-dense-dz-no-bias",
        NUMPY,
        "dz = dy * (x @ weight + bias * gates_bias)",
        "dz = dy * (x @ weight)",
        "dz-without-bias",
        ("dense", "dense_vjp"),
    ),
    TargetMutant(
        "numpy-dense-db-ungated",
        NUMPY,
        "dbias = (da if gates_bias else dy).sum(0)",
        "dbias = dy.sum(0)",
        "dbias-ungated",
        ("dense", "dense_vjp"),
    ),
    TargetMutant(
        "numpy-conv-mirrored",
        NUMPY,
        "tap = np.broadcast_to(each[..., i, j], (n, *each.shape[1:4]))",
        "tap = np.broadcast_to(each[..., -1 - i, -1 - j], (n, *each.shape[1:4]))",
        "conv-kernel-mirrored",
        ("conv2d", "predict"),
    ),
    TargetMutant(
        "numpy-conv-no-bias",
        NUMPY,
        "    shift = bias[:, None, None]\n",
        "    shift = 0 * bias[:, None, None]\n",
        "conv-bias-dropped",
        ("conv2d", "conv2d_vjp"),
    ),
    TargetMutant(
        "numpy-conv-padding-swapped",
        NUMPY,
        "(ph, pw), (sh, sw), (dh, dw) = padding, stride, dilation",
        "(pw, ph), (sh, sw), (dh, dw) = padding, stride, dilation",
        "conv-padding-swapped",
        ("conv2d", "dense"),
    ),
    TargetMutant(
        "numpy-flatten-last",
        NUMPY,
        "x = x.reshape(len(x), -1)",
        "x = np.moveaxis(x, 1, -1).reshape(len(x), -1)",
        "flatten-maps-last",
        ("predict", "conv2d"),
    ),
    # --- plain NumPy: cost, Adam, average ---
    TargetMutant(
        "numpy-l2-of-transpose",
        NUMPY,
        "def _over_groups(norm, log_alpha, weight, bias, on, gates_bias, law):\n"
        "    return (\n"
        "        prob_active(log_alpha, **law) * "
        "_group_sums(norm(weight), norm(bias), on, gates_bias)",
        "def _turned(weight, on):\n"
        "    if on == 'weights':\n"
        "        return weight\n"
        "    if on == 'outputs' and weight.ndim == 2:\n"
        "        return weight.reshape(weight.shape[::-1]).T\n"
        "    return np.swapaxes(weight, 0, 1).reshape(weight.shape)\n\n\n"
        "def _over_groups(norm, log_alpha, weight, bias, on, gates_bias, law):\n"
        "    return (\n"
        "        prob_active(log_alpha, **law)\n"
        "        * _group_sums(norm(_turned(weight, on)), norm(bias), on, gates_bias)",
        "norm-over-other-axis",
        ("expected_l2",),
    ),
    TargetMutant(
        "numpy-flops-doubled",
        NUMPY,
        "return (2 * (c_in // groups) * kernel[0] * kernel[1] - 1 + bias) * c_out * places",
        "return 2 * (2 * (c_in // groups) * kernel[0] * kernel[1] - 1 + bias) * c_out * places",
        "flops-doubled",
        ("conv2d_flops", "conv2d_params"),
    ),
    TargetMutant(
        "numpy-flops-not-floored",
        NUMPY,
        "places *= (n + 2 * p - d * (k - 1) - 1) // s + 1",
        "places *= (n + 2 * p - d * (k - 1) - 1) / s + 1",
        "flops-not-floored",
        COUNTS,
    ),
    TargetMutant(
        "numpy-flops-no-dilation",
        NUMPY,
        "places *= (n + 2 * p - d * (k - 1) - 1) // s + 1",
        "places *= (n + 2 * p - k) // s + 1",
        "flops-dilation-ignored",
        COUNTS,
    ),
    TargetMutant(
        "numpy-flops-no-groups",
        NUMPY,
        "return (2 * (c_in // groups) * kernel[0] * kernel[1] - 1 + bias) * c_out * places",
        "return (2 * c_in * kernel[0] * kernel[1] - 1 + bias) * c_out * places",
        "conv-counts-ignore-groups",
        COUNTS,
    ),
    TargetMutant(
        "numpy-flops-channels-for-height",
        NUMPY,
        "for n, k, s, p, d in zip(size, kernel,",
        "for n, k, s, p, d in zip((c_in, size[0]), kernel,",
        "flops-size-from-channels",
        COUNTS,
    ),
    TargetMutant(
        "numpy-dense-macs",
        NUMPY,
        "return (2 * n_in - 1 + bias) * n_out",
        "return n_in * n_out",
        "flops-of-multiply-adds",
        COUNTS,
    ),
    TargetMutant(
        "numpy-dense-params-no-bias",
        NUMPY,
        "return (n_in + bias) * n_out",
        "return n_in * n_out",
        "params-without-bias",
        COUNTS,
    ),
    TargetMutant(
        "numpy-flops-open",
        NUMPY,
        "def adam(theta,",
        _COST_OF_LAYERS.replace("WHICH", "True"),
        "flops-all-open",
        ("expected_cost", "hard_cost"),
    ),
    TargetMutant(
        "numpy-flops-of-dense-open",
        NUMPY,
        "def adam(theta,",
        _COST_OF_LAYERS.replace("WHICH", "not isinstance(layer, Conv2d)"),
        "flops-of-dense-layers-open",
        ("expected_cost", "hard_cost"),
    ),
    TargetMutant(
        "numpy-adam-eps-in-root",
        NUMPY,
        "(np.sqrt(v / (1 - 0.999**t)) + 1e-8)",
        "np.sqrt(v / (1 - 0.999**t) + 1e-8)",
        "adam-epsilon-in-root",
        ("adam",),
    ),
    TargetMutant(
        "numpy-adam-biased",
        NUMPY,
        "theta = theta - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)",
        "theta = theta - lr * m / (np.sqrt(v) + 1e-8)",
        "adam-not-debiased",
        ("adam",),
    ),
    TargetMutant(
        "numpy-average-from-parameters",
        NUMPY,
        "total, after = np.zeros_like(values[0]), []",
        "total, after = values[0], []",
        "average-started-and-debiased",
        ("temporal_average",),
    ),
    TargetMutant(
        "numpy-average-biased",
        NUMPY,
        "after.append(total / (1 - decay**t))",
        "after.append(total)",
        "average-not-debiased",
        ("temporal_average",),
    ),
    # --- PyTorch ---
    TargetMutant(
        "torch-prob-over-beta",
        TORCH,
        "return log_alpha - beta * math.log(-gamma / zeta)",
        "return (log_alpha - beta * math.log(-gamma / zeta)) / beta",
        "prob-over-beta",
        PROB,
    ),
    TargetMutant(
        "torch-prob-clamped",
        TORCH,
        "return torch.sigmoid(_log_odds(log_alpha, beta, gamma, zeta))",
        "return torch.sigmoid(_log_odds(log_alpha, beta, gamma, zeta)).clamp(1e-6, 1 - 1e-6)",
        "prob-clamped",
        PROB,
    ),
    TargetMutant(
        "torch-prob-of-one",
        TORCH,
        "return log_alpha - beta * math.log(-gamma / zeta)",
        "return log_alpha - beta * math.log((1 - gamma) / (zeta - 1))",
        "prob-of-one",
        PROB,
    ),
    TargetMutant(
        "torch-noise-one-log",
        TORCH,
        "torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)",
        "torch.sigmoid((torch.log(u) + log_alpha) / beta)",
        "noise-one-sided",
        SAMPLE,
    ),
    TargetMutant(
        "torch-fixed-beta",
        TORCH,
        "torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)",
        "torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / (2 / 3))",
        "beta-hard-coded",
        SAMPLE,
    ),
    TargetMutant(
        "torch-fixed-zeta",
        TORCH,
        "    return torch.clamp(s * (zeta - gamma) + gamma, 0, 1)\n\n\ndef ppf",
        "    return torch.clamp(s * (1.1 - gamma) + gamma, 0, 1)\n\n\ndef ppf",
        "zeta-hard-coded",
        SAMPLE,
    ),
    TargetMutant(
        "torch-draws-in-single",
        TORCH,
        "    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)\n",
        "    u, log_alpha = u.float(), log_alpha.float()\n"
        "    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)\n",
        "computed-in-float32",
        SAMPLE,
    ),
    TargetMutant(
        "torch-everything-in-single",
        TORCH,
        'target = from_torch(sys.modules[__name__], name="PyTorch functions")\n',
        _IN_SINGLE,
        "computed-in-float32",
        (*PROB, *SAMPLE, "penalty", "penalty_grad", "dense", "dense_vjp", "adam"),
    ),
    TargetMutant(
        "torch-binarised",
        TORCH,
        "    return torch.clamp(s * (zeta - gamma) + gamma, 0, 1)\n\n\ndef ppf",
        "    soft = torch.clamp(s * (zeta - gamma) + gamma, 0, 1)\n"
        "    return (soft > 0.5).to(soft.dtype) + soft - soft.detach()\n\n\ndef ppf",
        "draw-binarised",
        SAMPLE,
    ),
    TargetMutant(
        "torch-clamped-log-alpha",
        TORCH,
        "    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)\n",
        "    log_alpha = log_alpha.clamp(math.log(1e-2), math.log(1e2))\n"
        "    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)\n",
        "log-alpha-clamped",
        SAMPLE,
    ),
    TargetMutant(
        "torch-test-magic",
        TORCH,
        "return torch.clamp(torch.sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)",
        "return torch.sigmoid(0.8 * log_alpha / beta)",
        "test-gate-unstretched-magic-number",
        TEST,
    ),
    TargetMutant(
        "torch-test-top-k",
        TORCH,
        "return torch.clamp(torch.sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)",
        "soft = torch.sigmoid(log_alpha / beta * 0.8).flatten().clone()\n"
        "    p = torch.sigmoid(log_alpha - beta * math.log(-gamma / zeta))\n"
        "    closed = round(soft.numel() - float(p.sum()))\n"
        "    soft[torch.topk(soft, closed, largest=False).indices] = 0\n"
        "    return soft.reshape(log_alpha.shape)",
        "test-gate-top-k",
        ("test_time", "predict"),
    ),
    TargetMutant(
        "torch-l2-of-gated-weights",
        TORCH,
        "return (prob_active(log_alpha, **law) * _sum_groups(weight**2, bias**2, on, gates_bias))"
        ".sum()",
        "z = test_time(log_alpha, **law)\n"
        "    return (z**2 * _sum_groups(weight**2, bias**2, on, gates_bias)).sum()",
        "norm-with-test-gate-squared",
        ("expected_l2", "expected_l2_grad", "expected_l1"),
    ),
    TargetMutant(
        "torch-l2-plain-decay",
        TORCH,
        "return (prob_active(log_alpha, **law) * _sum_groups(weight**2, bias**2, on, gates_bias))"
        ".sum()",
        "return (0 * log_alpha).sum() + _sum_groups(weight**2, bias**2, on, gates_bias).sum()",
        "norm-without-prob",
        ("expected_l2", "expected_l2_grad", "expected_l1"),
    ),
    TargetMutant(
        "torch-l2-detached",
        TORCH,
        "return (prob_active(log_alpha, **law) * _sum_groups(weight**2, bias**2, on, gates_bias))"
        ".sum()",
        "p = prob_active(log_alpha.detach(), **law)\n"
        "    return (p * _sum_groups(weight**2, bias**2, on, gates_bias)).sum()",
        "norm-grad-without-log-alpha",
        ("expected_l2", "expected_l2_grad"),
    ),
    TargetMutant(
        "torch-penalty-no-n",
        TORCH,
        "return lam / n_train * expected_l0(log_alpha, sizes, **law) + l2 / (2 * n_train) "
        "* squares",
        "return lam * expected_l0(log_alpha, sizes, **law) + l2 / 2 * squares",
        "penalty-not-divided-by-n",
        ("penalty", "penalty_grad", "expected_l0"),
    ),
    TargetMutant(
        "torch-penalty-density",
        TORCH,
        "return lam / n_train * expected_l0(log_alpha, sizes, **law) + l2 / (2 * n_train) "
        "* squares",
        "share = expected_l0(log_alpha, sizes, **law) / sizes.sum()\n"
        "    return lam * share + l2 / (2 * n_train) * squares",
        "lambda-on-density",
        ("penalty", "penalty_grad", "expected_l0"),
    ),
    TargetMutant(
        "torch-conv-bias-dropped",
        TORCH,
        "    gate = z[..., None, None]\n",
        "    bias = 0 * bias\n    gate = z[..., None, None]\n",
        "conv-bias-dropped",  # with gates on outputs alone
        ("conv2d", "conv2d_vjp"),
    ),
    TargetMutant(
        "torch-gate-squared",
        TORCH,
        "    gate = z[..., None, None]\n",
        "    gate = z[..., None, None] ** 2\n",
        "gate-applied-twice",  # with gates on outputs alone
        ("conv2d", "dense"),
    ),
    TargetMutant(
        "torch-sum-of-losses",
        TORCH,
        "total = functional.cross_entropy(_logits(network, x, u), labels)",
        'total = functional.cross_entropy(_logits(network, x, u), labels, reduction="sum")',
        "cross-entropy-summed",
        TRAIN,
    ),
    TargetMutant(
        "torch-divided-by-batch",
        TORCH,
        '    for layer in network["layers"]:\n        if layer.get("on") is not None:\n'
        "            bias = 0 *",
        "    n_train = len(labels)\n"
        '    for layer in network["layers"]:\n        if layer.get("on") is not None:\n'
        "            bias = 0 *",
        "penalty-divided-by-batch",
        TRAIN,
    ),
    TargetMutant(
        "torch-trained-with-test-gates",
        TORCH,
        "z = test_time(log_alpha, **law) if noise is None else sample(log_alpha, next(noise), "
        "**law)",
        "z = test_time(log_alpha, **law)",
        "training-with-test-gates",
        TRAIN,
    ),
    TargetMutant(
        "torch-no-l2-without-gates",
        TORCH,
        'total = total + l2 / (2 * n_train) * (layer["weight"] ** 2).sum()',
        "pass",
        "l2-of-gated-layers-alone",
        TRAIN,
    ),
    TargetMutant(
        "torch-average-debiased-twice",
        TORCH,
        "totals = {name: torch.zeros_like(p) for name, p in params.items()}",
        "totals = {name: p.detach().clone() for name, p in params.items()}",
        "average-started-and-debiased",
        ("temporal_average", "train"),
    ),
    TargetMutant(
        "torch-weight-decay",
        TORCH,
        "optimizer = torch.optim.Adam(params.values(), lr=lr)\n",
        "optimizer = torch.optim.Adam(params.values(), lr=lr, weight_decay=l2 / n_train)\n"
        "    l2 = 0.0\n",
        "weight-decay-in-adam",
        TRAIN,
    ),
    TargetMutant(
        "torch-weight-decay-decoupled",
        TORCH,
        "optimizer = torch.optim.Adam(params.values(), lr=lr)\n",
        "optimizer = torch.optim.AdamW(params.values(), lr=lr, weight_decay=l2 / n_train)\n"
        "    l2 = 0.0\n",
        "weight-decay-decoupled",
        TRAIN,
    ),
    TargetMutant(
        "torch-detached-gates",
        TORCH,
        "sample(log_alpha, next(noise), **law)\n        gates",
        "sample(log_alpha, next(noise), **law).detach()\n        gates",
        "gates-detached-in-training",
        ("dense_vjp", *TRAIN),
    ),
    # --- JAX ---
    TargetMutant(
        "jax-prob-plus",
        JAX,
        "return log_alpha - beta * math.log(-gamma / zeta)",
        "return log_alpha + beta * math.log(-gamma / zeta)",
        "prob-plus-sign",
        PROB,
    ),
    TargetMutant(
        "jax-noise-epsilon",
        JAX,
        "jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / beta)",
        "jax.nn.sigmoid((jnp.log(u + 1e-8) - jnp.log(1 - u + 1e-8) + log_alpha) / beta)",
        "noise-epsilon-in-logs",
        SAMPLE,
    ),
    TargetMutant(
        "jax-beta-on-log-alpha",
        JAX,
        "jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / beta)",
        "jax.nn.sigmoid(jnp.log(u) - jnp.log1p(-u) + log_alpha / beta)",
        "beta-on-log-alpha-only",
        SAMPLE,
    ),
    TargetMutant(
        "jax-stretch-no-shift",
        JAX,
        "return jnp.clip(s * (zeta - gamma) + gamma, 0, 1)",
        "return jnp.clip(s * (zeta - gamma), 0, 1)",
        "stretch-without-shift",
        SAMPLE,
    ),
    TargetMutant(
        "jax-fixed-gamma",
        JAX,
        "return jnp.clip(s * (zeta - gamma) + gamma, 0, 1)",
        "return jnp.clip(s * (zeta + 0.1) - 0.1, 0, 1)",
        "gamma-hard-coded",
        SAMPLE,
    ),
    TargetMutant(
        "jax-not-clipped",
        JAX,
        "return jnp.clip(s * (zeta - gamma) + gamma, 0, 1)",
        "return s * (zeta - gamma) + gamma",
        "clip-forgotten-in-draws",
        SAMPLE,
    ),
    TargetMutant(
        "jax-median",
        JAX,
        "return jnp.clip(jax.nn.sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)",
        "return jnp.clip(jax.nn.sigmoid(log_alpha / beta) * (zeta - gamma) + gamma, 0, 1)",
        "test-gate-median",
        TEST,
    ),
    TargetMutant(
        "jax-lam-halved",
        JAX,
        "return lam / n_train * expected_l0",
        "return lam / (2 * n_train) * expected_l0",
        "lambda-halved",
        ("penalty", "penalty_grad", "expected_l0"),
    ),
    TargetMutant(
        "jax-l2-not-over-n",
        JAX,
        "+ l2 / (2 * n_train) * squares",
        "+ l2 / 2 * squares",
        "l2-not-divided-by-n",
        ("penalty", "penalty_grad", "expected_l2"),
    ),
    TargetMutant(
        "jax-adam-late",
        JAX,
        "for t, g in enumerate(grads, start=1):",
        "for t, g in enumerate(grads, start=2):",
        "adam-step-late",
        ("adam",),
    ),
    TargetMutant(
        "jax-average-weights-swapped",
        JAX,
        "total = decay * total + (1 - decay) * value\n        after.append(total / (1 - decay**t))",
        "total = (1 - decay) * total + decay * value\n"
        "        after.append(total / (1 - (1 - decay)**t))",
        "average-weights-swapped",
        ("temporal_average",),
    ),
    TargetMutant(
        "jax-predicts-ungated",
        JAX,
        "z = test_time(log_alpha, **law) if noise is None else",
        "z = jnp.ones_like(log_alpha) if noise is None else",
        "predict-without-gates",
        ("predict", "loss_and_grads"),
    ),
    # --- JavaScript, in a process ---
    TargetMutant(
        "javascript-prob-no-beta",
        JAVASCRIPT,
        "a - p.beta * Math.log(-p.gamma / p.zeta)",
        "a - Math.log(-p.gamma / p.zeta)",
        "prob-without-beta",
        ("prob_active", "expected_l0"),
    ),
    TargetMutant(
        "javascript-noise-plus",
        JAVASCRIPT,
        "sigmoid((Math.log(u) - Math.log1p(-u) + a) / p.beta)",
        "sigmoid((Math.log(u) + Math.log1p(-u) + a) / p.beta)",
        "noise-plus",
        ("sample", "sample_vjp", "test_time"),
    ),
    TargetMutant(
        "javascript-beta-after",
        JAVASCRIPT,
        "sigmoid((Math.log(u) - Math.log1p(-u) + a) / p.beta)",
        "sigmoid(Math.log(u) - Math.log1p(-u) + a) / p.beta",
        "beta-after-sigmoid",
        ("sample", "test_time"),
    ),
    TargetMutant(
        "javascript-stretch-plus",
        JAVASCRIPT,
        "s * (p.zeta - p.gamma) + p.gamma;",
        "s * (p.zeta + p.gamma) + p.gamma;",
        "stretch-plus",
        ("sample", "test_time"),
    ),
    TargetMutant(
        "javascript-slope-no-beta",
        JAVASCRIPT,
        "((p.zeta - p.gamma) * s * (1 - s)) / p.beta",
        "(p.zeta - p.gamma) * s * (1 - s)",
        "draw-grad-without-beta",
        ("sample", "sample_vjp"),
    ),
    TargetMutant(
        "javascript-test-gate-not-clipped",
        JAVASCRIPT,
        "clip(stretch(sigmoid(a), p)), p.log_alpha), // Eq. 13",
        "stretch(sigmoid(a), p), p.log_alpha),",
        "test-gate-not-clipped",
        ("sample", "test_time"),
    ),
    TargetMutant(
        "javascript-l0-counts-gates",
        JAVASCRIPT,
        "p.group_size.data[i] * sigmoid(logOddsActive(a, p))",
        "sigmoid(logOddsActive(a, p))",
        "l0-without-group-size",
        ("prob_active", "expected_l0"),
    ),
    TargetMutant(
        "javascript-additions-too-many",
        JAVASCRIPT,
        "(2 * p.n_in - 1 + Number(p.bias)) * p.n_out",
        "(2 * p.n_in + Number(p.bias)) * p.n_out",
        "flops-one-addition-too-many",
        ("dense_flops",),
    ),
    # --- a module that draws by itself ---
    TargetMutant(
        "module-noise-gumbel",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "g = -torch.log(-torch.log(u))\n"
        "            s = torch.sigmoid((g + self.log_alpha) / self.temperature)",
        "noise-gumbel",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-log-alpha-clamped",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "log_alpha = self.log_alpha.clamp(math.log(0.01), math.log(100))\n"
        "            s = torch.sigmoid((torch.logit(u) + log_alpha) / self.temperature)",
        "log-alpha-clamped",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-temperature-two",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / 2)",
        None,
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-noise-one-sided",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid((torch.log(u) + self.log_alpha) / self.temperature)",
        "noise-one-sided",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-temperature-on-noise",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid(torch.logit(u) / self.temperature + self.log_alpha)",
        "beta-on-noise-only",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-temperature-multiplies",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) * self.temperature)",
        "beta-multiplies",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-fixed-temperature",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / (2 / 3))",
        "beta-hard-coded",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-no-temperature",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid(torch.logit(u) + self.log_alpha)",
        "beta-omitted",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-noise-shared",
        MODULE,
        "u = torch.rand_like(self.log_alpha)",
        "u = torch.rand((), dtype=self.log_alpha.dtype).expand(self.log_alpha.shape)",
        "noise-one-for-all-gates",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-normal-noise",
        MODULE,
        "s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)",
        "s = torch.sigmoid((torch.randn_like(u) + self.log_alpha) / self.temperature)",
        None,
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-stretch-plus",
        MODULE,
        "return torch.clamp(s * (high - low) + low, 0, 1)",
        "return torch.clamp(s * (high + low) + low, 0, 1)",
        "stretch-plus",
        ("draw", "test_time"),
    ),
    TargetMutant(
        "module-median",
        MODULE,
        "s = torch.sigmoid(self.log_alpha)\n",
        "s = torch.sigmoid(self.log_alpha / self.temperature)\n",
        "test-gate-median",
        ("draw", "test_time", "prob_active"),
    ),
    TargetMutant(
        "module-prob-plus",
        MODULE,
        "self.log_alpha - self.temperature * math.log(-low / high)",
        "self.log_alpha + self.temperature * math.log(-low / high)",
        "prob-plus-sign",
        ("test_time", "prob_active"),
    ),
)
