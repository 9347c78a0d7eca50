"""The kernels of convolution against the NumPy originals.

Whole numbers first: sums of them are exact, in any order, so that equality is asked for, and ties
are met all the time. Then numbers with all their digits: a sum of k products of f factors, in any
order, has at most k + f roundings of eps / 2 of the sum of sizes, on each side.
"""

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from l0ref import jit, ops
from l0ref.jit import conv, conv_block
from l0ref.jit._tiles import (
    FEW,
    MANY,
    MAPS,
    PHASES,
    add_few,
    add_many,
    multiply,
    onward,
    pointer,
)
from l0ref.jit._vectors import BYTES
from tests.naive_conv import Geometry
from tests.without_numba import run_without_numba

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
pairs = lambda low, high: st.tuples(*[st.integers(low, high)] * 2)  # noqa: E731
few = settings(max_examples=25)
ALL = ("dx", "dweight", "dbias", "dz")


@pytest.fixture(autouse=True, scope="module")
def _one_blas_thread() -> Any:
    with jit.one_blas_thread():
        yield


geometries = st.builds(
    Geometry, st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
    kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 4), dilation=pairs(1, 2),
    spare=pairs(0, 3),
)  # fmt: skip
WIDE = Geometry(3, 2, 1, 2, (3, 2), (2, 1), (1, 2), (1, 2), (2, 1))
LARGE = Geometry(37, 1, 5, 4, (5, 3), (1, 1), (2, 0), (1, 1), (14, 19))  # more than one block
FORMS = {
    "none": {},
    "no-bias": {"bias": False},
    "map": {"z": "map"},
    "map-bias-apart": {"z": "map", "gates_bias": False},
    "map-each": {"z": "each"},
    "map-each-bias-apart": {"z": "each", "gates_bias": False, "bias": False},
    "weight": {"z": "weight"},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def case(form: dict[str, Any], geometry: Geometry, dtype: Any, draw: Any) -> Any:
    """Arguments and options of conv2d."""
    weight = geometry.weight_shape
    z_shapes = {"map": weight[:1], "each": (geometry.n, *weight[:1]), "weight": weight}
    z = draw(z_shapes[form["z"]]) if "z" in form else None
    arrays = {
        "x": frozen(draw(geometry.x_shape), dtype),
        "weight": frozen(draw(weight), dtype),
        "bias": frozen(draw(weight[:1]), dtype) if form.get("bias", True) else None,
        "z": None if z is None else frozen(z, dtype),
    }
    options = geometry.options | {"gates_bias": form.get("gates_bias", True)}
    return arrays, options | {"on": "weights" if form.get("z") == "weight" else "outputs"}


def whole(rng: Any) -> Any:
    return lambda shape: rng.integers(-3, 4, size=shape)


def map_major(a: Any) -> Any:
    return np.ascontiguousarray(a.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3)


def is_map_major(a: Any) -> bool:
    return bool(a.transpose(1, 0, 2, 3).flags.c_contiguous)


def same(got: Any, wanted: Any) -> None:
    """All arrays (or None) the same, of the same dtype; NaN where NaN is."""
    for name, one, other in zip(("y", *ALL), got, wanted, strict=True):
        if other is None:
            assert one is None, name
        else:
            assert one.dtype == other.dtype, name
            np.testing.assert_array_equal(one, other, name)


def both(module: Any, name: str, arrays: Any, options: Any, dy: Any, **vjp: Any) -> tuple[Any, Any]:
    """y and gradients of the twin, and of the original; dy is called with y's shape."""
    forward, pull = getattr(ops, name), getattr(ops, f"{name}_vjp")
    y, residuals = forward(**arrays, **options)
    cotangent = dy(y.shape) if callable(dy) else dy
    wanted = (y, *pull(cotangent, residuals, **vjp))
    y, residuals = getattr(module, name)(**arrays, **options)
    return (y, *getattr(module, f"{name}_vjp")(cotangent, residuals, **vjp)), wanted


@every_form
@few
@given(geometries, st.sampled_from(DTYPES), seeds)
@example(WIDE, np.float32, 1)
@example(LARGE, np.float32, 2)
def test_conv_on_whole_numbers(form: Any, geometry: Geometry, dtype: Any, seed: int) -> None:
    draw = whole(np.random.default_rng(seed))
    arrays, options = case(form, geometry, dtype, draw)
    dy = lambda shape: frozen(draw(shape), dtype)  # noqa: E731
    got, wanted = both(conv, "conv2d", arrays, options, dy)
    same(got, wanted)
    assert is_map_major(got[0])
    assert is_map_major(got[1])


def bounds(name: str, arrays: Any, options: Any, dy: Any, terms: int) -> Any:
    """What rounding may amount to on two sides: terms eps of the sums of sizes."""
    sizes = {k: None if a is None else np.abs(a) for k, a in arrays.items()}
    y, residuals = getattr(ops, name)(**sizes, **options)
    size = (y, *getattr(ops, f"{name}_vjp")(np.abs(dy), residuals))
    return [None if s is None else terms * np.finfo(dy.dtype).eps * s for s in size]


@every_form
@both_dtypes
@pytest.mark.parametrize("geometry", [WIDE, LARGE], ids=["wide", "large"])
def test_conv_to_the_last_digits(form: Any, dtype: Any, geometry: Geometry) -> None:
    rng = np.random.default_rng(3)
    draw = lambda shape: rng.normal(size=shape)  # noqa: E731
    arrays, options = case(form, geometry, dtype, draw)
    y, _ = ops.conv2d(**arrays, **options)
    dy = frozen(draw(y.shape), dtype)
    got, wanted = both(conv, "conv2d", arrays, options, dy)
    # The longest: dz, a sum over a map within one over the places of all examples.
    terms = arrays["weight"][0].size + dy.size // dy.shape[1] + 4
    for one, other, bound in zip(
        got, wanted, bounds("conv2d", arrays, options, dy, terms), strict=True
    ):
        assert (one is None) == (other is None)
        if one is not None:
            assert (np.abs(one - other) <= bound).all()


@every_form
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "z", "dy"])
def test_what_is_not_finite_goes_where_the_originals_goes(
    form: Any, value: float, where: str
) -> None:
    draw = whole(np.random.default_rng(4))
    arrays, options = case(form, WIDE, np.float64, draw)
    y, _ = ops.conv2d(**arrays, **options)
    dy = draw(y.shape).astype(float)
    if where == "dy":
        dy[1, 2, 1, 0] = value
    elif arrays[where] is not None:
        arrays[where] = arrays[where].copy()
        arrays[where].flat[arrays[where].size // 2] = value
    with np.errstate(invalid="ignore"):
        same(*both(conv, "conv2d", arrays, options, dy))


def views(a: Any) -> Any:
    """The same numbers, in other places: of two axes swapped, of every other one, backwards."""
    padded = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    padded[..., ::2] = a
    return [map_major(a), padded[..., ::2], a[::-1].copy()[::-1], np.asfortranarray(a)]


def test_any_strides_and_residuals_serve_again() -> None:
    draw = whole(np.random.default_rng(5))
    arrays, options = case(FORMS["map"], LARGE, np.float32, draw)
    y, _ = ops.conv2d(**arrays, **options)
    dy = draw(y.shape).astype(np.float32)
    wanted, _ = both(conv, "conv2d", arrays, options, dy)
    for x, weight, cotangent in zip(*map(views, (arrays["x"], arrays["weight"], dy)), strict=True):
        changed = arrays | {"x": x, "weight": weight}
        same(both(conv, "conv2d", changed, options, cotangent)[0], wanted)
    y, residuals = conv.conv2d(**arrays, **options)
    conv.conv2d_vjp(2 * dy, residuals)
    same((y, *conv.conv2d_vjp(dy, residuals)), wanted)
    # The residuals are the original's: either VJP takes either's.
    same((y, *ops.conv2d_vjp(dy, residuals)), wanted)
    same((y, *conv.conv2d_vjp(dy, ops.conv2d(**arrays, **options)[1])), wanted)


MODULES = {"conv2d": conv, "conv_relu_pool": conv_block}
every_op = pytest.mark.parametrize("name", MODULES)


def options_of(name: str, geometry: Geometry, **others: Any) -> dict[str, Any]:
    return geometry.options | ({"kernel_size": 2} if name == "conv_relu_pool" else {}) | others


@every_op
def test_without_dx(name: str) -> None:
    draw = whole(np.random.default_rng(6))
    arrays, _ = case(FORMS["map"], LARGE, np.float64, draw)
    got, wanted = both(MODULES[name], name, arrays, options_of(name, LARGE), draw, need_dx=False)
    same(got, wanted)
    assert got[1] is None


@every_op
def test_one_thread_or_two_are_the_same_bits(name: str) -> None:
    rng = np.random.default_rng(7)
    draw = lambda shape: rng.normal(size=shape)  # noqa: E731
    arrays, _ = case(FORMS["map"], LARGE, np.float32, draw)
    options = options_of(name, LARGE)
    module = MODULES[name]
    y, residuals = getattr(module, name)(**arrays, **options)
    dy = frozen(draw(y.shape), np.float32)
    before, results = jit.get_num_threads(), []
    for threads in sorted({1, before}):
        jit.set_num_threads(threads)
        try:
            y, residuals = getattr(module, name)(**arrays, **options)
            results.append((y, *getattr(module, f"{name}_vjp")(dy, residuals)))
        finally:
            jit.set_num_threads(before)
    same(results[0], results[-1])


@every_op
@pytest.mark.parametrize("kind", ["float16", "int", "masked", "mixed", "no example", "no map in",
                                  "no map out"])  # fmt: skip
def test_what_is_not_for_the_kernel_is_for_the_original(name: str, kind: str) -> None:
    draw = whole(np.random.default_rng(8))
    changes = {"no example": {"n": 0}, "no map in": {"c_in": 0}, "no map out": {"c_out": 0}}
    geometry = WIDE._replace(groups=1, spare=(3, 3), **changes.get(kind, {}))
    dtype = {"float16": np.float16, "int": np.int64}.get(kind, np.float64)
    arrays, _ = case(FORMS["map"], geometry, dtype, draw)
    if kind == "masked":
        arrays["x"] = np.ma.masked_array(arrays["x"])
    if kind == "mixed":
        arrays["z"] = arrays["z"].astype(np.float32)
    dy = lambda shape: draw(shape).astype(dtype)  # noqa: E731
    if name == "conv_relu_pool" and kind == "int":  # max_pool2d pads with -inf, else it is exact
        dy = lambda shape: draw(shape).astype(float)  # noqa: E731
    same(*both(MODULES[name], name, arrays, options_of(name, geometry), dy))


@every_op
def test_a_cotangent_of_another_dtype_or_shape(name: str) -> None:
    draw = whole(np.random.default_rng(9))
    arrays, _ = case(FORMS["map"], LARGE, np.float32, draw)
    options, module = options_of(name, LARGE), MODULES[name]
    same(*both(module, name, arrays, options, lambda s: draw(s).astype(np.float64)))
    y, residuals = getattr(module, name)(**arrays, **options)
    with pytest.raises(ValueError, match=r"dy must have shape"):
        getattr(module, f"{name}_vjp")(y[1:], residuals)


@every_op
@pytest.mark.parametrize(
    "change", [{"stride": 0}, {"groups": 2}, {"padding": (1, 2, 3)}, {"bias": np.ones(3)},
               {"z": np.ones(7)}, {"x": np.ones((3, 5, 6))}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_errors_are_the_originals(name: str, change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"x": np.ones((3, 5, 6, 7)), "weight": np.ones((4, 5, 2, 2))}
    arguments |= options_of(name, WIDE._replace(groups=1)) | change
    with pytest.raises(ValueError, match=r"must") as wanted:
        getattr(ops, name)(**arguments)
    with pytest.raises(ValueError, match=r"must") as got:
        getattr(MODULES[name], name)(**arguments)
    assert str(got.value) == str(wanted.value)


# --- convolution, rectifier and pool in one ---

blocks = st.builds(
    Geometry, st.integers(1, 5), st.just(1), st.integers(1, 12), st.integers(1, 4),
    kernel=pairs(1, 4), stride=pairs(1, 2), padding=pairs(0, 2),
    dilation=st.tuples(st.integers(1, 2), st.just(1)), spare=pairs(4, 9),
)  # fmt: skip
pools = st.sampled_from(
    [{"kernel_size": 2}, {"kernel_size": (2, 3)}, {"kernel_size": 3, "pool_stride": 2},
     {"kernel_size": (1, 2), "pool_stride": (2, 3)}]
)  # fmt: skip
HALVES = {"kernel_size": 2}


@pytest.mark.parametrize("form", [f for f in FORMS if f != "weight"])
@few
@given(blocks, pools, st.booleans(), st.sampled_from(DTYPES), seeds)
@example(LARGE, HALVES, True, np.float32, 10)
@example(LARGE, HALVES, False, np.float32, 11)
@example(LARGE._replace(c_in=11), {"kernel_size": 3, "pool_stride": 2}, True, np.float64, 12)
@example(LARGE._replace(n=9, c_out=13), {"kernel_size": (2, 3)}, True, np.float32, 13)
def test_the_block_on_whole_numbers(
    form: str, geometry: Geometry, pool: Any, need_dx: bool, dtype: Any, seed: int
) -> None:
    """Of so few values nearly every window of the pool holds ties."""
    draw = whole(np.random.default_rng(seed))
    arrays, options = case(FORMS[form], geometry, dtype, draw)
    del options["on"]
    y, residuals = conv_block.conv_relu_pool(**arrays, **options, **pool)
    assert isinstance(residuals, conv_block.Fused)
    got, wanted = both(
        conv_block, "conv_relu_pool", arrays, options | pool,
        lambda shape: frozen(draw(shape), dtype), need_dx=need_dx,
    )  # fmt: skip
    same(got, wanted)
    assert is_map_major(y)
    assert not need_dx or is_map_major(got[1])


@pytest.mark.parametrize("form", [f for f in FORMS if f != "weight"])
@pytest.mark.parametrize("need_dx", [True, False])
@both_dtypes
def test_the_block_to_the_last_digits(form: str, need_dx: bool, dtype: Any) -> None:
    rng = np.random.default_rng(13)
    draw = lambda shape: rng.normal(size=shape)  # noqa: E731
    arrays, options = case(FORMS[form], LARGE, dtype, draw)
    del options["on"]
    options |= HALVES
    y, _ = ops.conv_relu_pool(**arrays, **options)
    dy = frozen(draw(y.shape), dtype)
    got, wanted = both(conv_block, "conv_relu_pool", arrays, options, dy, need_dx=need_dx)
    # Sizes from a pool that gives all of dy to everything that it sees: its windows do not overlap.
    conv_options = {k: v for k, v in options.items() if k != "kernel_size"}
    sizes = {k: None if a is None else np.abs(a) for k, a in arrays.items()}
    a, residuals = ops.conv2d(**sizes, **conv_options)
    spread = np.zeros(a.shape, dtype)
    h, w = (2 * size for size in dy.shape[2:])
    spread[:, :, :h, :w] = np.abs(dy).repeat(2, axis=2).repeat(2, axis=3)
    size = (ops.max_pool2d(a, 2)[0], *ops.conv2d_vjp(spread, residuals))
    terms = arrays["weight"][0].size + dy.size // dy.shape[1] + 4
    for one, other, most in zip(got, wanted, size, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (np.abs(one - other) <= terms * np.finfo(dtype).eps * most).all()


@pytest.mark.parametrize("form", [f for f in FORMS if f != "weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "z", "dy"])
@pytest.mark.parametrize("need_dx", [True, False])
def test_in_the_block_what_is_not_finite_is_for_the_original(
    form: str, value: float, where: str, need_dx: bool
) -> None:
    draw = whole(np.random.default_rng(14))
    geometry = WIDE._replace(groups=1, c_in=3, spare=(5, 4), dilation=(2, 1))
    arrays, options = case(FORMS[form], geometry, np.float64, draw)
    del options["on"]
    options |= HALVES
    y, _ = ops.conv_relu_pool(**arrays, **options)
    for place in range(2):
        dy = draw(y.shape).astype(float)
        changed = dict(arrays)
        if where == "dy":
            dy[1, 1, 0, place] = value
        elif arrays[where] is not None:
            changed[where] = arrays[where].copy()
            changed[where].flat[arrays[where].size // 2 - place] = value
        with np.errstate(invalid="ignore"):
            same(*both(conv_block, "conv_relu_pool", changed, options, dy, need_dx=need_dx))


@pytest.mark.parametrize("form", [f for f in FORMS if f != "weight"])
@pytest.mark.parametrize(("gate", "side_by_side"), [
    (2.0, (0, 3e38, 0)), (1.0, (0, 3e38, 3e38)), (0.5, (0, 3e38, 3e38)),
    (1.0, (-3e38, 3e38, 3e38)), (0.25, (-3e38, 3e38, 3e38)),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("pool", [HALVES, {"kernel_size": 3, "pool_stride": 2}], ids=str)
def test_in_the_block_what_overflows_is_for_the_original(
    form: str, gate: float, side_by_side: tuple[float, float, float], pool: Any
) -> None:
    """NaN where infinity meets a weight of 0, and nowhere else: not on what no window looks at.

    Where windows overlap, one number may feel two dy that lie side by side.
    """
    draw = whole(np.random.default_rng(17))
    geometry = WIDE._replace(n=2, groups=1, c_in=3, spare=(5, 8), dilation=(2, 1))
    arrays, options = case(FORMS[form], geometry, np.float32, draw)
    del options["on"]
    options |= pool
    if arrays["z"] is not None:
        arrays["z"] = np.full(arrays["z"].shape, gate, np.float32)
    y, residuals = conv_block.conv_relu_pool(**arrays, **options)
    assert isinstance(residuals, conv_block.Fused)
    with np.errstate(all="ignore"):
        for h, w in np.ndindex(y.shape[2], y.shape[3] - 2):
            dy = draw(y.shape).astype(np.float32)
            dy[1, 1, h, w : w + 3] = side_by_side
            got, wanted = both(conv_block, "conv_relu_pool", arrays, options, dy)
            # Terms of both signs that overflow in some order of adding: BLAS has its own.
            unsure = sums_of_sizes(arrays, options, dy) > np.finfo(np.float32).max
            for gradients in (got, wanted):
                gradients[2][unsure] = 0
            same(got, wanted)


def sums_of_sizes(arrays: Any, options: Any, dy: Any) -> Any:
    """What dweight would be if no term of it were negative, in float64."""
    wide = {name: None if a is None else a.astype(float) for name, a in arrays.items()}
    _, (of_conv, positive, of_pool) = ops.conv_relu_pool(**wide, **options)
    da = ops.relu_vjp(ops.max_pool2d_vjp(abs(dy.astype(float)), of_pool), positive)
    return ops.conv2d_vjp(da, of_conv._replace(x=abs(of_conv.x)))[1]


@pytest.mark.parametrize(
    "change",
    [{"groups": 2}, {"dilation": (1, 2)}, {"pool_padding": 1}, {"pool_stride": 1},
     {"kernel_size": (1, 2)}],
    ids=str,
)  # fmt: skip
def test_a_block_that_is_not_of_the_usual_kind_is_three_ops(change: dict[str, Any]) -> None:
    draw = whole(np.random.default_rng(15))
    geometry = Geometry(3, 1, 4, 6, (2, 3), (1, 1), (0, 1), (1, 1), (8, 9))
    if "groups" in change:
        geometry = geometry._replace(groups=2, c_in=2, c_out=3)
    arrays, options = case(FORMS["map"], geometry, np.float64, draw)
    del options["on"]
    options |= HALVES | change
    _, residuals = conv_block.conv_relu_pool(**arrays, **options)
    assert not isinstance(residuals, conv_block.Fused)
    same(*both(conv_block, "conv_relu_pool", arrays, options, draw))
    same(*both(conv_block, "conv_relu_pool", arrays, options, draw, need_dx=False))


def test_a_closed_map_costs_its_weights_nothing_and_feels_its_pull() -> None:
    draw = whole(np.random.default_rng(16))
    arrays, options = case(FORMS["map-bias-apart"], LARGE, np.float64, draw)
    del options["on"]
    arrays["z"] = np.array([0.0, 1.0, 0.0, 0.5])
    arrays["bias"] = np.array([3.0, -1.0, 0.0, 2.0])
    got, wanted = both(conv_block, "conv_relu_pool", arrays, options | HALVES, draw)
    same(got, wanted)
    assert not got[2][0].any()
    assert got[4][0] != 0


# --- the tiles that it is made of ---


@numba.njit
def _in_tiles(which, weights, at, n, values, table, out, places):  # type: ignore[no-untyped-def]
    w, v, o = pointer(weights, 0), onward(pointer(values, 1), 2), pointer(out, 0)
    if which == 0:
        multiply(w, n, v, pointer(table, 0), o, 70)
    elif which == 1:
        add_few(w, pointer(at, 0), n, v, pointer(table, 0), o, pointer(places, 0))
    else:
        add_many(w, pointer(at, 0), n, v, pointer(table, 0), o, pointer(places, 0))


@pytest.mark.parametrize("n", [0, 1, 6])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["multiply", "add_few", "add_many"])
@both_dtypes
def test_tiles_are_the_sums_that_they_say(which: int, n: int, dtype: Any) -> None:
    draw = np.random.default_rng(18).integers
    lanes = BYTES // np.dtype(dtype).itemsize
    weights, values = (draw(-9, 10, size).astype(dtype) for size in (7 * MAPS, 200 + lanes))
    at, table = draw(0, 50, 7).astype(np.int32), draw(0, 140, 7 * PHASES).astype(np.int32)
    # The last vector overlaps the one before, and what that has added must not be lost.
    places = np.arange(MANY, dtype=np.int32) * lanes
    places[-1] -= lanes - 3
    start = draw(-9, 10, MAPS * PHASES * 70 + lanes).astype(dtype)
    got, wanted = start.copy(), start.copy()
    _in_tiles(which, weights, at, n, values, table, got, places)
    if which == 0:
        for m in range(MAPS):
            for q in range(PHASES):
                for lane in range(lanes):
                    wanted[(m * PHASES + q) * 70 + lane] = sum(
                        weights[k * MAPS + m] * values[3 + table[k * PHASES + q] + lane]
                        for k in range(n)
                    )
    else:
        for q in range(FEW if which == 1 else MANY):
            for lane in range(lanes):
                wanted[places[q] + lane] += sum(
                    weights[k] * values[3 + at[k] + table[q] + lane] for k in range(n)
                )
    np.testing.assert_array_equal(got, wanted)


def test_without_compiling() -> None:
    """The kernels are valid Python: with the compiler switched off they give the same."""
    source = """
import numpy as np
from l0ref import ops
from l0ref.jit import conv, conv_block
rng = np.random.default_rng(17)
draw = lambda *shape: rng.integers(-3, 4, size=shape).astype(np.float32)
x, weight, bias, z = draw(3, 2, 6, 7), draw(4, 2, 3, 2), draw(4), draw(4)
for module, name, options in ((conv, "conv2d", {"padding": 1, "stride": 2}),
                              (conv_block, "conv_relu_pool", {"kernel_size": 2})):
    for need_dx in (True, False):
        y, residuals = getattr(ops, name)(x, weight, bias, z, **options)
        dy = draw(*y.shape)
        wanted = y, *getattr(ops, name + "_vjp")(dy, residuals, need_dx=need_dx)
        y, residuals = getattr(module, name)(x, weight, bias, z, **options)
        got = y, *getattr(module, name + "_vjp")(dy, residuals, need_dx=need_dx)
        for one, other in zip(got, wanted, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype
print("done")
"""
    assert run_without_numba(source) == "done"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_no_window_of_the_pool_sees_counts_all_the_same(bad: float) -> None:
    x, weight = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    x[0, 0, -1, -1] = bad  # seen by the last of 3 places, of which 2 are pooled
    own, originals = ops.conv_relu_pool(x, weight, kernel_size=2)
    y, residuals = jit.TWINS[ops.conv_relu_pool](x, weight, kernel_size=2)
    dy = np.full(y.shape, 0.5)
    with np.errstate(all="ignore"):
        expected = ops.conv_relu_pool_vjp(dy, originals)
        got = jit.TWINS[ops.conv_relu_pool_vjp](dy, residuals)
    np.testing.assert_array_equal(y, own)
    np.testing.assert_array_equal(got[1], expected[1])
    assert np.isnan(expected[1]).any()
