"""The hard concrete distribution, held against mpmath, quadrature, Monte Carlo and differences.

Everywhere below, eps is the dtype's and t is the argument of the sigmoid in the formula at hand
(its true value). A t that is right to its last bit still carries a relative error of eps/2, and
sigmoid(t), or its tail, has the condition number |t|: eps (1+|t|) is the unit of error of anything
that is made of sigmoids, and 8 of them the promise.

Where a derivative has t itself as a factor, or tanh(t/2), its relative error is t's, and t is a
difference of rounded logarithms. Formed in about twice the working precision, it is right to a
millionth of eps of the terms that cancel: the one error allowed beside the promise, there and
nowhere else (`residue`). A t formed in the working precision is a million times worse.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import integrate, stats

from l0ref import hard_concrete as hc
from l0ref.hard_concrete import HardConcrete
from tests import mp_reference as mpref
from tests import naive, strategies
from tests.mp_reference import PARAMETERS, Exact, mp

PATH = (*PARAMETERS, "u")
PROBABILITIES = ("prob_active", "prob_zero", "prob_one")
PROBABILITIES += tuple(f"log_{name}" for name in PROBABILITIES)
LAW = ("cdf", "sf", "logcdf", "logsf", "pdf", "logpdf")
both_dtypes = pytest.mark.parametrize("dtype", strategies.DTYPES, ids=["float32", "float64"])


# Where the numbers come from


def random_gates(dtype: Any, count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    gates = {
        "log_alpha": rng.uniform(-40, 40, count),
        "beta": rng.uniform(0.1, 2, count),
        "gamma": -(10.0 ** rng.uniform(-2, 0, count)),
        "zeta": rng.uniform(1.01, 2, count),
    }
    return {name: values.astype(dtype) for name, values in gates.items()}


def random_noise(dtype: Any, count: int, rng: np.random.Generator) -> Any:
    """Half even on (0, 1), a quarter log-uniform to each end, and the ends themselves."""
    bits = 24 if dtype is np.float32 else 53
    u = rng.random(count).clip(2.0**-24, 1 - 2.0**-24)
    near = 2.0 ** -rng.uniform(1, bits, count)
    part = count // 4
    u[:part] = near[:part]
    u[part : 2 * part] = 1 - near[part : 2 * part]
    u[:4] = 2.0**-bits, 1 - 2.0**-bits, 2.0 ** -(bits + 1), 0.5
    u[4] = 2.0**-25 if dtype is np.float32 else 1e-300
    return u.astype(dtype)


def naive_logit(u: Any) -> Any:
    return np.log(u) - np.log1p(-u)


@cache
def law_grid(dtype: Any) -> tuple[dict[str, Any], Any, dict[str, dict[str, Exact]]]:
    """Return gates, points x of (0, 1), and the truth at x and at the edges 0 and 1.

    A third of the gates have the centre of their sigmoid at x: t cancels there to nothing.
    """
    count = 900
    gates = random_gates(dtype, count, seed=20)
    rng = np.random.default_rng(21)
    x = random_noise(dtype, count, rng)
    third = slice(0, count, 3)
    s = (x[third].astype(float) - gates["gamma"][third]) / (gates["zeta"] - gates["gamma"])[third]
    gates["log_alpha"][third] = gates["beta"][third] * naive_logit(s)
    where = {"edge 0": 0.0, "edge 1": 1.0, "x": x}
    return gates, x, {at: mpref.table(mpref.law, *gates.values(), v) for at, v in where.items()}


@cache
def path_grid(dtype: Any) -> tuple[dict[str, Any], Any, dict[str, Exact]]:
    """Return gates, noise and the truth along the path; two thirds of the gates are partly open.

    Those have log_alpha solved from the noise, so that the two cancel, from up to 36 each in the
    noise's far ends, before the division by a beta of 0.1.
    """
    count = 1800
    gates = random_gates(dtype, count, seed=22)
    rng = np.random.default_rng(23)
    u = random_noise(dtype, count, rng)
    s = (rng.random(count) - gates["gamma"]) / (gates["zeta"] - gates["gamma"])
    s[::2] = 0.5  # t = 0 but for the rounding of log_alpha, in the sharpest of gates
    gates["beta"][::2] = 0.1
    solved = gates["beta"] * naive_logit(s) - naive_logit(u.astype(float))
    chosen = (np.arange(count) % 3 != 0) & (np.abs(solved) <= 40)
    gates["log_alpha"][chosen] = solved[chosen]
    return gates, u, mpref.table(mpref.path, *gates.values(), u, wrt=PATH)


def unit(truth: dict[str, Exact], dtype: Any) -> Any:
    return np.finfo(dtype).eps * (1 + np.abs(truth["t"].high))


def residue(dtype: Any, *terms: Any) -> Any:
    """Return what may be left of t when terms of these sizes cancel."""
    return 1e-6 * np.finfo(dtype).eps * sum(np.abs(np.asarray(term, float)) for term in terms)


def assert_within(got: Any, truth: Exact, bound: Any, dtype: Any, what: str = "") -> None:
    """Compare in float64; the smallest subnormal is the least error anything can have."""
    got = np.asarray(got)
    assert got.dtype == dtype, what
    excess = truth.error(got) / (bound + np.finfo(dtype).smallest_subnormal)
    worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
    assert excess[worst] <= 1, (
        f"{what}: {got[worst]!r} for {truth.high[worst]!r}, {excess[worst]:.3g} times the bound,"
        f" at index {worst}"
    )


def assert_alive(got: Any, truth: Exact, dtype: Any) -> None:
    """No derivative is exactly 0 where the true one is representable."""
    representable = np.abs(truth.high) >= 2 * np.finfo(dtype).smallest_subnormal
    assert np.all(np.asarray(got)[representable] != 0)


# Against 60 digits: probabilities and their derivatives


def edge(name: str, truth: dict[str, dict[str, Exact]]) -> tuple[dict[str, Exact], str]:
    """Say which edge of the continuous law a probability is, and which of its functions."""
    log, which = ("log", name[4:]) if name.startswith("log_") else ("", name)
    at, function = {"prob_active": ("edge 0", "sf"), "prob_zero": ("edge 0", "cdf")}.get(
        which, ("edge 1", "sf")
    )
    return truth[at], log + function


@both_dtypes
@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_and_derivatives_to_the_last_digits(name: str, dtype: Any) -> None:
    """A probability, its log, and every derivative of both are products: relative to themselves."""
    gates, _, truths = law_grid(dtype)
    truth, key = edge(name, truths)
    bound = 8 * unit(truth, dtype)
    value = getattr(hc, name)(**gates)
    assert_within(value, truth[key], bound * np.abs(truth[key].high), dtype, name)
    partials = getattr(hc, f"{name}_partials")(**gates)
    assert partials._fields == PARAMETERS
    for parameter, got in partials._asdict().items():
        want = truth[f"{key}/{parameter}"]
        assert_within(got, want, bound * np.abs(want.high), dtype, f"{name}/{parameter}")
        assert_alive(got, want, dtype)
    law = HardConcrete(**gates)
    assert np.array_equal(getattr(law, name)(), value)
    for got, want in zip(getattr(law, f"{name}_partials")(), partials, strict=True):
        assert np.array_equal(got, want)


def law_bound(
    name: str, parameter: str, gates: dict[str, Any], x: Any, truth: Any, dtype: Any
) -> Any:
    """Return the error allowed to a derivative of the law.

    Of cdf and sf and their logs every derivative is a product: relative to itself. So is that of
    log pdf in log_alpha, tanh(t/2), but for the residue of t. The other three are sums of two terms
    of opposite sign, with r = b tanh(t/2) for short (b = beta, g = gamma, z = zeta),

        d log pdf/db = 1/b - log((x-g)/(z-x)) tanh(t/2)
        d log pdf/dg = (r + (z-x)/(z-g)) / (x-g)
        d log pdf/dz = (r - (x-g)/(z-g)) / (z-x)

    that cross 0 where t is -- as it must be -- a rounded number: there the error is relative to
    the sum of the terms' magnitudes. The density's own are these times the density.
    """
    promise = 8 * unit(truth, dtype)
    itself = promise * np.abs(truth[f"{name}/{parameter}"].high)
    if name not in ("pdf", "logpdf"):
        return itself
    density = truth["pdf"].high if name == "pdf" else 1
    log_alpha, b, g, z = (gates[key].astype(float) for key in PARAMETERS)
    tanh, x = np.abs(np.tanh(truth["t"].high / 2)), x.astype(float)
    log_odds = np.abs(np.log((x - g) / (z - x)))
    if parameter == "log_alpha":
        return itself + residue(dtype, log_alpha, b * (1 + log_odds)) * density
    size = {
        "beta": 1 / b + log_odds * tanh,
        "gamma": (b * tanh + (z - x) / (z - g)) / (x - g),
        "zeta": (b * tanh + (x - g) / (z - g)) / (z - x),
    }[parameter]
    return promise * size * density


@both_dtypes
@pytest.mark.parametrize("name", LAW)
def test_law_and_derivatives_to_the_last_digits(name: str, dtype: Any) -> None:
    """Relative to itself, but for log pdf: a sum that crosses 0, so absolute in the same unit."""
    gates, x, truths = law_grid(dtype)
    truth = truths["x"]
    bound = 8 * unit(truth, dtype)
    law = HardConcrete(**gates)
    size = 1 if name == "logpdf" else np.abs(truth[name].high)
    assert_within(getattr(law, name)(x), truth[name], bound * size, dtype, name)
    partials = getattr(law, f"{name}_partials")(x)
    assert partials._fields == PARAMETERS
    for parameter, got in partials._asdict().items():
        want = truth[f"{name}/{parameter}"]
        allowed = law_bound(name, parameter, gates, x, truth, dtype)
        assert_within(got, want, allowed, dtype, f"{name}/{parameter}")
        assert_alive(got, want, dtype)


@both_dtypes
@pytest.mark.parametrize("at", [0.0, 1.0])
def test_atoms_are_masses(at: float, dtype: Any) -> None:
    """At 0 and 1 "pdf" is a mass with respect to the dominating measure, and so are its scores."""
    gates, _, _ = law_grid(dtype)
    law = HardConcrete(**gates)
    mass = "prob_one" if at else "prob_zero"
    for name, prefix in (("pdf", ""), ("logpdf", "log_")):
        assert np.array_equal(getattr(law, name)(at), getattr(law, prefix + mass)())
        scores = getattr(law, f"{prefix}{mass}_partials")()
        for got, want in zip(getattr(law, f"{name}_partials")(at), scores, strict=True):
            assert np.array_equal(got, want)


@both_dtypes
@pytest.mark.parametrize("bound", [30, 85, 700])
def test_no_derivative_dies_in_the_far_tail(bound: int, dtype: Any) -> None:
    """A clamp on the cdf or on log_alpha would show here first, as exact zeros."""
    if dtype is np.float32 and bound > 100:
        bound = 102  # exp(-102) is float32's last subnormal but a few
    log_alpha = np.linspace(-bound, bound, 61).astype(dtype)
    law = HardConcrete(log_alpha)
    hyper = (naive.BETA, naive.GAMMA, naive.ZETA)
    for x in (0.0, 1.0, 0.31):
        truth = mpref.table(mpref.law, log_alpha, *hyper, x)
        names = {0.0: ("prob_zero", "prob_active"), 1.0: (None, "prob_one")}.get(x, ("cdf", "sf"))
        for key, name in zip(("cdf", "sf"), names, strict=True):
            if name is None:
                continue
            arguments = (x,) if x == 0.31 else ()
            for prefix in ("", "log" if x == 0.31 else "log_"):
                partials = getattr(law, f"{prefix}{name}_partials")(*arguments)
                for parameter in PARAMETERS:
                    want = truth[f"{'log' if prefix else ''}{key}/{parameter}"]
                    assert_alive(getattr(partials, parameter), want, dtype)


# Against 60 digits: the sample, its path, and the test gate


@both_dtypes
def test_sample_to_the_last_digits(dtype: Any) -> None:
    gates, u, truth = path_grid(dtype)
    z = hc.sample(u=u, **gates)
    assert_within(z, truth["z"], 8 * unit(truth, dtype), dtype)
    assert np.array_equal(HardConcrete(**gates).sample(u), z)
    assert np.all((z >= 0) & (z <= 1))
    assert np.mean((z > 0) & (z < 1)) > 0.5, "the grid is meant to be mostly between the kinks"


def open_and_closed(truth: dict[str, Exact], dtype: Any) -> tuple[Any, Any]:
    """Return where s_bar is inside (0, 1), and where outside, both by 64 units of error.

    That is eight times what s_bar may be wrong by: which side of a kink is never in doubt.
    """
    margin, s_bar = 64 * unit(truth, dtype), truth["s_bar"].high
    return (s_bar > margin) & (s_bar < 1 - margin), (s_bar < -margin) | (s_bar > 1 + margin)


@both_dtypes
def test_path_derivatives_to_the_last_digits(dtype: Any) -> None:
    """Products, all five: relative to themselves where the gate is open, exactly 0 where clipped.

    The derivative in beta alone has t = (logit u + log_alpha)/beta, which cancels, as a factor.
    """
    gates, u, truth = path_grid(dtype)
    partials = hc.sample_partials(u=u, **gates)
    assert partials._fields == PATH
    inside, outside = open_and_closed(truth, dtype)
    assert inside.sum() > 500
    assert outside.sum() > 300
    log_alpha, beta, gamma, zeta = (gates[name].astype(float)[inside] for name in PARAMETERS)
    s = truth["s"].high[inside]
    noise, promise = naive_logit(u.astype(float)[inside]), 8 * unit(truth, dtype)[inside]
    left = residue(dtype, log_alpha, noise, 1) / beta * (zeta - gamma) * s * (1 - s) / beta
    for name, got in partials._asdict().items():
        high, low = truth[f"z/{name}"]
        want = Exact(high[inside], low[inside])
        bound = promise * np.abs(want.high) + left * (name == "beta")
        assert_within(got[inside], want, bound, dtype, name)
        assert_alive(got[inside], want, dtype)
        assert np.all(got[outside] == 0), name
    law = HardConcrete(**gates)
    for got, want in zip(law.sample_partials(u), partials, strict=True):
        assert np.array_equal(got, want)
    z, slope = law.sample_and_slope(u)
    assert np.array_equal(z, law.sample(u))
    assert np.array_equal(slope, partials.log_alpha)


@both_dtypes
def test_test_gate_to_the_last_digits(dtype: Any) -> None:
    gates = random_gates(dtype, 1200, seed=24)
    gates["log_alpha"][::2] /= 20  # most of these between the kinks
    beta = gates.pop("beta")
    truth = mpref.table(mpref.gate, gates["log_alpha"], beta, gates["gamma"], gates["zeta"], 0.5)
    law = HardConcrete(beta=beta, **gates)
    z_hat = hc.test_time(**gates)
    assert_within(z_hat, truth["z_hat"], 8 * unit(truth, dtype), dtype)
    assert np.array_equal(law.test_time(), z_hat)
    partials = hc.test_time_partials(**gates)
    assert partials._fields == ("log_alpha", "gamma", "zeta")
    inside, outside = open_and_closed(truth, dtype)
    assert inside.sum() > 300
    for name, got in partials._asdict().items():
        high, low = truth[f"z_hat/{name}"]
        want = Exact(high[inside], low[inside])
        bound = 8 * unit(truth, dtype)[inside] * np.abs(want.high)
        assert_within(got[inside], want, bound, dtype, name)
        assert np.all(got[outside] == 0), name
        assert np.array_equal(getattr(law.test_time_partials(), name), got)


@given(strategies.points())
@example(strategies.Point(np.float32(17.328679), 0.1, -0.1, 1.1, np.float32(2.0**-25)))
@example(strategies.Point(np.float32(-16.635532), 0.1, -0.1, 1.1, np.float32(1 - 2.0**-24)))
@example(strategies.Point(np.float64(690.77), 0.1, -0.1, 1.1, np.float64(1e-300)))
@example(strategies.Point(np.float64(-36.7), 0.1, -0.01, 1.5, np.float64(1 - 2.0**-53)))
@example(strategies.Point(np.float64(2.5), 0.1, -0.1, 1.1, np.float64(5e-324)))
@example(strategies.Point(np.float64(744.44), 0.1, -0.1, 1.1, np.float64(5e-324)))
def test_sample_of_any_noise(point: strategies.Point) -> None:
    dtype = np.asarray(point.log_alpha).dtype
    truth = mpref.table(mpref.path, *point, wrt=())
    z = hc.sample(point.log_alpha, point.last, **point.hyperparameters)
    assert_within(np.reshape(z, 1), truth["z"], 8 * unit(truth, dtype), dtype)
    law = HardConcrete(point.log_alpha, **point.hyperparameters)
    assert law.ppf(point.last) == pytest.approx(float(z), abs=8 * unit(truth, dtype)[0]), (
        "a draw is the quantile of its noise"
    )


@given(strategies.points(strategies.inside))
def test_law_at_any_point(point: strategies.Point) -> None:
    *gate, x = point
    dtype = np.asarray(x).dtype
    truth = mpref.table(mpref.law, *point, wrt=())
    law = HardConcrete(*gate)
    for name in LAW:
        size = 1 if name == "logpdf" else np.abs(truth[name].high)
        got = np.reshape(getattr(law, name)(x), 1)
        assert_within(got, truth[name], 8 * unit(truth, dtype) * size, dtype, name)


@pytest.mark.parametrize(
    ("log_alpha", "u"), [(-33.0, 1 - 2.0**-53), (690.0, 1e-300), (20.0, 2.0**-30)]
)
def test_noise_finer_than_a_float32_gate(log_alpha: float, u: float) -> None:
    """Noise keeps its own precision: 1 - 2**-53 would be 1 in float32, and illegal."""
    log_alpha = np.float32(log_alpha)
    truth = mpref.table(mpref.path, log_alpha, 2 / 3, -0.1, 1.1, u, wrt=("log_alpha",))
    assert 0 < truth["z"].high[0] < 1 or log_alpha == -33
    z = np.reshape(hc.sample(log_alpha, u), 1)
    assert_within(z, truth["z"], 8 * unit(truth, np.float32), np.float32)
    dz = np.float32(-1.3)
    slope = np.reshape(HardConcrete(log_alpha).sample_vjp(u, dz), 1)
    want = truth["z/log_alpha"]
    want = Exact(float(dz) * want.high, float(dz) * want.low)
    assert_within(slope, want, 8 * unit(truth, np.float32) * np.abs(want.high), np.float32)


# Against the naive twins: any gate, plain floating point


@given(strategies.active_points())
def test_naive_twins_agree(point: strategies.Point) -> None:
    """The twins lose digits only where logit u cancels log_alpha, before the division by beta."""
    *gate, u = (float(v) for v in point)
    log_alpha, hyper = gate[0], gate[1:]
    law = HardConcrete(*gate)
    eps = 64 * np.finfo(float).eps * (1 + abs(log_alpha)) / gate[1]
    assert float(law.sample(u)) == pytest.approx(naive.sample(log_alpha, u, *hyper), abs=eps)
    # Their t, and with it the derivative in beta, has that error in absolute terms.
    for name, want in naive.sample_partials(log_alpha, u, *hyper).items():
        got = float(getattr(law.sample_partials(u), name))
        assert got == pytest.approx(want, rel=eps, abs=eps / gate[1]), name
    for name in ("prob_active", "prob_zero", "prob_one"):
        want = getattr(naive, name)(*gate)
        assert float(getattr(law, name)()) == pytest.approx(want, rel=eps)
    for x in (0.0, 0.2, 0.77, 1.0, -0.05, 1.05):
        assert float(law.cdf(x)) == pytest.approx(naive.cdf(x, *gate), rel=eps), x
        assert float(law.pdf(x)) == pytest.approx(naive.pdf(x, *gate), rel=eps), x
    want = naive.z_hat(log_alpha, *hyper[1:])
    assert float(law.test_time()) == pytest.approx(want, abs=eps)


# The cotangent


@given(shapes=strategies.broadcasting_shapes(6), seed=st.integers(0, 2**32 - 1))
def test_sample_vjp_sums_over_broadcast_axes(shapes: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    *sides, _ = shapes.input_shapes
    arguments = {
        "log_alpha": rng.normal(0, 2, sides[0]),
        "beta": rng.uniform(0.3, 1.5, sides[1]),
        "gamma": -rng.uniform(0.05, 0.5, sides[2]),
        "zeta": 1 + rng.uniform(0.05, 0.5, sides[3]),
        "u": rng.uniform(0.01, 0.99, sides[4]),
    }
    shape = np.broadcast_shapes(*sides)
    dz = rng.normal(size=shape)
    want = {name: np.zeros(np.shape(value)) for name, value in arguments.items()}
    size = {name: np.zeros(np.shape(value)) for name, value in arguments.items()}
    views = {name: np.broadcast_to(value, shape) for name, value in arguments.items()}
    owner = {
        name: np.broadcast_to(np.arange(np.size(value)).reshape(np.shape(value)), shape)
        for name, value in arguments.items()
    }
    for index in np.ndindex(shape):
        log_alpha, beta, gamma, zeta, u = (float(views[name][index]) for name in PATH)
        slopes = naive.sample_partials(log_alpha, u, beta, gamma, zeta)
        for name, slope in slopes.items():
            term = float(dz[index]) * slope
            want[name].flat[owner[name][index]] += term
            size[name].flat[owner[name][index]] += abs(term)
    u = arguments.pop("u")
    law = HardConcrete(**arguments)
    everything = law.sample_vjp(u, dz, wrt=PATH)
    assert isinstance(everything, tuple)
    for name, got in zip(PATH, everything, strict=True):
        assert np.shape(got) == want[name].shape, name
        # A naive t, below 30 in magnitude here, is right to some 40 eps; so is each term.
        np.testing.assert_array_less(np.abs(got - want[name]), 1e-13 * (size[name] + 1e-3))
        alone = law.sample_vjp(u, dz, wrt=name)
        assert np.array_equal(alone, got)
    assert np.array_equal(law.sample_vjp(u, dz), everything[0]), "log_alpha is the default"
    swapped = law.sample_vjp(u, dz, wrt=("u", "beta"))
    assert np.array_equal(swapped[0], everything[4])
    assert np.array_equal(swapped[1], everything[1])


@pytest.mark.parametrize("name", PATH)
def test_sample_vjp_against_differences(name: str) -> None:
    """Fourth route: five-point differences of the sample itself, h**4 = 1e-12, 1e-16/h = 1e-13."""
    rng = np.random.default_rng(30)
    values = {
        "log_alpha": rng.uniform(-0.3, 0.3, (4, 1, 3)),
        "beta": rng.uniform(0.6, 1.4, (2, 3)),
        "gamma": -rng.uniform(0.1, 0.3, 3),
        "zeta": np.asarray(1.2),
        "u": rng.uniform(0.35, 0.65, (4, 2, 1)),  # and with it no gate near a kink
    }
    dz, direction = rng.normal(size=(4, 2, 3)), rng.normal(size=values[name].shape)
    law = HardConcrete(*(values[key] for key in PARAMETERS))
    slope = np.sum(law.sample_vjp(values["u"], dz, wrt=name) * direction)

    def along(h: float) -> float:
        moved = {**values, name: values[name] + h * direction}
        z = hc.sample(**moved)
        assert np.all((z > 0) & (z < 1))
        return float(np.sum(dz * z))

    h = 1e-3
    difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    # h**4 times a fifth derivative of at most some 1e3
    assert slope == pytest.approx(difference, rel=1e-8)


def test_path_derivative_on_a_kink_is_zero_by_convention() -> None:
    """The symmetric gates below have s_bar = 0 and s_bar = 1 exactly at log_alpha = 0, u = 1/2."""
    for gamma, zeta, z in ((-1.5, 1.5, 0.0), (-0.5, 2.5, 1.0)):
        hyper = {"gamma": gamma, "zeta": zeta}
        assert hc.sample(0.0, 0.5, **hyper) == z
        assert all(d == 0 for d in hc.sample_partials(0.0, 0.5, **hyper))
        assert hc.test_time(0.0, **hyper) == z
        assert all(d == 0 for d in hc.test_time_partials(0.0, **hyper))
        assert HardConcrete(0.0, **hyper).sample_vjp(0.5, 1.7) == 0


# Quadrature and Monte Carlo


GATES = [
    (-2.7, 0.3, -0.1, 1.1),
    (0.5, 2 / 3, -0.1, 1.1),
    (1.9, 1.6, -0.7, 1.3),
    (-0.4, 4, -0.05, 2),
]
any_gate = pytest.mark.parametrize("gate", GATES)


def integral(f: Any, lower: float, upper: float) -> float:
    """SciPy's quad of a smooth function: 1e-13 absolute is within its reach."""
    points = np.linspace(lower, upper, 9)[1:-1]
    value, _ = integrate.quad(f, lower, upper, epsabs=1e-14, epsrel=1e-13, limit=400, points=points)
    return float(value)


