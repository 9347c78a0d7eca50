"""Convolution against loops, against SciPy, and its VJP against exact differences of those loops.

Whole numbers first: products and sums of them are exact in float32 too, and a central difference
is the derivative, exactly, as the op is linear in each number alone. So equality is asked for.
Then numbers with all their digits, whose only bound is that of rounding: a sum of k products of
f factors, in any order, has at most k + f roundings of eps / 2 of the sum of sizes.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import signal

from l0ref import ops
from tests import naive_conv as naive
from tests import naive_network
from tests.naive_conv import Geometry

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)
pairs = lambda low, high: st.tuples(*[st.integers(low, high)] * 2)  # noqa: E731


class Form(NamedTuple):
    """Where the gates are, whether drawn for each example, and what they do to the bias."""

    on: str = "outputs"
    per_example: bool = False
    gates_bias: bool = True
    has_bias: bool = True
    has_gates: bool = True


FORMS = {
    "none": Form(has_gates=False),
    "none-bias-apart": Form(has_gates=False, gates_bias=False),
    "none-no-bias": Form(has_gates=False, has_bias=False),
    "map": Form(),
    "map-each": Form(per_example=True),
    "map-bias-apart": Form(gates_bias=False),
    "map-bias-apart-each": Form(gates_bias=False, per_example=True),
    "map-no-bias": Form(has_bias=False),
    "map-no-bias-apart": Form(has_bias=False, gates_bias=False),
    "weight": Form(on="weights"),
    "weight-each": Form(on="weights", per_example=True),
    "weight-bias-apart": Form(on="weights", gates_bias=False),
    "weight-no-bias": Form(on="weights", has_bias=False),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


geometries = st.builds(
    Geometry, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2),
    kernel=pairs(1, 3), stride=pairs(1, 3), padding=pairs(0, 2), dilation=pairs(1, 2),
    spare=pairs(0, 2),
)  # fmt: skip
# N == C_out, and a kernel as large as x: nothing may be taken for anything else by its length.
SAME = Geometry(2, 1, 3, 2, (2, 2), (1, 1), (0, 0), (1, 1), (0, 0))
WIDE = Geometry(3, 2, 1, 2, (3, 2), (2, 1), (1, 2), (1, 2), (2, 1))


def frozen(values: Any, dtype: Any) -> Any:
    """Return an array that no op can write to unnoticed."""
    array = np.asarray(values).astype(dtype)
    array.flags.writeable = False
    return array


def conv_case(form: Form, geometry: Geometry, dtype: Any, draw: Any) -> Any:
    """Arrays filled by draw(shape), and a cotangent of the shape that the loops find."""
    n, weight = geometry.n, geometry.weight_shape
    shapes = {"x": geometry.x_shape, "weight": weight}
    if form.has_bias:
        shapes["bias"] = weight[:1]
    if form.has_gates:
        one_draw = weight if form.on == "weights" else weight[:1]
        shapes["z"] = (n, *one_draw) if form.per_example else one_draw
    arrays = {name: frozen(draw(shape), dtype) for name, shape in shapes.items()}
    out = [
        len(naive.walk(*along))
        for along in zip(geometry.size, geometry.kernel, geometry.stride, geometry.padding,
                         geometry.dilation, strict=True)
    ]  # fmt: skip
    return arrays, frozen(draw((n, weight[0], *out)), dtype)


def run(form: Form, geometry: Geometry, arrays: Any, cotangent: Any) -> tuple[Any, Any]:
    """Return y and the gradients by name."""
    y, residuals = ops.conv2d(**arrays, on=form.on, gates_bias=form.gates_bias, **geometry.options)
    gradients = ops.conv2d_vjp(cotangent, residuals)
    return y, dict(zip(("x", "weight", "bias", "z"), gradients, strict=True))


def loops(form: Form, geometry: Geometry, **arrays: Any) -> Any:
    return naive.conv2d(
        **arrays, on=form.on, per_example=form.per_example, gates_bias=form.gates_bias,
        **geometry.options,
    )  # fmt: skip


@every_form
@given(geometries, st.sampled_from(DTYPES), seeds)
@example(SAME, np.float64, 1)
@example(WIDE, np.float32, 2)
def test_conv_and_its_vjp_on_whole_numbers(
    form: Form, geometry: Geometry, dtype: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # The longest sum is dz: N P K = 3 * 49 * 18 products of 3, below 2^24 as float32 needs.
    arrays, cotangent = conv_case(form, geometry, dtype, lambda s: rng.integers(-6, 7, size=s))
    y, got = run(form, geometry, arrays, cotangent)

    numbers = {name: array.astype(int).tolist() for name, array in arrays.items()}
    weights = cotangent.astype(int).tolist()
    np.testing.assert_array_equal(y, loops(form, geometry, **numbers))
    slopes = naive.gradients_at_once(
        lambda **a: naive.dot(weights, loops(form, geometry, **a)), numbers
    )
    assert y.dtype == dtype
    for name, gradient in got.items():
        if name not in arrays:
            assert gradient is None
            continue
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, np.reshape(slopes[name], arrays[name].shape), name)


@every_form
@both_dtypes
def test_conv_and_its_vjp_to_the_last_digits(form: Form, dtype: Any) -> None:
    """The differences are taken in Fractions, so that the error is the op's alone."""
    geometry = Geometry(2, 2, 1, 1, (2, 2), (2, 1), (0, 1), (1, 2), (2, 2))
    rng = np.random.default_rng(3)
    arrays, cotangent = conv_case(form, geometry, dtype, lambda s: rng.normal(size=s))
    y, got = run(form, geometry, arrays, cotangent)

    def pulled(c: Any, **a: Any) -> Any:
        return naive.dot(c, loops(form, geometry, **a))

    exact = {name: naive_network.convert(a.tolist(), Fraction) for name, a in arrays.items()}
    absolute = {name: np.abs(a).tolist() for name, a in arrays.items()}
    weights = naive_network.convert(cotangent.tolist(), Fraction)
    slopes = naive_network.gradients(lambda **a: pulled(weights, **a), exact, Fraction(1))
    sizes = naive_network.gradients(
        lambda **a: pulled(np.abs(cotangent).tolist(), **a), absolute, 1.0
    )
    # At worst, in dz, a sum over the kernel within one over the maps: their roundings add up.
    unit = np.finfo(dtype).eps / 2 * (arrays["weight"].size + cotangent.size + 4)
    wanted = {"y": (y, naive_network.flat(loops(form, geometry, **exact)),
                    naive_network.flat(loops(form, geometry, **absolute)))}  # fmt: skip
    wanted |= {name: (got[name], slopes[name], sizes[name]) for name in arrays}
    for name, (array, values, size) in wanted.items():
        errors = [abs(Fraction(v) - e) for v, e in zip(array.ravel().tolist(), values, strict=True)]
        assert all(e <= unit * s for e, s in zip(errors, size, strict=True)), name


