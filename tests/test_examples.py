"""The product in which each example reads its own rows: by loops, by differences, and its twin."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l0ref import jit, ops
from l0ref.jit import examples as twins
from tests.without_numba import run_without_numba

PAIRS = [
    (ops.example_matmul, ops.example_matmul_vjp),
    (twins.example_matmul, twins.example_matmul_vjp),
]
both = pytest.mark.parametrize(("matmul", "vjp"), PAIRS, ids=["original", "twin"])
DTYPES = (np.float32, np.float64)
EPS = np.finfo(np.float64).eps


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    n = jit.get_num_threads()
    with jit.one_blas_thread():
        yield
    jit.set_num_threads(n)


def draw(shape: tuple[int, int, int], share: float, dtype: Any, seed: int = 0) -> Any:
    """x, weight, gates of which about a share is open, and a cotangent."""
    n, d_in, d_out = shape
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.1, 1, (n, d_in)) * (rng.uniform(size=(n, d_in)) < share)
    arrays = rng.normal(size=(n, d_in)), rng.normal(size=(d_in, d_out)), z
    return *(a.astype(dtype) for a in arrays), rng.normal(size=(n, d_out)).astype(dtype)


def by_loops(x: Any, weight: Any, z: Any) -> Any:
    """One number at a time, from the equation."""
    return np.array([
        [sum(x[n, i] * z[n, i] * weight[i, o] for i in range(len(weight)) if z[n, i] != 0)
         for o in range(weight.shape[1])]
        for n in range(len(x))
    ])  # fmt: skip


@both
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 2), (5, 9, 3), (2, 7, 19)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_product_is_its_equation(
    matmul: Any, vjp: Any, shape: tuple[int, int, int], share: float
) -> None:
    x, weight, z, _ = draw(shape, share, np.float64)
    y, _ = matmul(x, weight, z)
    assert y.shape == (shape[0], shape[2])
    # Sums of at most 9 products of numbers of the order of 1.
    np.testing.assert_allclose(y, by_loops(x, weight, z), rtol=0, atol=100 * EPS)


@both
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 2), (4, 9, 3)])
def test_derivatives_are_those_of_the_loops(
    matmul: Any, vjp: Any, shape: tuple[int, int, int]
) -> None:
    """The product is linear in each argument: a central difference of any width is exact."""
    x, weight, z, dy = draw(shape, 0.5, np.float64)
    dx, dweight, dz = vjp(dy, matmul(x, weight, z)[1])
    for argument, derivative, where in ((x, dx, z != 0), (weight, dweight, None), (z, dz, z != 0)):
        assert derivative.shape == argument.shape
        for place in np.ndindex(argument.shape):
            if where is not None and not where[place]:
                assert derivative[place] == 0
                continue
            before = argument[place]
            argument[place] = before + 0.03125  # a gate stays open
            above = (by_loops(x, weight, z) * dy).sum()
            argument[place] = before - 0.03125
            below = (by_loops(x, weight, z) * dy).sum()
            argument[place] = before
            assert derivative[place] == pytest.approx((above - below) * 16, rel=0, abs=20_000 * EPS)
    assert vjp(dy, matmul(x, weight, z)[1], need_dx=False)[0] is None


@both
def test_behind_a_closed_gate_nothing_is_looked_at(matmul: Any, vjp: Any) -> None:
    x, weight, z, dy = draw((4, 7, 5), 0.5, np.float64)
    z[:, 2] = 0  # closed for all
    z[1, 3], z[0, 3] = 0, 0.5
    wanted, residuals = matmul(x, weight, z)
    gradients = vjp(dy, residuals)
    for nothing in (np.nan, np.inf):
        odd_x, odd_weight = x.copy(), weight.copy()
        odd_x[:, 2], odd_x[1, 3], odd_weight[2] = nothing, nothing, nothing
        y, residuals = matmul(odd_x, odd_weight, z)
        np.testing.assert_array_equal(y, wanted)
        for got, whole in zip(vjp(dy, residuals), gradients, strict=True):
            np.testing.assert_array_equal(got, whole)


@both
def test_what_is_open_is_looked_at(matmul: Any, vjp: Any) -> None:
    x, weight, z, dy = draw((4, 7, 5), 0.5, np.float64)
    z[2, 4] = np.nan  # a gate that is not a number is not closed
    y, residuals = matmul(x, weight, z)
    assert np.isnan(y).any(axis=1).tolist() == [False, False, True, False]
    dx, dweight, dz = vjp(dy, residuals)
    assert np.argwhere(np.isnan(dx)).tolist() == [[2, 4]]
    assert np.isnan(dweight).any(axis=1).tolist() == [i == 4 for i in range(7)]
    assert not np.isnan(dz).any()


@given(
    n=st.integers(1, 40),
    d_in=st.integers(1, 90),
    d_out=st.integers(1, 150),
    share=st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
@example(100, 784, 300, 0.1, np.float32, 0)
@example(30, 200, 129, 0.3, np.float64, 1)
def test_the_twin_is_the_original(
    n: int, d_in: int, d_out: int, share: float, dtype: Any, seed: int
) -> None:
    """Sums of k terms in two orders are within 2 (k + 4) eps sum |t| of each other."""
    x, weight, z, dy = draw((n, d_in, d_out), share, dtype, seed)
    before = [a.copy() for a in (x, weight, z, dy)]
    y, residuals = twins.example_matmul.twin(x, weight, z)
    got = [y, *twins.example_matmul_vjp.twin(dy, residuals)]

    def original(x: Any, weight: Any, z: Any, dy: Any) -> list[Any]:
        y, residuals = ops.example_matmul(x, weight, z)
        return [y, *ops.example_matmul_vjp(dy, residuals)]

    wanted, sizes = original(x, weight, z, dy), original(*(abs(a) for a in (x, weight, z, dy)))
    slack = 2 * (max(n, d_in, d_out) + 4) * np.finfo(dtype).eps
    for a, b, size in zip(got, wanted, sizes, strict=True):
        assert a.dtype == b.dtype == dtype
        assert a.shape == b.shape
        assert (abs(a - b) <= slack * size).all()
        assert (a[size == 0] == 0).all()
    for a, b in zip((x, weight, z, dy), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(jit.get_num_threads() < 2, reason="of two threads")
def test_the_number_of_threads_changes_nothing() -> None:
    x, weight, z, dy = draw((100, 300, 200), 0.2, np.float32)
    results = []
    for threads in (1, jit.get_num_threads()):
        jit.set_num_threads(threads)
        y, residuals = twins.example_matmul.twin(x, weight, z)
        results.append([y, *twins.example_matmul_vjp.twin(dy, residuals)])
    for one, many in zip(*results, strict=True):
        np.testing.assert_array_equal(one, many)


def test_what_is_not_contiguous_or_read_only() -> None:
    x, weight, z, dy = draw((9, 14, 6), 0.4, np.float64)
    y, residuals = twins.example_matmul.twin(x, weight, z)
    wanted = [y, *twins.example_matmul_vjp.twin(dy, residuals)]
    odd = [np.asfortranarray(a) for a in (x, weight, z, dy)]
    for a in odd:
        a.flags.writeable = False
    y, residuals = twins.example_matmul.twin(*odd[:3])
    for a, b in zip([y, *twins.example_matmul_vjp.twin(odd[3], residuals)], wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [
    lambda x, weight, z, dy: (x.astype(np.float16), weight.astype(np.float16), z, dy),
    lambda x, weight, z, dy: (x, weight, (z > 0).astype(np.int64), dy),
    lambda x, weight, z, dy: (x[:0], weight, z[:0], dy[:0]),
    lambda x, weight, z, dy: (x, weight[:, :0], z, dy[:, :0]),
    lambda x, weight, z, dy: (x, weight, z, dy.astype(np.float32)),
], ids=["float16", "integers", "no example", "no unit", "another cotangent"])  # fmt: skip
def test_what_is_not_for_the_kernel_is_the_originals(change: Any) -> None:
    x, weight, z, dy = change(*draw((4, 6, 3), 0.5, np.float64))
    results = []
    for matmul, vjp in PAIRS:
        y, residuals = matmul(x, weight, z)
        results.append([y, *vjp(dy, residuals)])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        # One may follow a kernel's forward pass, and add up in another order.
        np.testing.assert_allclose(a, b, rtol=100 * EPS)


@both
@pytest.mark.parametrize("dtypes", ["BddD", "dfdd", "fddd", "ddld", "fffd", "ddlf"])
def test_numbers_of_several_kinds(matmul: Any, vjp: Any, dtypes: str) -> None:
    """As the whole product takes them: no result has fewer digits than that of `dense`."""
    rng = np.random.default_rng(3)
    shapes = (4, 6), (6, 3), (4, 6), (4, 3)
    x, weight, z, dy = (
        rng.integers(0, 3, shape).astype(kind.lower()) if kind in "Bl"
        else rng.normal(size=shape).astype(kind.lower())
        for kind, shape in zip(dtypes, shapes, strict=True)
    )  # fmt: skip
    y, residuals = matmul(x, weight, z)
    dx, dweight, dz = vjp(dy, residuals)
    wanted, own = ops.dense(x, weight, np.zeros(3, weight.dtype), z)
    whole = ops.dense_vjp(dy, own)
    where_open = z != 0
    eps = np.finfo(np.float32).eps if "f" in dtypes else EPS
    for got, exact in (
        (y, wanted),
        (dx, whole[0]),
        (dweight, whole[1]),
        (dz, whole[3] * where_open),
    ):
        assert got.dtype == np.result_type(x, weight, z) if got is y else got.dtype.kind == "f"
        # Sums of at most 6 products of three numbers below 4.
        np.testing.assert_allclose(got, exact, rtol=0, atol=400 * eps)


@both
def test_shapes_that_do_not_fit(matmul: Any, vjp: Any) -> None:
    x, weight, z, _ = draw((4, 6, 3), 0.5, np.float64)
    with pytest.raises(ValueError, match=r"x must have shape .* got \(4, 5\) and \(6, 3\)"):
        matmul(x[:, :5], weight, z)
    with pytest.raises(ValueError, match=r"z must have the shape of x, \(4, 6\), got \(6,\)"):
        matmul(x, weight, z[0])
    with pytest.raises(ValueError, match=r"dy must have shape \(4, 3\), got \(4, 2\)"):
        vjp(np.ones((4, 2)), matmul(x, weight, z)[1])


def test_the_kernels_run_as_plain_python() -> None:
    source = """
import numpy as np
from l0ref import ops
from l0ref.jit import examples
rng = np.random.default_rng(2)
x, z = rng.normal(size=(2, 5, 7))
z *= rng.uniform(size=z.shape) < 0.7
weight, dy = rng.normal(size=(7, 45)), rng.normal(size=(5, 45))
y, residuals = examples.example_matmul.twin(x, weight, z)
got = y, *examples.example_matmul_vjp.twin(dy, residuals)
y, residuals = ops.example_matmul(x, weight, z)
for one, other in zip(got, (y, *ops.example_matmul_vjp(dy, residuals)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
print("done")
"""
    assert run_without_numba(source) == "done"
