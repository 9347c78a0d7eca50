"""Gate families: who owns which weights, counted by loops; the draw and its VJP; the start."""

from fractions import Fraction
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0ref import gates
from l0ref.gates import Gates, by_label, init_log_alpha, per_input, per_output, per_weight
from tests import naive_network as naive
from tests.mp_reference import mp

HYPER = {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}
EPS = np.finfo(np.float64).eps


@st.composite
def families(draw: st.DrawFn) -> tuple[Gates, naive.Owner, int]:
    """Draw a family over a weight of any number of axes, its owner map, and its count of biases."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=2, max_size=4)))
    kind = draw(st.sampled_from(["weights", "inputs", "outputs", "labels"]))
    if kind == "weights":
        return per_weight(shape, **HYPER), naive.owner("weights"), 0
    if kind == "labels":
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        used = rng.integers(0, draw(st.integers(1, 7)), size=shape)
        _, labels = np.unique(used, return_inverse=True)  # no gap
        labels = rng.permutation(labels.max() + 1)[labels].reshape(shape)
        return by_label(labels, **HYPER), naive.owner("", labels=labels.tolist()), 0
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    owns = naive.owner(kind, axis=axis % len(shape))
    if kind == "inputs":
        return per_input(shape, axis=axis, **HYPER), owns, 0
    gates_bias = draw(st.booleans())
    family = per_output(shape, axis=axis, gates_bias=gates_bias, **HYPER)
    return family, owns, shape[axis] if gates_bias else 0


def spread(owns: naive.Owner, shape: tuple[int, ...], z: Any) -> Any:
    """Give each weight its gate's value, one by one."""
    return np.array([naive.pick(z, owns(place)) for place in np.ndindex(shape)]).reshape(shape)


# --- ownership ---


@given(families())
def test_group_size_counts_what_each_gate_owns(case: Any) -> None:
    family, owns, n_biases = case
    counts = naive.group_sizes(family.weight_shape, owns, n_biases)
    assert {place: int(family.group_size[place]) for place in np.ndindex(family.shape)} == counts
    assert family.group_size.dtype.kind == "i"
    assert family.group_size.shape == family.shape
    assert family.group_size.sum() == np.prod(family.weight_shape) + n_biases


def test_group_size_of_the_papers_layers() -> None:
    """784-300: the 300 outgoing weights. A 5x5 map of 20: 500 weights, its bias only if gated."""
    assert set(per_input((784, 300)).group_size.tolist()) == {300}
    assert per_input((784, 300)).shape == (784,)
    conv = (50, 20, 5, 5)  # C_out, C_in/groups, kh, kw
    assert set(per_output(conv, axis=0).group_size.tolist()) == {500}
    assert set(per_output(conv, axis=0, gates_bias=True).group_size.tolist()) == {501}
    assert per_output(conv, axis=0).shape == (50,)
    assert per_output((7, 3)).group_size.tolist() == [7, 7, 7]  # the last axis is the default
    assert per_weight((2, 3)).group_size.tolist() == [[1, 1, 1], [1, 1, 1]]


@given(families(), st.integers(0, 2**32 - 1))
def test_expand_and_contract_are_transposes(case: Any, seed: int) -> None:
    """<expand(z), V> = <z, contract(V)>, and each is the loop's, in numbers that add exactly."""
    family, owns, _ = case
    rng = np.random.default_rng(seed)
    values = rng.integers(-50, 50, size=family.weight_shape).astype(float)
    z = rng.integers(-50, 50, size=(3, *family.shape)).astype(float)
    wide = np.broadcast_to(family.expand(z), (3, *family.weight_shape))
    narrow = family.contract(values)
    assert narrow.shape == family.shape
    for one, one_wide in zip(z, wide, strict=True):  # leading axes: examples
        np.testing.assert_array_equal(one_wide, spread(owns, family.weight_shape, one.tolist()))
        alone = np.broadcast_to(family.expand(one), family.weight_shape)
        np.testing.assert_array_equal(alone, one_wide)
        assert (one_wide * values).sum() == (one * narrow).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(families())
