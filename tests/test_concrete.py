"""The binary concrete and its stretched form, by the routes of the hard concrete's tests.

eps, t and the promise of 8 eps (1+|t|) are explained there; here the laws are continuous, so the
chain binary -> stretched -> hard is what is new, and the two ends of the open support.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from l0ref.concrete import BinaryConcrete, StretchedConcrete
from l0ref.hard_concrete import HardConcrete
from tests import mp_reference as mpref
from tests import naive, strategies
from tests.mp_reference import PARAMETERS, Exact, mp

LAW = ("cdf", "sf", "logcdf", "logsf", "pdf", "logpdf")
BINARY = PARAMETERS[:2]
both_dtypes = pytest.mark.parametrize("dtype", strategies.DTYPES, ids=["float32", "float64"])
both_laws = pytest.mark.parametrize("kind", ["binary", "stretched"])


def make(kind: str, log_alpha: Any, beta: Any = 2 / 3, gamma: Any = -0.1, zeta: Any = 1.1) -> Any:
    if kind == "binary":
        return BinaryConcrete(log_alpha, beta)
    return StretchedConcrete(log_alpha, beta, gamma, zeta)


def place(kind: str, s: Any, gamma: Any = -0.1, zeta: Any = 1.1) -> Any:
    """Return the argument that is s on the binary concrete's own scale."""
    return s if kind == "binary" else s * (zeta - gamma) + gamma


def grid(kind: str, dtype: Any) -> tuple[dict[str, Any], Any, dict[str, Exact], Any]:
    """Return gates, points of the support up to its ends, the truth, and each point's log-odds.

    The binary concrete is the stretched law at gamma = 0, zeta = 1, which the formulas allow.
    """
    rng, count = np.random.default_rng(70), 400
    gates = {"log_alpha": rng.uniform(-40, 40, count), "beta": rng.uniform(0.1, 2, count)}
    ends = {"gamma": np.zeros(count), "zeta": np.ones(count)}
    if kind == "stretched":
        ends = {"gamma": -(10.0 ** rng.uniform(-2, 0, count)), "zeta": rng.uniform(1.01, 2, count)}
    gates, ends = ({k: v.astype(dtype) for k, v in part.items()} for part in (gates, ends))
    s = rng.random(count)
    s[::3] = 2.0 ** -rng.uniform(1, 23, len(s[::3]))
    s[1::3] = 1 - 2.0 ** -rng.uniform(1, 20, len(s[1::3]))
    x = (s * (ends["zeta"] - ends["gamma"]).astype(float) + ends["gamma"]).astype(dtype)
    keep = (x > ends["gamma"]) & (x < ends["zeta"])
    x, gates, ends = x[keep], *({k: v[keep] for k, v in part.items()} for part in (gates, ends))
    wrt = BINARY if kind == "binary" else PARAMETERS
    truth = mpref.table(mpref.law, *gates.values(), *ends.values(), x, wrt=wrt)
    if kind == "stretched":
        gates |= ends
    wide = x.astype(float)
    return gates, x, truth, np.log((wide - ends["gamma"]) / (ends["zeta"] - wide))