# --- against SciPy ---


def spread(weight: Any, dilation: tuple[int, int]) -> Any:
    """Put d - 1 zeros between the neighbours of each kernel."""
    *outer, kh, kw = weight.shape
    (d_h, d_w) = dilation
    wide = np.zeros((*outer, d_h * (kh - 1) + 1, d_w * (kw - 1) + 1), weight.dtype)
    wide[..., ::d_h, ::d_w] = weight
    return wide


def pad(x: Any, padding: tuple[int, int]) -> Any:
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))


def scipy_conv(x: Any, weight: Any, geometry: Geometry) -> Any:
    (s_h, s_w), groups = geometry.stride, geometry.groups
    maps = []
    blocks = np.split(pad(x, geometry.padding), groups, axis=1)
    kernels = np.split(spread(weight, geometry.dilation), groups)
    for x_block, w_block in zip(blocks, kernels, strict=True):
        for kernel in w_block:
            maps.append([signal.correlate(image, kernel, mode="valid", method="direct")[0]
                         for image in x_block])  # fmt: skip
    return np.swapaxes(maps, 0, 1)[:, :, ::s_h, ::s_w]


@given(geometries, seeds)
@example(WIDE, 4)
def test_conv_is_scipys_correlation(geometry: Geometry, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays, _ = conv_case(FORMS["none"], geometry, np.float64, lambda s: rng.normal(size=s))
    y, _ = ops.conv2d(**arrays, **geometry.options)
    x, weight, bias = arrays.values()
    size = scipy_conv(np.abs(x), np.abs(weight), geometry) + np.abs(bias)[:, None, None]
    wanted = scipy_conv(x, weight, geometry) + bias[:, None, None]
    # Both sides sum K products and a bias, each in its own order.
    bound = np.finfo(float).eps * (np.prod(weight.shape[1:]) + 2) * size
    assert (np.abs(y - wanted) <= bound).all()


@given(geometries, seeds)
@example(WIDE._replace(padding=(0, 0)), 5)
def test_at_stride_one_the_vjp_is_scipys_full_convolution(geometry: Geometry, seed: int) -> None:
    """Dx is dy convolved with the (mirrored back) kernel; dW is x correlated with dy."""
    geometry = geometry._replace(stride=(1, 1), groups=1)
    rng = np.random.default_rng(seed)
    draw = lambda s: rng.normal(size=s)  # noqa: E731
    arrays, dy = conv_case(FORMS["none-no-bias"], geometry, np.float64, draw)
    _, residuals = ops.conv2d(**arrays, **geometry.options)
    dx, dweight, dbias, dz = ops.conv2d_vjp(dy, residuals)
    assert dbias is dz is None

    def scipy_vjp(x: Any, weight: Any, dy: Any) -> tuple[Any, Any]:
        wide, padded = spread(weight, geometry.dilation), pad(x, geometry.padding)
        (n, c_in), c_out = x.shape[:2], len(weight)
        (p_h, p_w), (d_h, d_w) = geometry.padding, geometry.dilation
        dx = [[sum(signal.convolve(dy[k, o], wide[o, c], mode="full", method="direct")
                   for o in range(c_out)) for c in range(c_in)] for k in range(n)]  # fmt: skip
        dw = [[sum(signal.correlate(padded[k, c], dy[k, o], mode="valid", method="direct")
                   for k in range(n)) for c in range(c_in)] for o in range(c_out)]  # fmt: skip
        height, width = x.shape[2:]
        inside = np.asarray(dx)[:, :, p_h : p_h + height, p_w : p_w + width]
        return inside, np.asarray(dw)[:, :, ::d_h, ::d_w]

    wanted = scipy_vjp(*arrays.values(), dy)
    sizes = scipy_vjp(*(np.abs(a) for a in arrays.values()), np.abs(dy))
    unit = np.finfo(float).eps * (dy.size + 2)
    for got, exact, size in zip((dx, dweight), wanted, sizes, strict=True):
        assert got.shape == exact.shape
        assert (np.abs(got - exact) <= unit * size).all()


# --- what the names promise ---


def test_the_kernel_is_not_mirrored_and_groups_are_blocks_in_order() -> None:
    x = np.arange(1.0, 7).reshape(1, 2, 1, 3)  # maps 1 2 3 and 4 5 6
    weight = np.array([[[[1.0, 10.0]]], [[[100.0, 0.0]]]])
    y, _ = ops.conv2d(x, weight, groups=2)
    np.testing.assert_array_equal(y, [[[[21, 32]], [[400, 500]]]])


def test_an_int_means_both_axes() -> None:
    rng = np.random.default_rng(6)
    x, weight = rng.normal(size=(2, 3, 7, 6)), rng.normal(size=(4, 3, 2, 2))
    one, _ = ops.conv2d(x, weight, stride=2, padding=1, dilation=2)
    two, _ = ops.conv2d(x, weight, stride=[2, 2], padding=(1, 1), dilation=(2, np.int64(2)))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("gates_bias", [True, False])
def test_a_closed_map_is_its_bias_or_nothing_and_feels_its_pull(gates_bias: bool) -> None:
    rng = np.random.default_rng(7)
    x, weight = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(3, 3, 2, 3))
    bias = rng.normal(size=3)
    z = np.array([0.7, 0.0, 1.0])
    y, residuals = ops.conv2d(x, weight, bias, z, gates_bias=gates_bias)
    np.testing.assert_array_equal(y[:, 1], np.full((2, 3, 3), 0.0 if gates_bias else bias[1]))
    dy = rng.normal(size=y.shape)
    dx, dweight, dbias, dz = ops.conv2d_vjp(dy, residuals)
    assert (dweight[1] == 0).all()
    assert (dbias[1] == 0) == gates_bias
    assert (dz != 0).all()
    # The map sends nothing back either: without it, dx is the same.
    _, rest = ops.conv2d(x, weight[::2], None, z[::2])
    without = ops.conv2d_vjp(dy[:, ::2], rest)[0]
    atol = 18 * np.finfo(float).eps * 20  # 18 products, none beyond 20, in another order perhaps
    np.testing.assert_allclose(dx, without, rtol=0, atol=atol)


