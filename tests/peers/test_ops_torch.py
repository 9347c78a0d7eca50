"""Every op and its gradients are PyTorch's, in float64, up to the order of their sums.

PyTorch differentiates by itself here: only the forward pass is spelled out, gates included.
"""

import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from l0ref import ops

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

TOLERANCE = 1e-12  # relative to the greatest number of an array; sums here have at most 200 terms


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same(got: Any, tensor: Any, name: str) -> None:
    wanted = tensor.detach().numpy()
    assert got.shape == wanted.shape, name
    assert got.dtype == wanted.dtype == np.float64, name
    error = np.abs(got - wanted).max(initial=0)
    assert error <= TOLERANCE * np.abs(wanted).max(initial=0), (name, error)


def check(forward: Any, vjp: Any, peer: Callable[..., Any], seed: int, **arrays: Any) -> Any:
    """Compare y, and with a random cotangent the gradients in the order of the arrays."""
    y, residuals = forward(**arrays)
    dy = np.random.default_rng(seed).normal(size=y.shape)
    gradients = vjp(dy, residuals)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    wanted = peer(**tensors)
    wanted.backward(torch.tensor(dy))
    assert_same(y, wanted, "y")
    got = [gradient for gradient in gradients if gradient is not None]
    for gradient, (name, tensor) in zip(got, tensors.items(), strict=True):
        assert_same(gradient, tensor.grad, name)
    return residuals


# --- convolution ---

STRIDES = [(1, 1), (2, 1), (3, 2)]
PADDINGS = [(0, 0), (1, 2)]
DILATIONS = [(1, 1), (2, 1), (1, 3)]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_conv2d(groups: int, has_bias: bool) -> None:
    rng = np.random.default_rng(1)
    arrays = {"x": rng.normal(size=(3, 4, 9, 8)), "weight": rng.normal(size=(8, 4 // groups, 3, 2))}
    if has_bias:
        arrays["bias"] = rng.normal(size=8)
    for stride, padding, dilation in product(STRIDES, PADDINGS, DILATIONS):
        options: dict[str, Any] = {
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups
        }  # fmt: skip
        check(
            lambda o=options, **a: ops.conv2d(**a, **o), ops.conv2d_vjp,
            lambda o=options, **a: functional.conv2d(a["x"], a["weight"], a.get("bias"), **o),
            seed=2, **arrays,
        )  # fmt: skip


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("gates_bias", [False, True])
@pytest.mark.parametrize("on", ["outputs", "weights"])
def test_gated_conv2d(on: str, gates_bias: bool, per_example: bool) -> None:
    rng = np.random.default_rng(3)
    options: dict[str, Any] = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    weight = rng.normal(size=(6, 2, 3, 2))
    one_draw = weight.shape if on == "weights" else (6,)
    z = rng.uniform(-0.3, 1.3, size=(3, *one_draw) if per_example else one_draw).clip(0, 1)

    def peer(x: Any, weight: Any, bias: Any, z: Any) -> Any:
        if on == "weights" and per_example:
            each = [functional.conv2d(x[n : n + 1], weight * z[n], bias, **options)
                    for n in range(len(x))]  # fmt: skip
            return torch.cat(each)
        if on == "weights":
            return functional.conv2d(x, weight * z, bias, **options)
        gates = z[..., None, None]
        if gates_bias:
            return functional.conv2d(x, weight, bias, **options) * gates
        return functional.conv2d(x, weight, None, **options) * gates + bias[:, None, None]

    check(
        lambda **a: ops.conv2d(**a, on=on, gates_bias=gates_bias, **options), ops.conv2d_vjp, peer,
        seed=4, x=rng.normal(size=(3, 4, 7, 6)), weight=weight, bias=rng.normal(size=6), z=z,
    )  # fmt: skip


# --- pooling ---

POOLS = [  # kernel, stride, padding
    (2, None, 0),
    ((3, 2), (2, 1), (1, 1)),
    ((3, 3), 2, 1),
    ((2, 4), None, (1, 2)),
    ((1, 2), (2, 3), 0),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
@pytest.mark.parametrize("values", ["normal", "ties", "minus-infinity"])
def test_max_pool2d(kernel: Any, stride: Any, padding: Any, values: str) -> None:
    rng = np.random.default_rng(5)
    x = {
        "normal": rng.normal(size=(2, 3, 9, 8)),
        "ties": rng.integers(-2, 1, size=(2, 3, 9, 8)).astype(float),
        "minus-infinity": rng.choice([-np.inf, -1.0], size=(2, 3, 9, 8), p=[0.9, 0.1]),
    }[values]
    options = {"stride": stride, "padding": padding}
    y, residuals = ops.max_pool2d(x, kernel, **options)
    dy = rng.normal(size=y.shape)
    tensor = torch.tensor(x, requires_grad=True)
    wanted = functional.max_pool2d(tensor, kernel, **options)
    wanted.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y, wanted.detach().numpy())
    assert_same(ops.max_pool2d_vjp(dy, residuals), tensor.grad, "x")


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_avg_pool2d(kernel: Any, stride: Any, padding: Any) -> None:
    options = {"stride": stride, "padding": padding}
    check(
        lambda x: ops.avg_pool2d(x, kernel, **options), ops.avg_pool2d_vjp,
        lambda x: functional.avg_pool2d(x, kernel, **options),
        seed=6, x=np.random.default_rng(7).normal(size=(2, 3, 9, 8)),
    )  # fmt: skip


# --- batch normalisation ---


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 5), (1, 3, 2, 2)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_batch_norm_with_running_statistics(shape: Any, eps: float) -> None:
    rng = np.random.default_rng(8)
    running = rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    tensors = [torch.tensor(r) for r in running]
    residuals = check(
        lambda **a: ops.batch_norm(**a, eps=eps), ops.batch_norm_vjp,
        lambda x, weight, bias: functional.batch_norm(
            x, *tensors, weight, bias, training=True, momentum=0.3, eps=eps
        ),
        seed=9, x=3 + rng.normal(size=shape), weight=rng.normal(size=3), bias=rng.normal(size=3),
    )  # fmt: skip
    got = ops.running_statistics(*running, residuals, momentum=0.3)
    for one, tensor, name in zip(got, tensors, ("mean", "var"), strict=True):
        assert_same(one, tensor, name)


def test_running_statistics_default_is_torchs() -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=(4, 3, 2, 5))
    layer = torch.nn.BatchNorm2d(3, dtype=torch.float64)
    layer(torch.tensor(x))
    _, residuals = ops.batch_norm(x, np.ones(3), np.zeros(3))
    mean, var = ops.running_statistics(np.zeros(3), np.ones(3), residuals)
    assert_same(mean, layer.running_mean, "mean")
    assert_same(var, layer.running_var, "var")


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 5), (1, 3, 1, 1)])
def test_batch_norm_inference(shape: Any) -> None:
    rng = np.random.default_rng(11)
    mean, var = rng.normal(size=3), rng.uniform(0.5, 2, size=3)
    check(
        lambda **a: ops.batch_norm_inference(**a, mean=mean, var=var),
        ops.batch_norm_inference_vjp,
        lambda x, weight, bias: functional.batch_norm(
            x, torch.tensor(mean), torch.tensor(var), weight, bias, training=False
        ),
        seed=12, x=rng.normal(size=shape), weight=rng.normal(size=3), bias=rng.normal(size=3),
    )  # fmt: skip