@any_gate
def test_the_law_adds_up_by_quadrature(gate: Any) -> None:
    law = HardConcrete(*gate)
    p0, p1 = float(law.prob_zero()), float(law.prob_one())
    for x in (0.13, 0.5, 0.91):
        below = p0 + integral(law.pdf, 0, x)
        assert float(law.cdf(x)) == pytest.approx(below, rel=1e-12)
        assert float(law.sf(x)) == pytest.approx(p1 + integral(law.pdf, x, 1), rel=1e-12)
    assert p0 + integral(law.pdf, 0, 1) + p1 == pytest.approx(1, rel=1e-12)
    mean = integral(law.sf, 0, 1)
    assert float(law.mean()) == pytest.approx(mean, rel=1e-12)
    square = integral(lambda x: 2 * x * law.sf(x), 0, 1)
    assert float(law.moment(2)) == pytest.approx(square, rel=1e-12)
    assert float(law.var()) == pytest.approx(square - mean**2, abs=1e-12)
    assert float(law.std()) == pytest.approx((square - mean**2) ** 0.5, abs=1e-12)
    continuous = integral(lambda x: -law.pdf(x) * law.logpdf(x), 0, 1)
    atoms = -p0 * np.log(p0) - p1 * np.log(p1)
    assert float(law.entropy()) == pytest.approx(atoms + continuous, abs=2e-12)
    spread = integral(law.cdf, 0, 0.37) + integral(law.sf, 0.37, 1)
    assert float(law.expect(lambda x: np.abs(x - 0.37))) == pytest.approx(spread, rel=1e-12)
    waves = p0 + p1 * np.cos(3) + integral(lambda x: law.pdf(x) * np.cos(3 * x), 0, 1)
    assert float(law.expect(lambda x: np.cos(3 * x))) == pytest.approx(waves, abs=1e-12)


