"""Penalties against loops, their gradients against mpmath differences, their meaning against draws.

Where a sum of positive terms is compared, the tolerance is relative: each term carries a sigmoid's
error, 8 eps (1 + |t|) with t its argument, and the sum one rounding a term.
"""

from math import inf, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0ref import penalties
from l0ref.gates import by_label, per_input, per_output, per_weight
from tests import naive_network as naive
from tests.mp_reference import mp

HYPER = {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}
EXACT_HYPER = {name: mp.mpf(value) for name, value in HYPER.items()}
H = mp.mpf("1e-20")
LABELS = [[0, 3, 1, 1, 0], [2, 2, 1, 0, 3], [1, 3, 3, 3, 0]]
SHAPE = (3, 5)
FAMILIES = {
    "weights": (per_weight(SHAPE, **HYPER), naive.owner("weights")),
    "inputs": (per_input(SHAPE, **HYPER), naive.owner("inputs")),
    "outputs": (per_output(SHAPE, **HYPER), naive.owner("outputs")),
    "outputs and bias": (per_output(SHAPE, gates_bias=True, **HYPER), naive.owner("outputs")),
    "labels": (by_label(LABELS, **HYPER), naive.owner("", labels=LABELS)),
}
NORMS: dict[str, Any] = {"l2": lambda w: w * w, "l1": abs}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_norm = pytest.mark.parametrize("norm", NORMS)


def close(got: Any, exact: list[Any], dtype: Any, reach: float) -> None:
    """Relative to each exact number; `reach` bounds |t|, and twenty numbers at most are added."""
    eps = float(np.finfo(dtype).eps)
    flat = np.ravel(got).tolist()
    for one, truth in zip(flat, exact, strict=True):
        assert abs(mp.mpf(one) - truth) <= eps * (8 * (1 + reach) + 20) * abs(truth), (one, truth)


def case(family: str, dtype: Any, seed: int = 0) -> Any:
    gates, owns = FAMILIES[family]
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=SHAPE).astype(dtype)
    log_alpha = rng.uniform(-6, 6, size=gates.shape).astype(dtype)
    bias = rng.normal(size=SHAPE[1]).astype(dtype) if gates.gates_bias else None
    for array in (weight, log_alpha):
        array.flags.writeable = False
    return gates, owns, weight, log_alpha, bias


def exact_norm(owns: Any, norm: Any, weight: Any, log_alpha: Any, bias: Any = ()) -> Any:
    on = lambda place: naive.prob_on(naive.pick(log_alpha, place), mp, **EXACT_HYPER)  # noqa: E731
    return naive.gated_norm(weight, owns, SHAPE, on, norm, bias)


# --- the counts ---


@given(
    st.lists(st.tuples(st.floats(-40, 40), st.integers(1, 400)), min_size=1, max_size=6),
    st.sampled_from([np.float32, np.float64]),
)
def test_expected_l0_and_its_gradient(gates: list[tuple[float, int]], dtype: Any) -> None:
    log_alpha = np.array([a for a, _ in gates], dtype=dtype)
    sizes = [size for _, size in gates]
    points = [mp.mpf(a) for a in log_alpha.tolist()]

    def count(log_alpha: list[Any]) -> Any:
        return sum(
            size * naive.prob_on(a, mp, **EXACT_HYPER)
            for size, a in zip(sizes, log_alpha, strict=True)
        )

    got = penalties.expected_l0(log_alpha, sizes, **HYPER)
    assert isinstance(got, float)
    close(got, [count(points)], dtype, reach=41)
    slope = penalties.expected_l0_grad(log_alpha, sizes, **HYPER)
    assert slope.dtype == dtype
    assert slope.shape == log_alpha.shape
    # |g| P (1-P): two sigmoids. Relative to itself, however small: it is 1e-15 at the ends.
    close(slope, naive.gradients(count, {"log_alpha": points}, H)["log_alpha"], dtype, reach=82)


