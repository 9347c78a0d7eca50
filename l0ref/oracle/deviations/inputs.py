"""One input or two for every function of the interface, on which mistakes are measured.

The first of each is the documented one: what a deviation costs is said of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

DEFAULTS = {
    "beta": float(np.float32(2 / 3)),
    "gamma": float(np.float32(-0.1)),
    "zeta": float(np.float32(1.1)),
}
UNEVEN = {"beta": 0.75, "gamma": -0.25, "zeta": 1.125}
"""A law that is not symmetric, so that 0 and 1 cannot be taken for one another."""
_UNEVEN_WORDS = "beta = 0.75, gamma = -0.25, zeta = 1.125"


def _uneven(words: str) -> str:
    return words.replace("the defaults", _UNEVEN_WORDS)


class Input(NamedTuple):
    """Arguments of a function, and in words what they are."""

    args: dict[str, Any]
    words: str


def _normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).round(3)


def _uniform(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(1, 64, shape) / 64


def _law_inputs() -> dict[str, list[Input]]:
    line = np.linspace(-6, 6, 121)
    wide = np.linspace(-40, 40, 41)
    x, places = np.meshgrid(np.linspace(-3, 3, 13), np.linspace(0.02, 0.98, 25))
    outside = np.array([-0.25, -0.0625, 0.0, 0.5, 1.0, 1.0625, 1.25])
    u = np.linspace(0.02, 0.98, 25)
    grid, noise = np.meshgrid(np.linspace(-4, 4, 17), u)
    tails = np.array([2.0**-40, 2.0**-24, 1 - 2.0**-24, 1 - 2.0**-40])
    far = np.array([20.0, 17.0, -17.0, -20.0])
    dz = _normal(1, *grid.shape)

    words = "log_alpha from -6 to 6 at the defaults"
    alone = [
        Input({"log_alpha": line, **DEFAULTS}, words),
        Input({"log_alpha": line, **UNEVEN}, _uneven(words)),
        Input({"log_alpha": wide, **DEFAULTS}, "log_alpha from -40 to 40 at the defaults"),
    ]
    words = "x from 0.02 to 0.98 and log_alpha from -3 to 3 at the defaults"
    far_words = words.replace("-3 to 3", "-43 to -37")
    at = [
        Input({"x": places, "log_alpha": x, **DEFAULTS}, words),
        Input({"x": places, "log_alpha": x, **UNEVEN}, _uneven(words)),
        Input({"x": places, "log_alpha": x - 40, **DEFAULTS}, far_words),
    ]
    edges = Input(
        {"x": outside, "log_alpha": np.full(7, 0.5), **DEFAULTS},
        "x from -0.25 to 1.25, 0 and 1 among them, and log_alpha = 0.5 at the defaults",
    )
    words = "log_alpha from -4 to 4 and u from 0.02 to 0.98 at the defaults"
    drawn: list[tuple[Mapping[str, Any], str]] = [
        ({"log_alpha": grid, "u": noise, **DEFAULTS}, words),
        ({"log_alpha": grid, "u": noise, **UNEVEN}, _uneven(words)),
        (
            {"log_alpha": far, "u": tails, **DEFAULTS},
            "u from 2^-40 to 1 - 2^-40 and log_alpha from 20 to -20, which make up for it, at the "
            "defaults",
        ),
    ]
    found = {
        name: list(alone)
        for name in (
            "prob_active",
            "log_prob_active",
            "prob_active_grad",
            "test_time",
            "test_time_grad",
            "mean",
            "var",
        )
    }
    found["log_prob_active"].append(
        Input({"log_alpha": np.array([-800.0]), **DEFAULTS}, "log_alpha = -800 at the defaults")
    )
    found |= {"cdf": [*at, edges], "sf": [*at, edges], "pdf": list(at), "logpdf": list(at)}
    found["ppf"] = [
        Input(
            {"q": args["u"], "log_alpha": args["log_alpha"], **_law(args)},
            text.replace("u from", "q from"),
        )
        for args, text in drawn
    ]
    found["sample"] = [Input(dict(args), text) for args, text in drawn]
    found["sample_partials"] = list(found["sample"])
    found["sample_vjp"] = [
        Input(
            {"dz": dz if args["u"] is noise else np.ones(4) / 3, **args},
            text and text + ", standard normal dz",
        )
        for args, text in drawn
    ]
    three = np.array([-1.5, 0.5, 2.0])
    some = {"log_alpha": three, "n": 4000, "seed": 5, **DEFAULTS}
    found["draw"] = [Input(some, "4000 draws at log_alpha -1.5, 0.5 and 2 at the defaults")]
    found["draw_vjp"] = [
        Input(
            {**some, "dz": _normal(2, 4000, 3)},
            "4000 draws at log_alpha -1.5, 0.5 and 2 at the defaults, standard normal dz",
        )
    ]
    return found


def _law(args: Mapping[str, Any]) -> dict[str, float]:
    return {name: args[name] for name in DEFAULTS}


def _penalty_inputs() -> dict[str, list[Input]]:
    sizes = np.array([7, 1, 12, 4])
    log_alpha = np.array([-3.0, -1.0, 0.5, 2.0])
    found = {
        name: [Input({"log_alpha": log_alpha, "group_size": sizes, **DEFAULTS}, "four gates")]
        for name in ("expected_l0", "expected_l0_grad")
    }
    cases = []
    for on, gates_bias, shape in (
        ("outputs", True, (3, 5)),
        ("inputs", False, (3, 5)),
        ("inputs", True, (3, 5)),
        ("outputs", False, (3, 5)),
        ("weights", False, (3, 5)),
        ("outputs", True, (4, 2, 3, 2)),
        ("outputs", False, (4, 2, 3, 2)),
    ):
        outputs = shape[1] if len(shape) == 2 else shape[0]
        gates = {"outputs": (outputs,), "inputs": shape[:1], "weights": shape}[on]
        args = {
            "log_alpha": 2 * _normal(3, *gates),
            "weight": _normal(4, *shape),
            "bias": _normal(5, outputs),
            "on": on,
            "gates_bias": gates_bias,
        }
        kind = "a 3-5 dense layer" if len(shape) == 2 else "2 to 4 maps, 3 x 2 kernels"
        cases.append((args, f"{kind}, gates on {on}"))
    found["group_size"] = [
        Input(
            {"weight_shape": a["weight"].shape, "on": a["on"], "gates_bias": a["gates_bias"]},
            f"weights {a['weight'].shape}, gates on {a['on']}, gates_bias={a['gates_bias']}",
        )
        for a, _ in cases
    ]
    rates = {"lam": 1.5, "l2": 0.5, "n_train": 100}
    for name in ("expected_l2", "expected_l1"):
        for suffix in ("", "_grad"):
            found[name + suffix] = [Input({**a, **DEFAULTS}, text) for a, text in cases]
    for name in ("penalty", "penalty_grad"):
        found[name] = [
            Input({**a, **rates, **DEFAULTS}, text + ", lam = 1.5, l2 = 0.5, N = 100")
            for a, text in cases
        ]
    return found


def _layer_inputs() -> dict[str, list[Input]]:
    dense, conv = [], []
    for lead in ((), (4,)):
        for on, gates_bias in (
            ("outputs", True),
            ("outputs", False),
            ("inputs", False),
            ("inputs", True),
            ("weights", False),
        ):
            gates = {"outputs": (5,), "inputs": (3,), "weights": (3, 5)}[on]
            args = {
                "x": _normal(6, 4, 3),
                "weight": _normal(7, 3, 5),
                "bias": _normal(8, 5),
                "z": _uniform(9, *lead, *gates),
                "on": on,
                "gates_bias": gates_bias,
            }
            words = f"4 examples, 3 inputs, 5 outputs, gates on {on}, gates_bias={gates_bias}"
            words += ", a draw for each example" if lead else ""
            dense.append((args, _normal(10, 4, 5), words))
            if on == "inputs":
                continue
            gates = {"outputs": (4,), "weights": (4, 2, 3, 2)}[on]
            args = {
                "x": _normal(11, 4, 4, 6, 7),
                "weight": _normal(12, 4, 2, 3, 2),
                "bias": _normal(13, 4),
                "z": _uniform(14, *lead, *gates),
                "on": on,
                "gates_bias": gates_bias,
                "stride": (2, 1),
                "padding": (1, 2),
                "dilation": (1, 2),
                "groups": 2,
            }
            words = f"4 maps of 6 x 7, two groups of 3 x 2 kernels, gates on {on}"
            conv.append((args, _normal(15, 4, 4, 3, 9), words))
    return {
        "dense": [Input(a, words) for a, _, words in dense],
        "dense_vjp": [Input({"dy": dy, **a}, words) for a, dy, words in dense],
        "conv2d": [Input(a, words) for a, _, words in conv],
        "conv2d_vjp": [Input({"dy": dy, **a}, words) for a, dy, words in conv],
    }


def _networks() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a network with gates on inputs, one with convolutions, and one with single weights."""

    def dense(seed: int, n_in: int, n_out: int, on: str | None, gates_bias: bool = False) -> Any:
        gates = {"inputs": (n_in,), "outputs": (n_out,), "weights": (n_in, n_out), None: (0,)}[on]
        log_alpha = 3 * _normal(seed + 2, *gates)
        return {
            "kind": "dense",
            "weight": _normal(seed, n_in, n_out),
            "bias": _normal(seed + 1, n_out),
            "on": on,
            "log_alpha": log_alpha if on else None,
            "gates_bias": gates_bias,
        }

    def conv(seed: int, shape: tuple[int, ...], log_alpha: list[float], **more: Any) -> Any:
        one = {
            "kind": "conv2d",
            "weight": _normal(seed, *shape) / 2,
            "bias": np.abs(_normal(seed + 1, shape[0])),
            "on": "outputs",
            "log_alpha": np.array(log_alpha),
            "gates_bias": True,
            "stride": (1, 1),
            "padding": (0, 0),
            "dilation": (1, 1),
            "groups": 1,
        }
        return one | more

    relu: dict[str, Any] = {"kind": "relu"}
    mlp = {
        "input_shape": (6,),
        "layers": [
            dense(20, 6, 5, "inputs"),
            relu,
            dense(23, 5, 4, "inputs"),
            relu,
            dense(26, 4, 3, "outputs"),
        ],
        **DEFAULTS,
    }
    lenet: dict[str, Any] = {
        "input_shape": (2, 9, 8),
        "layers": [
            conv(30, (3, 2, 3, 2), [-4.0, 0.5, 1.5], stride=(2, 1), padding=(1, 0)),
            relu,
            conv(32, (4, 3, 2, 2), [0.75, -4.0, -0.5, 2.0], gates_bias=False),
            relu,
            {"kind": "max_pool2d", "kernel_size": (2, 2)},
            {"kind": "flatten"},
            dense(34, 24, 4, "outputs", gates_bias=True),
            relu,
            dense(37, 4, 3, None),
        ],
        **DEFAULTS,
    }
    lenet["layers"][6]["log_alpha"] = np.array([0.5, -4.0, 1.5, 2.5])
    single = {
        "input_shape": (5,),
        "layers": [dense(40, 5, 4, "weights"), relu, dense(43, 4, 3, "inputs")],
        **DEFAULTS,
    }
    return mlp, lenet, single