@every_form
def test_conv_residuals_serve_again(form: Form) -> None:
    rng = np.random.default_rng(8)
    arrays, dy = conv_case(form, WIDE, np.float64, lambda s: rng.normal(size=s))
    options = {"on": form.on, "gates_bias": form.gates_bias}
    _, residuals = ops.conv2d(**arrays, **options, **WIDE.options)
    first = [None if d is None else d.copy() for d in ops.conv2d_vjp(dy, residuals)]
    ops.conv2d_vjp(2 * dy, residuals)
    for one, other in zip(first, ops.conv2d_vjp(dy, residuals), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", ["none", "map", "map-each", "map-bias-apart", "weight",
                                  "weight-each"])  # fmt: skip
@pytest.mark.parametrize("empty", ["n", "c_in", "c_out"])
def test_nothing_in_nothing_out(form: str, empty: str) -> None:
    """No example, no input map, no output map: as after pruning."""
    rng = np.random.default_rng(9)
    geometry = WIDE._replace(groups=1, **{empty: 0})
    arrays, dy = conv_case(FORMS[form], geometry, np.float32, lambda s: rng.normal(size=s))
    y, got = run(FORMS[form], geometry, arrays, dy)
    assert y.shape == dy.shape
    assert y.dtype == np.float32
    for name, array in arrays.items():
        assert got[name].shape == array.shape
        assert got[name].dtype == np.float32
    if empty == "n":
        assert not any(got[name].any() for name in arrays)
    if empty == "c_in":
        bias = arrays["bias"] * np.ones((geometry.n, 1), np.float32)
        if form in ("map", "map-each"):
            bias = bias * arrays["z"]
        np.testing.assert_array_equal(y, np.broadcast_to(bias[:, :, None, None], y.shape))
    if empty == "c_out":
        np.testing.assert_array_equal(got["x"], np.zeros_like(arrays["x"]))