@any_gate
def test_the_law_is_what_is_drawn(gate: Any) -> None:
    """Bounds of 5 standard errors: each is passed by chance with probability 1 - 6e-7."""
    count = 200_000
    law = HardConcrete(*gate)
    z = law.sample(np.random.default_rng(40).uniform(np.finfo(float).tiny, 1, count))
    p0, p1 = float(law.prob_zero()), float(law.prob_one())

    def assert_mean(values: Any, want: float) -> None:
        assert abs(np.mean(values) - want) <= 5 * np.std(values) / len(values) ** 0.5

    assert_mean(z, float(law.mean()))
    assert_mean((z - np.mean(z)) ** 2, float(law.var()))
    assert_mean(z**3, float(law.moment(3)))
    assert_mean(np.exp(-z), float(law.expect(lambda x: np.exp(-x))))
    assert_mean(-law.logpdf(z), float(law.entropy()))
    for event, probability in (
        (z == 0, p0),
        (z == 1, p1),
        (z <= 0.2, float(law.cdf(0.2))),
        (z > 0.6, float(law.sf(0.6))),
        ((z > 0.3) & (z < 0.5), integral(law.pdf, 0.3, 0.5)),
    ):
        assert stats.binomtest(int(np.sum(event)), count, probability).pvalue > 6e-7


