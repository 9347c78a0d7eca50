"""Arguments for every function of the oracle's interface, and what an honest answer may be off by.

One set a function, drawn once: no shape is square, no two sizes are alike, gates lie on both sides
of both kinks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from l0ref.oracle.interface import FUNCTIONS

LAW = {name: float(np.float32(value)) for name, value in
       {"beta": 2 / 3, "gamma": -0.1, "zeta": 1.1}.items()}  # fmt: skip
PENALTY = {"lam": 0.375, "l2": 0.25, "n_train": 40}


def as_dtype(value: Any, dtype: Any) -> Any:
    """Return the same with floating arrays of this dtype."""
    if isinstance(value, np.ndarray):
        return value.astype(dtype) if value.dtype.kind == "f" else value
    if isinstance(value, Mapping):
        return {key: as_dtype(part, dtype) for key, part in value.items()}
    if isinstance(value, list):
        return [as_dtype(part, dtype) for part in value]
    return value


def network(rng: np.random.Generator) -> dict[str, Any]:
    """Return a convolutional network with all kinds of layers and gates."""
    n = rng.normal
    conv = {"dilation": (1, 1), "padding": (1, 0), "stride": (1, 1)}
    return {
        "input_shape": (2, 9, 8),
        "layers": [
            {"kind": "conv2d", "weight": n(size=(4, 2, 3, 2)), "bias": n(size=4), "on": "outputs",
             "log_alpha": 3 * n(size=4), "gates_bias": True, "groups": 1, **conv},
            {"kind": "relu"},
            {"kind": "max_pool2d", "kernel_size": (2, 3)},
            {"kind": "conv2d", "weight": n(size=(6, 2, 2, 1)), "bias": None, "on": "weights",
             "log_alpha": 3 * n(size=(6, 2, 2, 1)), "gates_bias": False, "groups": 2, **conv},
            {"kind": "flatten"},
            {"kind": "dense", "weight": n(size=(60, 5)), "bias": n(size=5), "on": "inputs",
             "log_alpha": 3 * n(size=60), "gates_bias": False},
            {"kind": "relu"},
            {"kind": "dense", "weight": n(size=(5, 3)), "bias": n(size=3), "on": None,
             "log_alpha": None, "gates_bias": False},
        ],
        **LAW,
    }  # fmt: skip


def variants(function: str) -> list[dict[str, Any]]:
    """Return the sets of arguments to call a function with, in float64."""
    rng = np.random.default_rng(sum(map(ord, function)))
    if function.startswith(("expected_l1", "expected_l2", "penalty")):
        return [_gated(rng, function, *how) for how in
                [((4, 3), "inputs", False), ((4, 3), "outputs", True), ((4, 3), "weights", False),
                 ((5, 2, 3, 1), "outputs", False), ((5, 2, 3, 1), "weights", False)]]  # fmt: skip
    if function.startswith("dense_") and not function.startswith("dense_vjp"):
        return [{"n_in": 7, "n_out": 5, "bias": bias} for bias in (True, False)]
    if function.startswith("dense"):
        return [_dense(rng, function, *how) for how in
                [("inputs", False, False), ("inputs", False, True), ("outputs", True, False),
                 ("outputs", False, True), ("weights", False, False),
                 ("weights", False, True)]]  # fmt: skip
    if function in ("conv2d", "conv2d_vjp"):
        return [_conv(rng, function, *how) for how in
                [("outputs", True, False), ("outputs", False, True), ("weights", False, False),
                 ("weights", False, True)]]  # fmt: skip
    plain = _plain(rng, function)
    if function == "init_weight":
        return [plain, {"normal": rng.normal(size=(5, 3))}]
    if function == "group_size":
        shapes = ((5, 3), "inputs"), ((5, 3), "outputs"), ((5, 3), "weights")
        return [plain, *({**plain, "weight_shape": s, "on": on} for s, on in shapes)]
    return [plain]


def _gated(
    rng: np.random.Generator, function: str, shape: tuple[int, ...], on: str, gates_bias: bool
) -> dict[str, Any]:
    dense = len(shape) == 2
    n_out = shape[1] if dense else shape[0]
    gates = {"inputs": shape[:1], "outputs": (n_out,), "weights": shape}[on]
    args = {
        "log_alpha": 2 * rng.normal(size=gates),
        "weight": rng.normal(size=shape),
        "bias": rng.normal(size=n_out),
        "on": on,
        "gates_bias": gates_bias,
        **LAW,
    }
    return args | (PENALTY if function.startswith("penalty") else {})


def _dense(
    rng: np.random.Generator, function: str, on: str, gates_bias: bool, per_example: bool
) -> dict[str, Any]:
    n, d_in, d_out = 6, 4, 3
    gates = {"inputs": (d_in,), "outputs": (d_out,), "weights": (d_in, d_out)}[on]
    args = {
        "x": rng.normal(size=(n, d_in)),
        "weight": rng.normal(size=(d_in, d_out)),
        "bias": rng.normal(size=d_out),
        "z": rng.uniform(size=(n, *gates) if per_example else gates),
        "on": on,
        "gates_bias": gates_bias,
    }
    return args if function == "dense" else {"dy": rng.normal(size=(n, d_out)), **args}


def _conv(
    rng: np.random.Generator, function: str, on: str, gates_bias: bool, per_example: bool
) -> dict[str, Any]:
    n, shape = 3, (6, 2, 3, 2)
    gates = (6,) if on == "outputs" else shape
    args = {
        "x": rng.normal(size=(n, 4, 9, 8)),
        "weight": rng.normal(size=shape),
        "bias": rng.normal(size=6),
        "z": rng.uniform(size=(n, *gates) if per_example else gates),
        "on": on,
        "gates_bias": gates_bias,
        "stride": (2, 1),
        "padding": (1, 2),
        "dilation": (1, 3),
        "groups": 2,
    }
    return args if function == "conv2d" else {"dy": rng.normal(size=(n, 6, 5, 9)), **args}


def _plain(rng: np.random.Generator, function: str) -> dict[str, Any]:
    shape = (5, 3)
    data = network(rng)
    gates = [layer["log_alpha"].shape for layer in data["layers"] if layer.get("on")]
    steps = 3 if function == "train" else 0
    lead = (steps,) if steps else ()
    values: dict[str, Any] = {
        "log_alpha": 3 * rng.normal(size=shape),
        "u": rng.uniform(0.01, 0.99, size=shape),
        "q": rng.uniform(0.01, 0.99, size=shape),
        "x": rng.uniform(0.01, 0.99, size=shape),
        "dz": rng.normal(size=shape),
        "group_size": rng.integers(1, 9, size=shape),
        "drop_rate": 0.1875,
        "normal": rng.normal(size=(5, 2, 3, 1)),
        "weight_shape": (5, 2, 3, 1),
        "on": "outputs",
        "gates_bias": True,
        **{"c_in": 6, "c_out": 4, "kernel": (3, 2), "size": (9, 8), "stride": (2, 1)},
        **{"padding": (0, 1), "dilation": (1, 2), "groups": 2, "bias": False},
        "theta": rng.normal(size=shape),
        "grads": rng.normal(size=(4, *shape)),
        "values": rng.normal(size=(4, *shape)),
        **{"lr": 0.0625, "decay": 0.75, "network": data, **LAW, **PENALTY},
        "labels": rng.integers(0, 3, size=(*lead, 7)),
        **{"n": 6, "seed": 11},
    }
    if function in ("predict", "loss_and_grads", "train"):
        values["x"] = rng.normal(size=(*lead, 7, 2, 9, 8))
        values["u"] = [rng.uniform(0.01, 0.99, size=(*lead, *s)) for s in gates]
    if function == "draw_vjp":
        values["dz"] = rng.normal(size=(values["n"], *shape))
    return {name: values[name] for name in FUNCTIONS[function].parameters}


def assert_close(got: Any, expected: Any, dtype: Any, where: str = "") -> None:
    """Compare structures of arrays, to a thousand roundings of the largest number in each."""
    if isinstance(expected, Mapping):
        assert got.keys() == expected.keys(), where
        for key, part in expected.items():
            assert_close(got[key], part, dtype, f"{where}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), where
        for i, part in enumerate(expected):
            assert_close(got[i], part, dtype, f"{where}[{i}]")
    elif expected is None or isinstance(expected, str):
        assert got == expected, where
    else:
        right, came = np.asarray(expected), np.asarray(got)
        assert came.shape == right.shape, where
        if right.shape and right.dtype.kind == "f":
            assert came.dtype == np.dtype(dtype), where
        # Sums of a hundred terms of both signs, behind five layers.
        slack = 1000 * np.finfo(dtype).eps
        scale = max(1.0, float(np.max(np.abs(right), initial=0)))
        np.testing.assert_allclose(came, right, rtol=0, atol=slack * scale, err_msg=where)