@both_dtypes
@both_laws
@pytest.mark.parametrize("name", LAW)
def test_law_and_derivatives_to_the_last_digits(name: str, kind: str, dtype: Any) -> None:
    """Relative to itself; log pdf and the derivatives of pdf and log pdf, sums, to their terms."""
    gates, x, truth, log_odds = grid(kind, dtype)
    law = make(kind, **gates)
    promise = 8 * np.finfo(dtype).eps * (1 + np.abs(truth["t"].high))

    def check(got: Any, want: Exact, bound: Any) -> None:
        assert np.asarray(got).dtype == dtype
        assert np.max(want.error(got) / (bound + np.finfo(dtype).smallest_subnormal)) <= 1

    # Towards an end, log pdf is a sum with log(1/s(1-s)) among its terms.
    size = 1 + np.abs(log_odds) if name == "logpdf" else np.abs(truth[name].high)
    check(getattr(law, name)(x), truth[name], promise * size)
    partials = getattr(law, f"{name}_partials")(x)
    b, tanh = gates["beta"].astype(float), np.abs(np.tanh(truth["t"].high / 2))
    near, far = 1 / (1 + np.exp(-log_odds)), 1 / (1 + np.exp(log_odds))
    width = (gates["zeta"] - gates["gamma"]).astype(float) if kind == "stretched" else 1.0
    size_of_score = {
        "log_alpha": tanh,
        "beta": 1 / b + np.abs(log_odds) * tanh,
        "gamma": (b * tanh + far) / (near * width),
        "zeta": (b * tanh + near) / (far * width),
    }
    density = truth["pdf"].high if name == "pdf" else 1
    for parameter in gates:
        want = truth[f"{name}/{parameter}"]
        got = getattr(partials, parameter)
        size = np.abs(want.high)
        if name in ("pdf", "logpdf"):
            size = size_of_score[parameter] * density
        check(got, want, promise * size)
        assert np.all(np.asarray(got)[np.abs(want.high) > np.finfo(dtype).tiny] != 0)


@pytest.mark.parametrize("s", [1e-300, 1e-18, 2.0**-53, 1 - 2.0**-53])
@pytest.mark.parametrize("name", LAW)
def test_binary_law_at_its_very_ends(name: str, s: float) -> None:
    """The support is open, and its last floats belong to it."""
    gate = (-0.8, 0.4)
    truth = mpref.table(mpref.law, *gate, 0.0, 1.0, s, wrt=())
    bound = 8 * np.finfo(float).eps * (1 + abs(truth["t"].high[0])) * abs(truth[name].high[0])
    got = getattr(BinaryConcrete(*gate), name)(s)
    assert truth[name].error(np.reshape(got, 1))[0] <= bound


@both_dtypes
def test_samples_to_the_last_digits(dtype: Any) -> None:
    """The binary sample is one sigmoid, and relative; stretching adds gamma, so absolute."""
    rng, count = np.random.default_rng(71), 600
    log_alpha = rng.uniform(-40, 40, count).astype(dtype)
    beta = rng.uniform(0.1, 2, count).astype(dtype)
    gamma = (-(10.0 ** rng.uniform(-2, 0, count))).astype(dtype)
    zeta = rng.uniform(1.01, 2, count).astype(dtype)
    u = rng.random(count).clip(1e-7, 1 - 1e-7).astype(dtype)
    log_alpha[::2] = (np.log1p(-u.astype(float)) - np.log(u.astype(float)))[::2]
    truth = mpref.table(mpref.path, log_alpha, beta, gamma, zeta, u, wrt=())
    bound = 8 * np.finfo(dtype).eps * (1 + np.abs(truth["t"].high))
    s = BinaryConcrete(log_alpha, beta).sample(u)
    s_bar = StretchedConcrete(log_alpha, beta, gamma, zeta).sample(u)
    assert s.dtype == s_bar.dtype == dtype
    floor = 4 * np.finfo(dtype).tiny  # below it, numbers have fewer digits
    assert np.all(truth["s"].error(s) <= bound * truth["s"].high + floor)
    assert np.all(truth["s_bar"].error(s_bar) <= bound)