def _barely_open(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same network with test gates of 0.005, 0.015, and so on."""
    gamma, zeta = network["gamma"], network["zeta"]
    layers = [dict(layer) for layer in network["layers"]]
    for layer in layers:
        if layer.get("on"):
            z = 0.005 + 0.01 * np.arange(layer["log_alpha"].size).reshape(layer["log_alpha"].shape)
            layer["log_alpha"] = np.log((z - gamma) / (zeta - z))
    return {**network, "layers": layers}


def _network_inputs() -> dict[str, list[Input]]:
    mlp, lenet, single = _networks()
    words = (
        "a 6-5-4-3 network with gates on the inputs",
        "a small convolutional network with two closed maps and one closed unit",
        "a 5-4-3 network with gates on weights and inputs",
    )
    three = list(zip((mlp, lenet, single), words, strict=True))
    three.append(({**mlp, **UNEVEN}, f"{three[0][1]} at {_UNEVEN_WORDS}"))
    found: dict[str, list[Input]] = {}
    for name in ("expected_cost", "hard_cost", "compact"):
        found[name] = [Input({"network": net}, text) for net, text in three]
    found["hard_cost"].append(Input({"network": _barely_open(mlp)}, "gates from 0.005 on"))
    found["predict"] = [
        Input({"network": net, "x": _normal(50, 5, *net["input_shape"])}, text)
        for net, text in three
    ]
    rates = {"lam": 1.5, "l2": 0.5, "n_train": 60}
    found["loss_and_grads"], found["train"] = [], []
    for net, text in three:
        gates = [layer["log_alpha"].shape for layer in net["layers"] if layer.get("on")]
        labels = np.arange(5) % 3
        one = {
            "network": net,
            "x": _normal(51, 5, *net["input_shape"]),
            "labels": labels,
            "u": [_uniform(52, *shape) for shape in gates],
        }
        many = {
            "network": net,
            "x": _normal(53, 4, 5, *net["input_shape"]),
            "labels": np.stack([labels] * 4),
            "u": [_uniform(54, 4, *shape) for shape in gates],
            "lr": 0.0625,
            "decay": 0.75,
        }
        found["loss_and_grads"].append(Input({**one, **rates}, text))
        if len(found["train"]) < 2:
            found["train"].append(Input({**many, **rates}, text + ", four steps"))
    return found


def _other_inputs() -> dict[str, list[Input]]:
    conv = {
        "c_in": 4,
        "c_out": 6,
        "kernel": (3, 2),
        "size": (13, 9),
        "stride": (2, 3),
        "padding": (1, 2),
        "dilation": (2, 1),
        "groups": 2,
        "bias": True,
    }
    words = "4 to 6 maps in two groups, 3 x 2 kernels, stride (2, 3), padding (1, 2), dilation "
    words += "(2, 1), input 13 x 9"
    layer = ("c_in", "c_out", "kernel", "groups", "bias")
    sizes = {"n_in": 784, "n_out": 300}
    steps = _normal(61, 8, 3) * np.array([1.0, 1e-3, 1e-7])
    found = {
        "init_log_alpha": [
            Input({"drop_rate": 0.25, "normal": _normal(60, 4)}, "a drop rate of 0.25, four gates")
        ],
        "init_weight": [
            Input({"normal": _normal(62, 8, 3)}, "a dense layer of 8 inputs and 3 outputs"),
            Input(
                {"normal": _normal(63, 6, 2, 3, 2)}, "a convolution of 2 to 6 maps, 3 x 2 kernels"
            ),
        ],
        "adam": [
            Input(
                {"theta": _normal(64, 3), "grads": steps, "lr": 0.01},
                "8 steps with lr = 0.01, gradients of size 1, 1e-3 and 1e-7",
            )
        ],
        "temporal_average": [
            Input({"values": _normal(65, 6, 3) + 2, "decay": 0.875}, "6 updates, decay 0.875")
        ],
    }
    for bias in (True, False):
        end = "" if bias else ", no bias"
        one = {**conv, "bias": bias}
        found.setdefault("conv2d_flops", []).append(Input(one, words + end))
        few = {name: one[name] for name in layer}
        found.setdefault("conv2d_params", []).append(Input(few, words + end))
        for name in ("dense_flops", "dense_params"):
            found.setdefault(name, []).append(Input({**sizes, "bias": bias}, "784-300" + end))
    return found


INPUTS: dict[str, list[Input]] = (
    _law_inputs() | _penalty_inputs() | _layer_inputs() | _network_inputs() | _other_inputs()
)