def test_no_map_at_all_with_groups() -> None:
    y, residuals = ops.conv2d(np.ones((2, 0, 3, 4)), np.ones((0, 0, 2, 2)), groups=3)
    assert y.shape == (2, 0, 2, 3)
    assert ops.conv2d_vjp(y, residuals)[0].shape == (2, 0, 3, 4)


def test_nan_stays_in_the_windows_that_see_it() -> None:
    x = np.zeros((1, 1, 3, 4))
    x[0, 0, 0, 0] = np.nan
    y, _ = ops.conv2d(x, np.zeros((1, 1, 2, 2)))
    np.testing.assert_array_equal(np.isnan(y[0, 0]), [[True, False, False], [False] * 3])


@pytest.mark.parametrize("form", ["none", "map", "weight", "weight-each"])
def test_without_dx_the_rest_is_the_same(form: str) -> None:
    rng = np.random.default_rng(12)
    arrays, dy = conv_case(FORMS[form], WIDE, np.float64, lambda s: rng.normal(size=s))
    _, residuals = ops.conv2d(**arrays, on=FORMS[form].on, **WIDE.options)
    dx, *rest = ops.conv2d_vjp(dy, residuals, need_dx=False)
    assert dx is None
    for one, other in zip(rest, ops.conv2d_vjp(dy, residuals)[1:], strict=True):
        np.testing.assert_array_equal(one, other)