def test_expected_l0_counts_one_parameter_a_gate_by_default() -> None:
    log_alpha = np.array([[0.5, -2.0, 1.0]])
    expected = sum(naive.prob_on(a) for a in log_alpha.ravel().tolist())
    assert abs(penalties.expected_l0(log_alpha) - expected) < 1e-14
    assert abs(penalties.expected_l0(0.5, 7) - 7 * 0.890767) < 7e-6  # a published spot value
    assert penalties.expected_l0_grad(log_alpha).shape == (1, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_gradient_dies_in_a_tail(dtype: Any) -> None:
    log_alpha = np.array([-80.0, -40.0, 40.0, 80.0], dtype=dtype)
    slope = penalties.expected_l0_grad(log_alpha, 3)
    assert (slope > 0).all()
    weight = np.full((4, 2), 0.5, dtype)
    d = penalties.expected_l2_grad(weight, log_alpha, per_input((4, 2)))
    assert (d.log_alpha > 0).all()
    assert (d.weight > 0).all()


@every_family
def test_expected_l0_is_the_mean_count_of_draws(family: str) -> None:
    """Monte Carlo: parameters whose gate is not 0, against 5 standard errors of their mean."""
    gates, owns, weight, _, bias = case(family, np.float64)
    draws = 20_000
    rng = np.random.default_rng(11)
    log_alpha = rng.normal(-0.5, 1.0, size=gates.shape)
    u = rng.uniform(size=(draws, *gates.shape))
    z, _ = gates.draw(log_alpha, u)
    owners = [owns(place) for place in np.ndindex(SHAPE)]
    owners += [(o,) for o in range(0 if bias is None else len(bias))]
    on = np.array([(z[(slice(None), *place)] != 0) for place in owners])
    counts = on.sum(axis=0)
    standard_error = counts.std(ddof=1) / np.sqrt(draws)
    expected = penalties.expected_l0(log_alpha, gates.group_size, **HYPER)
    assert abs(counts.mean() - expected) < 5 * standard_error
    assert standard_error < 0.01 * expected  # or the line above would say nothing

    if bias is None:  # the same for the norms of Eq. 14: the gate is its indicator, not its value
        for name, norm in (("l2", np.square), ("l1", np.abs)):
            norms = norm(weight).ravel() @ on
            penalty = getattr(penalties, f"expected_{name}")(weight, log_alpha, gates)
            assert abs(norms.mean() - penalty) < 5 * norms.std(ddof=1) / np.sqrt(draws)


# --- the norms ---


@every_family
@every_norm
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_gated_norms_and_their_gradients(family: str, norm: str, dtype: Any) -> None:
    gates, owns, weight, log_alpha, bias = case(family, dtype)
    f, f_grad = (getattr(penalties, f"expected_{norm}{suffix}") for suffix in ("", "_grad"))
    numbers = {"weight": weight, "log_alpha": log_alpha} | ({} if bias is None else {"bias": bias})
    points = {name: naive.convert(a.tolist(), mp.mpf) for name, a in numbers.items()}
    exact = exact_norm(owns, NORMS[norm], **points)
    got = f(weight, log_alpha, gates, bias)
    assert isinstance(got, float)
    close(got, [exact], dtype, reach=8)

    gradient = f_grad(weight, log_alpha, gates, bias)
    slopes = naive.gradients(lambda **a: exact_norm(owns, NORMS[norm], **a), points, H)
    for name, array in numbers.items():
        d = getattr(gradient, name)
        assert d.dtype == dtype
        assert d.shape == array.shape
        close(d, slopes[name], dtype, reach=16)
    assert (gradient.bias is None) == (bias is None)


def test_l1_at_0_has_slope_0_by_convention() -> None:
    weight = np.array([[0.0, -0.3], [0.7, -0.0]])
    d = penalties.expected_l1_grad(weight, np.array([0.3, 1.0]), per_input((2, 2)))
    np.testing.assert_array_equal(d.weight == 0, weight == 0)


@every_norm
@pytest.mark.parametrize("suffix", ["", "_grad"])
def test_a_bias_is_taken_exactly_where_the_gates_own_it(norm: str, suffix: str) -> None:
    f = getattr(penalties, f"expected_{norm}{suffix}")
    weight, log_alpha = np.ones(SHAPE), np.zeros(SHAPE[1])
    with pytest.raises(ValueError, match=r"bias .*required.*got None"):
        f(weight, log_alpha, FAMILIES["outputs and bias"][0])
    with pytest.raises(ValueError, match=r"bias .*not gated.*\(5,\)"):
        f(weight, log_alpha, FAMILIES["outputs"][0], np.ones(5))
    with pytest.raises(ValueError, match=r"log_alpha .*\(5,\), got \(3,\)"):
        f(weight, np.zeros(3), FAMILIES["outputs"][0])
    with pytest.raises(ValueError, match=r"\(3, 5\), got \(5, 3\)"):
        f(weight.T, log_alpha, FAMILIES["outputs"][0])


@every_norm
@pytest.mark.parametrize("shape", [(1,), (3, 5)])
def test_a_bias_of_another_shape_is_refused(norm: str, shape: tuple[int, ...]) -> None:
    f = getattr(penalties, f"expected_{norm}")
    with pytest.raises(ValueError, match=r"bias .*\(5,\), got"):
        f(np.ones(SHAPE), np.zeros(5), FAMILIES["outputs and bias"][0], np.ones(shape))


def test_nan_is_nan_and_infinities_are_all_or_nothing() -> None:
    sizes = [2, 3, 5]
    assert np.isnan(penalties.expected_l0([0.3, np.nan, 1.0], sizes))
    assert penalties.expected_l0([-inf, inf, inf], sizes) == 8
    np.testing.assert_array_equal(
        penalties.expected_l0_grad([-inf, inf, np.nan], 1), [0, 0, np.nan]
    )


# --- information criteria ---


@given(st.floats(1e-3, 5), st.integers(0, 300_000), st.integers(1, 10**6))
def test_the_criteria_are_the_objective_times_2n(nll: float, k: int, n: int) -> None:
    """AIC = 2k - 2 log L, BIC = k log N - 2 log L, where log L = -N nll; the objective times 2N."""
    for criterion, lam, cost in (
        (penalties.aic, penalties.lam_aic, 2.0),
        (penalties.bic, penalties.lam_bic, log(n)),
    ):
        by_definition = cost * k + 2 * n * nll
        tolerance = 1e-14 * by_definition  # sums and products of positive numbers
        assert abs(criterion(nll, k, n) - by_definition) <= tolerance
        assert abs(2 * n * (nll + lam(n) * k) - by_definition) <= tolerance


@pytest.mark.parametrize("n", [0, -5])
def test_criteria_refuse_an_empty_data_set(n: int) -> None:
    message = rf"n_examples .*at least 1, got {n}"
    for call in (penalties.lam_aic, penalties.lam_bic):
        with pytest.raises(ValueError, match=message):
            call(n)
    for criterion in (penalties.aic, penalties.bic):
        with pytest.raises(ValueError, match=message):
            criterion(0.3, 7, n)


@pytest.mark.parametrize("name", ["beta", "gamma", "zeta"])
def test_hyperparameters_out_of_range_are_refused(name: str) -> None:
    for f in (penalties.expected_l0, penalties.expected_l0_grad):
        with pytest.raises(ValueError, match=f"{name} .*got 0.0"):
            f(0.3, **{name: 0.0})
