"""The kernels of dense layers, alone and with a rectifier, against the NumPy originals.

Every output is a sum of products. Two ways to add up k terms t are within 2 (k + 4) eps sum |t| of
each other: each term is rounded as a product of three, and added to at most k partial sums. That
sum of sizes is what the original itself gives for the absolute values of all that goes in.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import config

from l0ref import jit, ops
from l0ref.jit import dense as twins
from l0ref.jit import dense_block
from l0ref.jit._compile import Kernel, kernel
from l0ref.jit.blas import multiply

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])

KINDS: dict[str, tuple[str, bool, bool]] = {  # what is gated, an example its own draw, the bias too
    "plain": ("none", False, True),
    "inputs": ("inputs", False, True),
    "inputs, example": ("inputs", True, True),
    "weights": ("weights", False, True),
    "weights, example": ("weights", True, True),
    "outputs": ("outputs", False, True),
    "outputs, own bias": ("outputs", False, False),
    "outputs, example": ("outputs", True, True),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
# N, D_in, D_out: one of all, ragged and whole blocks of examples and of input units, one thread's
# work and that of several.
SHAPES = [(1, 1, 1), (1, 5, 2), (3, 1, 4), (7, 4, 1), (51, 129, 3), (101, 131, 67), (50, 256, 30),
          (2, 300, 700)]  # fmt: skip
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
MODULES = {"dense": twins, "dense_relu": dense_block}
both_ops = pytest.mark.parametrize("op", MODULES)


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Hold BLAS to one thread, as training does; give back the kernels' number of threads."""
    n = jit.get_num_threads()
    with jit.one_blas_thread():
        yield
    jit.set_num_threads(n)


def draw(kind: str, shape: tuple[int, int, int], dtype: Any, seed: int = 0) -> Any:
    """Arguments, options, and a cotangent."""
    on, per_example, gates_bias = KINDS[kind]
    n, d_in, d_out = shape
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(n, d_in)), rng.normal(size=(d_in, d_out)), rng.normal(size=d_out)]
    gates = {"inputs": (d_in,), "weights": (d_in, d_out), "outputs": (d_out,)}
    if on != "none":
        z = rng.uniform(-0.5, 1.5, size=((n,) if per_example else ()) + gates[on]).clip(0, 1)
        arrays.append(z)
    options: dict[str, Any] = {} if on == "none" else {"on": on, "gates_bias": gates_bias}
    return [a.astype(dtype) for a in arrays], options, rng.normal(size=(n, d_out)).astype(dtype)


def run(home: Any, op: str, arguments: Any, options: Any, dy: Any, need_dx: bool = True) -> Any:
    """Return y, dx, dweight, dbias, dz."""
    y, residuals = getattr(home, op)(*arguments, **options)
    return [y, *getattr(home, f"{op}_vjp")(dy, residuals, need_dx=need_dx)]


def by_original(*args: Any, op: str = "dense", **options: Any) -> Any:
    return run(ops, op, *args, **options)


def by_twin(*args: Any, op: str = "dense", **options: Any) -> Any:
    return run(MODULES[op], op, *args, **options)


def compare(arguments: Any, options: Any, dy: Any, need_dx: bool = True, op: str = "dense") -> None:
    before = [a.copy() for a in [*arguments, dy]]
    got, wanted = (f(arguments, options, dy, need_dx, op=op) for f in (by_twin, by_original))
    sizes = by_original([abs(a) for a in arguments], options, abs(dy), op=op)
    terms = max(arguments[0].shape + arguments[1].shape)
    for name, a, b, size in zip(("y", "dx", "dweight", "dbias", "dz"), got, wanted, sizes,
                                strict=True):  # fmt: skip
        assert (a is None) == (b is None), name
        if a is None:
            continue
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        assert (abs(a - b) <= 2 * (terms + 4) * np.finfo(b.dtype).eps * size).all(), name
    for a, b in zip([*arguments, dy], before, strict=True):
        np.testing.assert_array_equal(a, b)


@both_ops
@every_kind
@every_shape
@both_dtypes
def test_every_kind_of_gates(kind: str, shape: tuple[int, int, int], dtype: Any, op: str) -> None:
    if kind == "weights, example" and shape[0] * shape[1] * shape[2] > 50_000:
        shape = (5, 31, 17)  # N D_in D_out numbers, which the original takes
    compare(*draw(kind, shape, dtype), op=op)
    compare(*draw(kind, shape, dtype, seed=1), need_dx=False, op=op)