MOMENT_GATES = [
    (log_alpha, beta, gamma, zeta)
    for log_alpha in (-40.0, -11.3, -0.7, 2.9, 40.0)
    for beta, gamma, zeta in (
        (0.05, -0.1, 1.1),
        (0.31, -0.01, 1.01),
        (2 / 3, -0.1, 1.1),
        (2.0, -1.0, 1.7),
        (10.0, -0.1, 1.1),
        (10.0, -0.02, 2.0),
    )
]


@pytest.mark.parametrize("gate", MOMENT_GATES, ids=str)
def test_moments_to_twelve_digits(gate: Any) -> None:
    """Relative to the quantity itself, even a variance of 4e-18 at log_alpha = 40.

    Entropy alone is a sum that may cross 0: relative to its parts' magnitudes.
    """
    want = mpref.hard_moments(*gate, functions=(mp.exp, lambda z: mp.cos(3 * z)))
    law = HardConcrete(*gate)

    def assert_relative(got: Any, true: Any, size: Any = None) -> None:
        assert abs(mp.mpf(float(got)) - true) <= 1e-12 * (abs(true) if size is None else size)

    assert_relative(law.mean(), want["mean"])
    assert_relative(law.moment(1), want["mean"])
    assert_relative(law.var(), want["var"])
    assert_relative(law.std(), mp.sqrt(want["var"]))
    assert_relative(law.moment(3), want["third"])
    assert_relative(law.moment(2), want["var"] + want["mean"] ** 2)
    assert_relative(law.entropy(), want["entropy"], want["entropy_size"])
    assert_relative(law.expect(np.exp), want["expect"][0])
    # cos crosses 0 at pi/6; E|f| is at most 1
    assert_relative(law.expect(lambda z: np.cos(3 * z)), want["expect"][1], 1)


