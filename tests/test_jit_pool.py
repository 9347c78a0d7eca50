"""The kernels of pooling, of the rectifier and of flattening against the NumPy originals.

Whole numbers of few values: sums are exact, ties are everywhere, and equality is asked for.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l0ref import jit, ops
from l0ref.jit import flatten, pool, relu
from tests.without_numba import run_without_numba

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
every_pool = pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
seeds = st.integers(0, 2**32 - 1)
Case = tuple[tuple[int, ...], dict[str, Any]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A shape of x, and the arguments of a pool that fits."""
    two = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * 2))  # noqa: E731
    kernel, stride = two(1, 5), two(1, 5)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    size = [n + spare for n, spare in zip(least, two(0, 6), strict=True)]
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 3)), *size)
    return shape, {"kernel_size": kernel, "stride": stride, "padding": padding}


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def whole(rng: Any) -> Any:
    return lambda shape: rng.integers(-3, 4, size=shape)


def is_map_major(a: Any) -> bool:
    return bool(a.transpose(1, 0, 2, 3).flags.c_contiguous)


def both(name: str, x: Any, options: Any, dy: Any) -> None:
    forward, pull = getattr(ops, name), getattr(ops, f"{name}_vjp")
    y, residuals = getattr(pool, name)(x, **options)
    wanted, own = forward(x, **options)
    np.testing.assert_array_equal(y, wanted)
    dy = dy(y.shape)
    exact = pull(dy, own)
    # Residuals serve again, and are those that the original takes.
    for dx in (getattr(pool, f"{name}_vjp")(dy, residuals), pull(dy, residuals),
               getattr(pool, f"{name}_vjp")(dy, residuals),
               getattr(pool, f"{name}_vjp")(dy, own)):  # fmt: skip
        np.testing.assert_array_equal(dx, exact)
        assert dx.dtype == exact.dtype
    assert y.dtype == wanted.dtype


@every_pool
@settings(max_examples=40)
@given(cases(), st.sampled_from(DTYPES), seeds)
@example(((3, 4, 6, 8), {"kernel_size": 2}), np.float32, 1)
@example(((3, 2, 8, 9), {"kernel_size": 8}), np.float32, 2)
def test_pools_on_whole_numbers(name: str, case: Case, dtype: Any, seed: int) -> None:
    shape, options = case
    draw = whole(np.random.default_rng(seed))
    kernel = np.broadcast_to(options["kernel_size"], 2)
    # So that means are whole numbers too.
    step = int(np.prod(kernel))
    dy = lambda s: frozen(step * draw(s), dtype)  # noqa: E731
    both(name, frozen(step * draw(shape), dtype), options, dy)
    y, residuals = getattr(pool, name)(frozen(draw(shape), dtype), **options)
    assert is_map_major(y)
    assert is_map_major(getattr(pool, f"{name}_vjp")(y, residuals))


@both_dtypes
def test_means_to_the_last_digits(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    x, options = rng.normal(size=(3, 4, 9, 11)).astype(dtype), {"kernel_size": 3, "stride": 1}
    y, residuals = pool.avg_pool2d(x, **options)
    wanted, own = ops.avg_pool2d(x, **options)
    dy = rng.normal(size=y.shape).astype(dtype)
    # A sum of 9 and a division, on two sides: 20 roundings of eps / 2, of sums of sizes.
    eps = 10 * np.finfo(dtype).eps
    assert (np.abs(y - wanted) <= eps * ops.avg_pool2d(np.abs(x), **options)[0]).all()
    error = np.abs(pool.avg_pool2d_vjp(dy, residuals) - ops.avg_pool2d_vjp(dy, own))
    assert (error <= eps * ops.avg_pool2d_vjp(np.abs(dy), own)).all()


@every_pool
@settings(max_examples=40)
@given(cases(), seeds)
@example(((2, 3, 6, 8), {"kernel_size": 2}), 4)
def test_pools_of_what_is_not_finite(name: str, case: Case, seed: int) -> None:
    shape, options = case
    rng = np.random.default_rng(seed)
    odd = lambda s: rng.choice([np.nan, np.inf, -np.inf, -np.inf, -1.0, 0.0], size=s)  # noqa: E731
    with np.errstate(invalid="ignore"):
        both(name, odd(shape), options, odd)


@every_pool
@pytest.mark.parametrize("kind", ["float16", "masked", "no example", "no map", "wide", "strided"])
def test_what_is_not_for_the_kernel_is_for_the_original(name: str, kind: str) -> None:
    draw = whole(np.random.default_rng(5))
    shape = {"no example": (0, 2, 6, 7), "no map": (3, 0, 6, 7), "wide": (2, 3, 20, 21)}
    dtype = np.float16 if kind == "float16" else np.float32
    x = (16 * draw(shape.get(kind, (3, 2, 6, 7)))).astype(dtype)
    if kind == "masked":
        x = np.ma.masked_array(x)
    if kind == "strided":
        x = x[::-1, :, ::2, ::-1]
    options = {"kernel_size": (17, 16) if kind == "wide" else 2}
    both(name, x, options, lambda s: (272 * draw(s)).astype(dtype))
    with pytest.raises(ValueError, match=r"kernel_size must"):
        getattr(pool, name)(x, 0)
    y, residuals = getattr(pool, name)(x, **options)
    with pytest.raises(ValueError, match=r"dy must have shape"):
        getattr(pool, f"{name}_vjp")(np.ones((5, *y.shape[1:])), residuals)


def test_max_pool_vjp_refuses_the_residuals_of_the_other_pool() -> None:
    y, residuals = pool.avg_pool2d(np.ones((1, 1, 2, 2)), 2)
    with pytest.raises(ValueError, match=r"residuals .*max_pool2d"):
        pool.max_pool2d_vjp(y, residuals)


# --- the rectifier ---


@pytest.mark.parametrize("shape", [(3,), (5, 70), (3, 4, 41, 50), (2, 0, 3, 4), ()])
@pytest.mark.parametrize("dtype", [np.float16, *DTYPES, int])
def test_relu(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(6)
    x = frozen(rng.integers(-2, 3, size=shape), dtype)
    dy = frozen(rng.integers(-3, 4, size=shape), dtype)
    for a, b in ((x, dy), (x[::-1], dy[::-1])) if shape else ((x, dy),):
        y, residuals = relu.relu(a)
        wanted, own = ops.relu(a)
        dx = relu.relu_vjp(b, residuals)
        for got, exact in ((y, wanted), (residuals, own), (dx, ops.relu_vjp(b, own))):
            np.testing.assert_array_equal(got, exact)
            assert got.dtype == exact.dtype
            if len(shape) == 4 and a.size and dtype in DTYPES:
                assert is_map_major(got)


def test_relu_of_what_is_not_finite() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1.0, -1.0] * 6).reshape(4, 9)
    dy = np.repeat([np.nan, np.inf, -np.inf, 2.0, 0.0, -0.0], 6).reshape(4, 9)
    y, residuals = relu.relu(x)
    wanted, own = ops.relu(x)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(residuals, own)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(relu.relu_vjp(dy, residuals), ops.relu_vjp(dy, own))