# --- with rectifier and pool ---

BLOCK_FORMS = ["none", "none-no-bias", "map", "map-bias-apart", "map-each"]


def block_loops(form: Form, geometry: Geometry, pool: Any, **arrays: Any) -> Any:
    a = loops(form, geometry, **arrays)
    rectified = [[[[max(v, 0 * v) for v in row] for row in m] for m in maps] for maps in a]
    return naive.max_pool2d(rectified, *pool)


@pytest.mark.parametrize("form", BLOCK_FORMS)
@both_dtypes
def test_block_and_its_vjp(form: str, dtype: Any) -> None:
    """Multiples of 1/8, none of which makes a tie or meets a kink: differences of Fractions."""
    geometry = Geometry(2, 1, 2, 3, (2, 1), (1, 2), (1, 0), (1, 1), (3, 5))
    rng = np.random.default_rng(13)
    draw = lambda s: rng.integers(-(2**5), 2**5, size=s) / 8 + 1 / 16  # noqa: E731
    arrays, _ = conv_case(FORMS[form], geometry, dtype, draw)
    pool = ((2, 2), (2, 1), (1, 0))
    options = {"gates_bias": FORMS[form].gates_bias, "kernel_size": pool[0],
               "pool_stride": pool[1], "pool_padding": pool[2]}  # fmt: skip
    y, residuals = ops.conv_relu_pool(**arrays, **options, **geometry.options)
    dy = frozen(draw(y.shape), dtype)
    got = dict(zip(("x", "weight", "bias", "z"), ops.conv_relu_pool_vjp(dy, residuals),
                   strict=True))  # fmt: skip

    exact = {name: naive_network.convert(a.tolist(), Fraction) for name, a in arrays.items()}
    weights = naive_network.convert(dy.tolist(), Fraction)
    forward = lambda **a: block_loops(FORMS[form], geometry, pool, **a)  # noqa: E731
    np.testing.assert_array_equal(y, np.array(forward(**exact), dtype=float))
    assert y.dtype == dtype
    h = Fraction(1, 2**60)  # far below the distance of any two numbers
    slopes = naive_network.gradients(lambda **a: naive.dot(weights, forward(**a)), exact, h)
    for name, array in arrays.items():
        wanted = np.reshape(np.array(slopes[name], dtype=float), array.shape)
        np.testing.assert_array_equal(got[name].astype(float), wanted, name)
        assert got[name].dtype == dtype
    assert all(got[name] is None for name in got if name not in arrays)
    dx, *rest = ops.conv_relu_pool_vjp(dy, residuals, need_dx=False)
    assert dx is None
    for name, one in zip(("weight", "bias", "z"), rest, strict=True):
        np.testing.assert_array_equal(one, got[name])


def test_block_passes_on_all_that_its_ops_take() -> None:
    rng = np.random.default_rng(14)
    draw = lambda *s: rng.normal(size=s)  # noqa: E731
    x, weight, bias, z = draw(2, 4, 12, 13), draw(6, 2, 2, 3), draw(6), draw(6)
    options = {"gates_bias": False, "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1),
               "groups": 2}  # fmt: skip
    a, _ = ops.conv2d(x, weight, bias, z, **options)
    wanted, _ = ops.max_pool2d(np.maximum(a, 0), (3, 2), stride=(2, 1), padding=(1, 0))
    y, _ = ops.conv_relu_pool(
        x, weight, bias, z, **options,
        kernel_size=(3, 2), pool_stride=(2, 1), pool_padding=(1, 0),
    )  # fmt: skip
    np.testing.assert_array_equal(y, wanted)