def test_the_reference_moments_agree_with_another_integral() -> None:
    """E z = the integral of sf and E z^2 = that of 2 z sf over [0, 1], not over the noise."""
    for gate in ((-40.0, 2.0, -1.0, 1.7), (2.9, 10.0, -0.1, 1.1), (-0.7, 0.05, -0.1, 1.1)):
        want = mpref.hard_moments(*gate)
        values = [mp.mpf(v) for v in gate]

        def sf(x: Any, values: Any = values) -> Any:
            return mpref.law(*values, x)["sf"]

        edges = [k / mp.mpf(8) for k in range(9)]
        with mp.workdps(25):
            mean, square = mp.quad(sf, edges), mp.quad(lambda x, sf=sf: 2 * x * sf(x), edges)
        assert abs(mean - want["mean"]) <= 1e-18 * mean
        assert abs(square - want["var"] - want["mean"] ** 2) <= 1e-18 * square


@given(
    log_alpha=strategies.log_alphas(np.float64),
    beta=st.floats(0.05, 10),
    gamma=strategies.gammas(),
    zeta=strategies.zetas(),
)
def test_moments_are_consistent(log_alpha: Any, beta: float, gamma: float, zeta: float) -> None:
    law = HardConcrete(log_alpha, beta, gamma, zeta)
    mean, square = float(law.mean()), float(law.moment(2))
    assert float(law.prob_one()) * (1 - 1e-12) <= square <= mean * (1 + 1e-12)
    assert mean <= float(law.prob_active()) * (1 + 1e-12)
    assert float(law.expect(lambda z: z)) == pytest.approx(mean, rel=1e-12)
    assert float(law.std()) ** 2 == pytest.approx(float(law.var()), rel=1e-12)
    # 1 - z is the law of -log_alpha with the stretch mirrored, up to rounding 1-gamma and 1-zeta,
    # which moves the mirrored zeta - 1 and gamma, as small as 0.01, by 1e-14 of themselves
    mirrored = HardConcrete(-log_alpha, beta, 1 - zeta, 1 - gamma)
    assert float(mirrored.var()) == pytest.approx(float(law.var()), rel=1e-11)
    assert float(mirrored.prob_one()) == pytest.approx(float(law.prob_zero()), rel=1e-11)


# Quantiles and draws


@given(strategies.active_points())
def test_quantiles_invert_the_law(point: strategies.Point) -> None:
    """To the rounding of cdf and sf themselves, and that of the quantile times the density."""
    law = HardConcrete(*point[:4])
    q = float(point.last)
    x = float(law.ppf(q))
    t = naive.logit(q)
    eps = np.finfo(float).eps
    slack = 8 * eps * ((1 + abs(t)) * q * (1 - q) + q + float(law.pdf(x)))
    assert abs(float(law.cdf(x)) - q) <= slack
    y = float(law.isf(q))
    if 0 < y < 1:
        assert abs(float(law.sf(y)) - q) <= slack + 8 * eps * float(law.pdf(y))


