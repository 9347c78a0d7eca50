"""Packing against NumPy's own indexing, and the kernels against packing, to the bit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0ref import jit, ops
from l0ref.jit import pack as twins
from l0ref.jit._compile import Kernel
from l0ref.ops.pack import PackResiduals

PAIRS = [(ops.pack, ops.pack_vjp), (twins.pack, twins.pack_vjp)]
both = pytest.mark.parametrize(("pack", "pack_vjp"), PAIRS, ids=["original", "twin"])


@st.composite
def indices(draw: st.DrawFn, n: int) -> Any:
    """None, or some of 0 .. n-1 in any order: none of them, and all, included."""
    if draw(st.booleans()):
        return None
    order = draw(st.permutations(range(n)))
    return np.array(order[: draw(st.integers(0, n))], np.intp)


@st.composite
def cases(draw: st.DrawFn) -> Any:
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 7)),
             *draw(st.lists(st.integers(1, 3), max_size=2)))  # fmt: skip
    rows, columns = draw(indices(shape[0])), draw(indices(shape[1]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape).astype(dtype)
    return x, rows, columns


def by_loops(x: Any, rows: Any, columns: Any) -> Any:
    rows = range(x.shape[0]) if rows is None else rows
    columns = range(x.shape[1]) if columns is None else columns
    y = np.empty((len(rows), len(columns), *x.shape[2:]), x.dtype)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            y[i, j] = x[r, c]
    return y


@both
@given(case=cases())
def test_pack_and_its_adjoint(pack: Any, pack_vjp: Any, case: Any) -> None:
    x, rows, columns = case
    before = x.copy()
    y, residuals = pack(x, rows, columns)
    wanted = by_loops(x, rows, columns)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(x, before)
    assert residuals.shape == x.shape

    dy = np.random.default_rng(7).integers(-9, 9, size=y.shape).astype(x.dtype)
    dx = pack_vjp(dy, residuals)
    assert dx.shape == x.shape
    assert dx.dtype == x.dtype
    # Whole numbers: both sums are exact, and so is <pack x, dy> = <x, pack_vjp dy>.
    whole = np.round(100 * x)
    packed_whole = pack(whole, rows, columns)[0]
    assert (packed_whole * dy).sum() == (whole * dx).sum()
    # What was not taken has an exact 0, no matter what memory held before.
    taken = np.zeros(x.shape, bool)
    row_places = np.arange(x.shape[0]) if rows is None else rows
    column_places = np.arange(x.shape[1]) if columns is None else columns
    taken[np.ix_(row_places, column_places)] = True
    assert (dx[~taken] == 0).all()
    np.testing.assert_array_equal(pack(dx, rows, columns)[0], dy)


def test_zeros_are_written_whatever_memory_held(monkeypatch: pytest.MonkeyPatch) -> None:
    residuals = PackResiduals((4, 6), np.array([3, 0]), np.array([1, 4, 2]))
    dy = np.random.default_rng(5).normal(size=(2, 3))
    twins.pack_vjp(dy, residuals)  # compiled before memory changes
    monkeypatch.setattr(np, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
    np.testing.assert_array_equal(twins.pack_vjp(dy, residuals), ops.pack_vjp(dy, residuals))


LARGE = [((101, 67), 3), ((301, 13, 5, 3), 4), ((211, 40, 7), 5)]


@pytest.fixture
def threads() -> Iterator[None]:
    n = jit.get_num_threads()
    yield
    jit.set_num_threads(n)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "seed"), LARGE)
def test_large_arrays_in_any_layout_on_any_number_of_threads(
    threads: None, shape: tuple[int, ...], seed: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(dtype)
    x[0] = np.nan
    x[1, 2] = -np.inf
    rows = rng.permutation(shape[0])[: shape[0] // 2]
    for columns in (None, rng.permutation(shape[1])[: shape[1] // 3]):
        wanted = ops.pack(x, rows, columns)[0]
        dy = rng.normal(size=wanted.shape).astype(dtype)
        dx = ops.pack_vjp(dy, PackResiduals(shape, rows, columns))
        for n in {1, min(2, most())}:
            jit.set_num_threads(n)
            for layout in (x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[::-1][::-1]):
                np.testing.assert_array_equal(twins.pack(layout, rows, columns)[0], wanted)
            for layout in (dy, np.asfortranarray(dy), np.repeat(dy, 2, axis=1)[:, ::2]):
                got = twins.pack_vjp(layout, PackResiduals(shape, rows, columns))
                np.testing.assert_array_equal(got, dx)


def most() -> int:
    from numba import config

    return int(config.NUMBA_NUM_THREADS)


def outcome(function: Any, *args: Any) -> Any:
    """Return what a call gives, or its error and message."""
    try:
        return function(*args)
    except Exception as error:
        return type(error), str(error)


X = np.random.default_rng(1).normal(size=(4, 6))
I = np.array([2, 0])  # noqa: E741
ODD = {
    "float16": (X.astype(np.float16), I, I),
    "int": (np.arange(24).reshape(4, 6), I, I),
    "masked": (np.ma.masked_array(X, X > 0), I, I),
    "no rows": (X[:0], None, I),
    "no columns": (X[:, :0], I, None),
    "nothing left": (X, I[:0], I[:0]),
    "one axis": (X[0], I, None),
    "negative": (X, -I, -I),
    "a mask": (X, np.array([True, False, True, False]), X[0] > 0),
    "a mask of rows": (X, np.array([True, False, True, False]), None),
    "lists": (X, [2, 0], None),
    "floats": (X, np.array([1.0, 0.0]), None),
    "beyond the rows": (X, np.array([1, 4]), None),
    "beyond the columns": (X, None, np.array([1, 6])),
    "unsigned": (X, I.astype(np.uint8), I.astype(np.int16)),
    "none taken, all kept": (X, None, None),
}
every_odd = pytest.mark.parametrize("kind", ODD)


def assert_same_outcome(got: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple) and isinstance(wanted[0], type):
        assert got == wanted
        return
    assert type(got) is type(wanted)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(wanted))
    np.testing.assert_array_equal(np.ma.getdata(got), np.ma.getdata(wanted))


@every_odd
def test_what_no_kernel_takes_gets_the_originals_answer_or_error(kind: str) -> None:
    x, rows, columns = ODD[kind]
    got, wanted = outcome(twins.pack, x, rows, columns), outcome(ops.pack, x, rows, columns)
    if isinstance(wanted[0], np.ndarray):
        assert got[1].shape == wanted[1].shape
        got, wanted = got[0], wanted[0]
        dy = wanted.copy()
    else:
        dy = X[:2, :2]
    assert_same_outcome(got, wanted)
    residuals = PackResiduals(x.shape, rows, columns)
    assert_same_outcome(outcome(twins.pack_vjp, dy, residuals),
                        outcome(ops.pack_vjp, dy, residuals))  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (2,), (2, 1), (2, 2, 1)])
def test_a_cotangent_that_does_not_fit_gets_the_originals_answer_or_error(shape: Any) -> None:
    residuals = PackResiduals(X.shape, I, I)
    dy = np.ones(shape)
    assert_same_outcome(outcome(twins.pack_vjp, dy, residuals),
                        outcome(ops.pack_vjp, dy, residuals))  # fmt: skip


def test_kernels_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = [], Kernel._run
    monkeypatch.setattr(Kernel, "_run",
                        lambda self, *a: (ran.append(self.__name__), run(self, *a))[1])  # fmt: skip
    _, residuals = twins.pack(X, I, None)
    twins.pack_vjp(X[:2], residuals)
    assert ran == ["inside", "gather", "inside", "_scatter"]