@given(strategies.points())
def test_each_law_is_the_last_one_transformed(point: strategies.Point) -> None:
    """Stretch s to s_bar, clip s_bar to z: of samples, quantiles and distribution functions."""
    log_alpha, beta, gamma, zeta, u = point
    eps = float(np.finfo(np.asarray(u).dtype).eps)
    binary = BinaryConcrete(log_alpha, beta)
    stretched = StretchedConcrete(log_alpha, beta, gamma, zeta)
    hard = HardConcrete(log_alpha, beta, gamma, zeta)
    for method in ("sample", "ppf", "isf"):
        s, s_bar, z = (float(getattr(law, method)(u)) for law in (binary, stretched, hard))
        # s, s (zeta-gamma), and the sum, each rounded by eps/2, of at most zeta-gamma <= 3
        assert s_bar == pytest.approx(s * (zeta - gamma) + gamma, abs=4 * eps)
        assert z == pytest.approx(min(1.0, max(0.0, s_bar)), abs=2 * eps)
    x = 0.37
    assert float(hard.cdf(x)) == float(stretched.cdf(x))
    assert float(hard.pdf(x)) == pytest.approx(float(stretched.pdf(x)), rel=4 * eps)
    assert float(hard.prob_zero()) == float(stretched.cdf(0.0))
    assert float(hard.prob_one()) == float(stretched.sf(1.0))


@given(
    log_alpha=st.floats(-20, 20),
    beta=strategies.betas(),
    s=st.floats(0.001, 0.999),
)
def test_formulas_of_the_book(log_alpha: float, beta: float, s: float) -> None:
    """Density and cdf as they are usually printed, term by term."""
    alpha = np.exp(log_alpha)
    pdf = beta * alpha * s ** (-beta - 1) * (1 - s) ** (-beta - 1)
    pdf /= (alpha * s**-beta + (1 - s) ** -beta) ** 2
    cdf = naive.sigmoid(beta * (np.log(s) - np.log1p(-s)) - log_alpha)
    law = BinaryConcrete(log_alpha, beta)
    stretched = StretchedConcrete(log_alpha, beta, -0.25, 1.5)  # 1.75 s - 0.25: few roundings
    assert float(law.pdf(s)) == pytest.approx(pdf, rel=1e-13)
    assert float(law.cdf(s)) == pytest.approx(cdf, rel=1e-13)
    x = 1.75 * s - 0.25
    # Rounding x by eps moves s by eps/s: condition 1/s (1-s) < 1e3 times beta + 1
    assert float(stretched.pdf(x)) == pytest.approx(pdf / 1.75, rel=3e-12)
    assert float(stretched.cdf(x)) == pytest.approx(cdf, rel=3e-12)


# Quadrature, Monte Carlo, quantiles


GATES = [(-2.7, 0.6), (0.5, 2 / 3), (1.9, 1.6), (-0.4, 4.0)]


@both_laws
@pytest.mark.parametrize("gate", GATES, ids=str)
def test_the_law_adds_up_by_quadrature(kind: str, gate: Any) -> None:
    """In the log-odds y of x, where the density has no singular ends: dx = s (1-s) width dy."""
    law, width = make(kind, *gate), 1.0 if kind == "binary" else 1.2

    def mean_of(f: Any, upper: float = 150.0) -> float:
        def integrand(y: float) -> float:
            s = naive.sigmoid(y)
            x = place(kind, s)
            # Both ends of the support belong to y = +-37 and beyond, where s rounds to an end.
            inside = place(kind, 0.0) < x < place(kind, 1.0)
            return f(x) * float(law.pdf(x)) * s * naive.sigmoid(-y) * width if inside else 0.0

        points = [float(p) for p in np.linspace(-150, upper, 40)[1:-1]]
        return integrate.quad(integrand, -150, upper, points=points, limit=900, epsabs=1e-14)[0]

    # What is lost beyond s = 2**-53 is below (2**-53)**beta < 3e-10.
    lost = 2 * np.exp(2.8) * 2.0 ** (-53 * gate[1])
    tolerance = 1e-11 + lost
    assert mean_of(lambda x: 1.0) == pytest.approx(1, abs=tolerance)
    assert mean_of(lambda x: 1.0, upper=0.7) == pytest.approx(
        float(law.cdf(place(kind, naive.sigmoid(0.7)))), abs=tolerance
    )
    mean = mean_of(lambda x: x)
    assert float(law.mean()) == pytest.approx(mean, abs=tolerance)
    assert float(law.var()) == pytest.approx(mean_of(lambda x: (x - mean) ** 2), abs=tolerance)
    entropy = mean_of(lambda x: -float(law.logpdf(x)))
    assert float(law.entropy()) == pytest.approx(entropy, abs=40 * tolerance)