# --- the others ---


@pytest.mark.parametrize("gates_bias", [False, True])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("on", ["none", "inputs", "weights", "outputs"])
def test_dense(on: str, per_example: bool, gates_bias: bool) -> None:
    rng = np.random.default_rng(13)
    arrays = {"x": rng.normal(size=(3, 5)), "weight": rng.normal(size=(5, 4)),
              "bias": rng.normal(size=4)}  # fmt: skip
    one_draw = {"inputs": (5,), "weights": (5, 4), "outputs": (4,)}.get(on)
    if one_draw:
        arrays["z"] = rng.uniform(size=(3, *one_draw) if per_example else one_draw)

    def peer(x: Any, weight: Any, bias: Any, z: Any = None) -> Any:
        linear = lambda x, weight, bias: functional.linear(x, weight.T, bias)  # noqa: E731
        if on == "none":
            return linear(x, weight, bias)
        if on == "inputs":
            return linear(x * z, weight, bias)
        if on == "outputs":
            return linear(x, weight, bias) * z if gates_bias else x @ weight * z + bias
        if per_example:
            return torch.stack([linear(x[n], weight * z[n], bias) for n in range(len(x))])
        return linear(x, weight * z, bias)

    place = "inputs" if on == "none" else on
    check(lambda **a: ops.dense(**a, on=place, gates_bias=gates_bias), ops.dense_vjp, peer,
          seed=14, **arrays)  # fmt: skip


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_elementwise(name: str) -> None:
    x = np.random.default_rng(15).normal(size=(3, 4, 2, 5))
    x[0, 0, 0, 0] = 0.0  # relu's kink: the same convention
    check(getattr(ops, name), getattr(ops, f"{name}_vjp"), getattr(torch, name), seed=16, x=x)


def test_add() -> None:
    rng = np.random.default_rng(17)
    x, y = rng.normal(size=(2, 3, 4, 2, 5))
    check(ops.add, ops.add_vjp, lambda x, y: x + y, seed=18, x=x, y=y)


def test_flatten() -> None:
    x = np.random.default_rng(19).normal(size=(2, 3, 4, 5))
    check(ops.flatten, ops.flatten_vjp, lambda x: torch.flatten(x, 1), seed=20, x=x)


def test_softmax_cross_entropy() -> None:
    rng = np.random.default_rng(21)
    logits, labels = 3 * rng.normal(size=(5, 7)), rng.integers(7, size=5)
    loss, residuals = ops.softmax_cross_entropy(logits, labels)
    dlogits = ops.softmax_cross_entropy_vjp(-1.7, residuals)
    tensor = torch.tensor(logits, requires_grad=True)
    wanted = functional.cross_entropy(tensor, torch.tensor(labels))
    wanted.backward(torch.tensor(-1.7, dtype=torch.float64))
    assert_same(loss, wanted, "loss")
    assert_same(dlogits, tensor.grad, "logits")
