"""Batch normalisation against mpmath; the sum and flattening, which are exact.

Derivatives of batch normalisation are differences in mpmath with h = 1e-30 and 80 digits, off by
1e-60: the tolerances are those of the op alone.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpmath import MPContext

from l0ref import ops
from tests import naive_conv as naive
from tests import naive_network

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 3)
# (N, C) or (N, C, H, W), with at least two values a channel.
with_pixels = st.tuples(sizes, sizes, sizes, sizes).filter(lambda s: s[0] * s[2] * s[3] >= 2)
shapes = st.one_of(st.tuples(st.integers(2, 5), sizes), with_pixels)

wide = MPContext()
wide.dps = 80
H = wide.mpf("1e-30")


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def norm_case(shape: Any, dtype: Any, seed: int, given_moments: bool) -> Any:
    rng = np.random.default_rng(seed)
    c = shape[1]
    arrays = {
        "x": rng.normal(size=shape) + rng.normal(),
        "weight": rng.normal(size=c),
        "bias": rng.normal(size=c),
    }
    if given_moments:
        arrays |= {"mean": rng.normal(size=c), "var": rng.uniform(0.1, 2, size=c)}
    dy = frozen(rng.normal(size=shape), dtype)
    return {name: frozen(a, dtype) for name, a in arrays.items()}, dy


def exact_errors(got: Any, exact: list[Any]) -> Any:
    pairs = zip(got.ravel().tolist(), exact, strict=True)
    return np.array([float(abs(wide.mpf(g) - e)) for g, e in pairs]).reshape(got.shape)


def check_norm(arrays: Any, dy: Any, eps: float, forward: Any, vjp: Any) -> None:
    """Compare one of the two pairs with loops in mpmath."""
    y, residuals = forward(*arrays.values(), eps=eps)
    got = dict(zip(("x", "weight", "bias"), vjp(dy, residuals), strict=True))
    dtype = dy.dtype
    numbers = {name: naive_network.convert(a.tolist(), wide.mpf) for name, a in arrays.items()}
    cotangent = naive_network.convert(dy.tolist(), wide.mpf)

    def loops(**moved: Any) -> Any:
        return naive.batch_norm(**(numbers | moved), eps=wide.mpf(eps), m=wide)

    varied = {name: numbers[name] for name in ("x", "weight", "bias")}
    slopes = naive_network.gradients(lambda **a: naive.dot(cotangent, loops(**a)), varied, H)

    # x - mean is off by about m + 1 roundings of max|x|; that, in units of the deviation it is
    # divided by, is the error of x_hat, and m + 8 roundings of each later sum and product join it.
    # x_hat itself, and its share in dx, are at most k.
    x = np.asarray(arrays["x"], float)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    m = x.size // x.shape[1]
    var = np.asarray(arrays["var"], float) if "var" in arrays else x.var(axis=axes)
    mean = np.asarray(arrays["mean"], float) if "mean" in arrays else x.mean(axis=axes)
    r = 1 / np.sqrt(var + eps)
    k = 1 + (np.abs(x).max() + np.abs(mean).max()) * r.max()
    unit = np.finfo(dtype).eps * (m + 8) * k
    weight, bias = (float(np.abs(arrays[name]).max()) for name in ("weight", "bias"))
    pull = np.abs(dy).sum(axis=axes).max()
    bounds = {
        "y": unit * (k * weight + bias),
        "x": unit * k**2 * weight * np.abs(dy).max() * r.max(),
        "weight": unit * k * pull,
        "bias": np.finfo(dtype).eps * m * pull,
    }
    flat = naive_network.flat
    for name, value, exact in [("y", y, flat(loops()))] + [(n, got[n], slopes[n]) for n in got]:
        assert value.dtype == dtype, name
        assert value.shape == (y if name == "y" else arrays[name]).shape
        assert exact_errors(value, exact).max() <= bounds[name], name


@given(shapes, st.sampled_from(DTYPES), st.sampled_from([1e-5, 0.3]), seeds)
@example((3, 2), np.float64, 1e-5, 1)
@example((2, 2), np.float32, 1e-5, 2)  # N == C
@example((2, 3, 1, 4), np.float64, 0.3, 3)
@example((1, 2, 3, 2), np.float32, 0.3, 4)  # one example has pixels enough
def test_batch_norm_and_its_vjp(shape: Any, dtype: Any, eps: float, seed: int) -> None:
    arrays, dy = norm_case(shape, dtype, seed, given_moments=False)
    check_norm(arrays, dy, eps, ops.batch_norm, ops.batch_norm_vjp)


@given(shapes, st.sampled_from(DTYPES), st.sampled_from([1e-5, 0.3]), seeds)
@example((1, 3), np.float64, 1e-5, 5)  # one example is enough here
def test_batch_norm_inference_and_its_vjp(shape: Any, dtype: Any, eps: float, seed: int) -> None:
    arrays, dy = norm_case(shape, dtype, seed, given_moments=True)
    check_norm(arrays, dy, eps, ops.batch_norm_inference, ops.batch_norm_inference_vjp)


@both_dtypes
def test_batch_norm_moments(dtype: Any) -> None:
    arrays, _ = norm_case((3, 2, 4, 5), dtype, 6, given_moments=False)
    _, residuals = ops.batch_norm(**arrays)
    exact = [naive.moments(naive_network.convert(arrays["x"].tolist(), wide.mpf), c)
             for c in range(2)]  # fmt: skip
    tolerance = 60 * np.finfo(dtype).eps * 10  # 60 values, none and no square beyond 10
    assert residuals.n_values == exact[0][2] == 60
    for got, place in ((residuals.mean, 0), (residuals.var, 1)):
        assert got.dtype == dtype
        assert exact_errors(got, [moments[place] for moments in exact]).max() <= tolerance


def test_two_passes_keep_the_variance_of_numbers_far_from_zero() -> None:
    """The mean of x^2 less the square of the mean would be off by 1e12 eps / 5e-3 = 4 %."""
    rng = np.random.default_rng(7)
    deviations = rng.integers(-512, 513, size=(40, 2)) / 4096  # exact when 1e6 is added
    x = 1e6 + deviations
    _, residuals = ops.batch_norm(x, np.ones(2), np.zeros(2))
    # The mean is off by at most 40 roundings of 1e6, and the variance by the square of that.
    wanted = np.var(deviations, axis=0)
    np.testing.assert_allclose(residuals.var, wanted, rtol=1e-12, atol=(40e6 * 2.2e-16) ** 2)


def test_a_constant_channel_stays_finite() -> None:
    x = np.full((4, 1, 2, 3), 0.1)
    y, residuals = ops.batch_norm(x, np.array([3.0]), np.array([-2.0]), eps=1e-3)
    # 0.1 in any order of 24 summands is off by rounding alone, over sqrt(1e-3).
    np.testing.assert_allclose(y, -2.0, rtol=0, atol=3 * 24 * 0.1 * 2.3e-16 / 0.03)
    dx, _, _ = ops.batch_norm_vjp(np.random.default_rng(8).normal(size=x.shape), residuals)
    assert np.isfinite(dx).all()


def test_what_training_cannot_see_sends_nothing_back() -> None:
    """A shift of all x leaves y as it is, and so, but for eps, does a scale: dx has no part there.

    In inference mode they are seen, and dx has both.
    """
    rng = np.random.default_rng(9)
    x, dy = rng.normal(size=(2, 5, 3, 4, 6))  # N = 5, C = 3
    weight, bias = rng.normal(size=(2, 3))
    _, residuals = ops.batch_norm(x, weight, bias, eps=1e-15)
    dx = ops.batch_norm_vjp(dy, residuals)[0]
    tolerance = 100 * np.finfo(float).eps * np.abs(dx).sum()
    assert np.abs(dx.sum(axis=(0, 2, 3))).max() <= tolerance
    assert np.abs((dx * x).sum(axis=(0, 2, 3))).max() <= tolerance
    _, fixed = ops.batch_norm_inference(x, weight, bias, residuals.mean, residuals.var, eps=1e-15)
    dx = ops.batch_norm_inference_vjp(dy, fixed)[0]
    assert np.abs(dx.sum(axis=(0, 2, 3))).min() > 1e-3


def test_batch_norm_with_given_moments_of_the_batch_is_the_same_forward() -> None:
    arrays, _ = norm_case((3, 2, 4, 5), np.float64, 10, given_moments=False)
    y, residuals = ops.batch_norm(**arrays)
    again, _ = ops.batch_norm_inference(**arrays, mean=residuals.mean, var=residuals.var)
    np.testing.assert_array_equal(y, again)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_residuals_serve_again(training: bool) -> None:
    arrays, dy = norm_case((4, 3), np.float64, 11, given_moments=not training)
    forward, vjp = (
        (ops.batch_norm, ops.batch_norm_vjp)
        if training
        else (ops.batch_norm_inference, ops.batch_norm_inference_vjp)
    )
    _, residuals = forward(**arrays)
    first = [d.copy() for d in vjp(dy, residuals)]
    vjp(2 * dy, residuals)
    for one, other in zip(first, vjp(dy, residuals), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_channel_and_no_example() -> None:
    y, residuals = ops.batch_norm(np.ones((4, 0, 2, 3)), np.ones(0), np.ones(0))
    assert y.shape == (4, 0, 2, 3)
    assert [d.shape for d in ops.batch_norm_vjp(y, residuals)] == [(4, 0, 2, 3), (0,), (0,)]
    one = np.ones(3)
    y, fixed = ops.batch_norm_inference(np.ones((0, 3)), one, one, one, one)
    assert [d.shape for d in ops.batch_norm_inference_vjp(y, fixed)] == [(0, 3), (3,), (3,)]


def test_nan_stays_in_its_channel() -> None:
    x = np.array([[1.0, np.nan], [2.0, 3.0]])
    y, residuals = ops.batch_norm(x, np.ones(2), np.ones(2))
    np.testing.assert_array_equal(np.isnan(y), [[False, True]] * 2)
    dx, _, _ = ops.batch_norm_vjp(np.array([[0.3, 0.2], [0.1, -0.4]]), residuals)
    np.testing.assert_array_equal(np.isnan(dx), [[False, True]] * 2)


# --- running statistics ---


@both_dtypes
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.75, 1.0])
def test_running_statistics(dtype: Any, momentum: float) -> None:
    arrays, _ = norm_case((3, 2, 1, 2), dtype, 12, given_moments=False)
    _, residuals = ops.batch_norm(**arrays)
    before = frozen([0.5, -0.3], dtype), frozen([0.2, 1.7], dtype)
    got = ops.running_statistics(*before, residuals, momentum=momentum)
    x = naive_network.convert(arrays["x"].tolist(), wide.mpf)
    q = wide.mpf(momentum)
    tolerance = 20 * np.finfo(dtype).eps * 10  # sums of 6, none beyond 10
    for place, (old, new) in enumerate(zip(before, got, strict=True)):
        exact = []
        for c in range(2):
            moments = naive.moments(x, c)
            unbiased = moments[1] * moments[2] / (moments[2] - 1)
            batch = unbiased if place else moments[0]
            exact.append((1 - q) * wide.mpf(old.tolist()[c]) + q * batch)
        assert new.dtype == dtype
        assert exact_errors(new, exact).max() <= tolerance
        assert not np.shares_memory(new, old)


def test_running_statistics_keep_a_tenth_of_the_new_by_default() -> None:
    _, residuals = ops.batch_norm(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1))
    mean, var = ops.running_statistics(np.array([7.0]), np.array([4.0]), residuals)
    # 0.9 * 7 + 0.1 * 2 and 0.9 * 4 + 0.1 * 2, for the unbiased variance of 1 and 3 is 2.
    np.testing.assert_allclose([mean[0], var[0]], [6.5, 3.8], rtol=1e-15)


# --- refusals ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": (4, 3, 2)}, r"x .*\(N, C\) or \(N, C, H, W\), got \(4, 3, 2\)"),
        ({"x": (3,)}, r"x .*got \(3,\)"),
        ({"x": (1, 3)}, r"x .*at least two values per channel.*got 1: shape \(1, 3\)"),
        ({"x": (1, 3, 1, 1)}, r"x .*at least two values.*got 1: shape \(1, 3, 1, 1\)"),
        ({"x": (0, 3)}, r"x .*at least two values.*got 0: shape \(0, 3\)"),
        ({"weight": (1,)}, r"weight .*\(3,\), got \(1,\)"),
        ({"bias": (4, 3)}, r"bias .*\(3,\), got \(4, 3\)"),
        ({"eps": 0.0}, r"eps .*above 0.*got 0\.0"),
        ({"eps": -1e-5}, r"eps .*got -1e-05"),
        ({"eps": np.nan}, r"eps .*got nan"),
        ({"eps": np.inf}, r"eps .*finite, got inf"),
    ],
)
def test_batch_norm_refuses(change: dict[str, Any], message: str) -> None:
    shape: dict[str, Any] = {"x": (4, 3), "weight": (3,), "bias": (3,)} | change
    eps = shape.pop("eps", 1e-5)
    arrays = {name: np.ones(s) for name, s in shape.items()}
    with pytest.raises(ValueError, match=message):
        ops.batch_norm(**arrays, eps=eps)
    if "at least two" not in message:
        with pytest.raises(ValueError, match=message):
            ops.batch_norm_inference(**arrays, mean=np.ones(3), var=np.ones(3), eps=eps)


@pytest.mark.parametrize(
    ("mean", "var", "message"),
    [
        (np.ones(1), np.ones(3), r"mean .*\(3,\), got \(1,\)"),
        (np.ones(3), np.ones((4, 3)), r"var .*\(3,\), got \(4, 3\)"),
        (np.ones(3), np.array([1.0, -0.5, 2.0]), r"var .*at least 0, got -0\.5"),
    ],
)
def test_batch_norm_inference_refuses(mean: Any, var: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.batch_norm_inference(np.ones((4, 3)), np.ones(3), np.ones(3), mean, var)


@pytest.mark.parametrize("shape", [(1, 3), (3,), (4, 1), (3, 4)])
def test_batch_norm_vjps_refuse_a_cotangent_of_another_shape(shape: tuple[int, ...]) -> None:
    x, one = np.arange(12.0).reshape(4, 3), np.ones(3)
    _, residuals = ops.batch_norm(x, one, one)
    with pytest.raises(ValueError, match=r"dy .*\(4, 3\), got"):
        ops.batch_norm_vjp(np.ones(shape), residuals)
    _, fixed = ops.batch_norm_inference(x, one, one, one, one)
    with pytest.raises(ValueError, match=r"dy .*\(4, 3\), got"):
        ops.batch_norm_inference_vjp(np.ones(shape), fixed)


@pytest.mark.parametrize(
    ("mean", "var", "momentum", "message"),
    [
        ((1,), (3,), 0.1, r"running_mean .*\(3,\), got \(1,\)"),
        ((3,), (4, 3), 0.1, r"running_var .*\(3,\), got \(4, 3\)"),
        ((3,), (3,), 1.5, r"momentum .*\[0, 1\], got 1\.5"),
        ((3,), (3,), np.nan, r"momentum .*got nan"),
    ],
)
def test_running_statistics_refuse(mean: Any, var: Any, momentum: float, message: str) -> None:
    _, residuals = ops.batch_norm(np.arange(12.0).reshape(4, 3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=message):
        ops.running_statistics(np.ones(mean), np.ones(var), residuals, momentum=momentum)


# --- add ---


@both_dtypes
@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1, 4)])
def test_add_and_its_vjp_are_exact(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(13)
    x, y, dy = (frozen(rng.integers(-99, 100, size=shape), dtype) for _ in range(3))
    total, residuals = ops.add(x, y)
    dx, dy_skip = ops.add_vjp(dy, residuals)
    flat = naive_network.flat
    np.testing.assert_array_equal(
        total.ravel(), [a + b for a, b in zip(flat(x.tolist()), flat(y.tolist()), strict=True)]
    )
    slopes = naive.gradients_at_once(
        lambda x, y: sum(c * (a + b) for a, b, c in
                         zip(flat(x), flat(y), flat(dy.astype(int).tolist()), strict=True)),
        {"x": x.astype(int).tolist(), "y": y.astype(int).tolist()})  # fmt: skip
    np.testing.assert_array_equal(dx.ravel(), slopes["x"])
    np.testing.assert_array_equal(dy_skip.ravel(), slopes["y"])
    assert total.dtype == dx.dtype == dy_skip.dtype == dtype
    assert dx.shape == dy_skip.shape == shape
    assert not np.shares_memory(dx, dy_skip)
    assert not np.shares_memory(dx, dy)


def test_add_refuses_what_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"y .*shape of x, \(3, 2\), got \(1, 2\)"):
        ops.add(np.ones((3, 2)), np.ones((1, 2)))
    _, residuals = ops.add(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"dy .*\(3, 2\), got \(2,\)"):
        ops.add_vjp(np.ones(2), residuals)


# --- flatten ---


@both_dtypes
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 1, 1)])
def test_flatten_lays_map_after_map(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(14)
    x = frozen(rng.normal(size=shape), dtype)
    n_examples, c, h, w = shape
    y, residuals = ops.flatten(x)
    assert y.shape == (n_examples, c * h * w)
    assert y.dtype == dtype
    for n in range(n_examples):
        for j in range(c * h * w):
            assert y[n, j] == x[n, j // (h * w), (j // w) % h, j % w]
    dy = frozen(rng.normal(size=y.shape), dtype)
    dx = ops.flatten_vjp(dy, residuals)
    assert dx.shape == shape
    for place in np.ndindex(*shape):
        n, channel, row, column = place
        assert dx[place] == dy[n, (channel * h + row) * w + column]


def test_flatten_of_maps_whose_memory_is_in_another_order() -> None:
    x = np.arange(120.0).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)  # was NHWC
    y, _ = ops.flatten(x)
    np.testing.assert_array_equal(y[1, 20:40], x[1, 1].ravel())


def test_flatten_refuses() -> None:
    with pytest.raises(ValueError, match=r"x .*\(N, C, H, W\), got \(2, 3\)"):
        ops.flatten(np.ones((2, 3)))
    _, residuals = ops.flatten(np.ones((2, 3, 1, 4)))
    with pytest.raises(ValueError, match=r"dy .*\(2, 12\), got \(2, 3, 1, 4\)"):
        ops.flatten_vjp(np.ones((2, 3, 1, 4)), residuals)
