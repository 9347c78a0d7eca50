"""Pooling against loops, and its VJPs against exact differences of those loops.

Whole numbers, in any order and no two the same: a step of 1 then changes no winner, and both pools
are linear in each number, so that the differences are the derivatives exactly. All numbers are
multiples of what a mean divides by, so that nothing is rounded. Equality is asked for, in float32
too.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l0ref import ops
from tests import naive_conv as naive
from tests import naive_network

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
pairs = lambda low, high: st.tuples(*[st.integers(low, high)] * 2)  # noqa: E731

POOLS = {
    "max": (ops.max_pool2d, ops.max_pool2d_vjp, naive.max_pool2d),
    "avg": (ops.avg_pool2d, ops.avg_pool2d_vjp, naive.avg_pool2d),
}
every_pool = pytest.mark.parametrize("pool", POOLS)


class Case(NamedTuple):
    shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kernel, stride = draw(pairs(1, 4)), draw(pairs(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    size = [n + draw(st.integers(0, 3)) for n in least]
    return Case((draw(st.integers(1, 2)), draw(st.integers(1, 3)), *size), kernel, stride, padding)


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def out_shape(case: Case) -> tuple[int, ...]:
    along = zip(case.shape[2:], case.kernel, case.stride, case.padding, strict=True)
    return (*case.shape[:2], *(len(naive.walk(*one)) for one in along))


@every_pool
@given(cases(), st.sampled_from(DTYPES), seeds)
@example(Case((2, 3, 6, 4), (2, 2), (2, 2), (0, 0)), np.float32, 1)
@example(Case((2, 3, 7, 5), (2, 3), (2, 3), (0, 0)), np.float64, 2)  # a row and columns left over
@example(Case((1, 2, 5, 4), (3, 2), (1, 1), (1, 1)), np.float64, 3)  # windows overlap
@example(Case((1, 2, 5, 4), (1, 2), (3, 3), (0, 1)), np.float64, 4)  # and leave gaps
def test_pool_and_its_vjp(pool: str, case: Case, dtype: Any, seed: int) -> None:
    forward, vjp, loops = POOLS[pool]
    rng = np.random.default_rng(seed)
    count = int(np.prod(case.shape))
    step = case.kernel[0] * case.kernel[1] + (pool == "max")  # at least 2 there: h = 1 is no tie
    x = frozen(step * (rng.permutation(count) - count // 2).reshape(case.shape), dtype)
    dy = frozen(step * rng.integers(-9, 10, size=out_shape(case)), dtype)
    geometry = (case.kernel, case.stride, case.padding)

    y, residuals = forward(x, case.kernel, stride=case.stride, padding=case.padding)
    dx = vjp(dy, residuals)
    numbers = naive_network.convert(x.tolist(), Fraction)
    weights = naive_network.convert(dy.tolist(), Fraction)
    np.testing.assert_array_equal(y, np.array(loops(numbers, *geometry), dtype=float))
    slopes = naive_network.gradients(
        lambda x: naive.dot(weights, loops(x, *geometry)), {"x": numbers}, Fraction(1)
    )["x"]
    np.testing.assert_array_equal(dx, np.reshape(np.array(slopes, dtype=float), x.shape))
    assert y.dtype == dx.dtype == dtype


@every_pool
@both_dtypes
def test_pool_and_its_vjp_to_the_last_digits(pool: str, dtype: Any) -> None:
    forward, vjp, loops = POOLS[pool]
    rng = np.random.default_rng(5)
    x = frozen(rng.normal(size=(2, 3, 7, 6)), dtype)
    dy = frozen(rng.normal(size=(2, 3, 4, 3)), dtype)
    geometry = ((3, 3), (2, 2), (1, 1))
    y, residuals = forward(x, 3, stride=2, padding=1)
    dx = vjp(dy, residuals)
    pulled = lambda c, x: naive.dot(c, loops(x, *geometry))  # noqa: E731
    exact = naive_network.convert(x.tolist(), Fraction)
    weights = naive_network.convert(dy.tolist(), Fraction)
    h = Fraction(1, 2**60)  # far below the distance of any two numbers of x
    slopes = naive_network.gradients(lambda x: pulled(weights, x), {"x": exact}, h)["x"]
    wanted = naive_network.flat(loops(exact, *geometry))
    # A sum of at most 9, and one division: 10 roundings of eps / 2, of sums of sizes below these.
    unit = 5 * np.finfo(dtype).eps
    for got, values, size in ((y, wanted, np.abs(x).max()), (dx, slopes, 4 * np.abs(dy).max())):
        errors = [abs(Fraction(v) - e) for v, e in zip(got.ravel().tolist(), values, strict=True)]
        assert max(errors) <= (0 if pool == "max" and got is y else unit * size)


def test_windows_lie_side_by_side_by_default() -> None:
    x = np.arange(2.0 * 7 * 8).reshape(1, 2, 7, 8)
    for forward, *_ in POOLS.values():
        y, _ = forward(x, (2, 3))
        assert y.shape == (1, 2, 3, 2)  # the last row and two columns are not seen
        np.testing.assert_array_equal(y, forward(x, [2, 3], stride=(2, 3), padding=0)[0])


@every_pool
def test_pool_residuals_serve_again(pool: str) -> None:
    forward, vjp, _ = POOLS[pool]
    rng = np.random.default_rng(6)
    y, residuals = forward(rng.normal(size=(2, 3, 5, 6)), 2, stride=1)
    dy = rng.normal(size=y.shape)
    first = vjp(dy, residuals).copy()
    vjp(2 * dy, residuals)
    np.testing.assert_array_equal(vjp(dy, residuals), first)


@every_pool
@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 0, 5, 4)])
def test_no_example_or_no_map(pool: str, shape: tuple[int, ...]) -> None:
    forward, vjp, _ = POOLS[pool]
    y, residuals = forward(np.ones(shape, np.float32), 2)
    assert y.shape == (*shape[:2], 2, 2)
    dx = vjp(y, residuals)
    assert dx.shape == shape
    assert y.dtype == dx.dtype == np.float32


# --- conventions ---


def first_of_the_greatest(x: Any, case: Case, dy: Any) -> Any:
    """Hand each dy to the first element, in row-major order, that no other exceeds."""
    dx = np.zeros(x.shape)
    places = [[(row, column) for column in range(x.shape[3])] for row in range(x.shape[2])]
    grid = naive.windows(places, case.kernel, case.stride, case.padding)
    for n, maps in enumerate(x.tolist()):
        for c, image in enumerate(maps):
            for h, row_of_windows in enumerate(grid):
                for w, window in enumerate(row_of_windows):
                    best = max(image[a][b] for _, _, (a, b) in window)
                    a, b = next((a, b) for _, _, (a, b) in window if image[a][b] == best)
                    dx[n, c, a, b] += dy[n, c, h, w]
    return dx


@given(cases(), seeds)
@example(Case((1, 1, 2, 2), (2, 2), (2, 2), (0, 0)), 7)
@example(Case((1, 2, 3, 4), (2, 3), (1, 1), (1, 1)), 8)
def test_a_tie_goes_to_the_first_in_row_major_order(case: Case, seed: int) -> None:
    """In a tie there is no derivative to compare with: this is a convention, PyTorch's too."""
    rng = np.random.default_rng(seed)
    # Of two values nearly every window holds ties, and where both are -inf, ties with the padding.
    x = rng.choice(np.array([[-np.inf, 0.0], [-np.inf, -np.inf], [-3, -2]])[seed % 3], case.shape)
    y, residuals = ops.max_pool2d(x, case.kernel, stride=case.stride, padding=case.padding)
    dy = rng.integers(-9, 10, size=y.shape).astype(float)
    dx = ops.max_pool2d_vjp(dy, residuals)
    np.testing.assert_array_equal(dx, first_of_the_greatest(x, case, dy))
    assert dx.sum() == dy.sum()  # nothing is lost to the padding


