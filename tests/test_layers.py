"""Layers: gates, noise and ops together, against loops and mpmath differences of the loops."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from l0ref.gates import by_label, per_input, per_output, per_weight
from l0ref.layers import (
    AddPattern,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    Normalize,
    ReLU,
    Select,
    Tanh,
)
from l0ref.network import Network
from tests import naive_conv, naive_convnet
from tests import naive_network as naive
from tests.mp_reference import mp

HYPER = {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}
EXACT_HYPER = {name: mp.mpf(value) for name, value in HYPER.items()}
SHAPE = (3, 4)
LABELS = [[0, 3, 1, 1], [2, 2, 1, 0], [1, 3, 3, 4]]
FAMILIES: dict[str, Any] = {
    "none": None,
    "weights": per_weight(SHAPE, **HYPER),
    "inputs": per_input(SHAPE, **HYPER),
    "outputs": per_output(SHAPE, **HYPER),
    "outputs and bias": per_output(SHAPE, gates_bias=True, **HYPER),
    "labels": by_label(LABELS, **HYPER),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
FORMS = [f for f in product(FAMILIES, (False, True)) if f != ("none", True)]


def layer_of(family: str, dtype: Any = np.float64, *, per_example: bool = False) -> Any:
    gates = FAMILIES[family]
    rng = np.random.default_rng(1)
    parameters = [rng.normal(size=SHAPE), rng.normal(size=SHAPE[1])]
    if gates is not None:
        parameters.append(rng.normal(0.3, 1.5, size=gates.shape))
    weight, bias, *log_alpha = (p.astype(dtype) for p in parameters)
    return Dense(weight, bias, gates, *log_alpha, per_example=per_example)


def stage_of(layer: Dense, u: Any, number: Any) -> naive.Dense:
    values = {n: naive.convert(a.tolist(), number) for n, a in layer.params.items()}
    gates = layer.gates
    if gates is None:
        return naive.Dense(**values)
    labels = None if gates.labels is None else gates.labels.tolist()
    u = None if u is None else naive.convert(u.tolist(), number)
    return naive.Dense(**values, on=gates.on, u=u, per_example=layer.per_example, labels=labels,
                       gates_bias=gates.gates_bias)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("family", "per_example"), FORMS)
@pytest.mark.parametrize("n", [2, 3])  # 3 = D_in: a draw an example is no matrix of gates
def test_dense_forward_and_backward(family: str, per_example: bool, dtype: Any, n: int) -> None:
    layer = layer_of(family, dtype, per_example=per_example)
    rng = np.random.default_rng(n)
    x, dy = rng.normal(size=(n, 3)).astype(dtype), rng.normal(size=(n, 4)).astype(dtype)
    gates = FAMILIES[family]
    expected_shape = None if gates is None else (n, *gates.shape) if per_example else gates.shape
    assert layer.noise_shape(x.shape) == expected_shape
    assert layer.output_shape(x.shape) == (n, 4)
    u = None if expected_shape is None else rng.uniform(0.03, 0.97, size=expected_shape)
    for array in (x, dy, *layer.params.values()):
        array.flags.writeable = False
    y, residuals = layer.forward(x, u)
    dx, grads = layer.backward(dy, residuals)

    stage = stage_of(layer, u, mp.mpf)
    cotangent = naive.convert(dy.tolist(), mp.mpf)
    points = {"x": naive.convert(x.tolist(), mp.mpf)}
    points |= {name: getattr(stage, name) for name in layer.params}

    def pulled(x: Any, **changed: Any) -> Any:
        rows = naive.logits([stage._replace(**changed)], x, mp, **EXACT_HYPER)
        return sum(c * v for c_row, row in zip(cotangent, rows, strict=True)
                   for c, v in zip(c_row, row, strict=True))  # fmt: skip

    exact_y = naive.flat(naive.logits([stage], points["x"], mp, **EXACT_HYPER))
    slopes = naive.gradients(pulled, points, mp.mpf("1e-20"))
    # Numbers of size 1 to 3, a dozen of them in a sum, through a gate that is right to 8 eps.
    atol = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(y.ravel(), [float(v) for v in exact_y], rtol=0, atol=atol)
    assert grads.keys() == layer.params.keys()
    for name, d in {"x": dx, **grads}.items():
        assert d.dtype == dtype, name
        assert d.shape == np.shape(points[name])
        expected = np.array([float(v) for v in slopes[name]])
        np.testing.assert_allclose(d.ravel(), expected, rtol=0, atol=atol, err_msg=name)


@every_family
@pytest.mark.parametrize("per_example", [False, True])
def test_at_test_time_the_layer_is_eq_13(family: str, per_example: bool) -> None:
    """One set of gates for all, in the pass as in `test_time_weights`, as the loops have it."""
    layer = layer_of(family, per_example=per_example)
    if "log_alpha" in layer.params:
        layer.params["log_alpha"].flat[0] = -9.0  # one is closed, one is all open
        layer.params["log_alpha"].flat[1] = 9.0
    x = np.random.default_rng(2).normal(size=(5, 3))
    y, _ = layer.forward(x, None)
    expected = naive.logits([stage_of(layer, None, float)], x.tolist(), **HYPER)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
    weight, bias = layer.test_time_weights()
    np.testing.assert_allclose(x @ weight + bias, expected, rtol=0, atol=1e-14)
    assert weight.shape == SHAPE
    assert bias.shape == SHAPE[1:]


def test_backward_of_test_time_gates_is_refused() -> None:
    layer = layer_of("inputs")
    _, residuals = layer.forward(np.ones((2, 3)), None)
    with pytest.raises(ValueError, match="noise"):
        layer.backward(np.ones((2, 4)), residuals)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "none"])
def test_nan_log_alpha_is_nan_never_a_closed_gate(family: str) -> None:
    layer = layer_of(family)
    layer.params["log_alpha"].flat[0] = np.nan
    x = np.ones((2, 3))
    for u in (None, np.full(layer.noise_shape(x.shape), 0.3)):
        assert np.isnan(layer.forward(x, u)[0]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inputs", None, None), r"gates and log_alpha .*together"),
        (("inputs", (5, 4), (3,)), r"gates .*\(3, 4\), got \(5, 4\)"),
        (("inputs", SHAPE, (4,)), r"log_alpha .*\(3,\), got \(4,\)"),
        (("inputs", SHAPE, (1,)), r"log_alpha .*\(3,\), got \(1,\)"),
        (("none", SHAPE, (3,)), r"gates and log_alpha .*together"),
    ],
)
def test_dense_refuses(arguments: Any, message: str) -> None:
    family, weight_shape, alpha_shape = arguments
    weight = np.ones(weight_shape or SHAPE)
    log_alpha = None if alpha_shape is None else np.zeros(alpha_shape)
    with pytest.raises(ValueError, match=message):
        Dense(weight, np.ones(weight.shape[1]), FAMILIES[family], log_alpha)


@pytest.mark.parametrize("bias_shape", [(3,), (1,), (4, 1)])
def test_dense_refuses_a_bias_of_another_shape(bias_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"bias .*\(4,\), got"):
        Dense(np.ones(SHAPE), np.ones(bias_shape))


@pytest.mark.parametrize(
    ("family", "per_example", "shape"),
    [
        ("inputs", False, (1,)),  # would give every gate the same noise
        ("inputs", False, ()),
        ("inputs", False, (5, 3)),  # would be a draw an example
        ("inputs", True, (3,)),  # would be one draw for all
        ("inputs", True, (5, 1)),
        ("weights", False, (3, 1)),
        ("weights", False, (4,)),
        ("labels", False, (1,)),
        ("labels", True, (1, 5)),
    ],
)
def test_noise_of_another_shape_is_refused(family: str, per_example: bool, shape: Any) -> None:
    layer = layer_of(family, per_example=per_example)
    with pytest.raises(ValueError, match=r"u .*got"):
        layer.forward(np.ones((5, 3)), np.full(shape, 0.3))


# --- convolution ---

CONV_SHAPE = (4, 2, 2, 3)  # C_out, C_in/groups, kh, kw
GEOMETRY: dict[str, Any] = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
CONV_LABELS = np.random.default_rng(7).permutation(np.arange(48) % 7).reshape(CONV_SHAPE)
CONV_FAMILIES: dict[str, Any] = {
    "none": None,
    "weights": per_weight(CONV_SHAPE, **HYPER),
    "inputs": per_input(CONV_SHAPE, axis=1, **HYPER),
    "rows of the kernel": per_input(CONV_SHAPE, axis=2, **HYPER),
    "outputs": per_output(CONV_SHAPE, axis=0, **HYPER),
    "outputs and bias": per_output(CONV_SHAPE, axis=0, gates_bias=True, **HYPER),
    "labels": by_label(CONV_LABELS, **HYPER),
}
CONV_FORMS = [
    (family, per_example, has_bias)
    for family, per_example, has_bias in product(CONV_FAMILIES, (False, True), (False, True))
    if (family != "none" or not per_example) and (family != "outputs and bias" or has_bias)
]


def conv_of(
    family: str, dtype: Any = np.float64, *, per_example: bool = False, has_bias: bool = True
) -> Conv2d:
    gates = CONV_FAMILIES[family]
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=CONV_SHAPE).astype(dtype), rng.normal(size=4).astype(dtype)
    log_alpha = None if gates is None else rng.normal(0.3, 1.5, size=gates.shape).astype(dtype)
    return Conv2d(weight, bias if has_bias else None, gates, log_alpha, per_example=per_example,
                  **GEOMETRY)  # fmt: skip


def conv_stage_of(layer: Conv2d, u: Any, number: Any) -> naive_convnet.Conv:
    values = {n: naive.convert(a.tolist(), number) for n, a in layer.params.items()}
    stage = naive_convnet.Conv(**values, **GEOMETRY)
    gates = layer.gates
    if gates is None:
        return stage
    return stage._replace(
        u=None if u is None else naive.convert(u.tolist(), number), on=gates.on, axis=gates.axis,
        labels=None if gates.labels is None else gates.labels.tolist(),
        per_example=layer.per_example, gates_bias=gates.gates_bias,
    )  # fmt: skip


@pytest.mark.parametrize(("family", "per_example", "has_bias"), CONV_FORMS)
def test_conv2d_forward_and_backward(family: str, per_example: bool, has_bias: bool) -> None:
    layer = conv_of(family, per_example=per_example, has_bias=has_bias)
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(3, 4, 2, 6)), rng.normal(size=(3, 4, 2, 2))
    gates = CONV_FAMILIES[family]
    expected_shape = None if gates is None else (3, *gates.shape) if per_example else gates.shape
    assert layer.noise_shape(x.shape) == expected_shape
    u = None if expected_shape is None else rng.uniform(0.03, 0.97, size=expected_shape)
    for array in (x, dy, *layer.params.values()):
        array.flags.writeable = False
    y, residuals = layer.forward(x, u)
    dx, grads = layer.backward(dy, residuals)
    assert layer.output_shape(x.shape) == y.shape == dy.shape

    stage = conv_stage_of(layer, u, mp.mpf)
    cotangent = naive.convert(dy.tolist(), mp.mpf)
    points = {"x": naive.convert(x.tolist(), mp.mpf)}
    points |= {name: getattr(stage, name) for name in layer.params}

    def pulled(x: Any, **changed: Any) -> Any:
        moved = stage._replace(**changed)
        return naive_conv.dot(cotangent, naive_convnet.conv(moved, x, mp, **EXACT_HYPER))

    exact_y = naive.flat(naive_convnet.conv(stage, points["x"], mp, **EXACT_HYPER))
    slopes = naive.gradients(pulled, points, mp.mpf("1e-20"))
    # Numbers of size 1 to 3, some dozen of them in a sum, through a gate that is right to 8 eps.
    atol = 100 * np.finfo(np.float64).eps
    np.testing.assert_allclose(y.ravel(), [float(v) for v in exact_y], rtol=0, atol=atol)
    assert grads.keys() == layer.params.keys()
    for name, d in {"x": dx, **grads}.items():
        assert d.shape == np.shape(points[name])
        expected = np.array([float(v) for v in slopes[name]])
        np.testing.assert_allclose(d.ravel(), expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(("family", "per_example", "has_bias"), CONV_FORMS)
def test_conv2d_in_float32(family: str, per_example: bool, has_bias: bool) -> None:
    layer = conv_of(family, np.float32, per_example=per_example, has_bias=has_bias)
    wide = conv_of(family, per_example=per_example, has_bias=has_bias)
    wide.params = {name: value.astype(np.float64) for name, value in layer.params.items()}
    rng = np.random.default_rng(3)
    x, dy = (rng.normal(size=s).astype(np.float32) for s in ((3, 4, 2, 6), (3, 4, 2, 2)))
    shape = layer.noise_shape(x.shape)
    u = None if shape is None else rng.uniform(0.03, 0.97, size=shape)
    y, residuals = layer.forward(x, u)
    exact_y, exact_residuals = wide.forward(x.astype(np.float64), u)
    dx, grads = layer.backward(dy, residuals)
    exact_dx, exact = wide.backward(dy.astype(np.float64), exact_residuals)
    atol = 100 * np.finfo(np.float32).eps
    for d, expected in ((y, exact_y), (dx, exact_dx), *((grads[n], exact[n]) for n in grads)):
        assert d.dtype == np.float32
        np.testing.assert_allclose(d, expected, rtol=0, atol=atol)


def closed_open_and_between(layer: Any) -> Any:
    if "log_alpha" in layer.params:
        layer.params["log_alpha"].flat[0] = -9.0
        layer.params["log_alpha"].flat[1] = 9.0
    return layer


@pytest.mark.parametrize(("family", "per_example", "has_bias"), CONV_FORMS)
def test_conv2d_at_test_time_is_eq_13(family: str, per_example: bool, has_bias: bool) -> None:
    layer = closed_open_and_between(conv_of(family, per_example=per_example, has_bias=has_bias))
    x = np.random.default_rng(4).normal(size=(5, 4, 2, 6))
    y, _ = layer.forward(x, None)
    stage = conv_stage_of(layer, None, float)
    expected = naive_convnet.conv(stage, x.tolist(), **HYPER)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
    weight, bias = layer.test_time_weights()
    folded = Conv2d(weight, bias, **layer.geometry)
    np.testing.assert_allclose(folded.forward(x, None)[0], expected, rtol=0, atol=1e-14)
    assert weight.shape == CONV_SHAPE
    assert (bias is not None) == has_bias
    if family.startswith("outputs"):  # what a closed map still is
        closed = layer.params["bias"][0] if has_bias and family == "outputs" else 0.0
        assert (y[:, 0] == closed).all()


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("family", [f for f in CONV_FAMILIES if f != "none"])
def test_conv2d_in_training_is_as_at_test_time_where_the_draw_is_eq_13(
    family: str, per_example: bool
) -> None:
    """One rule for the bias: u is such that (logit u + log_alpha) / beta = log_alpha."""
    layer = closed_open_and_between(conv_of(family, per_example=per_example))
    check_training_meets_test_time(layer, np.random.default_rng(5).normal(size=(3, 4, 2, 6)))


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "none"])
def test_dense_in_training_is_as_at_test_time_where_the_draw_is_eq_13(
    family: str, per_example: bool
) -> None:
    layer = closed_open_and_between(layer_of(family, per_example=per_example))
    check_training_meets_test_time(layer, np.random.default_rng(5).normal(size=(5, 3)))


def check_training_meets_test_time(layer: Any, x: Any) -> None:
    u = 1 / (1 + np.exp((1 - HYPER["beta"]) * layer.params["log_alpha"]))
    u = np.broadcast_to(u, layer.noise_shape(x.shape))
    in_training, residuals = layer.forward(x, u, training=True)
    z_hat = layer.gates.test_time(layer.params["log_alpha"])
    assert z_hat.min() == 0
    assert z_hat.max() == 1
    np.testing.assert_allclose(residuals.z, np.broadcast_to(z_hat, u.shape), rtol=0, atol=1e-14)
    at_test_time, _ = layer.forward(x, None)
    np.testing.assert_allclose(in_training, at_test_time, rtol=0, atol=1e-13)


@pytest.mark.parametrize("family", [f for f in CONV_FAMILIES if f != "none"])
def test_conv2d_has_no_backward_at_test_time_and_no_closed_nan(family: str) -> None:
    layer = conv_of(family)
    x = np.ones((2, 4, 2, 6))
    y, residuals = layer.forward(x, None)
    with pytest.raises(ValueError, match="noise"):
        layer.backward(np.ones_like(y), residuals)
    layer.params["log_alpha"].flat[0] = np.nan
    for u in (None, np.full(layer.noise_shape(x.shape), 0.3)):
        assert np.isnan(layer.forward(x, u)[0]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"weight": np.ones((4, 2, 3))},
            r"weight .*\(C_out, C_in/groups, kh, kw\), got \(4, 2, 3\)",
        ),
        ({"bias": np.ones(2)}, r"bias .*\(4,\), got \(2,\)"),
        ({"bias": np.ones(1)}, r"bias .*\(4,\), got \(1,\)"),
        ({"log_alpha": None}, r"gates and log_alpha .*together"),
        ({"gates": None}, r"gates and log_alpha .*together"),
        ({"log_alpha": np.zeros(2)}, r"log_alpha .*\(4,\), got \(2,\)"),
        (
            {"gates": per_output((4, 2, 3, 2), axis=0)},
            r"gates .*\(4, 2, 3, 2\), got \(4, 2, 2, 3\)",
        ),
        ({"bias": None}, r"gates that take the bias .*gates on axis 0, bias None"),
        (
            {
                "gates": per_output((4, 4, 2, 3), axis=1, gates_bias=True),
                "weight": np.ones((4, 4, 2, 3)),
            },
            r"gates that take the bias .*on the outputs .*axis 1, bias \(4,\)",
        ),
    ],
)
def test_conv2d_refuses(arguments: dict[str, Any], message: str) -> None:
    allowed = {"weight": np.ones(CONV_SHAPE), "bias": np.ones(4),
               "gates": CONV_FAMILIES["outputs and bias"], "log_alpha": np.zeros(4)}  # fmt: skip
    Conv2d(**allowed)
    with pytest.raises(ValueError, match=message):
        Conv2d(**(allowed | arguments))


@pytest.mark.parametrize(
    ("family", "per_example", "shape"),
    [
        ("outputs", False, (1,)),
        ("outputs", False, (3, 4)),  # would be a draw an example
        ("outputs", True, (4,)),  # would be one draw for all
        ("outputs", True, (3, 1)),
        ("inputs", False, (4,)),
        ("weights", False, (4, 2, 1, 1)),
        ("labels", True, (1, 7)),
    ],
)
def test_conv2d_refuses_noise_of_another_shape(family: str, per_example: bool, shape: Any) -> None:
    layer = conv_of(family, per_example=per_example)
    with pytest.raises(ValueError, match=r"u .*got"):
        layer.forward(np.ones((3, 4, 2, 6)), np.full(shape, 0.3))


def test_dense_refuses_gates_that_take_a_bias_of_another_axis() -> None:
    gates = per_output((4, 4), axis=0, gates_bias=True)
    with pytest.raises(ValueError, match=r"gates that take the bias .*axis 0, bias \(4,\)"):
        Dense(np.ones((4, 4)), np.ones(4), gates, np.zeros(4))


# --- batch norm ---


def norm_of(**options: Any) -> BatchNorm:
    rng = np.random.default_rng(11)
    return BatchNorm(rng.normal(size=3), rng.normal(size=3), rng.normal(size=3),
                     rng.uniform(0.5, 2.0, size=3), **options)  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 2), (1, 3, 1, 2)])
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_batch_norm_forward_and_backward(training: bool, shape: Any, eps: float) -> None:
    layer = norm_of(eps=eps)
    rng = np.random.default_rng(12)
    x, dy = 2 + rng.normal(size=shape), rng.normal(size=shape)
    for array in (x, dy, *layer.params.values(), *layer.buffers.values()):
        array.flags.writeable = False
    assert layer.noise_shape(shape) is None
    y, residuals = layer.forward(x, None, training=training)
    dx, grads = layer.backward(dy, residuals)
    assert layer.output_shape(shape) == y.shape == dx.shape

    exact = {n: naive.convert(a.tolist(), mp.mpf)
             for n, a in {"x": x, **layer.params, **layer.buffers}.items()}  # fmt: skip
    given = () if training else (exact["running_mean"], exact["running_var"])
    cotangent = naive.convert(dy.tolist(), mp.mpf)

    def normed(x: Any, weight: Any, bias: Any) -> Any:
        return naive_conv.batch_norm(x, weight, bias, mp.mpf(eps), mp, *given)

    points = {name: exact[name] for name in ("x", "weight", "bias")}
    exact_y = [float(v) for v in naive.flat(normed(**points))]
    slopes = naive.gradients(lambda **a: naive_conv.dot(cotangent, normed(**a)), points,
                             mp.mpf("1e-20"))  # fmt: skip
    # 1/sqrt(v + eps) is below 20 here, and the parts of dx cancel in training.
    np.testing.assert_allclose(y.ravel(), exact_y, rtol=0, atol=1e-13)
    assert grads.keys() == {"weight", "bias"}
    for name, d in {"x": dx, **grads}.items():
        expected = np.array([float(v) for v in slopes[name]])
        atol = 1e-12 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(d.ravel(), expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0])
def test_batch_norm_moves_its_running_statistics_only_when_told(momentum: float) -> None:
    """They move by their share, the variance unbiased; reading them changes nothing."""
    layer = norm_of(momentum=momentum)
    before = {n: a.copy() for n, a in layer.buffers.items()}
    x = 3 + np.random.default_rng(13).normal(size=(2, 3, 4, 2))
    _, residuals = layer.forward(x, None, training=True)
    updated = layer.updated_buffers(residuals)
    assert updated.keys() == layer.buffers.keys()
    for c in range(3):
        mean, var, m = naive_conv.moments(x.tolist(), c)
        for name, new in (("running_mean", mean), ("running_var", var * m / (m - 1))):
            expected = (1 - momentum) * before[name][c] + momentum * new
            np.testing.assert_allclose(updated[name][c], expected, rtol=1e-14)
    for name, value in layer.buffers.items():
        np.testing.assert_array_equal(value, before[name])
    assert updated["running_mean"].dtype == np.float64
    assert ReLU().updated_buffers(None) == {}


def test_batch_norm_by_default_gives_the_newest_batch_a_tenth() -> None:
    layer = norm_of()
    assert (layer.momentum, layer.eps) == (0.1, 1e-5)


def test_batch_norm_stays_in_float32() -> None:
    layer = norm_of()
    layer.params = {n: a.astype(np.float32) for n, a in layer.params.items()}
    layer.buffers = {n: a.astype(np.float32) for n, a in layer.buffers.items()}
    x = np.random.default_rng(14).normal(size=(4, 3)).astype(np.float32)
    for training in (True, False):
        y, residuals = layer.forward(x, None, training=training)
        dx, grads = layer.backward(x, residuals)
        assert {a.dtype for a in (y, dx, *grads.values())} == {np.dtype(np.float32)}
        if training:
            new = layer.updated_buffers(residuals).values()
            assert {a.dtype for a in new} == {np.dtype(np.float32)}


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_batch_norm_refuses_one_value_a_channel_in_training(shape: Any) -> None:
    layer = norm_of()
    with pytest.raises(ValueError, match=r"x .*two values per channel.*got 1"):
        layer.forward(np.ones(shape), None, training=True)
    assert layer.forward(np.ones(shape), None)[0].shape == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.ones(2)}, r"bias .*\(3,\), got \(2,\)"),
        ({"running_mean": np.ones(1)}, r"running_mean .*\(3,\), got \(1,\)"),
        ({"running_var": np.ones((3, 1))}, r"running_var .*\(3,\), got \(3, 1\)"),
        ({"momentum": 0.0}, r"momentum .*\(0, 1\], got 0"),
        ({"momentum": 1.1}, r"momentum .*got 1.1"),
        ({"momentum": np.nan}, r"momentum .*got nan"),
    ],
)
def test_batch_norm_refuses(change: dict[str, Any], message: str) -> None:
    allowed = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), np.ones(3))
    with pytest.raises(ValueError, match=message):
        BatchNorm(**(allowed | change))


# --- layers without weights, on maps ---


@pytest.mark.parametrize(
    ("layer", "shape", "out"),
    [
        (MaxPool2d(2), (2, 3, 5, 4), (2, 3, 2, 2)),
        (MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)), (2, 3, 5, 4), (2, 3, 5, 2)),
        (AvgPool2d(2), (2, 3, 5, 4), (2, 3, 2, 2)),
        (AvgPool2d((2, 3), stride=1, padding=(1, 1)), (2, 3, 5, 4), (2, 3, 6, 4)),
        (Flatten(), (2, 3, 5, 4), (2, 60)),
        (Normalize([0.2, -0.5, 1.5], [0.3, 2.0, 0.7]), (2, 3, 5, 4), (2, 3, 5, 4)),
        (Normalize([0.2, -0.5, 1.5], [0.3, 2.0, 0.7]), (4, 3), (4, 3)),
        (Select(np.array([2, 0])), (2, 3, 5, 4), (2, 2, 5, 4)),
        (Select(np.array([4, 1, 2])), (2, 5), (2, 3)),
        (ReLU(), (2, 3, 5, 4), (2, 3, 5, 4)),
        (Tanh(), (2, 3, 5, 4), (2, 3, 5, 4)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else str(value),
)
def test_a_layer_without_parameters(layer: Any, shape: Any, out: Any) -> None:
    """The op by loops, and its derivative by mpmath differences of the loops."""
    rng = np.random.default_rng(15)
    x, dy = rng.normal(size=shape), rng.normal(size=out)
    x.flags.writeable = dy.flags.writeable = False
    y, residuals = layer.forward(x, None)
    dx, grads = layer.backward(dy, residuals)
    assert layer.output_shape(shape) == y.shape == out
    assert layer.noise_shape(shape) is None
    assert grads == layer.params == layer.buffers == {}
    exact_x = naive.convert(x.tolist(), mp.mpf)
    cotangent = naive.convert(dy.tolist(), mp.mpf)
    expected_y = naive.flat(by_loops(layer, exact_x))
    np.testing.assert_allclose(y.ravel(), [float(v) for v in expected_y], rtol=1e-14, atol=1e-15)
    slopes = naive.gradients(lambda x: naive_conv.dot(cotangent, by_loops(layer, x)),
                             {"x": exact_x}, mp.mpf("1e-20"))  # fmt: skip
    np.testing.assert_allclose(dx.ravel(), [float(v) for v in slopes["x"]], rtol=0, atol=1e-14)
    narrow, residuals = layer.forward(x.astype(np.float32), None)
    assert narrow.dtype == np.float32
    assert layer.backward(dy.astype(np.float32), residuals)[0].dtype == np.float32


def by_loops(layer: Any, x: Any) -> Any:
    if isinstance(layer, (MaxPool2d, AvgPool2d)):
        kind = "max" if isinstance(layer, MaxPool2d) else "avg"
        geometry = (layer.kernel_size, layer.stride, layer.padding)
        return naive_convnet.apply(naive_convnet.Pool(kind, geometry), x, mp)
    if isinstance(layer, Normalize):
        mean, std = layer.mean.tolist(), layer.std.tolist()
        return [[naive.convert(one, lambda v, c=c: (v - mp.mpf(mean[c])) / mp.mpf(std[c]))
                 for c, one in enumerate(example)] for example in x]  # fmt: skip
    if isinstance(layer, Select):
        return [[example[int(c)] for c in layer.index] for example in x]
    return naive_convnet.apply(type(layer).__name__.lower(), x, mp)


def test_max_pool_as_a_layer_gives_a_tie_to_the_first() -> None:
    layer = MaxPool2d(2)
    y, residuals = layer.forward(np.array([[[[1.0, 7.0, 7.0], [7.0, 7.0, 9.0]]]]), None)
    assert y.tolist() == [[[[7.0]]]]
    dx, _ = layer.backward(np.array([[[[-1.5]]]]), residuals)
    assert dx.tolist() == [[[[0.0, -1.5, 0.0], [0.0, 0.0, 0.0]]]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalize([0.1, 0.2], [1.0]), r"mean and std .*\(2,\) and \(1,\)"),
        (lambda: Normalize(0.1, 1.0), r"mean and std .*\(C,\), got \(\) and \(\)"),
        (lambda: Normalize([0.1], [0.0]), r"std .*positive.*got"),
        (lambda: Normalize([0.1], [-1.0]), r"std .*positive.*got"),
        (lambda: Normalize([0.1], [np.inf]), r"std .*finite.*got .*inf"),
        (lambda: Normalize([np.nan], [1.0]), r"finite.*got .*nan"),
        (lambda: Select(np.array([0.0, 1.0])), r"index .*integers, got float64"),
        (lambda: Select(np.array([[0, 1]])), r"index .*list of integers"),
        (lambda: Select(np.array([0, 2, 0])), r"index .*distinct.*got \[0 2 0\]"),
        (lambda: Select(np.array([-1, 2])), r"index .*from 0, got \[-1  2\]"),
        (lambda: MaxPool2d(2).forward(np.ones((2, 3)), None), r"x .*got \(2, 3\)"),
        (lambda: AvgPool2d(2, padding=2).forward(np.ones((1, 1, 4, 4)), None), r"padding .*got"),
        (lambda: Flatten().forward(np.ones((2, 3)), None), r"x .*got \(2, 3\)"),
        (
            lambda: Normalize([0.1, 0.2], [1.0, 1.0]).forward(np.ones((2, 3, 4, 4)), None),
            r"x .*2 channels, got shape \(2, 3, 4, 4\)",
        ),
        (
            lambda: AddPattern.of(np.ones((3, 4, 2))).forward(np.ones((2, 3, 2, 4)), None),
            r"x .*\(3, 4, 2\).*got \(2, 3, 2, 4\)",
        ),
        (
            lambda: AddPattern.of(np.ones((3, 4, 2))).forward(np.ones((2, 1, 4, 2)), None),
            r"x .*got \(2, 1, 4, 2\)",
        ),
    ],
)
def test_layers_on_maps_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_normalize_refuses_pixels_that_are_whole_numbers() -> None:
    """They would make whole numbers of mean and std, and wrap around below 0."""
    with pytest.raises(ValueError, match=r"x must be floating point, got uint8"):
        Normalize([125.3], [63.9]).forward(np.full((1, 1, 2, 3), 7, np.uint8), None)


def test_normalize_takes_whole_numbers_for_mean_and_std() -> None:
    layer = Normalize([1, 2, 3], [2, 4, 8])
    y, _ = layer.forward(np.full((1, 3, 1, 2), 4.0), None)
    assert y.tolist() == [[[[1.5, 1.5]], [[0.5, 0.5]], [[0.125, 0.125]]]]


# --- patterns ---


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 6), (2, 7, 1)])
@pytest.mark.parametrize("values", [2, 1000])  # few: equal rows and columns; many: none
def test_add_pattern_recovers_any_pattern(shape: Any, values: int) -> None:
    rng = np.random.default_rng(values)
    pattern = rng.integers(values, size=shape) / 7
    pattern[:, 0] = pattern[:, -1]  # far apart and alike
    layer = AddPattern.of(pattern)
    np.testing.assert_array_equal(layer.pattern, pattern)
    x = rng.normal(size=(2, *shape))
    np.testing.assert_array_equal(layer.forward(x, None)[0], x + pattern)
    assert layer.output_shape(x.shape) == x.shape
    c, r, s = layer.params["table"].shape
    assert c == shape[0]
    assert r == len({pattern[:, i].tobytes() for i in range(shape[1])})
    assert s == len({pattern[:, :, j].tobytes() for j in range(shape[2])})


@pytest.mark.parametrize("padding", [0, 1, (2, 1)])
def test_add_pattern_is_small_for_what_padding_makes_of_a_constant(padding: Any) -> None:
    """One row of the table for the middle and one for each row that the padding reaches."""
    rng = np.random.default_rng(16)
    constant = np.broadcast_to(rng.normal(size=(1, 3, 1, 1)), (1, 3, 12, 11))
    kernel = rng.normal(size=(4, 3, 5, 3))
    pattern = Conv2d(kernel, padding=padding).forward(constant, None)[0][0]
    # Sums of the same numbers in the same order: all of the middle has the same bits or nearly so.
    layer = AddPattern.of(pattern.round(12))
    np.testing.assert_allclose(layer.pattern, pattern, rtol=0, atol=1e-12)
    p_h, p_w = (padding, padding) if isinstance(padding, int) else padding
    assert layer.params["table"].shape == (4, 1 + 2 * p_h, 1 + 2 * p_w)


def test_add_pattern_backward_adds_up_what_shares_an_entry() -> None:
    table = np.random.default_rng(17).normal(size=(2, 2, 3))
    rows, columns = np.array([1, 0, 0, 1, 1]), np.array([2, 0, 1, 1])
    layer = AddPattern(table, rows, columns)
    rng = np.random.default_rng(18)
    x, dy = rng.normal(size=(2, 3, 2, 5, 4))
    y, residuals = layer.forward(x, None)
    dx, grads = layer.backward(dy, residuals)
    expected = np.zeros_like(table)
    for n, c, h, w in np.ndindex(x.shape):
        assert y[n, c, h, w] == x[n, c, h, w] + table[c, rows[h], columns[w]]
        expected[c, rows[h], columns[w]] += dy[n, c, h, w]
    np.testing.assert_array_equal(dx, dy)
    np.testing.assert_allclose(grads["table"], expected, rtol=0, atol=1e-14)
    assert AddPattern.of(np.ones((2, 5, 4), np.float32)).pattern.dtype == np.float32


def test_a_network_takes_over_running_statistics_in_place() -> None:
    network = Network([norm_of(), Dense(np.ones((3, 2)), np.zeros(2))], input_shape=(3,))
    own = network.layers[0].buffers["running_mean"]
    network.set_buffers({"0.running_mean": np.array([1.0, 2.0, 4.0])})
    assert own.tolist() == [1.0, 2.0, 4.0]
    assert network.buffers["0.running_mean"] is own
    np.testing.assert_array_equal(
        network.buffers["0.running_var"], norm_of().buffers["running_var"]
    )
    good = {"0.running_var": np.ones(3)}
    with pytest.raises(ValueError, match=r"buffers .*'0.running_mean'.*got '1.running_mean'"):
        network.set_buffers(good | {"1.running_mean": np.ones(3)})
    with pytest.raises(ValueError, match=r"buffers\['0.running_mean'\] .*\(3,\), got \(1,\)"):
        network.set_buffers(good | {"0.running_mean": np.ones(1)})
    assert (network.buffers["0.running_var"] != 1).all()  # refused as a whole


# --- elementwise layers ---


def test_relu_and_tanh_hold_no_parameters_and_no_noise() -> None:
    x, dy = np.random.default_rng(3).normal(size=(2, 2, 5))
    for layer, f, slope in (
        (ReLU(), naive.relu, lambda v: (np.array(v) > 0) * 1.0),
        (Tanh(), naive.tanh, lambda v: 1 / np.cosh(v) ** 2),
    ):
        y, residuals = layer.forward(x, None)
        np.testing.assert_allclose(y, f(x.tolist()), rtol=1e-15)
        dx, grads = layer.backward(dy, residuals)
        np.testing.assert_allclose(dx, dy * slope(x), rtol=1e-14)
        assert grads == layer.params == {}
        assert layer.noise_shape(x.shape) is None
        assert layer.output_shape(x.shape) == x.shape


def test_dropout_draws_in_training_and_does_nothing_at_test_time() -> None:
    layer = Dropout(0.4)
    rng = np.random.default_rng(4)
    x, dy = rng.normal(size=(2, 3, 5))
    u = rng.uniform(size=layer.noise_shape(x.shape))
    assert u.shape == x.shape
    y, residuals = layer.forward(x, u)
    np.testing.assert_allclose(y, naive.dropout(x.tolist(), u.tolist(), 0.4), rtol=1e-15)
    dx, grads = layer.backward(dy, residuals)
    np.testing.assert_allclose(dx, naive.dropout(dy.tolist(), u.tolist(), 0.4), rtol=1e-15)
    assert grads == {}
    y, residuals = layer.forward(x, None)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layer.backward(dy, residuals)[0], dy)


@pytest.mark.parametrize("rate", [1.0, -0.1, np.nan])
def test_dropout_refuses_a_rate_out_of_range(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"rate .*\[0, 1\), got {rate}"):
        Dropout(rate)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([0, -1], [0], r"rows must be in 0 .. 1, .*got \[ 0 -1\]"),
        ([0, 2], [0], r"rows must be in 0 .. 1"),
        ([0], [3], r"columns must be in 0 .. 2"),
        ([0.0], [0], r"rows must be a list of integers, got float64"),
    ],
)
def test_add_pattern_refuses_places_outside_its_table(
    rows: Any, columns: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AddPattern(np.zeros((1, 2, 3)), np.array(rows), np.array(columns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 2}, r"groups must divide C_out, 3, got 2"),
        ({"groups": 0}, r"groups must divide C_out, 3, got 0"),
        ({"stride": 0}, r"stride must be an integer of at least 1, got 0"),
        ({"stride": 1.5}, r"stride must be an integer of at least 1, got 1\.5"),
        ({"padding": -1}, r"padding must be an integer of at least 0, got -1"),
        ({"dilation": (1, 0)}, r"dilation must be an integer of at least 1, got 0"),
    ],
)
def test_conv2d_refuses_a_geometry_that_fits_nothing(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conv2d(np.zeros((3, 1, 2, 2)), **options)