def test_quantiles_jump_over_the_atoms() -> None:
    law = HardConcrete(0.5)
    p0, p1 = float(law.prob_zero()), float(law.prob_one())
    tiny = 1e-9
    assert law.ppf(0) == law.ppf(p0 / 2) == law.ppf(p0 - tiny) == 0
    assert 0 < law.ppf(p0 + tiny) < 1e-6
    assert law.ppf(1) == law.ppf(1 - p1 / 2) == law.ppf(1 - p1 + tiny) == 1
    assert law.isf(0) == law.isf(p1 / 2) == law.isf(p1 - tiny) == 1
    assert 1 - 1e-6 < law.isf(p1 + tiny) < 1
    assert law.isf(1) == law.isf(1 - p0 / 2) == 0
    for q in (-0.1, 1.1, np.nan):
        assert np.isnan(law.ppf(q))
        assert np.isnan(law.isf(q))


def test_isf_resolves_what_one_minus_q_cannot() -> None:
    """Quantiles of 1e-20 from above: 1 - 1e-20 is 1 and its quantile would be the atom at 1."""
    log_alpha, q = -46.0, 1e-20
    s = naive.sigmoid((log_alpha - naive.logit(q)) * 1.5)
    assert float(HardConcrete(log_alpha).isf(q)) == pytest.approx(s * 1.2 - 0.1, rel=1e-14 * 70)


def test_median_is_the_half_quantile() -> None:
    log_alpha = np.linspace(-6, 6, 23)
    law = HardConcrete(log_alpha)
    median = law.median()
    assert np.array_equal(median, law.ppf(0.5))
    want = [naive.sample(float(value), 0.5) for value in log_alpha]
    np.testing.assert_allclose(median, want, rtol=0, atol=1e-15 * 10)
    inner = (median > 0) & (median < 1)
    np.testing.assert_allclose(law.cdf(median)[inner], 0.5, rtol=1e-14)


@any_gate
def test_rvs_follows_the_law(gate: Any) -> None:
    """Atoms within exact binomial bounds, the rest by Kolmogorov-Smirnov: p > 1e-4, seed fixed."""
    law, count = HardConcrete(*gate), 20_000
    z = law.rvs(size=count, random_state=np.random.default_rng(50))
    assert z.shape == (count,)
    p0, p1 = float(law.prob_zero()), float(law.prob_one())
    for atom, mass in ((0, p0), (1, p1)):
        assert stats.binomtest(int(np.sum(z == atom)), count, mass).pvalue > 1e-4
    inner = z[(z > 0) & (z < 1)]
    test = stats.kstest(inner, lambda x: (law.cdf(x) - p0) / (1 - p0 - p1))
    assert test.pvalue > 1e-4


def test_rvs_has_scipys_manners() -> None:
    log_alpha = np.array([-1.0, 0.2, 3.0])
    law = HardConcrete(log_alpha)
    a, b = law.rvs(size=(5, 3), random_state=7), law.rvs(size=(5, 3), random_state=7)
    assert a.shape == (5, 3)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, law.rvs(size=(5, 3), random_state=8))
    assert len(np.unique(law.rvs(size=(200, 3), random_state=7)[:, 1])) > 50, "no shared noise"
    generator = np.random.default_rng(1)
    first, second = law.rvs((5, 3), generator), law.rvs((5, 3), generator)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, law.rvs((5, 3), np.random.default_rng(1)))
    assert law.rvs(random_state=2).shape == (3,)
    assert np.shape(HardConcrete(0.3).rvs(random_state=2)) == ()
    assert HardConcrete(0.3).rvs(4, random_state=2).shape == (4,)
    assert HardConcrete(0.3).rvs(np.int64(4), random_state=2).shape == (4,)
    assert HardConcrete(np.float32(0.3)).rvs(4, random_state=2).dtype == np.float32
    before = np.random.get_state()[1]  # noqa: NPY002
    assert not np.array_equal(law.rvs((6, 3)), law.rvs((6, 3)))
    assert np.array_equal(before, np.random.get_state()[1]), "None is a fresh seed"  # noqa: NPY002
    with pytest.raises(ValueError, match="size"):
        law.rvs(size=(5, 2), random_state=0)


# Spot values and what the gate is not


def test_spot_values() -> None:
    """The constants the conventions are pinned by, to their printed digits."""
    law = HardConcrete(0.5)
    half_a_digit = 5.0001e-7
    for got, want in (
        (law.prob_active(), 0.890767),
        (law.sample(0.3), 0.347157),
        (law.test_time(), 0.646951),
        (law.sample_partials(0.3).log_alpha, 0.420799),
        (law.prob_active_partials().log_alpha, 0.097301),
    ):
        assert abs(float(got) - want) <= half_a_digit
    assert abs(float(HardConcrete(0.0).prob_active()) - 0.83182) <= 5.0001e-6
    edge_of_zero = HardConcrete(-np.log(11.0))
    assert abs(float(edge_of_zero.prob_active()) - 0.3102) <= 5.0001e-5


@given(gamma=strategies.gammas(), zeta=strategies.zetas(), step=st.integers(-1000, 1000))
@example(gamma=-0.1, zeta=1.1, step=0)
def test_test_gate_is_zero_exactly_up_to_its_threshold(
    gamma: float, zeta: float, step: int
) -> None:
    """z_hat = 0 iff log_alpha <= log(-gamma/zeta), tried within 1000 eps of the threshold.

    There sigmoid(log_alpha) = s = -gamma/(zeta-gamma), and s_bar rises by (zeta-gamma) s (1-s)
    = |gamma| (1-s) for a unit of log_alpha. Its rounding, a few eps |gamma|, blurs the threshold by
    as many eps/(1-s), where 1-s > 1/2; that of log_alpha, by eps |log_alpha|.
    """
    threshold = mp.log(-mp.mpf(gamma) / mp.mpf(zeta))
    log_alpha = float(threshold) + step * np.finfo(float).eps
    distance = mp.mpf(log_alpha) - threshold
    z_hat = float(hc.test_time(log_alpha, gamma=gamma, zeta=zeta))
    if abs(distance) >= 8 * np.finfo(float).eps * (1 + abs(log_alpha)):
        assert (z_hat == 0) == (distance < 0)
    assert hc.test_time(float(threshold) - 1e-3, gamma=gamma, zeta=zeta) == 0
    assert hc.test_time(float(threshold) + 1e-3, gamma=gamma, zeta=zeta) > 0