@both_laws
@pytest.mark.parametrize("gate", GATES, ids=str)
def test_the_law_is_what_is_drawn(kind: str, gate: Any) -> None:
    """Five standard errors for the means; Kolmogorov-Smirnov, p > 1e-4, for the law: fixed seed."""
    count = 100_000
    law = make(kind, *gate)
    x = law.rvs(size=count, random_state=np.random.default_rng(72))
    for values, want in (
        (x, law.mean()),
        ((x - np.mean(x)) ** 2, law.var()),
        (np.exp(-x), law.expect(lambda x: np.exp(-x))),
        (-law.logpdf(x), law.entropy()),
    ):
        assert abs(np.mean(values) - float(want)) <= 5 * np.std(values) / count**0.5
    assert stats.kstest(x[:20_000], law.cdf).pvalue > 1e-4
    assert float(law.std()) == pytest.approx(float(law.var()) ** 0.5, rel=1e-14)


@pytest.mark.parametrize(
    "gate",
    [
        pytest.param((-40.0, 0.05), marks=pytest.mark.slow),
        (-40.0, 10.0),
        (-3.1, 2 / 3),
        (0.9, 0.05),
        pytest.param((1.7, 10.0), marks=pytest.mark.slow),
        pytest.param((40.0, 2.0), marks=pytest.mark.slow),
        (40.0, 0.3),
    ],
    ids=str,
)
def test_moments_to_twelve_digits(gate: Any) -> None:
    """Relative to themselves, or, where a sum may cross 0, to its parts."""
    want = mpref.concrete_moments(*gate, functions=(mp.exp,))
    binary, stretched = BinaryConcrete(*gate), StretchedConcrete(*gate, -0.25, 1.5)

    def check(got: Any, true: Any, size: Any = None) -> None:
        assert abs(mp.mpf(float(got)) - true) <= 1e-12 * (abs(true) if size is None else size)

    check(binary.mean(), want["mean"])
    check(binary.var(), want["var"])
    check(binary.std(), mp.sqrt(want["var"]))
    check(binary.expect(np.exp), want["expect"][0])
    check(binary.entropy(), want["entropy"], want["entropy_size"])
    width = mp.mpf(1.75)
    check(stretched.mean(), want["mean"] * width - mp.mpf(0.25), 1)
    check(stretched.var(), want["var"] * width**2)
    check(stretched.entropy(), want["entropy"] + mp.log(width), want["entropy_size"] + 1)


@both_laws
@given(log_alpha=st.floats(-8, 8), beta=st.floats(0.4, 2), q=st.floats(1e-9, 1 - 1e-9))
def test_quantiles_invert_the_law(kind: str, log_alpha: float, beta: float, q: float) -> None:
    """To the rounding of x, 2 eps of the support's ends at most, times the density there."""
    law = make(kind, log_alpha, beta)
    eps = np.finfo(float).eps
    for quantile, function in ((law.ppf, law.cdf), (law.isf, law.sf)):
        x = float(quantile(q))
        if not place(kind, 0.0) < x < place(kind, 1.0):
            continue  # rounded to an end
        slack = 8 * eps * (1 + abs(naive.logit(q))) * q + 8 * eps * float(law.pdf(x)) * max(
            abs(x), 1.0
        )
        assert abs(float(function(x)) - q) <= slack
    assert float(law.median()) == float(law.ppf(0.5))
    s = naive.sigmoid(log_alpha / beta)
    assert float(law.median()) == pytest.approx(place(kind, s), abs=1e-14)