def test_expand_and_contract_keep_the_dtype(dtype: Any, case: Any) -> None:
    family = case[0]
    assert family.expand(np.ones(family.shape, dtype)).dtype == dtype
    sums = family.contract(np.ones(family.weight_shape, dtype))
    assert sums.dtype == dtype
    assert sums.sum() == np.prod(family.weight_shape)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 2], [2, 0]], r"labels .*gap.* 1"),
        ([1, 2], r"labels .*gap.* 0"),
        ([0, -1], r"labels .*at least 0, got -1"),
        ([0.0, 1.0], r"labels .*integers, got dtype float64"),
        ([True, False], r"labels .*integers, got dtype bool"),
        (np.zeros((0, 3), int), r"labels .*empty"),
    ],
)
def test_by_label_refuses(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_label(labels)


@pytest.mark.parametrize("make", [per_input, per_output])
@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_is_not_there_is_refused(make: Any, axis: int) -> None:
    with pytest.raises(ValueError, match=rf"axis .*\(3, 4\), got {axis}"):
        make((3, 4), axis=axis)


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"beta": 0.0}, "beta .*positive.*got 0"),
        ({"beta": -1.0}, "beta .*got -1"),
        ({"beta": np.nan}, "beta .*got nan"),
        ({"gamma": 0.0}, "gamma .*got 0"),
        ({"zeta": 1.0}, "zeta .*got 1"),
    ],
)
@pytest.mark.parametrize("make", [per_weight, per_input, per_output, by_label])
def test_hyperparameters_out_of_range_are_refused(make: Any, hyper: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make((1, 0), **hyper)  # a shape, or labels


def test_shapes_that_do_not_fit_are_refused() -> None:
    family = per_input((3, 5))
    with pytest.raises(ValueError, match=r"log_alpha .*\(3,\), got \(5,\)"):
        family.law(np.zeros(5))
    with pytest.raises(ValueError, match=r"log_alpha .*\(3,\), got \(1,\)"):
        family.draw(np.zeros(1), np.full(3, 0.3))
    with pytest.raises(ValueError, match=r"z .*\(3,\).*got \(2, 5\)"):
        family.expand(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"z .*got \(\)"):
        family.expand(np.ones(()))
    with pytest.raises(ValueError, match=r"values .*\(3, 5\), got \(5, 3\)"):
        family.contract(np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"dz .*\(3,\).*got \(4,\)"):
        family.draw_vjp(np.ones(4), np.ones(3))


# --- the draw ---


@given(families(), st.sampled_from([None, 1, 3]), st.integers(0, 2**32 - 1))
def test_draw_and_its_vjp(case: Any, n_examples: int | None, seed: int) -> None:
    """Draws an example share log_alpha, so their derivatives add up; each is the twin's."""
    family = case[0]
    rng = np.random.default_rng(seed)
    log_alpha = rng.normal(size=family.shape)
    shape = family.noise_shape(n_examples)
    assert shape == (family.shape if n_examples is None else (n_examples, *family.shape))
    u, dz = rng.uniform(0.02, 0.98, size=shape), rng.normal(size=shape)
    z, slope = family.draw(log_alpha, u)
    d_log_alpha = family.draw_vjp(dz, slope)
    assert z.shape == slope.shape == shape
    assert d_log_alpha.shape == family.shape

    draws = (slice(None),) if n_examples is None else range(n_examples)
    exact_sum = np.zeros(family.shape)
    for i in draws:
        one_u, one_dz = (u, dz) if n_examples is None else (u[i], dz[i])
        one_z = z if n_examples is None else z[i]
        for place in np.ndindex(family.shape):
            a, v = mp.mpf(float(log_alpha[place])), mp.mpf(float(one_u[place]))
            hyper = {name: mp.mpf(value) for name, value in HYPER.items()}
            assert abs(one_z[place] - naive.draw(a, v, mp, **hyper)) < 16 * EPS
            up, down = (
                naive.draw(a + h, v, mp, **hyper) for h in (mp.mpf("1e-20"), -mp.mpf("1e-20"))
            )
            exact_sum[place] += one_dz[place] * float((up - down) / mp.mpf("2e-20"))
    # |dz| < 5 and slope <= (zeta-gamma)/(4 beta) < 1, a few roundings each, and a sum of three.
    np.testing.assert_allclose(d_log_alpha, exact_sum, rtol=0, atol=100 * EPS)


def test_a_clipped_gate_has_slope_exactly_0() -> None:
    family = per_input((3, 2), **HYPER)
    z, slope = family.draw(np.array([-9.0, 0.3, 9.0]), np.array([0.4, 0.45, 0.6]))
    assert z[0] == 0
    assert z[2] == 1
    assert (slope == 0).tolist() == [True, False, True]


def test_gates_at_the_ends_and_nan() -> None:
    """log_alpha = -inf is closed, +inf is open, NaN is NaN, in a draw and at test time."""
    family = per_input((3, 2))
    log_alpha = np.array([-np.inf, np.inf, np.nan])
    z, _ = family.draw(log_alpha, np.array([0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(z, [0, 1, np.nan])
    np.testing.assert_array_equal(family.test_time(log_alpha), [0, 1, np.nan])


def test_test_time_is_eq_13_with_the_familys_stretch_and_no_beta() -> None:
    log_alpha = np.array([-3.0, -1.2, 0.5, 0.9, 4.0])
    expected = [naive.test_gate(a, gamma=-0.2, zeta=1.3) for a in log_alpha.tolist()]
    for beta in (0.3, 2.0):
        family = per_input((5, 2), beta=beta, gamma=-0.2, zeta=1.3)
        np.testing.assert_allclose(family.test_time(log_alpha), expected, rtol=0, atol=4 * EPS)
        assert family.hyperparameters == {"beta": beta, "gamma": -0.2, "zeta": 1.3}


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.2, np.nan])
def test_noise_outside_the_open_interval_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"u .*between 0 and 1, got {bad}"):
        per_input((2, 3)).draw(np.zeros(2), np.array([0.3, bad]))


# --- where log_alpha starts ---


@pytest.mark.parametrize("drop_rate", [0.2, 0.5, 0.3, 1e-3, 0.999])
def test_init_is_the_keep_rates_logit_with_a_jitter(drop_rate: float) -> None:
    normal = np.random.default_rng(3).normal(size=(4, 5))
    log_alpha = init_log_alpha(drop_rate, normal, np.float64)
    p = Fraction(drop_rate)
    centre = mp.log(mp.mpf(int((1 - p).numerator)) / mp.mpf(int((1 - p).denominator)))
    centre -= mp.log(mp.mpf(drop_rate))
    exact = float(centre) + 0.01 * normal
    np.testing.assert_allclose(log_alpha, exact, rtol=0, atol=8 * EPS * (1 + abs(float(centre))))
    assert log_alpha.shape == (4, 5)
    assert init_log_alpha(drop_rate, normal).dtype == np.float32


def test_init_at_drop_rate_p_keeps_a_share_1_minus_p() -> None:
    """A drop rate of 0.2 keeps s > 1/2 in 80 % of the draws, not in 20 %."""
    rng = np.random.default_rng(4)
    n = 20_000
    log_alpha = init_log_alpha(0.2, rng.normal(size=n), np.float64)
    assert abs(log_alpha.mean() - log(4)) < 5 * 0.01 / np.sqrt(n)
    u = rng.uniform(size=n)
    kept = (np.log(u) - np.log1p(-u) + log_alpha > 0).mean()
    assert abs(kept - 0.8) < 5 * np.sqrt(0.16 / n)  # 5 standard errors; the jitter adds 1e-5


@pytest.mark.parametrize("drop_rate", [0.0, 1.0, -0.1, 1.5, np.nan])
def test_a_drop_rate_out_of_range_is_refused(drop_rate: float) -> None:
    with pytest.raises(ValueError, match=rf"drop_rate .*between 0 and 1, got {drop_rate}"):
        init_log_alpha(drop_rate, np.zeros(3))


def test_clamp_moves_in_place_and_only_what_is_outside() -> None:
    log_alpha = np.array([-7.0, -4.0, 0.3, 4.0, 7.0, np.nan])
    gates.clamp_log_alpha(log_alpha)
    expected = [log(0.01), -4.0, 0.3, 4.0, log(100), np.nan]
    np.testing.assert_allclose(log_alpha, expected, rtol=2 * EPS)
    gates.clamp_log_alpha(log_alpha, -1.0, 1.0)
    np.testing.assert_array_equal(log_alpha, [-1, -1, 0.3, 1, 1, np.nan])