def test_mean_test_gate_and_median_are_three_things() -> None:
    """They agree at log_alpha = 0 alone (and at infinity); 0.103 and 0.108 are the largest gaps."""
    law = HardConcrete(np.linspace(-8, 8, 3201))
    mean, z_hat, median = law.mean(), law.test_time(), law.median()
    assert np.max(np.abs(z_hat - mean)) == pytest.approx(0.103, abs=5e-4)
    assert np.max(np.abs(median - z_hat)) == pytest.approx(0.108, abs=5e-4)
    middle = HardConcrete(0.0)
    for value in (middle.mean(), middle.test_time(), middle.median()):
        assert float(value) == pytest.approx(0.5, abs=1e-15)
    grid = np.linspace(0.0, 1.0, 11)
    assert np.all(np.diff(law.prob_active()) > 0)
    assert np.all(np.diff(middle.cdf(grid)) > 0)


def test_law_outside_its_support() -> None:
    law = HardConcrete(np.array([-3.0, 0.5]))
    for x, below in ((-0.05, True), (-np.inf, True), (1.05, False), (np.inf, False)):
        assert np.all(law.cdf(x) == (0 if below else 1))
        assert np.all(law.sf(x) == (1 if below else 0))
        assert np.all(law.logcdf(x) == (-np.inf if below else 0))
        assert np.all(law.logsf(x) == (0 if below else -np.inf))
        assert np.all(law.pdf(x) == 0)
        assert np.all(law.logpdf(x) == -np.inf)
        for name in ("cdf", "sf", "pdf"):
            for got in getattr(law, f"{name}_partials")(x):
                assert np.all(np.asarray(got) == 0)
    assert np.array_equal(law.cdf(0.0), law.prob_zero())
    assert np.array_equal(law.sf(0.0), law.prob_active())
    assert np.all(law.cdf(1.0) == 1)
    assert np.all(law.sf(1.0) == 0)


# NaN, infinities, shapes, dtypes, bad input

NOISY = ("sample", "sample_partials")
AT_X = tuple(f"{name}{tail}" for name in LAW for tail in ("", "_partials"))
AT_Q = ("ppf", "isf")
ALONE = (
    *(f"{name}{tail}" for name in (*PROBABILITIES, "test_time") for tail in ("", "_partials")),
    *("mean", "var", "std", "median", "entropy"),
)


def call(law: Any, name: str, at: float = 0.31) -> list[Any]:
    """Call a method by name with the argument its kind takes; a list of its results."""
    if name in ALONE:
        result = getattr(law, name)()
    elif name == "moment":
        result = law.moment(2)
    elif name == "expect":
        result = law.expect(np.exp)
    elif name == "rvs":
        result = law.rvs(random_state=4)
    else:
        result = getattr(law, name)(at)
    return list(result) if isinstance(result, tuple) else [result]


EVERY = (*ALONE, *NOISY, *AT_X, *AT_Q, "moment", "expect", "rvs")
every_method = pytest.mark.parametrize("name", EVERY)


@every_method
@both_dtypes
def test_nan_in_nan_out(name: str, dtype: Any) -> None:
    """A NaN is never a closed gate, and never its neighbour's business."""
    law = HardConcrete(np.array([0.4, np.nan, -0.2], dtype))
    whole = HardConcrete(np.array([0.4, -0.2], dtype))
    for got, want in zip(call(law, name), call(whole, name), strict=True):
        assert np.isnan(got[1])
        if name != "rvs":  # other shape, other noise
            assert np.array_equal(got[[0, 2]], want)


@pytest.mark.parametrize("name", [*AT_X, *AT_Q])
def test_nan_argument_gives_nan(name: str) -> None:
    for got in call(HardConcrete(np.array([0.4, -3.0])), name, at=np.nan):
        assert np.all(np.isnan(got))


def limits(name: str, sign: int) -> list[float] | None:
    """Return the derivatives of a log-probability at log_alpha = 1e4 sign, which is far enough."""
    place = {"log_prob_zero": (0.0, "logcdf"), "log_prob_active": (0.0, "logsf")}
    place |= {"log_prob_one": (1.0, "logsf")}
    place |= {key: (0.31, key) for key in ("logcdf", "logsf", "logpdf")}
    if name not in place:
        return None
    x, key = place[name]
    truth = mpref.table(mpref.law, sign * 1e4, naive.BETA, naive.GAMMA, naive.ZETA, x)
    slopes = (truth[f"{key}/{parameter}"].high[0] for parameter in PARAMETERS)
    return [slope if abs(slope) > 1e-300 else 0.0 for slope in slopes]


@pytest.mark.parametrize("name", AT_X)
@pytest.mark.parametrize("x", [-0.5, 0.0, 1.0, 1.5])
def test_nan_gate_gives_nan_outside_too(name: str, x: float) -> None:
    """A law that is not known is not known to be within [0, 1] either: as in SciPy."""
    for got in call(HardConcrete(np.array([np.nan])), name, at=x):
        assert np.isnan(got[0])


@every_method
@both_dtypes
@pytest.mark.parametrize("sign", [-1, 1])
def test_infinite_log_alpha_is_a_constant_gate(name: str, dtype: Any, sign: int) -> None:
    """At -inf the gate is 0 and at +inf it is 1, surely: no NaN, no warning.

    Derivatives are their limits: 0, but of a log that goes to -inf, whose slope tends to that of t.
    """
    law = HardConcrete(np.array([sign * np.inf], dtype))
    one, log_one = (1.0, 0.0) if sign > 0 else (0.0, -np.inf)
    zero, log_zero = 1 - one, (-np.inf if sign > 0 else 0.0)
    expected = {
        "prob_active": one, "prob_one": one, "prob_zero": zero,
        "log_prob_active": log_one, "log_prob_one": log_one, "log_prob_zero": log_zero,
        "cdf": zero, "sf": one, "logcdf": log_zero, "logsf": log_one,
        "pdf": 0.0, "logpdf": -np.inf, "var": 0.0, "std": 0.0, "entropy": 0.0,
        "expect": np.exp(one),
    }  # fmt: skip
    results = call(law, name)
    want = [expected.get(name, one)] * len(results)
    if name.endswith("_partials"):
        want = limits(name.removesuffix("_partials"), sign) or [0.0] * len(results)
    for got, limit in zip(results, want, strict=True):
        assert got.dtype == dtype
        # the logarithms in a slope, or the exp in expect; a zero is exact
        slack = 4 * np.finfo(dtype).eps * (limit != 0)
        np.testing.assert_allclose(got, limit, rtol=slack, atol=slack)