@both_laws
def test_support_ends_and_beyond(kind: str) -> None:
    law = make(kind, np.array([-0.5, 1.2]))
    lower, upper = place(kind, 0.0), 1.0 if kind == "binary" else 1.1
    for x, below in ((lower, 1), (lower - 0.3, 1), (-np.inf, 1), (upper, 0), (2.0, 0), (np.inf, 0)):
        assert np.all(law.cdf(x) == 1 - below)
        assert np.all(law.sf(x) == below)
        assert np.all(law.logcdf(x) == (-np.inf if below else 0))
        assert np.all(law.logsf(x) == (0 if below else -np.inf))
        if x not in (lower, upper):
            assert np.all(law.pdf(x) == 0)
            assert np.all(law.logpdf(x) == -np.inf)
    assert np.all(law.ppf(0) == lower)
    assert np.all(law.ppf(1) == upper)
    assert np.all(law.isf(0) == upper)
    assert np.all(law.isf(1) == lower)
    for q in (-0.2, 1.2, np.nan):
        assert np.all(np.isnan(law.ppf(q)))
        assert np.all(np.isnan(law.isf(q)))
    for name in LAW:
        assert np.all(np.isnan(getattr(law, name)(np.nan)))


# The path


@both_laws
def test_sample_vjp_against_the_naive_path(kind: str) -> None:
    """Never clipped: all of (gamma, zeta) has a slope. Shapes broadcast, cotangents are random."""
    rng = np.random.default_rng(73)
    log_alpha, beta = rng.normal(0, 2, (4, 1, 3)), rng.uniform(0.5, 1.5, (2, 3))
    gamma, zeta = np.array(-0.3), np.array([1.2, 1.4, 1.1])
    u, dz = rng.uniform(0.02, 0.98, (2, 1)), rng.normal(size=(4, 2, 3))
    law = make(kind, log_alpha, beta, gamma, zeta)
    names = ("log_alpha", "beta", "u") if kind == "binary" else (*PARAMETERS, "u")
    arguments = {"log_alpha": log_alpha, "beta": beta, "gamma": gamma, "zeta": zeta, "u": u}
    got = dict(zip(names, law.sample_vjp(u, dz, wrt=names), strict=True))
    slopes = {name: np.empty(dz.shape) for name in names}
    for index in np.ndindex(dz.shape):
        a, b, c, d, e = (
            float(np.broadcast_to(value, dz.shape)[index]) for value in arguments.values()
        )
        width = d - c if kind == "stretched" else 1.0
        t = (naive.logit(e) + a) / b
        ds_dt = naive.sigmoid(t) * naive.sigmoid(-t)
        formulas = {
            "log_alpha": width * ds_dt / b,
            "beta": -width * ds_dt * t / b,
            "gamma": naive.sigmoid(-t),
            "zeta": naive.sigmoid(t),
            "u": width * ds_dt / (b * e * (1 - e)),
        }
        for name in names:
            slopes[name][index] = formulas[name]
    for name in names:
        shape = arguments[name].shape
        extra = tuple(range(dz.ndim - len(shape)))
        ones = tuple(i for i in range(dz.ndim) if i in extra or shape[i - len(extra)] == 1)
        want = (dz * slopes[name]).sum(axis=ones).reshape(shape)
        assert np.shape(got[name]) == shape
        np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-13)  # 24 terms of order 1
        assert np.array_equal(law.sample_vjp(u, dz, wrt=name), got[name])
    assert np.array_equal(law.sample_vjp(u, dz), got["log_alpha"])


@both_laws
def test_sample_vjp_against_differences(kind: str) -> None:
    """Five-point differences: h**4 = 1e-12 times a fifth derivative below 1e3."""
    rng = np.random.default_rng(74)
    log_alpha, direction = rng.normal(size=(3, 1)), rng.normal(size=(3, 1))
    u, dz, h = rng.uniform(0.1, 0.9, 4), rng.normal(size=(3, 4)), 1e-3
    z = {k: np.sum(dz * make(kind, log_alpha + k * h * direction, 0.8).sample(u))
         for k in (-2, -1, 1, 2)}  # fmt: skip
    difference = (8 * (z[1] - z[-1]) - (z[2] - z[-2])) / (12 * h)
    slope = np.sum(make(kind, log_alpha, 0.8).sample_vjp(u, dz) * direction)
    assert slope == pytest.approx(difference, rel=1e-8)