# --- flattening ---


@pytest.mark.parametrize("dtype", [np.float16, *DTYPES, int])
def test_flatten(dtype: Any) -> None:
    x = frozen(np.arange(3 * 4 * 5 * 6).reshape(4, 3, 5, 6), dtype)
    for a in (x, x.transpose(1, 0, 2, 3), x[:, ::-1], x[:1], x[:0], x[:, :1]):
        y, residuals = flatten.flatten(a)
        wanted, own = ops.flatten(a)
        np.testing.assert_array_equal(y, wanted)
        assert y.dtype == wanted.dtype
        assert y.flags.c_contiguous or dtype not in DTYPES
        for dy in (3 * y, np.asfortranarray(y)):
            dx = flatten.flatten_vjp(dy, residuals)
            np.testing.assert_array_equal(dx, ops.flatten_vjp(dy, own))
            assert not a.size or dtype not in DTYPES or is_map_major(dx)
        with pytest.raises(ValueError, match=r"dy must have shape"):
            flatten.flatten_vjp(y[:, 1:], residuals)
    with pytest.raises(ValueError, match=r"x must have shape"):
        flatten.flatten(x[0])


# --- all of them ---


def test_one_thread_or_two_are_the_same_bits() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(5, 7, 12, 14)).astype(np.float32)
    before, results = jit.get_num_threads(), []
    for threads in sorted({1, before}):
        jit.set_num_threads(threads)
        try:
            y, residuals = pool.avg_pool2d(x, 3, stride=2, padding=1)
            z, winners = pool.max_pool2d(x, 3, stride=2, padding=1)
            results.append((y, pool.avg_pool2d_vjp(z, residuals), z,
                            pool.max_pool2d_vjp(y, winners), relu.relu(x)[0]))  # fmt: skip
        finally:
            jit.set_num_threads(before)
    for one, other in zip(results[0], results[-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_compiling() -> None:
    """The kernels are valid Python: with the compiler switched off they give the same."""
    source = """
import numpy as np
from l0ref import ops
from l0ref.jit import flatten, pool, relu
x = np.random.default_rng(8).integers(-3, 4, size=(3, 2, 6, 7)).astype(np.float32)
x = np.ascontiguousarray(x.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)
odd = np.where(x == 3, np.float32(np.nan), x)
for module, name, arguments in ((pool, "max_pool2d", (x, 2)), (pool, "max_pool2d", (odd, 2)),
                                (pool, "max_pool2d", (x, 3, )), (pool, "avg_pool2d", (x, 2)),
                                (relu, "relu", (odd,)), (flatten, "flatten", (x,))):
    wanted, own = getattr(ops, name)(*arguments)
    y, residuals = getattr(module, name)(*arguments)
    np.testing.assert_array_equal(y, wanted)
    dy = np.arange(y.size, dtype=np.float32).reshape(y.shape)
    np.testing.assert_array_equal(getattr(module, name + "_vjp")(dy, residuals),
                                  getattr(ops, name + "_vjp")(dy, own))
print("done")
"""
    assert run_without_numba(source) == "done"