def test_the_padding_never_wins_a_maximum_and_counts_in_a_mean() -> None:
    x = np.full((1, 1, 2, 2), -4.0)
    y, _ = ops.max_pool2d(x, 2, padding=1)
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), -4.0))
    y, _ = ops.avg_pool2d(x, 2, padding=1)
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), -1.0))


@every_pool
def test_nan_in_a_window_is_nan(pool: str) -> None:
    forward, vjp, _ = POOLS[pool]
    x = np.array([[[[0.0, 1.0, 7.0, np.nan], [np.nan, np.inf, 5.0, np.nan], [3.0, 2.0, 1.0, 0.0]]]])
    y, residuals = forward(x, (2, 2), stride=1)
    np.testing.assert_array_equal(np.isnan(y[0, 0]), [[True, False, True], [True, False, True]])
    if pool == "max":  # and its cotangent goes to the first NaN
        dx = vjp(np.array([[[[1.0, 2, 4], [8, 16, 32]]]]), residuals)
        np.testing.assert_array_equal(dx[0, 0], [[0, 0, 0, 4], [9, 18, 0, 32], [0, 0, 0, 0]])


def test_an_infinite_cotangent_does_not_spill() -> None:
    _, residuals = ops.max_pool2d(np.array([[[[1.0, 2.0]]]]), (1, 2))
    dx = ops.max_pool2d_vjp(np.array([[[[np.inf]]]]), residuals)
    np.testing.assert_array_equal(dx, [[[[0, np.inf]]]])