# NaN, infinities, dtype, bad input


METHODS = {
    **dict.fromkeys((*LAW, *(f"{name}_partials" for name in LAW), "ppf", "isf", "sample"), (0.3,)),
    **dict.fromkeys(("mean", "var", "std", "median", "entropy"), ()),
    "expect": (np.exp,),
    "rvs": (None, 5),
}


def call(law: Any, name: str) -> list[Any]:
    result = getattr(law, name)(*METHODS[name])
    return list(result) if isinstance(result, tuple) else [result]


@both_laws
@both_dtypes
@pytest.mark.parametrize("name", METHODS)
def test_nan_dtype_and_shape(name: str, dtype: Any, kind: str) -> None:
    gate = np.array([[0.4], [np.nan], [-0.2]], dtype)
    for got in call(make(kind, gate), name):
        assert got.dtype == dtype
        assert got.shape == gate.shape
        assert np.array_equal(np.isnan(got), np.isnan(gate))
    for scalar, expected in ((np.float32(0.4), np.float32), (0.4, np.float64), (1, np.float64)):
        for got in call(make(kind, scalar), name):
            assert np.shape(got) == ()
            assert np.asarray(got).dtype == expected


@both_laws
@pytest.mark.parametrize("name", LAW)
def test_nan_gate_gives_nan_outside_too(name: str, kind: str) -> None:
    for x in (-0.5, 1.5):
        assert np.isnan(getattr(make(kind, np.nan), name)(x))


@both_laws
@pytest.mark.parametrize("sign", [-1, 1])
def test_infinite_log_alpha_is_a_constant(kind: str, sign: int) -> None:
    """All mass at an end of the support: 1 or 0 of the binary concrete, zeta or gamma stretched."""
    law = make(kind, np.array([sign * np.inf]))
    end = (1.0 if kind == "binary" else 1.1) if sign > 0 else place(kind, 0.0)
    for got in (law.sample(0.3), law.ppf(0.3), law.isf(0.3), law.median(), law.mean(), law.rvs()):
        np.testing.assert_allclose(got, end, rtol=4e-16)
    np.testing.assert_allclose(law.expect(np.exp), np.exp(end), rtol=1e-15)
    assert law.var() == law.std() == 0
    assert law.cdf(0.3) == (sign < 0)
    assert law.sf(0.3) == (sign > 0)
    assert law.pdf(0.3) == 0
    assert law.logpdf(0.3) == -np.inf
    assert law.entropy() == -np.inf, "a continuous law that has become a point"
    assert law.sample_vjp(0.3, np.array([1.7])) == 0


@both_laws
def test_bad_input_is_named(kind: str) -> None:
    bad = {"beta": (0.0, -1.0, np.nan, np.inf)}
    if kind == "stretched":
        bad |= {"gamma": (0.0, 0.25, np.nan, -np.inf), "zeta": (1.0, 0.75, np.nan, np.inf)}
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match=name) as error:
                make(kind, 0.3, **{name: value})
            assert f"{value:g}" in str(error.value)
    law = make(kind, np.zeros(3))
    for u in (0.0, 1.0, -0.5, np.nan):
        for attempt in (law.sample, lambda u: law.sample_vjp(u, 1.0)):
            with pytest.raises(ValueError, match=r"\bu\b") as error:
                attempt(np.array([0.5, u, 0.5]))
            assert f"{u:g}" in str(error.value)
    with pytest.raises(ValueError, match="wrt"):
        law.sample_vjp(np.full(3, 0.4), np.ones(3), wrt="alpha")
    if kind == "binary":
        with pytest.raises(ValueError, match="wrt"):
            law.sample_vjp(np.full(3, 0.4), np.ones(3), wrt="zeta")
