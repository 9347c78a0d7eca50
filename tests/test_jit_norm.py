"""The kernels of batch normalisation against the NumPy originals, and against exact sums.

The bound against the original is that of two sides that each round: a mean of m numbers, in
pieces, to less than 8 eps of the mean size, and what is made of it in a few steps more. It is
stated in multiples of eps of the greatest size that the formula meets.
"""

from typing import Any

import numpy as np
import pytest

from l0ref import jit, ops
from l0ref.jit import norm
from tests.without_numba import run_without_numba

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
SHAPES = [(3, 2, 5, 4), (7, 3, 13, 21), (2, 1, 1, 1), (50, 2, 6, 7)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
FIELDS = ("normalised", "inv_std", "weight", "mean", "var")


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def draw(shape: tuple[int, ...], dtype: Any, seed: int = 0, mean: float = 0.5) -> Any:
    """x, weight, bias, and a cotangent."""
    rng = np.random.default_rng(seed)
    x = mean + rng.normal(size=shape) * rng.uniform(0.5, 2, size=(1, shape[1], 1, 1))
    per_channel = [rng.normal(size=shape[1]) for _ in range(2)]
    return [frozen(a, dtype) for a in (x, *per_channel, rng.normal(size=shape))]


def map_major(a: Any) -> Any:
    return np.ascontiguousarray(a.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)


def is_map_major(a: Any) -> bool:
    return bool(a.transpose(1, 0, 2, 3).flags.c_contiguous)


def close(got: Any, wanted: Any, multiple: float, size: Any = None) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    size = np.abs(wanted).max() if size is None else size
    assert np.abs(got - wanted).max() <= multiple * np.finfo(got.dtype).eps * size


@every_shape
@both_dtypes
def test_batch_norm(shape: tuple[int, ...], dtype: Any) -> None:
    x, weight, bias, dy = draw(shape, dtype)
    y, residuals = norm.batch_norm(x, weight, bias)
    wanted, own = ops.batch_norm(x, weight, bias)
    assert is_map_major(y)
    assert is_map_major(residuals.normalised)
    assert residuals.n_values == own.n_values
    for name in FIELDS:
        # Of x - mean, errors are those of x: of up to its greatest size.
        size = 4 * np.abs(x).max() * own.inv_std.max() if name == "normalised" else None
        if name == "mean":
            size = np.abs(x).max()
        close(getattr(residuals, name), getattr(own, name), 8, size)
    close(y, wanted, 8, 4 * np.abs(x).max() * own.inv_std.max() * np.abs(weight).max() + 1)
    # The same residuals, so that only the VJP differs; and they serve again.
    slopes = np.abs(own.normalised).max() + 1
    for _ in range(2):
        dx, dweight, dbias = norm.batch_norm_vjp(dy, own)
        exact = ops.batch_norm_vjp(dy, own)
        assert is_map_major(dx)
        terms = slopes * slopes * np.abs(dy).max() * np.abs(weight).max() * own.inv_std.max()
        close(dx, exact[0], 16, terms)
        each = np.abs(dy).sum(axis=(0, 2, 3)).max()
        close(dweight, exact[1], 16, each * slopes)
        close(dbias, exact[2], 16, each)
    for got, expected in zip(norm.batch_norm_vjp(dy, residuals),
                             ops.batch_norm_vjp(dy, residuals), strict=True):  # fmt: skip
        close(got, expected, 16, terms + each * slopes)


@every_shape
@both_dtypes
def test_batch_norm_inference(shape: tuple[int, ...], dtype: Any) -> None:
    x, weight, bias, dy = draw(shape, dtype)
    mean, var = frozen(0.1 + bias, dtype), frozen(weight**2, dtype)
    y, residuals = norm.batch_norm_inference(x, weight, bias, mean, var)
    wanted, own = ops.batch_norm_inference(x, weight, bias, mean, var)
    # The same steps; only a product and a sum may be rounded once, and 1 / sqrt differently.
    close(y, wanted, 4, np.abs(own.normalised).max() * np.abs(weight).max() + np.abs(bias).max())
    close(residuals.normalised, own.normalised, 4)
    close(residuals.inv_std, own.inv_std, 2)
    got, exact = norm.batch_norm_inference_vjp(dy, own), ops.batch_norm_inference_vjp(dy, own)
    close(got[0], exact[0], 2)
    each = np.abs(dy).sum(axis=(0, 2, 3)).max()
    close(got[1], exact[1], 16, each * np.abs(own.normalised).max())
    close(got[2], exact[2], 16, each)
    assert is_map_major(y)
    assert is_map_major(got[0])


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_statistics_in_float32_are_as_near_the_truth_as_the_originals(offset: float) -> None:
    """100 x 32 x 32 values; one running sum would be off by hundreds of eps."""
    x, weight, bias, dy = draw((100, 2, 32, 32), np.float32, seed=1, mean=offset)
    truth = ops.batch_norm(*(a.astype(float) for a in (x, weight, bias)))[1]
    pulled = ops.batch_norm_vjp(dy.astype(float), truth)
    _, own = ops.batch_norm(x, weight, bias)
    _, residuals = norm.batch_norm(x, weight, bias)
    eps = np.finfo(np.float32).eps
    for name in ("mean", "var", "inv_std"):
        exact = getattr(truth, name)
        error = np.abs(getattr(residuals, name) - exact).max()
        size = np.abs(x).mean() if name == "mean" else exact.max()
        # Either as good as the original's, or a rounding or two from the truth.
        assert error <= max(np.abs(getattr(own, name) - exact).max(), 2 * eps * size), name
    sizes = (np.abs(dy.astype(float) * truth.normalised), np.abs(dy.astype(float)))
    for got, exact, size in zip(norm.batch_norm_vjp(dy, residuals)[1:], pulled[1:], sizes,
                                strict=True):  # fmt: skip
        # Errors of x normalised: of x - mean, which is as exact as x and mean are.
        allowed = 4 * eps * size.sum(axis=(0, 2, 3)) * (1 + offset)
        assert (np.abs(got - exact) <= allowed).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "dy", "normalised"])
