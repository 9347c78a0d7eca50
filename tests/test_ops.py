"""The op pairs: the forward pass against loops, every VJP against derivatives of those loops.

`dense` is a sum of products, linear in each number alone: central differences in Fractions are its
derivatives without any error. The others are differentiated in mpmath, where a difference with
h = 1e-50 and 150 digits is off by 1e-100. So the tolerances are those of the code alone: eps, the
dtype's, times the number of roundings, times the size of what is summed. For float64 that is
1e-15, not the 1e-8 that differences in floating point could show.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpmath import MPContext

from l0ref import ops
from tests import naive_network as naive

DTYPES = (np.float32, np.float64)
FORMS = [("none", False)] + [
    (on, each) for on in ("inputs", "weights", "outputs") for each in (False, True)
]
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)
shapes = st.tuples(sizes, st.integers(2, 5)).filter(lambda shape: shape[0] != shape[1])

wide, deep = MPContext(), MPContext()  # deep: for derivatives as small as 1e-300
wide.dps, deep.dps = 150, 800


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def lists(array: Any, number: Any) -> Any:
    return naive.convert(array.tolist(), number)


def assert_close(got: Any, exact: Any, bound: Any, dtype: Any) -> None:
    """Compare with exact numbers elementwise; `bound` is absolute, and may be exact too."""
    assert got.dtype == dtype
    flat = np.ravel(got).tolist()
    number = type(exact[0])
    errors = np.array([float(abs(number(g) - e)) for g, e in zip(flat, exact, strict=True)])
    bounds = np.array([float(b) for b in bound])
    assert (errors <= bounds).all(), (errors, bounds)


# --- dense ---


def dense_case(form: tuple[str, bool], shape: tuple[int, int, int], dtype: Any, seed: int) -> Any:
    on, per_example = form
    n, d_in, d_out = shape
    rng = np.random.default_rng(seed)
    arrays = {
        "x": rng.normal(size=(n, d_in)),
        "weight": rng.normal(size=(d_in, d_out)),
        "bias": rng.normal(size=d_out),
    }
    one_draw = {"inputs": (d_in,), "weights": (d_in, d_out), "outputs": (d_out,)}.get(on)
    if one_draw:
        z = rng.uniform(-0.3, 1.3, size=(n, *one_draw) if per_example else one_draw)
        arrays["z"] = z.clip(0, 1)  # some gates are closed, some all open
    cotangent = frozen(rng.normal(size=(n, d_out)), dtype)
    return {name: frozen(a, dtype) for name, a in arrays.items()}, cotangent


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0]}-{form[1]}")
@given(st.tuples(sizes, sizes, sizes), st.sampled_from(DTYPES), seeds)
@example((3, 3, 2), np.float64, 1)  # N == D_in: a draw an example must not be taken for a matrix
@example((2, 3, 2), np.float64, 2)  # N == D_out
@example((3, 3, 3), np.float64, 3)
def test_dense_and_its_vjp(form: Any, shape: Any, dtype: Any, seed: int) -> None:
    arrays, cotangent = dense_case(form, shape, dtype, seed)
    on, per_example = form
    on = "inputs" if on == "none" else on

    def pulled(c: Any, **arguments: Any) -> Any:
        y = naive.dense(**arguments, on=on, per_example=per_example)
        return sum(a * b for c_row, row in zip(c, y, strict=True)
                   for a, b in zip(c_row, row, strict=True))  # fmt: skip

    y, residuals = ops.dense(*arrays.values(), on=on)
    got = dict(zip(("x", "weight", "bias", "z"), ops.dense_vjp(cotangent, residuals), strict=True))

    numbers = {name: lists(a, Fraction) for name, a in arrays.items()}
    absolute = {name: lists(np.abs(a), float) for name, a in arrays.items()}
    # A sum of k products of up to 4 factors, in any order, has k + 4 roundings of eps/2 each.
    unit = np.finfo(dtype).eps * (max(np.prod(shape[:2]), np.prod(shape[::2])) + 4)

    exact = naive.dense(**numbers, on=on, per_example=per_example)
    size = naive.dense(**absolute, on=on, per_example=per_example)
    assert y.shape == cotangent.shape
    assert_close(y, naive.flat(exact), unit * np.ravel(size), dtype)

    slopes = naive.gradients(
        lambda **a: pulled(lists(cotangent, Fraction), **a), numbers, Fraction(1)
    )
    sizes = naive.gradients(lambda **a: pulled(lists(np.abs(cotangent), float), **a), absolute, 1.0)
    for name, array in arrays.items():
        assert got[name].shape == array.shape, name
        assert_close(got[name], slopes[name], unit * np.array(sizes[name]), dtype)
    assert ("z" in arrays) == (got["z"] is not None)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0]}-{form[1]}")
def test_dense_residuals_serve_again(form: Any) -> None:
    arrays, cotangent = dense_case(form, (3, 2, 4), np.float64, seed=5)
    _, residuals = ops.dense(*arrays.values(), on="inputs" if form[0] == "none" else form[0])
    first = [None if d is None else d.copy() for d in ops.dense_vjp(cotangent, residuals)]
    ops.dense_vjp(2 * cotangent, residuals)
    again = ops.dense_vjp(cotangent, residuals)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_closed_input_sends_nothing_either_way_but_feels_its_pull() -> None:
    arrays, cotangent = dense_case(("inputs", False), (3, 2, 4), np.float64, seed=6)
    z = np.array([0.0, 0.7])
    _, residuals = ops.dense(arrays["x"], arrays["weight"], arrays["bias"], z)
    dx, dweight, _, dz = ops.dense_vjp(cotangent, residuals)
    assert (dx[:, 0] == 0).all()
    assert (dweight[0] == 0).all()
    assert (dz != 0).all()


BAD_DENSE: list[tuple[dict[str, Any], str]] = [
    ({"x": (3, 5)}, r"x .*\(N, D_in\).*\(3, 5\) and \(2, 4\)"),
    ({"x": (2,)}, r"x .*\(N, D_in\).*\(2,\)"),
    ({"weight": (2, 4, 1)}, r"weight .*\(D_in, D_out\).*\(2, 4, 1\)"),
    ({"bias": (1,)}, r"bias .*\(4,\), got \(1,\)"),  # would broadcast
    ({"bias": (3, 4)}, r"bias .*\(4,\), got \(3, 4\)"),
    ({"z": (1,)}, r"z .*\(2,\) or \(3, 2\).*inputs, got \(1,\)"),
    ({"z": (1, 2)}, r"z .*got \(1, 2\)"),
    ({"z": (4,), "on": "weights"}, r"z .*\(2, 4\) or \(3, 2, 4\).*weights, got \(4,\)"),
    ({"z": (2, 1), "on": "weights"}, r"z .*got \(2, 1\)"),
    ({"z": (2,), "on": "outputs"}, r"z .*\(4,\) or \(3, 4\).*outputs, got \(2,\)"),
    ({"on": "input"}, r"on .*inputs.*outputs.*weights.*'input'"),
]


@pytest.mark.parametrize(("change", "message"), BAD_DENSE)
def test_dense_refuses_shapes_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    shape = {"x": (3, 2), "weight": (2, 4), "bias": (4,)} | change
    on = shape.pop("on", "inputs")
    with pytest.raises(ValueError, match=message):
        ops.dense(**{name: np.ones(s) for name, s in shape.items()}, on=on)


@pytest.mark.parametrize("shape", [(3, 2), (4,), (1, 4)])
def test_dense_vjp_refuses_a_cotangent_of_another_shape(shape: tuple[int, ...]) -> None:
    _, residuals = ops.dense(np.ones((3, 2)), np.ones((2, 4)), np.ones(4))
    with pytest.raises(ValueError, match=r"dy .*\(3, 4\), got"):
        ops.dense_vjp(np.ones(shape), residuals)


# --- relu and tanh ---


@given(shapes, st.sampled_from(DTYPES), seeds)
def test_relu_and_its_vjp_are_exact(shape: tuple[int, int], dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = frozen(rng.normal(size=shape), dtype), frozen(rng.normal(size=shape), dtype)
    y, residuals = ops.relu(x)
    dx = ops.relu_vjp(dy, residuals)
    exact = naive.relu(lists(x, Fraction))
    np.testing.assert_array_equal(y, np.array(exact, dtype=float))
    slopes = naive.gradients(
        lambda x: sum(c * v for c_row, row in zip(lists(dy, Fraction), naive.relu(x), strict=True)
                      for c, v in zip(c_row, row, strict=True)),
        {"x": lists(x, Fraction)}, Fraction(1, 2**60))  # fmt: skip
    np.testing.assert_array_equal(dx.ravel(), np.array(slopes["x"], dtype=float))
    assert y.dtype == dx.dtype == dtype


def test_relu_at_its_kink_and_at_nan() -> None:
    y, residuals = ops.relu(np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324]))
    np.testing.assert_array_equal(y, [0, 0, np.nan, np.inf, 0, 5e-324])
    # The derivative 0 at 0 is a convention: any number from 0 to 1 is a subgradient.
    dx = ops.relu_vjp(np.array([0.3, -0.7, 1.1, 0.2, 0.9, -0.4]), residuals)
    np.testing.assert_array_equal(dx, [0, 0, 0, 0.2, 0, -0.4])


@both_dtypes
def test_tanh_and_its_vjp_relative_to_themselves(dtype: Any) -> None:
    rng = np.random.default_rng(7)
    reach = 43 if dtype is np.float32 else 350  # 1/cosh^2 is a normal number up to there
    x = np.concatenate([rng.normal(size=25), rng.uniform(-reach, reach, 14), [0.0, 1e-9, -18.0]])
    x, dy = frozen(x.reshape(6, 7), dtype), frozen(rng.normal(size=(6, 7)), dtype)
    y, residuals = ops.tanh(x)
    dx = ops.tanh_vjp(dy, residuals)

    points = [deep.mpf(v) for v in x.ravel().tolist()]
    h = deep.mpf(10) ** -200
    slope = [(deep.tanh(p + h) - deep.tanh(p - h)) / (2 * h) for p in points]
    exact = [d * s for d, s in zip(dy.ravel().tolist(), slope, strict=True)]
    eps = float(np.finfo(dtype).eps)
    # exp and the three operations after it: under 4 roundings, twice over for NumPy's exp in SIMD.
    assert_close(dx, exact, [8 * eps * abs(e) for e in exact], dtype)
    tanhs = [deep.tanh(p) for p in points]
    assert_close(y, tanhs, [4 * eps * abs(t) for t in tanhs], dtype)  # NumPy's own bound


def test_tanh_far_out() -> None:
    y, residuals = ops.tanh(np.array([1e4, -1e300, np.inf, np.nan]))
    np.testing.assert_array_equal(y, [1, -1, 1, np.nan])
    np.testing.assert_array_equal(ops.tanh_vjp(np.full(4, -0.3), residuals), [-0.0, 0, 0, np.nan])


# --- dropout ---


@given(shapes, st.sampled_from(DTYPES), st.sampled_from([0.0, 0.1, 0.5, 0.9]), seeds)
def test_dropout_and_its_vjp(shape: Any, dtype: Any, rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = frozen(rng.normal(size=shape), dtype), frozen(rng.normal(size=shape), dtype)
    u = frozen(rng.uniform(size=shape), np.float64)
    y, residuals = ops.dropout(x, u, rate)
    dx = ops.dropout_vjp(dy, residuals)
    exact_rate, noise = Fraction(rate), lists(u, Fraction)
    eps = 2 * np.finfo(dtype).eps  # the factor is rounded twice, its product once
    for got, given_values in ((y, x), (dx, dy)):  # linear: the cotangent meets the same factors
        exact = naive.flat(naive.dropout(lists(given_values, Fraction), noise, exact_rate))
        assert_close(got, exact, [eps * abs(e) for e in exact], dtype)


def test_dropout_drops_below_the_rate_and_keeps_the_mean() -> None:
    y, _ = ops.dropout(np.array([3.0, 3.0, 3.0]), np.array([0.2, 0.25, 0.3]), 0.25)
    np.testing.assert_array_equal(y, [0.0, 4.0, 4.0])  # u = rate itself is kept
    u = (np.arange(1000) + 0.5) / 1000
    kept, _ = ops.dropout(np.full(1000, 1.7), u, 0.3)
    assert abs(kept.mean() - 1.7) < 1e-12  # on an even grid the mean is exact but for rounding


@pytest.mark.parametrize(
    ("u", "rate", "message"),
    [
        ([0.2, 0.3], 1.0, r"rate .*\[0, 1\), got 1.0"),
        ([0.2, 0.3], -0.1, r"rate .*got -0.1"),
        ([0.2, 0.3], np.nan, r"rate .*got nan"),
        ([0.2, 1.0], 0.5, r"u .*between 0 and 1, got 1.0"),
        ([0.0, 0.3], 0.5, r"u .*between 0 and 1, got 0.0"),
        ([0.2, np.nan], 0.5, r"u .*got nan"),
        ([0.2], 0.5, r"u .*\(2,\), got \(1,\)"),
    ],
)
def test_dropout_refuses(u: list[float], rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.dropout(np.ones(2), np.array(u), rate)


# --- cross-entropy ---


def check_cross_entropy(logits: Any, labels: list[int], dloss: float, m: Any, h: Any) -> None:
    dtype = logits.dtype
    loss, residuals = ops.softmax_cross_entropy(logits, labels)
    dlogits = ops.softmax_cross_entropy_vjp(dloss, residuals)
    exact_logits = lists(logits, m.mpf)
    exact = naive.cross_entropy(exact_logits, labels, m)
    slopes = naive.gradients(
        lambda a: dloss * naive.cross_entropy(a, labels, m), {"a": exact_logits}, h
    )["a"]
    # exp(a - max) has the condition number |a - max|, and underflows, to no harm, beyond 750 of it;
    # K + N terms are added.
    spread = min(750.0, float(np.ptp(logits, axis=1).max()))
    unit = 2 * float(np.finfo(dtype).eps) * (spread + sum(logits.shape))
    smallest = float(np.finfo(dtype).smallest_subnormal)
    assert loss.shape == ()
    assert_close(loss, [exact], [unit * exact + smallest], dtype)
    assert_close(dlogits, slopes, [unit * abs(s) + 4 * smallest for s in slopes], dtype)


@given(shapes, st.sampled_from(DTYPES), st.sampled_from([0.1, 3.0, 20.0]), seeds)
def test_cross_entropy_and_its_vjp(shape: Any, dtype: Any, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = frozen(rng.normal(size=shape) * scale + rng.normal(), dtype)
    labels = rng.integers(shape[1], size=shape[0]).tolist()
    check_cross_entropy(logits, labels, float(rng.normal()), wide, wide.mpf("1e-50"))


@both_dtypes
@pytest.mark.parametrize(
    "rows",
    [
        [[30.0, 0.0, -2.5], [0.0, 33.0, 1.0]],  # loss 1e-13: 1 - p would have lost half its digits
        [[80.0, 0.5, -1.0]],  # loss 1e-35: 1 - p is 0
        [[1e4, -1e4, 3.0], [-1e4, 1e4, 9.5e3]],  # loss 0 or 1e4; exp overflows unless shifted
        [[-1e4, -1e4, -9.99e3]],
        [[1e4, 1e4 + 0.5, 1e4 - 2]],
        [[-300.0, 380.0, 1.0]],
        [[0.0, 0.0, 0.0]],  # a tie: each is the greatest
    ],
)
def test_cross_entropy_keeps_its_digits_far_out(rows: list[list[float]], dtype: Any) -> None:
    logits = frozen(rows, dtype)
    for label in range(3):
        labels = [(label + row) % 3 for row in range(len(rows))]
        check_cross_entropy(logits, labels, -1.3, deep, deep.mpf(10) ** -250)


def test_cross_entropy_residuals_serve_again() -> None:
    logits = frozen([[0.3, -1.0, 2.0]], np.float64)
    _, residuals = ops.softmax_cross_entropy(logits, np.array([1], dtype=np.uint8))
    first = ops.softmax_cross_entropy_vjp(0.7, residuals).copy()
    ops.softmax_cross_entropy_vjp(-2.0, residuals)
    np.testing.assert_array_equal(ops.softmax_cross_entropy_vjp(0.7, residuals), first)


def test_cross_entropy_of_nan_is_nan() -> None:
    loss, residuals = ops.softmax_cross_entropy(np.array([[0.3, np.nan, 1.0]]), [0])
    assert np.isnan(loss)
    assert np.isnan(ops.softmax_cross_entropy_vjp(0.7, residuals)).any()


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 3), [0, 3], r"labels .*0 \.\. 2, got 3"),
        ((2, 3), [-1, 2], r"labels .*0 \.\. 2, got -1"),
        ((2, 3), [0, 1, 2], r"labels .*\(2,\), got \(3,\)"),
        ((2, 3), [[0], [1]], r"labels .*\(2,\), got \(2, 1\)"),
        ((2, 3), 1, r"labels .*\(2,\), got \(\)"),
        ((2, 3), [0.0, 1.0], r"labels .*integers, got dtype float64"),
        ((2, 3), [True, False], r"labels .*integers, got dtype bool"),
        ((0, 3), [], r"logits .*N > 0, got \(0, 3\)"),
        ((3,), [0], r"logits .*\(N, K\).*got \(3,\)"),
    ],
)
def test_cross_entropy_refuses(shape: tuple[int, ...], labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.softmax_cross_entropy(np.zeros(shape), labels)