@both_ops
@every_kind
def test_products_in_many_pieces(kind: str, op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sum is of several pieces, the last ones smaller: along all three axes, forward and back.

    At the sizes that are used this needs more than a thousand examples.
    """
    for name, size in (("ROWS", 10), ("COLUMNS", 6), ("UNITS", 12), ("FEW_UNITS", 5), ("SMALL", 1)):
        monkeypatch.setattr(twins, name, size)
    shape = (9, 13, 7) if kind == "weights, example" else (37, 43, 31)
    compare(*draw(kind, shape, np.float64), op=op)
    # With so many units that they are shared out.
    monkeypatch.setattr(twins, "SHARED", 8)
    shape = (4, 13, 7) if kind == "weights, example" else (17, 43, 31)
    compare(*draw(kind, shape, np.float64), op=op)


@given(
    op=st.sampled_from(sorted(MODULES)),
    kind=st.sampled_from(sorted(KINDS)),
    n=st.integers(1, 120),
    d_in=st.integers(1, 140),
    d_out=st.integers(1, 20),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
@example("dense", "inputs", 100, 128, 5, np.float32, 0)
@example("dense_relu", "inputs, example", 1, 7, 3, np.float64, 0)
@example("dense", "inputs, example", 51, 7, 3, np.float64, 0)
@example("dense_relu", "weights", 49, 130, 2, np.float64, 0)  # fmt: skip
def test_any_shape(
    op: str, kind: str, n: int, d_in: int, d_out: int, dtype: Any, seed: int
) -> None:
    compare(*draw(kind, (n, d_in, d_out), dtype, seed), op=op)


def scattered(a: Any, layout: int) -> Any:
    """Return the same numbers elsewhere in memory: by columns, with gaps, backwards."""
    if layout == 0:
        return np.asfortranarray(a)
    if layout == 1:
        return np.repeat(a, 2, axis=-1)[..., ::2]
    return a[::-1].copy()[::-1]


@pytest.mark.parametrize("layout", range(3))
@pytest.mark.parametrize("shape", [(51, 12, 3), (101, 131, 67)])
@pytest.mark.parametrize("kind", ["plain", "inputs", "inputs, example", "weights"])
def test_any_layout_gives_the_same_bits(kind: str, shape: Any, layout: int) -> None:
    arguments, options, dy = draw(kind, shape, np.float64)
    straight = by_twin(arguments, options, dy)
    odd = by_twin([scattered(a, layout) for a in arguments], options, scattered(dy, layout))
    for a, b in zip(straight, odd, strict=True):
        if a is not None:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["plain", "inputs", "inputs, example", "weights"])
def test_arrays_that_must_not_be_written_to(kind: str) -> None:
    arguments, options, dy = draw(kind, (11, 4, 3), np.float64)
    wanted = by_twin(arguments, options, dy)
    for a in (*arguments, dy):
        a.flags.writeable = False
    for a, b in zip(by_twin(arguments, options, dy), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@both_ops
@both_dtypes
@every_kind
def test_the_same_bits_on_any_number_of_threads(kind: str, dtype: Any, op: str) -> None:
    if config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    shape = (9, 13, 7) if kind == "weights, example" else (131, 301, 67)
    drawn = draw(kind, shape, dtype)
    runs = []
    for n in (1, 2, 2):
        jit.set_num_threads(n)
        runs.append(by_twin(*drawn, op=op))
    for one, *others in zip(*runs, strict=True):
        for other in others:
            if one is not None:
                np.testing.assert_array_equal(one, other)


@both_ops
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(6, 4, 3), (101, 131, 67)])
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (kind, place)
        for kind in ("plain", "inputs", "inputs, example", "weights")
        for place in ("x", "weight", "bias", "z", "dy")
        if (kind, place) != ("plain", "z")
    ],
)
def test_what_is_not_finite_goes_where_the_originals_goes(
    kind: str, shape: Any, place: str, value: float, op: str
) -> None:
    arguments, options, dy = draw(kind, shape, np.float64)
    position = ("x", "weight", "bias", "z", "dy").index(place)
    target = dy if place == "dy" else arguments[position]
    target.reshape(-1)[-2] = value
    with np.errstate(invalid="ignore"):
        got, wanted = (f(arguments, options, dy, op=op) for f in (by_twin, by_original))
    seen = 0
    for a, b in zip(got, wanted, strict=True):
        if b is not None:
            finite = np.isfinite(b)
            np.testing.assert_array_equal(np.isfinite(a), finite)
            if place != "z" or np.isnan(value):  # an infinite gate is none: clipped to [0, 1]
                np.testing.assert_array_equal(a[~finite], b[~finite])
            seen += (~finite).sum()
    assert seen or (op == "dense_relu" and value < 0)  # the rectifier may take it away


@both_ops
@every_kind
def test_the_originals_residuals_have_the_originals_vjp(kind: str, op: str) -> None:
    arguments, options, dy = draw(kind, (6, 4, 3), np.float32)
    _, residuals = getattr(ops, op)(*arguments, **options)
    got, wanted = (getattr(m, f"{op}_vjp")(dy, residuals) for m in (MODULES[op], ops))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@both_dtypes
def test_the_rectifiers_kink(dtype: Any) -> None:
    """At 0 itself, and -0, nothing passes; NaN is no 0, and has no derivative but 0."""
    a = np.array([[0.0, -0.0, 1.0], [-1.0, np.nan, 1e-40]], dtype)
    arguments = [np.eye(2, dtype=dtype), a, np.zeros(3, dtype)]
    dy = np.array([[2.0, 3.0, 5.0], [7.0, 11.0, 13.0]], dtype)
    y, *_, dbias, _ = by_twin(arguments, {}, dy, op="dense_relu")
    wanted = by_original(arguments, {}, dy, op="dense_relu")
    np.testing.assert_array_equal(y, wanted[0])
    np.testing.assert_array_equal(dbias, [0, 0, 18 if a[1, 2] else 5])
    np.testing.assert_array_equal(dbias, wanted[3])


# --- what no kernel takes ---

X, W, B = (np.random.default_rng(3).normal(size=s) for s in ((4, 3), (3, 2), (2,)))
Z = np.array([0.5, 0.0, 1.0])
ODD: dict[str, tuple[Any, Any]] = {
    "float16": ([a.astype(np.float16) for a in (X, W, B, Z)], {}),
    "int": ([np.arange(12).reshape(4, 3), np.arange(6).reshape(3, 2), np.arange(2)], {}),
    "float32 and float64": ([X.astype(np.float32), W, B, Z], {}),
    "float32 gates": ([X, W, B, Z.astype(np.float32)], {}),
    "masked": ([np.ma.masked_array(X, X > 1), W, B], {}),
    "complex": ([X, W * 1j, B], {}),
    "no examples": ([X[:0], W, B, Z], {}),
    "no inputs": ([X[:, :0], W[:0], B], {}),
    "no outputs": ([X, W[:, :0], B[:0], Z], {}),
    "one axis": ([X[0], W, B], {}),
    "three axes": ([X[None], W, B], {}),
    "wrong width": ([X, W.T, B], {}),
    "wrong bias": ([X, W, np.ones(3)], {}),
    "a bias of two axes": ([X, W, np.ones((1, 2))], {}),
    "wrong gates": ([X, W, B, np.ones(4)], {}),
    "gates of one row": ([X, W, B, np.ones((1, 3))], {}),
    "gates of another side": ([X, W, B, np.ones(2)], {"on": "inputs"}),
    "gates nowhere": ([X, W, B, Z], {"on": "sides"}),
    "no gates nowhere": ([X, W, B, None], {"on": "sides"}),
    "no gates on outputs": ([X, W, B, None], {"on": "outputs"}),
}


def outcome(function: Any, *args: Any, **options: Any) -> Any:
    """Return what a call gives, or its error and message."""
    try:
        return function(*args, **options)
    except Exception as error:
        return type(error), str(error)


def assert_the_same(got: Any, wanted: Any) -> None:
    assert type(got) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(wanted))
        np.testing.assert_array_equal(np.ma.getdata(got), np.ma.getdata(wanted))
    else:
        assert got == wanted


@both_ops
@pytest.mark.parametrize("kind", ODD)
def test_what_no_kernel_takes_gets_the_originals_answer_or_error(kind: str, op: str) -> None:
    arguments, options = ODD[kind]
    got = outcome(getattr(MODULES[op], op), *arguments, **options)
    wanted = outcome(getattr(ops, op), *arguments, **options)
    if isinstance(wanted[0], type):
        assert got == wanted
        return
    assert_the_same(got[0], wanted[0])
    dy = np.ones_like(wanted[0])
    pulled = (
        getattr(home, f"{op}_vjp")(dy, residuals)
        for home, (_, residuals) in ((MODULES[op], got), (ops, wanted))
    )
    for a, b in zip(*pulled, strict=True):
        if kind == "no gates on outputs" and b is not None:  # a kernel's; rounded, of four terms
            np.testing.assert_allclose(a, b, rtol=1e-14)
        else:
            assert_the_same(a, b)


@both_ops
@pytest.mark.parametrize("kind", ["plain", "inputs", "inputs, example", "weights"])
@pytest.mark.parametrize("odd", ["float32", "float16", "int", "masked", "shape", "list"])
def test_odd_cotangents_get_the_originals_answer_or_error(kind: str, odd: str, op: str) -> None:
    arguments, options, dy = draw(kind, (6, 4, 3), np.float64)
    dy = {
        "float32": lambda: dy.astype(np.float32),
        "float16": lambda: dy.astype(np.float16),
        "int": lambda: (9 * dy).astype(int),
        "masked": lambda: np.ma.masked_array(dy, dy > 1),
        "shape": lambda: dy[:, :2],
        "list": dy.tolist,
    }[odd]()
    got, wanted = (
        outcome(getattr(home, f"{op}_vjp"), dy, getattr(home, op)(*arguments, **options)[1])
        for home in (MODULES[op], ops)
    )
    for a, b in zip(got, wanted, strict=True):
        assert_the_same(a, b)


def test_small_products_run_on_one_thread_and_large_ones_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the shapes above have seen every kernel run both ways."""
    ran, run = set(), Kernel._run

    def spy(kernel: Any, args: Any) -> Any:
        ran.add((kernel.__name__, args[0]))
        return run(kernel, args)

    monkeypatch.setattr(Kernel, "_run", spy)
    kernels = ("affine_in_blocks", "pull_in_blocks")
    by_twin(*draw("inputs", (51, 129, 3), np.float64))
    assert ran == {(name, False) for name in kernels}
    ran.clear()
    by_twin(*draw("inputs", (101, 131, 67), np.float64))
    assert ran == {(name, True) for name in kernels}


# --- products of views ---


@kernel
def _product_of_parts(a, b, out, add):  # type: ignore[no-untyped-def]
    multiply(a[1:, 2:], b[:, 1:-1], out[1:, 3:], add)


@kernel
def _product_turned_over(a, b, out, add):  # type: ignore[no-untyped-def]
    multiply(a[1:, 2:].T, b[:, 1:-1].T, out[1:, 3:], add)


@both_dtypes
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(
    "sizes", [(5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 1, 1), (40, 300, 90)]
)
def test_products_of_views(sizes: tuple[int, int, int], add: bool, dtype: Any) -> None:
    """What lies around the result is not touched; of k products, each rounded and added."""
    m, k, n = sizes
    rng = np.random.default_rng(2)
    for turned, product in ((False, _product_of_parts), (True, _product_turned_over)):
        a, b = ((k, m), (n, k)) if turned else ((m, k), (k, n))
        a = rng.normal(size=(a[0] + 1, a[1] + 2)).astype(dtype)
        b = rng.normal(size=(b[0], b[1] + 2)).astype(dtype)
        out = rng.normal(size=(m + 1, n + 3)).astype(dtype)
        before = out.copy()
        product(a, b, out, add)
        left, right = a[1:, 2:], b[:, 1:-1]
        left, right = (left.T, right.T) if turned else (left, right)
        start = before[1:, 3:] if add else np.zeros((m, n), dtype)
        bound = (k + 2) * np.finfo(dtype).eps * (abs(left) @ abs(right) + abs(start))
        assert (abs(out[1:, 3:] - (start + left @ right)) <= bound).all()
        out[1:, 3:] = before[1:, 3:]
        np.testing.assert_array_equal(out, before)


def test_what_is_done_to_the_output_does_not_reach_the_gradient() -> None:
    rng = np.random.default_rng(3)
    x, weight, dy = rng.normal(size=(3, 4)), rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    y, residuals = jit.TWINS[ops.dense_relu](x, weight, np.zeros(5))
    untouched = jit.TWINS[ops.dense_relu_vjp](dy, residuals)
    y *= -1
    for before, after in zip(untouched, jit.TWINS[ops.dense_relu_vjp](dy, residuals), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("z", "w", "dy"), [(0.0, 1e200, 1e200), (np.inf, 0.0, 1.0)])
def test_an_overflow_meets_its_gate_as_in_the_original(z: float, w: float, dy: float) -> None:
    arrays = np.array([[1.0]]), np.array([[w]]), np.zeros(1), np.array([z])
    with np.errstate(all="ignore"):
        expected = ops.dense_vjp(np.array([[dy]]), ops.dense(*arrays)[1])
        got = jit.TWINS[ops.dense_vjp](np.array([[dy]]), jit.TWINS[ops.dense](*arrays)[1])
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