def test_what_is_not_finite_goes_where_the_originals_goes(value: float, where: str) -> None:
    arrays = dict(zip(("x", "weight", "bias", "dy"), draw((3, 4, 5, 6), np.float64), strict=True))
    if where != "normalised":
        arrays[where] = arrays[where].copy()
        arrays[where].reshape(arrays[where].shape[0], -1)[1, -1] = value
    dy = arrays.pop("dy")
    with np.errstate(invalid="ignore"):
        y, residuals = norm.batch_norm(**arrays)
        wanted, own = ops.batch_norm(**arrays)
        if where == "normalised":
            own.normalised[1, 2, 3, 4] = value
        got = (y, residuals.mean, residuals.var, *norm.batch_norm_vjp(dy, own),
               *norm.batch_norm_inference_vjp(dy, own[:3]))  # fmt: skip
        exact = (wanted, own.mean, own.var, *ops.batch_norm_vjp(dy, own),
                 *ops.batch_norm_inference_vjp(dy, own[:3]))  # fmt: skip
    for one, other in zip(got, exact, strict=True):
        finite = np.isfinite(other)
        np.testing.assert_array_equal(one[~finite], other[~finite])
        np.testing.assert_allclose(one[finite], other[finite], rtol=1e-12, atol=1e-13)


def test_any_strides_are_the_same_bits_and_so_are_threads() -> None:
    x, weight, bias, dy = draw((6, 3, 8, 10), np.float32)
    before = jit.get_num_threads()
    y, residuals = norm.batch_norm(x, weight, bias)
    wanted = (y, residuals.var, *norm.batch_norm_vjp(dy, residuals))
    for threads in sorted({1, before}):
        jit.set_num_threads(threads)
        try:
            for view in (map_major, np.asfortranarray, lambda a: a[::-1].copy()[::-1]):
                y, residuals = norm.batch_norm(view(x), weight, bias)
                got = (y, residuals.var, *norm.batch_norm_vjp(view(dy), residuals))
                for one, other in zip(got, wanted, strict=True):
                    np.testing.assert_array_equal(one, other)
        finally:
            jit.set_num_threads(before)


@pytest.mark.parametrize("kind", ["float16", "masked", "no map", "units", "mixed"])
def test_what_is_not_for_the_kernel_is_for_the_original(kind: str) -> None:
    shape = (4, 0, 5, 6) if kind == "no map" else (4, 3, 5, 6)
    x, weight, bias, dy = draw(shape, np.float16 if kind == "float16" else np.float64)
    if kind == "masked":
        x = np.ma.masked_array(x)
    if kind == "mixed":
        weight = weight.astype(np.float32)
    if kind == "units":
        x, dy = x[:, :, 0, 0], dy[:, :, 0, 0]
    y, residuals = norm.batch_norm(x, weight, bias)
    wanted, own = ops.batch_norm(x, weight, bias)
    got = (y, *norm.batch_norm_vjp(dy, residuals))
    for one, other in zip(got, (wanted, *ops.batch_norm_vjp(dy, own)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_errors_are_the_originals() -> None:
    x, weight, bias, dy = draw((4, 3, 5, 6), np.float32)
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\)"):
        norm.batch_norm(x, weight[:2], bias)
    with pytest.raises(ValueError, match=r"eps must be above 0"):
        norm.batch_norm(x, weight, bias, eps=0.0)
    with pytest.raises(ValueError, match=r"at least two values"):
        norm.batch_norm(x[:1, :, :1, :1], weight, bias)
    with pytest.raises(ValueError, match=r"var must be at least 0"):
        norm.batch_norm_inference(x, weight, bias, bias, -np.abs(bias))
    _, residuals = norm.batch_norm(x, weight, bias)
    with pytest.raises(ValueError, match=r"dy must have shape"):
        norm.batch_norm_vjp(dy[1:], residuals)


def test_running_statistics_read_the_residuals() -> None:
    x, weight, bias, _ = draw((4, 3, 5, 6), np.float64)
    averages = np.zeros(3), np.ones(3)
    got = ops.running_statistics(*averages, norm.batch_norm(x, weight, bias)[1])
    wanted = ops.running_statistics(*averages, ops.batch_norm(x, weight, bias)[1])
    np.testing.assert_allclose(got, wanted, rtol=1e-14)


def test_without_compiling() -> None:
    """The kernels are valid Python: with the compiler switched off they give the same."""
    source = """
import numpy as np
from l0ref import ops
from l0ref.jit import norm
rng = np.random.default_rng(2)
x, dy = rng.normal(size=(2, 3, 2, 4, 5))
weight, bias = rng.normal(size=(2, 2))
y, residuals = norm.batch_norm(x, weight, bias)
wanted, own = ops.batch_norm(x, weight, bias)
got = y, *norm.batch_norm_vjp(dy, residuals), *norm.batch_norm_inference_vjp(dy, residuals[:3])
exact = wanted, *ops.batch_norm_vjp(dy, own), *ops.batch_norm_inference_vjp(dy, own[:3])
for one, other in zip(got, exact, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
print("done")
"""
    assert run_without_numba(source) == "done"