def test_infinite_log_alpha_at_the_atoms() -> None:
    shut, wide = HardConcrete(-np.inf), HardConcrete(np.inf)
    assert (shut.pdf(0.0), shut.pdf(1.0), wide.pdf(0.0), wide.pdf(1.0)) == (1, 0, 0, 1)
    assert (shut.logpdf(0.0), wide.logpdf(1.0)) == (0, 0)
    assert shut.logpdf(1.0) == wide.logpdf(0.0) == -np.inf
    assert shut.cdf(0.0) == wide.cdf(1.0) == 1
    assert shut.sample_vjp(0.2, 1.3) == wide.sample_vjp(0.2, 1.3) == 0


@every_method
@pytest.mark.parametrize(
    ("log_alpha", "dtype"),
    [
        (np.float32(0.3), np.float32),
        (np.array([0.3, -1.2], np.float32), np.float32),
        (0.3, np.float64),
        (2, np.float64),
        ([0.3, -1.2, 2.0], np.float64),
        (np.array([[1], [-2]], np.int32), np.float64),
    ],
    ids=repr,
)
def test_dtype_and_shape_are_those_of_the_gate(name: str, log_alpha: Any, dtype: Any) -> None:
    """Float64 hyperparameters, and for float32 gates float64 noise, change neither."""
    law = HardConcrete(log_alpha, beta=np.float64(0.7), gamma=-0.2, zeta=np.float64(1.3))
    assert law.dtype == np.asarray(law.log_alpha).dtype == dtype
    assert law.shape == np.shape(log_alpha)
    assert np.array_equal(law.log_alpha, log_alpha)
    assert (law.beta, law.gamma, law.zeta) == (0.7, -0.2, 1.3)
    dz = np.full(law.shape, -1.7)
    assert np.asarray(law.sample_vjp(0.4, dz)).dtype == dtype
    for got in call(law, name, at=np.float64(0.3)):
        assert np.asarray(got).dtype == dtype
        assert np.shape(got) == np.shape(log_alpha)


@every_method
def test_hyperparameters_and_arguments_broadcast(name: str) -> None:
    """A (4, 1, 3) gate with (2, 1) betas at (3,) points: each cell is that of its own scalars."""
    rng = np.random.default_rng(60)
    log_alpha = rng.normal(0, 2, (4, 1, 3))
    beta, gamma = rng.uniform(0.3, 1.5, (2, 1)), -rng.uniform(0.1, 0.5, (2, 3))
    zeta, at = np.array(1.2), rng.uniform(0.1, 0.9, 3)
    law = HardConcrete(log_alpha, beta, gamma, zeta)
    kept = [np.copy(a) for a in (log_alpha, beta, gamma, zeta, at)]
    assert law.shape == (4, 2, 3)
    if name == "rvs":
        assert law.rvs().shape == (4, 2, 3)
        return
    for k, got in enumerate(call(law, name, at)):
        assert np.broadcast_shapes(np.shape(got), (4, 2, 3)) == (4, 2, 3)
        got = np.broadcast_to(got, (4, 2, 3))
        for i, j, m in ((0, 0, 0), (3, 1, 2), (2, 1, 0), (1, 0, 1)):
            one = HardConcrete(log_alpha[i, 0, m], beta[j, 0], gamma[j, m], zeta)
            want = float(call(one, name, float(at[m]))[k])
            # one ulp of slack: SIMD and scalar loops of NumPy may round apart
            assert float(got[i, j, m]) == pytest.approx(want, rel=1e-14)
    for before, after in zip(kept, (log_alpha, beta, gamma, zeta, at), strict=True):
        assert np.array_equal(before, after), "inputs are not modified"


BAD = {
    "beta": (0.0, -1.0, np.nan, np.inf),
    "gamma": (0.0, 0.25, np.nan, -np.inf),
    "zeta": (1.0, 0.75, np.nan, np.inf),
}
bad_hyperparameters = pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)


def assert_names(error: Any, name: str, value: float) -> None:
    message = str(error.value)
    assert name in message
    assert f"{value:g}" in message


@bad_hyperparameters
def test_bad_hyperparameters_are_named(name: str, value: float) -> None:
    good = {"beta": 0.5, "gamma": -0.1, "zeta": 1.1}[name]
    for bad in (value, np.array([good, value]), np.array([[good], [value]], np.float32)):
        with pytest.raises(ValueError, match=name) as error:
            HardConcrete(0.3, **{name: bad})
        assert_names(error, name, value)
    for function in ("sample", "sample_partials"):
        with pytest.raises(ValueError, match=name) as error:
            getattr(hc, function)(0.3, 0.6, **{name: value})
        assert_names(error, name, value)
    for function in ALONE[: 2 * len(PROBABILITIES) + 2]:
        if name == "beta" and function.startswith("test_time"):
            continue
        with pytest.raises(ValueError, match=name) as error:
            getattr(hc, function)(0.3, **{name: value})
        assert_names(error, name, value)


@pytest.mark.parametrize("u", [0.0, 1.0, -0.25, 1.5, np.nan, np.inf])
def test_bad_noise_is_named(u: float) -> None:
    law = HardConcrete(np.array([0.3, 0.7]))
    for bad in (u, np.array([0.5, u]), np.array([[0.5], [u]], np.float32)):
        for attempt in (
            lambda bad=bad: hc.sample(0.3, bad),
            lambda bad=bad: hc.sample_partials(0.3, bad),
            lambda bad=bad: law.sample(bad),
            lambda bad=bad: law.sample_partials(bad),
            lambda bad=bad: law.sample_vjp(bad, 1.0),
        ):
            with pytest.raises(ValueError, match=r"\bu\b") as error:
                attempt()
            assert_names(error, "u", u)


def test_bad_calls_are_named() -> None:
    law = HardConcrete(np.zeros(3))
    u = np.full(3, 0.4)
    with pytest.raises(ValueError, match="log_alpha"):
        HardConcrete(1j)
    with pytest.raises(ValueError, match="wrt"):
        law.sample_vjp(u, np.ones(3), wrt="alpha")
    with pytest.raises(ValueError, match="wrt"):
        law.sample_vjp(u, np.ones(3), wrt=("beta", "q"))
    with pytest.raises(ValueError, match="dz"):
        law.sample_vjp(u, np.ones(2))
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        law.sample(np.full(2, 0.4))
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        HardConcrete(np.zeros(3), beta=np.full(2, 0.5))
    for order in (-1, 1.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="order"):
            law.moment(order)