def test_in_the_block_what_is_never_above_0_feels_nothing() -> None:
    x = np.array([[[[-1.0, 0.0, 2.0, 3.0]]]])
    y, residuals = ops.conv_relu_pool(x, np.ones((1, 1, 1, 1)), kernel_size=(1, 2))
    np.testing.assert_array_equal(y, [[[[0, 3]]]])
    dx, dweight, *_ = ops.conv_relu_pool_vjp(np.array([[[[5.0, 7.0]]]]), residuals)
    np.testing.assert_array_equal(dx, [[[[0, 0, 0, 7]]]])
    assert dweight.item() == 21


# --- sizes ---


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3),
       st.integers(1, 3))  # fmt: skip
@example(5, 5, 3, 0, 1)
@example(6, 3, 2, 0, 1)  # a column is left over
def test_output_size_is_what_walking_counts(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    count = len(naive.walk(size, kernel, stride, padding, dilation))
    if count:
        assert ops.conv_output_size(size, kernel, **options) == count
    else:
        with pytest.raises(ValueError, match=r"kernel must span at most the padded input"):
            ops.conv_output_size(size, kernel, **options)


@pytest.mark.parametrize(
    ("size", "kernel", "options", "message"),
    [
        (4, 5, {}, r"kernel .*padded input, 4 \(size 4, padding 0\), got kernel 5, .*spans 5"),
        (5, 3, {"padding": 1, "dilation": 4}, r"kernel .*7 \(size 5, padding 1\).*4 spans 9"),
        (0, 1, {"padding": 1}, r"size .*integer of at least 1, got 0"),
        (4, 0, {}, r"kernel .*at least 1, got 0"),
        (4, 2, {"stride": 0}, r"stride .*at least 1, got 0"),
        (4, 2, {"padding": -1}, r"padding .*at least 0, got -1"),
        (4, 2, {"dilation": 0}, r"dilation .*at least 1, got 0"),
        (4.0, 2, {}, r"size .*integer.*got 4\.0"),
        (4, 2, {"stride": True}, r"stride .*integer.*got True"),
    ],
)
def test_output_size_refuses(size: Any, kernel: int, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.conv_output_size(size, kernel, **options)


BAD_CONV: list[tuple[dict[str, Any], str]] = [
    ({"x": (4, 5, 6)}, r"x .*\(N, C_in, H, W\), got \(4, 5, 6\)"),
    ({"weight": (6, 2, 3)}, r"weight .*\(C_out, C_in/groups, kh, kw\), got \(6, 2, 3\)"),
    ({"weight": (6, 4, 3, 2)}, r"weight .*\(C_out, 2, kh, kw\).*2 groups, got \(6, 4, 3, 2\)"),
    ({"weight": (6, 1, 3, 2)}, r"weight .*got \(6, 1, 3, 2\)"),
    ({"x": (3, 5, 5, 6)}, r"groups .*C_in and C_out, 5 and 6, got 2"),
    ({"weight": (5, 2, 3, 2)}, r"groups .*4 and 5, got 2"),
    ({"groups": 0}, r"groups .*at least 1, got 0"),
    ({"weight": (6, 2, 0, 2)}, r"kernel .*at least 1, got 0"),
    ({"weight": (6, 2, 3, 7)}, r"kernel .*6 \(size 6, padding 0\), got kernel 7"),
    ({"bias": (1,)}, r"bias .*\(6,\), got \(1,\)"),
    ({"bias": (6, 1, 1)}, r"bias .*\(6,\), got \(6, 1, 1\)"),
    ({"z": (1,)}, r"z .*\(6,\) or \(3, 6\).*outputs, got \(1,\)"),
    ({"z": (3, 6, 1, 1)}, r"z .*got \(3, 6, 1, 1\)"),
    ({"z": (1, 6)}, r"z .*got \(1, 6\)"),
    ({"z": (6,), "on": "weights"}, r"z .*\(6, 2, 3, 2\) or \(3, 6, 2, 3, 2\).*weights, got \(6,\)"),
    ({"z": (6, 1, 3, 2), "on": "weights"}, r"z .*got \(6, 1, 3, 2\)"),
    ({"z": (4,), "on": "inputs"}, r"on .*outputs.*weights.*'inputs'"),
    ({"stride": 0}, r"stride .*at least 1, got 0"),
    ({"stride": (1, 2, 1)}, r"stride .*pair of ints, got \(1, 2, 1\)"),
    ({"stride": 1.5}, r"stride .*integer.*got 1\.5"),
    ({"padding": (0, -1)}, r"padding .*at least 0, got -1"),
    ({"padding": "same"}, r"padding .*pair of ints, got 'same'"),
    ({"dilation": (0, 1)}, r"dilation .*at least 1, got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD_CONV)
def test_conv_refuses(change: dict[str, Any], message: str) -> None:
    arrays: dict[str, Any] = {"x": (3, 4, 5, 6), "weight": (6, 2, 3, 2), "bias": (6,)}
    options = {"groups": 2} | {k: v for k, v in change.items() if k not in (*arrays, "z")}
    arrays |= {k: v for k, v in change.items() if k in (*arrays, "z")}
    with pytest.raises(ValueError, match=message):
        ops.conv2d(**{name: np.ones(shape) for name, shape in arrays.items()}, **options)


@pytest.mark.parametrize("shape", [(3, 6, 3, 1), (6, 3, 5), (1, 6, 3, 5), (3, 6, 5, 3)])
def test_conv_vjp_refuses_a_cotangent_of_another_shape(shape: tuple[int, ...]) -> None:
    _, residuals = ops.conv2d(np.ones((3, 4, 5, 6)), np.ones((6, 4, 3, 2)))
    with pytest.raises(ValueError, match=r"dy .*\(3, 6, 3, 5\), got"):
        ops.conv2d_vjp(np.ones(shape), residuals)


# --- dense: gates on the outputs that leave the bias alone ---


@pytest.mark.parametrize("per_example", [False, True])
@both_dtypes
@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 2, 3)])  # (N, D_in, D_out)
def test_dense_with_the_bias_apart(per_example: bool, dtype: Any, shape: Any) -> None:
    n, d_in, d_out = shape
    rng = np.random.default_rng(10)
    shapes = {"x": (n, d_in), "weight": (d_in, d_out), "bias": (d_out,),
              "z": (n, d_out) if per_example else (d_out,)}  # fmt: skip
    arrays = {name: frozen(rng.integers(-9, 10, size=s), dtype) for name, s in shapes.items()}
    dy = frozen(rng.integers(-9, 10, size=(n, d_out)), dtype)
    y, residuals = ops.dense(*arrays.values(), on="outputs", gates_bias=False)
    got = ops.dense_vjp(dy, residuals)

    def loops(**a: Any) -> Any:
        return naive_network.dense(**a, on="outputs", per_example=per_example, gates_bias=False)

    numbers = {name: a.astype(int).tolist() for name, a in arrays.items()}
    np.testing.assert_array_equal(y, loops(**numbers))
    weights = dy.astype(int).tolist()
    slopes = naive.gradients_at_once(lambda **a: naive.dot(weights, loops(**a)), numbers)
    assert y.dtype == dtype
    for (name, array), gradient in zip(arrays.items(), got, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, np.reshape(slopes[name], array.shape), name)


@pytest.mark.parametrize("on", ["inputs", "weights", "outputs"])
def test_without_gates_on_the_outputs_the_bias_is_apart_anyway(on: str) -> None:
    rng = np.random.default_rng(11)
    x, weight, bias = rng.normal(size=(3, 2)), rng.normal(size=(2, 4)), rng.normal(size=4)
    z = {"inputs": rng.uniform(size=2), "weights": rng.uniform(size=(2, 4)), "outputs": None}[on]
    dy = rng.normal(size=(3, 4))
    results = []
    for gates_bias in (True, False):
        y, residuals = ops.dense(x, weight, bias, z, on=on, gates_bias=gates_bias)
        results.append((y, *ops.dense_vjp(dy, residuals)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
