"""Layers: gates, noise and ops together, against loops and mpmath differences of the loops."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from l0ref.gates import by_label, per_input, per_output, per_weight
from l0ref.layers import Dense, Dropout, ReLU, Tanh
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
