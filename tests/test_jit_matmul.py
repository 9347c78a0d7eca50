"""The blocked product and its VJP: the original's numbers, at every edge of tiles and blocks.

Tolerances: each result is a sum of K products in another order, off by at most K eps times the sum
of their absolute values, which the original gives for absolute operands; 4 for the gates' roundings
and those of the original.
"""

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from l0ref import jit, ops
from l0ref.jit import TWINS, _compile, _vectors
from l0ref.jit._compile import Kernel
from l0ref.jit._registry import NotForKernel

PLAIN = bool(numba.config.DISABLE_JIT)
matmul: Any = TWINS[ops.gated_matmul]
matmul_vjp: Any = TWINS[ops.gated_matmul_vjp]
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def operands(
    n: int, d: int, d_in: int, d_out: int, dtype: Any, *, some: str = "trcz", seed: int = 0
) -> Any:
    """Arguments; `some` says of which of take, rows, columns and z there are any."""
    rng = np.random.default_rng(seed)
    k = d if "r" not in some else d_in if "t" not in some else (min(d, d_in) + 1) // 2
    d, d_in = (d if "t" in some else k), (d_in if "r" in some else k)
    index = {
        "take": rng.permutation(d)[:k] if "t" in some else None,
        "rows": np.sort(rng.permutation(d_in)[:k]) if "r" in some else None,
        "columns": rng.permutation(d_out)[: (d_out + 1) // 2] if "c" in some else None,
    }
    x, weight = (rng.normal(size=shape).astype(dtype) for shape in ((n, d), (d_in, d_out)))
    z = rng.uniform(0.1, 1, k).astype(dtype) if "z" in some else None
    return x, weight, z, index


def assert_like_the_original(x: Any, weight: Any, z: Any, index: Any, seed: int = 1) -> None:
    y, residuals = matmul.twin(x, weight, z, **index)
    exact, originals = ops.gated_matmul(x, weight, z, **index)
    dy = np.random.default_rng(seed).normal(size=exact.shape).astype(x.dtype)
    got = (y, *matmul_vjp.twin(dy, residuals))
    wanted = (exact, *ops.gated_matmul_vjp(dy, originals))
    bounds, r = ops.gated_matmul(abs(x), abs(weight), z, **index)
    sizes = (bounds, *ops.gated_matmul_vjp(abs(dy), r))
    depth = 4 + max(*x.shape, *weight.shape)
    eps = float(np.finfo(x.dtype).eps)
    for one, other, size in zip(got, wanted, sizes, strict=True):
        if other is None:
            assert one is None
            continue
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (abs(one.astype(float) - other) <= depth * eps * size).all()
    without = matmul_vjp.twin(dy, residuals, need_dx=False)
    assert without[0] is None
    np.testing.assert_array_equal(without[1], got[2])


# At and beside: a tile of 6 rows, one of 16 or 32 columns, a block of 8 tiles, a panel 512 deep.
EDGES = [(1, 1, 1, 1), (5, 3, 3, 15), (6, 4, 4, 16), (7, 5, 9, 17), (12, 70, 33, 31),
         (13, 9, 9, 32),
         (48, 7, 7, 33), (49, 8, 5, 64), (95, 6, 6, 65), (97, 20, 20, 10), (3, 511, 511, 4),
         (2, 512, 512, 33), (9, 513, 513, 35), (8, 1100, 1030, 7)]  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("some", ["trcz", "rc", "tr", "c", "z", ""])
@pytest.mark.parametrize("shape", EDGES[:8] if PLAIN else EDGES)
def test_it_is_the_original(shape: tuple[int, ...], some: str, dtype: Any) -> None:
    assert_like_the_original(*operands(*shape, dtype, some=some))


sizes = st.integers(1, 70 if PLAIN else 300)


@given(
    n=st.integers(1, 12 if PLAIN else 120),
    d=sizes,
    d_in=sizes,
    d_out=st.integers(1, 12 if PLAIN else 90),
    some=st.sampled_from(["trcz", "trc", "rcz", "tr", "cz", "rz", ""]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
@example(n=100, d=65, d_in=80, d_out=50, some="rcz", dtype=np.float32, seed=0)
def test_it_is_the_original_for_any_shape(
    n: int, d: int, d_in: int, d_out: int, some: str, dtype: Any, seed: int
) -> None:
    if PLAIN and n * d * d_out > 20_000:
        d = d_in = 5
    assert_like_the_original(*operands(n, d, d_in, d_out, dtype, some=some, seed=seed))


@both_dtypes
def test_whole_numbers_are_exact(dtype: Any) -> None:
    """Every sum of them is exact, in any order: not a term is lost or counted twice."""
    rng = np.random.default_rng(4)
    n, d, d_out = (7, 20, 37) if PLAIN else (53, 1030, 71)
    x, weight = (rng.integers(-9, 10, s).astype(dtype) for s in ((n, d), (d, d_out)))
    rows, columns = rng.permutation(d)[: d - 3], rng.permutation(d_out)[: d_out - 2]
    for index in ({}, {"take": rows, "rows": rows, "columns": columns}):
        z = np.full(d if not index else d - 3, 2, dtype)
        y, residuals = matmul.twin(x, weight, z, **index)
        exact, originals = ops.gated_matmul(x, weight, z, **index)
        np.testing.assert_array_equal(y, exact)
        dy = rng.integers(-9, 10, y.shape).astype(dtype)
        for one, other in zip(
            matmul_vjp.twin(dy, residuals), ops.gated_matmul_vjp(dy, originals), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.fixture
def threads() -> Iterator[None]:
    n = jit.get_num_threads()
    yield
    jit.set_num_threads(n)


@both_dtypes
@pytest.mark.parametrize("shape", [(100, 784, 784, 300), (100, 120, 120, 10), (301, 700, 650, 40)])
def test_the_same_bits_on_any_number_of_threads(
    threads: None, shape: tuple[int, ...], dtype: Any
) -> None:
    if PLAIN:
        shape = tuple(n // 10 for n in shape)
    x, weight, z, index = operands(*shape, dtype, some="rcz")
    results = []
    for n in (2, 1, 2):
        jit.set_num_threads(min(n, int(numba.config.NUMBA_NUM_THREADS)))
        y, residuals = matmul.twin(x, weight, z, **index)
        dy = np.random.default_rng(2).normal(size=y.shape).astype(dtype)
        results.append([a.tobytes() for a in (y, *matmul_vjp.twin(dy, residuals))])
    assert results[0] == results[1] == results[2]
    with _compile._inside:  # as while another thread is in a kernel
        assert matmul.twin(x, weight, z, **index)[0].tobytes() == results[0][0]


def test_what_is_closed_is_not_read_and_has_zeros() -> None:
    x, weight, z, index = operands(50, 60, 70, 90, np.float32)
    y, _ = matmul.twin(x, weight, z, **index)
    spoiled_x, spoiled = np.full_like(x, np.nan), np.full_like(weight, np.nan)
    spoiled_x[:, index["take"]] = x[:, index["take"]]
    here = np.ix_(index["rows"], index["columns"])
    spoiled[here] = weight[here]
    got, residuals = matmul.twin(spoiled_x, spoiled, z, **index)
    np.testing.assert_array_equal(got, y)
    dx, dweight, dz = matmul_vjp.twin(y, residuals)
    assert all(np.isfinite(a).all() for a in (dx, dweight, dz))
    closed = np.ones(weight.shape, bool)
    closed[here] = False
    assert (dweight[closed] == 0).all()
    assert (dweight[~closed] != 0).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row_and_column(odd: float) -> None:
    """Also where the panel or the tile has more rows and columns than there are."""
    x, weight, _, _ = operands(13, 20, 20, 37, np.float64, some="")
    x[4, 3], weight[7, 36] = odd, odd
    y, _ = matmul.twin(x, weight)
    with np.errstate(invalid="ignore"):  # BLAS may say so, of numbers that it throws away too
        wanted = ops.gated_matmul(x, weight)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(wanted))
    assert np.isfinite(np.delete(np.delete(y, 4, 0), 36, 1)).all()


@both_dtypes
def test_any_layout_and_nothing_is_changed(dtype: Any) -> None:
    x, weight, z, index = operands(14, 40, 40, 35, dtype)
    wide = np.repeat(x, 2, axis=1)
    arguments = (wide[:, ::2], np.asfortranarray(weight), np.repeat(z, 2)[::2])
    index = {name: np.repeat(i, 2).astype(np.int32)[::2] for name, i in index.items()}
    for a in (*arguments, *index.values()):
        a.flags.writeable = False
    y, residuals = matmul.twin(*arguments, **index)
    np.testing.assert_array_equal(y, matmul.twin(x, weight, z, **index)[0])
    dy = np.asfortranarray(y)
    dy.flags.writeable = False
    for a, b in zip(matmul_vjp.twin(dy, residuals), matmul_vjp.twin(y, residuals), strict=True):
        np.testing.assert_array_equal(a, b)


X, W, Z = (np.random.default_rng(5).normal(size=s) for s in ((4, 6), (6, 5), 6))
I = np.array([2, 0])  # noqa: E741
LEFT_TO_THE_ORIGINAL = {
    "float16": (X.astype(np.float16), W.astype(np.float16), None, {}),
    "integers": (np.arange(24).reshape(4, 6), np.arange(30).reshape(6, 5), None, {}),
    "two dtypes": (X, W.astype(np.float32), None, {}),
    "masked": (np.ma.array(X, mask=X > 1), W, None, {}),
    "no examples": (X[:0], W, None, {}),
    "nothing open": (X, W, None, {"take": I[:0], "rows": I[:0]}),
    "negative": (X, W, None, {"take": -I, "rows": -I}),
    "a mask": (X, W, None, {"columns": W[0] > 0}),
    "a list": (X, W, None, {"columns": [1, 0]}),
    "beyond x": (X, W, None, {"take": np.array([0, 6]), "rows": I}),
    "beyond the rows": (X, W, None, {"take": I, "rows": np.array([6, 0])}),
    "beyond the columns": (X, W, None, {"columns": np.array([1, 5])}),
    "one axis": (X[0], W, None, {}),
    "weights of one axis": (X, W[:, 0], None, {}),
    "a column too many": (X, W[:5], None, {}),
    "gates too many": (X, W, Z[:5], {}),
    "gates for each example": (X, W, X, {}),
}


def outcome(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Return what a call gives, or its error and message."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("kind", LEFT_TO_THE_ORIGINAL)
def test_what_no_kernel_takes_gets_the_originals_answer_or_error(kind: str) -> None:
    x, weight, z, index = LEFT_TO_THE_ORIGINAL[kind]
    with pytest.raises(NotForKernel):
        matmul.twin(x, weight, z, **index)
    got = outcome(matmul, x, weight, z, **index)
    wanted = outcome(ops.gated_matmul, x, weight, z, **index)
    if isinstance(wanted[0], type):
        assert got == wanted
        return
    assert type(got[0]) is type(wanted[0])
    np.testing.assert_array_equal(got[0], wanted[0])
    dy = np.ones_like(wanted[0]) + np.arange(wanted[0].size).reshape(wanted[0].shape)
    for a, b in zip(matmul_vjp(dy, got[1]), ops.gated_matmul_vjp(dy, wanted[1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("index", [{}, {"take": I, "rows": I, "columns": np.array([4, 1, 2])}])
def test_a_cotangent_of_another_kind_is_the_originals(index: Any) -> None:
    z = Z[: 2 if index else 6]
    y, residuals = matmul.twin(X, W, z, **index)
    _, originals = ops.gated_matmul(X, W, z, **index)
    dy = np.random.default_rng(6).normal(size=y.shape).astype(np.float32)
    for a, b in zip(matmul_vjp(dy, residuals), ops.gated_matmul_vjp(dy, originals), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"dy must have shape \(4, \d\), got \(1, \d\)"):
        matmul_vjp(dy[:1], residuals)


def test_kernels_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = [], Kernel._run
    monkeypatch.setattr(Kernel, "_run",
                        lambda self, *a: (ran.append(self.__name__), run(self, *a))[1])  # fmt: skip
    y, residuals = matmul(X, W, Z)
    matmul_vjp(y, residuals)
    assert ran == [
        "inside",
        "inside",
        "multiply_gathered",
        "multiply_gathered",
        "multiply_gathered",
    ]


# --- vectors ---


@both_dtypes
def test_vectors_are_what_they_say(dtype: Any) -> None:
    x = np.random.default_rng(7).normal(size=200).astype(dtype)
    n = _vectors.lanes(x)
    assert n * x.itemsize == _vectors.BYTES

    @numba.njit
    def move(x: Any, y: Any, factor: Any) -> Any:
        _vectors.store(y, np.uint64(3), _vectors.load(x, np.uint64(5)))
        total = _vectors.add_product(_vectors.zeros(x), factor, _vectors.load(x, np.uint64(1)))
        _vectors.store(y, np.uint64(100), total)
        return _vectors.lanes(x)

    y = np.zeros_like(x)
    assert move(x, y, x[9]) == n
    np.testing.assert_array_equal(y[3 : 3 + n], x[5 : 5 + n])
    np.testing.assert_array_equal(y[100 : 100 + n], x[9] * x[1 : 1 + n])
    assert (np.delete(y, np.r_[3 : 3 + n, 100 : 100 + n]) == 0).all()