# --- refusals ---


@every_pool
@pytest.mark.parametrize(
    ("shape", "kernel", "options", "message"),
    [
        ((3, 5, 6), 2, {}, r"x .*\(N, C, H, W\), got \(3, 5, 6\)"),
        ((2, 3, 5, 6), 6, {}, r"kernel .*padded input, 5 \(size 5, padding 0\), got kernel 6"),
        ((2, 3, 0, 6), (2, 2), {"padding": 1}, r"size .*at least 1, got 0"),
        ((2, 3, 5, 6), 0, {}, r"kernel_size .*at least 1, got 0"),
        ((2, 3, 5, 6), (2,), {}, r"kernel_size .*pair of ints, got \(2,\)"),
        ((2, 3, 5, 6), 2.0, {}, r"kernel_size .*integer.*got 2\.0"),
        ((2, 3, 5, 6), 2, {"stride": 0}, r"stride .*at least 1, got 0"),
        ((2, 3, 5, 6), 2, {"padding": -1}, r"padding .*at least 0, got -1"),
        ((2, 3, 5, 6), 3, {"padding": 2}, r"padding .*half of kernel_size.*got padding 2 for .* 3"),
        ((2, 3, 5, 6), (4, 1), {"padding": (2, 1)}, r"padding .*\(2, 1\) for kernel_size \(4, 1\)"),
    ],
)
def test_pool_refuses(pool: str, shape: Any, kernel: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        POOLS[pool][0](np.ones(shape), kernel, **options)


@every_pool
@pytest.mark.parametrize("shape", [(2, 3, 2, 1), (3, 2, 3), (1, 3, 2, 3), (2, 3, 3, 2)])
def test_pool_vjp_refuses_a_cotangent_of_another_shape(pool: str, shape: Any) -> None:
    forward, vjp, _ = POOLS[pool]
    _, residuals = forward(np.ones((2, 3, 5, 6)), 2)
    with pytest.raises(ValueError, match=r"dy .*\(2, 3, 2, 3\), got"):
        vjp(np.ones(shape), residuals)


def test_max_pool_vjp_refuses_the_residuals_of_the_other_pool() -> None:
    y, residuals = ops.avg_pool2d(np.ones((1, 1, 2, 2)), 2)
    with pytest.raises(ValueError, match=r"residuals .*max_pool2d"):
        ops.max_pool2d_vjp(y, residuals)
