"""Vectors of layers and networks: their outputs, gradients, cost, training and compaction."""

# ruff: noqa: B023  (`match` and `settled` call what they are given before they return)

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from flint import ctx

from .arithmetic import exact, fmap
from .arithmetic import float32 as f32
from .cases_gates import COLD, DEFAULT, LAWS, LOPSIDED, PAPER, Dice, gate_shape, q
from .formulas import (
    ONE,
    ZERO,
    Cost,
    adam,
    averages,
    conv2d,
    count,
    dense,
    expected_cost,
    hard_cost,
    loss_and_grads,
    output_size,
    parameters,
    predict,
    train,
    variables,
)
from .tape import KinkError, backward, grad_of, value_of
from .writing import Allowed, Area, Group

Case = Mapping[str, Any]

# --- layers ---

PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}

_GEOMETRIES: tuple[tuple[str, str, list[str], dict[str, Any]], ...] = (
    ("plain", "A kernel that is not square.", ["transposed", "height-width"], {}),
    (
        "stride-padding",
        "Strides and paddings that differ along the axes; sizes are floored.",
        ["stride", "padding", "floor", "height-width"],
        {"stride": (2, 3), "padding": (1, 2)},
    ),
    ("dilation", "A kernel with holes.", ["dilation", "height-width"], {"dilation": (1, 2)}),
    ("groups", "Two groups of maps.", ["groups"], {"groups": 2}),
    (
        "everything",
        "Stride, padding, dilation and groups at once.",
        ["stride", "padding", "dilation", "groups", "floor"],
        {"stride": (2, 1), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
    ),
    (
        "one-by-one",
        "A kernel of a single weight a map, every other pixel.",
        ["stride", "floor"],
        {"kernel": (1, 1), "stride": (2, 2)},
    ),
    (
        "one-by-one-padded",
        "A kernel of a single weight a map, with a border that it sees.",
        ["stride", "padding", "floor"],
        {"kernel": (1, 1), "stride": (2, 2), "padding": (1, 1)},
    ),
    (
        "three-by-three",
        "A square kernel; sizes stay as they are.",
        ["transposed", "padding"],
        {"kernel": (3, 3), "padding": (1, 1)},
    ),
    (
        "five-by-five",
        "A square kernel, larger than the image without its border.",
        ["transposed", "padding"],
        {"kernel": (5, 5), "padding": (2, 2)},
    ),
)


def layers() -> Area:
    """Dense layers and convolutions under each kind of gate, and their VJPs."""
    area = Area("layers", "Gated layers, forward and backward", PAPER)
    _dense(area)
    _conv2d(area)
    return area


def _pulled(op: Callable[..., Any], dy: Any, arrays: tuple[Any, ...], rules: Any) -> Any:
    tape = [variables(array) for array in arrays]
    y = op(*tape, **rules)
    pairs = zip(_leaves(y), _leaves(dy), strict=True)
    backward([(value, exact(cotangent)) for value, cotangent in pairs])
    return tuple(grad_of(array) for array in tape)


def _leaves(nested: Any) -> list[Any]:
    return (
        [leaf for part in nested for leaf in _leaves(part)]
        if isinstance(nested, list)
        else [nested]
    )


def _gates(dice: Dice, *shape: int) -> Any:
    """Return gates as draws make them: some exactly 0, some exactly 1, most between."""
    values = fmap(lambda z: Fraction(0) if z < Fraction(1, 8) else z, dice.array(0, 1.125, *shape))
    return fmap(lambda z: min(z, Fraction(1)), values)


def _dense(area: Area) -> None:
    source = "section 2.2: theta = theta_tilde z; a gate for a weight, an input or an output"
    for on, both in (
        ("inputs", False),
        ("outputs", True),
        ("outputs", False),
        ("weights", False),
        ("inputs", True),
    ):
        name = f"{on}{'-bias' if both else ''}"
        group = area.group(
            f"dense-{name}", "dense", f"Gates on {on}", source, on=on, gates_bias=both
        )
        pulls = area.group(
            f"dense-vjp-{name}", "dense_vjp", f"Gates on {on}", source, on=on, gates_bias=both
        )
        for n, d_in, d_out, each, equal in (
            (2, 4, 3, False, ""),
            (3, 2, 5, False, ""),
            (2, 3, 4, True, ""),
            (3, 3, 2, False, "as many examples as inputs"),
            (3, 3, 2, True, "as many examples as inputs"),
            (4, 2, 4, False, "as many examples as outputs"),
            (4, 2, 4, True, "as many examples as outputs"),
            (2, 3, 3, False, "as many outputs as inputs"),
        ):
            dice = Dice(f"dense {on} {both} {n} {each}{equal and ' '}{equal}")
            x, weight = dice.array(-2, 2, n, d_in), dice.array(-1.5, 1.5, d_in, d_out)
            bias, dy = dice.array(-1, 1, d_out), dice.array(-1.5, 1.5, n, d_out)
            lead = (n,) if each else ()
            z = _gates(dice, *lead, *gate_shape((d_in, d_out), on))
            flags = ["gate-axis", "transposed", *(["per-example"] if each else [])]
            if on == "outputs" or both:
                flags.append("gates-bias")
            inputs = {"x": x, "weight": weight, "bias": bias, "z": z}
            rules: dict[str, Any] = {"on": on, "gates_bias": both}
            id_ = f"{d_in}-to-{d_out}" + ("-per-example" if each else "")
            id_ += f"-{equal.replace(' ', '-')}" if equal else ""
            comment = f"{n} examples, " + ("one draw for each" if each else "one draw for all")
            comment += f"; {equal}." if equal else "."
            group.match(
                id_,
                comment,
                flags,
                lambda: value_of(dense(*map(variables, inputs.values()), **rules)),
                **inputs,
            )
            pulls.match(
                id_,
                comment,
                [*flags, "cotangent-ignored"],
                lambda: _pulled(dense, dy, tuple(inputs.values()), rules),
                dy=dy,
                **inputs,
            )
    dice = Dice("dense refused")
    group = area.group("dense-shapes", "dense", "Shapes that do not fit", source, gates_bias=False)
    for id_, comment, shapes in (
        ("x", "x has three columns, the weight four rows.", ((2, 3), (4, 5), (5,), (4,))),
        ("bias", "The bias has four numbers for five outputs.", ((2, 3), (3, 5), (4,), (3,))),
        ("z", "Four gates for three inputs.", ((2, 3), (3, 5), (5,), (4,))),
        (
            "z-per-example",
            "Draws for three examples, and two examples.",
            ((2, 4), (4, 5), (5,), (3, 4)),
        ),
    ):
        arrays = [dice.array(0.25, 1, *shape) for shape in shapes]
        inputs = dict(zip(("x", "weight", "bias", "z"), arrays, strict=True))
        group.refuse(id_, comment, ["shapes"], on="inputs", **inputs)


def _conv2d(area: Area) -> None:
    source = "section 4.1: a gate for a map, or for a weight; the kernel is not mirrored"
    n, c_in, height, width, c_out = 2, 4, 4, 5, 6
    for on, both in (("outputs", True), ("outputs", False), ("weights", False)):
        name = f"{on}{'-bias' if both else ''}"
        shared: dict[str, Any] = {"on": on, "gates_bias": both}
        group = area.group(f"conv2d-{name}", "conv2d", f"Gates on {on}", source, **shared)
        pulls = area.group(f"conv2d-vjp-{name}", "conv2d_vjp", f"Gates on {on}", source, **shared)
        cases = [(*geometry, False) for geometry in _GEOMETRIES]
        cases.append(("per-example", "One draw for each example.", ["per-example"], {}, True))
        for id_, comment, flags, changed, each in cases:
            if on == "outputs" and not both and id_ in ("dilation", "groups"):
                continue
            geometry = PLAIN | changed
            two_groups = geometry["groups"] == 2
            maps = (c_in, c_out) if two_groups else (3, 4)
            kernel = geometry.pop("kernel", (2, 3) if id_ != "dilation" else (3, 2))
            if kernel == (5, 5):
                maps = (1, 2)
            shape = (maps[1], maps[0] // geometry["groups"], *kernel)
            dice = Dice(f"conv2d {on} {both} {id_}")
            x = dice.array(-2, 2, n, maps[0], height, width)
            weight, bias = dice.array(-1.5, 1.5, *shape), dice.array(-1, 1, maps[1])
            z = _gates(dice, *((n,) if each else ()), *gate_shape(shape, on))
            rules = shared | geometry
            sizes = output_size(
                (height, width), kernel, *(geometry[k] for k in ("stride", "padding", "dilation"))
            )
            dy = dice.array(-1.5, 1.5, n, maps[1], *sizes)
            inputs = {"x": x, "weight": weight, "bias": bias, "z": z}
            own = ["gate-axis", *flags, *(["gates-bias"] if on == "outputs" else [])]
            group.match(
                id_,
                comment,
                own,
                lambda: value_of(conv2d(*map(variables, inputs.values()), **rules)),
                **inputs,
                **geometry,
            )
            pulls.match(
                id_,
                comment,
                [*own, "cotangent-ignored"],
                lambda: _pulled(conv2d, dy, tuple(inputs.values()), rules),
                dy=dy,
                **inputs,
                **geometry,
            )
    dice = Dice("conv2d refused")
    group = area.group("conv2d-shapes", "conv2d", "Shapes that do not fit", source)
    for id_, comment, shapes, changed in (
        (
            "channels",
            "Images of three maps, a kernel for two.",
            ((2, 3, 4, 5), (4, 2, 2, 3), (4,), (4,)),
            {},
        ),
        (
            "groups",
            "Three groups of four maps.",
            ((2, 4, 4, 5), (6, 2, 2, 3), (6,), (6,)),
            {"groups": 3},
        ),
        (
            "kernel",
            "A kernel that is larger than the image.",
            ((2, 3, 4, 5), (4, 3, 6, 2), (4,), (4,)),
            {},
        ),
        ("z", "Three gates for four maps.", ((2, 3, 4, 5), (4, 3, 2, 3), (4,), (3,)), {}),
    ):
        arrays = [dice.array(0.25, 1, *shape) for shape in shapes]
        inputs = dict(zip(("x", "weight", "bias", "z"), arrays, strict=True))
        rules = PLAIN | changed | {"on": "outputs", "gates_bias": True}
        flags = ["parameters"] if id_ == "kernel" else ["shapes"]
        group.refuse(id_, comment, flags, **inputs, **rules)


# --- networks as data ---

RELU: dict[str, Any] = {"kind": "relu"}
FLATTEN: dict[str, Any] = {"kind": "flatten"}


def pool(kh: int, kw: int) -> dict[str, Any]:
    """Return a max pool."""
    return {"kind": "max_pool2d", "kernel_size": (kh, kw)}


def network(
    input_shape: tuple[int, ...], *parts: Any, law: dict[str, Any] = DEFAULT
) -> dict[str, Any]:
    """Return a network as plain data."""
    return {"input_shape": input_shape, "layers": list(parts)} | law


def dense_layer(
    dice: Dice, n_in: int, n_out: int, on: str | None = None, both: bool = False, **given: Any
) -> dict[str, Any]:
    """Return a dense layer by chance, but for what is given."""
    return _layer(dice, "dense", (n_in, n_out), n_out, on, both) | given


def conv_layer(
    dice: Dice,
    shape: tuple[int, int, int, int],
    on: str | None = None,
    both: bool = False,
    **given: Any,
) -> dict[str, Any]:
    """Return a convolution by chance, but for what is given."""
    return _layer(dice, "conv2d", shape, shape[0], on, both) | PLAIN | given


def _layer(
    dice: Dice, kind: str, shape: tuple[int, ...], n_out: int, on: str | None, both: bool
) -> dict[str, Any]:
    return {
        "kind": kind,
        "weight": dice.array(-1.25, 1.25, *shape),
        "bias": dice.array(-0.75, 0.75, n_out),
        "on": on,
        "log_alpha": None if on is None else dice.array(-2.5, 3, *gate_shape(shape, on), steps=16),
        "gates_bias": both,
    }


Build = Callable[[Dice], dict[str, Any]]


def _mlp(on: str, both: bool = False, law: Any = DEFAULT) -> Build:
    return lambda dice: network(
        (4,),
        dense_layer(dice, 4, 3, on, both),
        RELU,
        dense_layer(dice, 3, 2, *(("inputs", False) if on == "inputs" else ())),
        law=law,
    )


def _both_sides(dice: Dice) -> dict[str, Any]:
    return network(
        (3,),
        dense_layer(dice, 3, 4, "outputs", True),
        RELU,
        dense_layer(dice, 4, 3, "inputs"),
        RELU,
        dense_layer(dice, 3, 2, "weights"),
        law=LOPSIDED,
    )


def _far(dice: Dice) -> dict[str, Any]:
    return network(
        (4,),
        dense_layer(dice, 4, 3, "inputs", log_alpha=q("5.5 -0.75 -5.25 1.25")),
        RELU,
        dense_layer(dice, 3, 2, "inputs", log_alpha=q("0.5 5.25 -1.5")),
    )


def _convnet(dice: Dice) -> dict[str, Any]:
    return network(
        (1, 5, 4),
        conv_layer(dice, (2, 1, 2, 1), "outputs", True),
        RELU,
        pool(2, 2),
        conv_layer(dice, (3, 2, 1, 2), "outputs", False, padding=(0, 1)),
        RELU,
        FLATTEN,
        dense_layer(dice, 18, 2, "inputs"),
    )


def _small_convnet(dice: Dice) -> dict[str, Any]:
    return network(
        (1, 4, 3),
        conv_layer(dice, (2, 1, 2, 2), "outputs", True),
        RELU,
        pool(2, 1),
        FLATTEN,
        dense_layer(dice, 4, 2, "inputs"),
    )


def _grouped(dice: Dice) -> dict[str, Any]:
    return network(
        (2, 4, 3),
        conv_layer(dice, (4, 1, 2, 2), "weights", groups=2, stride=(1, 2), padding=(0, 1)),
        RELU,
        pool(1, 2),
        FLATTEN,
        dense_layer(dice, 12, 3),
        law=COLD,
    )


_NETWORKS: tuple[tuple[str, str, list[str], Build], ...] = (
    ("mlp-inputs", "Gates on the inputs of each dense layer.", ["gate-axis"], _mlp("inputs")),
    (
        "mlp-outputs-bias",
        "Gates on units, which take the bias along; a layer without gates.",
        ["gates-bias", "bias-not-counted"],
        _mlp("outputs", True, LOPSIDED),
    ),
    (
        "mlp-outputs",
        "Gates on units, whose bias stays on; a layer without gates.",
        ["gates-bias", "ungated-bias-counted"],
        _mlp("outputs", False),
    ),
    ("mlp-weights", "A gate a weight; a layer without gates.", ["group-size"], _mlp("weights")),
    ("mlp-both-sides", "Three kinds of gates in a row.", ["gate-axis"], _both_sides),
    (
        "convnet",
        "Gates on maps and on dense inputs; pooling that drops a row, padding.",
        ["flatten-order", "pool", "floor", "height-width"],
        _convnet,
    ),
    ("grouped", "A gate a weight in a grouped convolution.", ["groups", "stride"], _grouped),
)


_TRACED: tuple[tuple[str, str, list[str], Build], ...] = (
    *_NETWORKS[:5],
    (
        "convnet",
        "Gates on maps and on dense inputs; pooling that drops a row.",
        ["flatten-order", "pool", "floor", "height-width"],
        _small_convnet,
    ),
    (
        "mlp-far",
        "Some log_alpha beyond log 100: nothing keeps them within bounds.",
        [],
        _far,
    ),
)


def settled(name: str, attempt: Callable[[Dice], Any]) -> Any:
    """Return the first attempt by chance that keeps away from all kinks."""
    before = ctx.prec
    ctx.prec = 128
    try:
        for seed in itertools.count():
            try:
                return attempt(Dice(f"{name} {seed}"))
            except KinkError:
                if seed == 1000:
                    raise
    finally:
        ctx.prec = before


def _u(dice: Dice, net: Mapping[str, Any], *lead: int) -> list[Any]:
    return [
        dice.noise(*lead, *_shape(layer["log_alpha"]))
        for layer in net["layers"]
        if layer.get("on") is not None
    ]


def _shape(nested: Any) -> tuple[int, ...]:
    return (len(nested), *_shape(nested[0])) if isinstance(nested, list) else ()


# --- cost ---

_SUMS = (
    "32 times 1 + |log_alpha| epsilons of each probability: the cost is a sum of products of at "
    "most three, with few subtractions"
)


def cost() -> Area:
    """FLOPs and parameters, of layers and of networks."""
    area = Area("cost", "What layers and networks cost", PAPER)
    _layer_costs(area)
    _network_costs(area)
    return area


def _layer_costs(area: Area) -> None:
    source = "counted: multiplications and additions, one FLOP each"
    for name in ("dense_flops", "dense_params"):
        group = area.group(name.replace("_", "-"), name, name, source)
        for n_in, n_out, bias in (
            (784, 300, True),
            (300, 100, False),
            (1, 7, False),
            (65, 25, True),
            (3, 1, True),
        ):
            of = {"kind": "dense", "weight": [[0] * n_out] * n_in, "bias": [0] if bias else None}
            group.match(
                f"{n_in}-to-{n_out}{'' if bias else '-no-bias'}",
                "An output takes n_in products, n_in - 1 sums, and one more for its bias.",
                ["cost-of-sums"],
                lambda: _one(of, (n_in,), name),
                n_in=n_in,
                n_out=n_out,
                bias=bias,
            )
    for name in ("conv2d_flops", "conv2d_params"):
        group = area.group(name.replace("_", "-"), name, name, source)
        for id_, c_in, c_out, kernel, size, changed, bias in (
            ("lenet-1", 1, 20, (5, 5), (28, 28), {}, True),
            ("lenet-2", 20, 50, (5, 5), (12, 12), {}, True),
            ("lenet-2-hard", 9, 18, (5, 5), (12, 12), {}, True),
            ("not-square", 3, 4, (2, 3), (5, 9), {}, False),
            ("floor", 3, 2, (3, 2), (8, 9), {"stride": (2, 3), "padding": (1, 0)}, True),
            ("dilation", 2, 5, (3, 2), (9, 7), {"dilation": (2, 3)}, True),
            (
                "everything",
                6,
                4,
                (3, 2),
                (10, 7),
                {"stride": (3, 2), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
                False,
            ),
            ("depthwise", 5, 5, (2, 4), (6, 8), {"groups": 5}, True),
            (
                "one-by-one",
                6,
                4,
                (1, 1),
                (7, 10),
                {"stride": (2, 2), "padding": (1, 1)},
                True,
            ),
            ("three-by-three", 3, 3, (3, 3), (6, 6), {"padding": (1, 1)}, True),
            ("wide-border", 2, 3, (2, 2), (4, 4), {"padding": (3, 3)}, False),
            ("beyond-32-bits", 64, 64, (3, 3), (224, 223), {"padding": (1, 1)}, True),
        ):
            geometry: dict[str, Any] = PLAIN | changed
            shape = (c_out, c_in // geometry["groups"], *kernel)
            weight: Any = 0
            for n in reversed(shape):
                weight = [weight] * n
            conv: dict[str, Any] = {
                "kind": "conv2d",
                "weight": weight,
                "bias": [0] if bias else None,
            } | geometry
            inputs: dict[str, Any] = {"c_in": c_in, "c_out": c_out, "kernel": kernel, "bias": bias}
            if name == "conv2d_flops":
                inputs |= {"size": size} | geometry
            else:
                inputs |= {"groups": geometry["groups"]}
            group.match(
                id_,
                f"{c_in} maps of {size[0]} by {size[1]} to {c_out} maps.",
                [
                    "cost-of-sums",
                    "floor",
                    "height-width",
                    *(["groups"] if "groups" in changed else []),
                ],
                lambda: _one(conv, (c_in, *size), name),
                **inputs,
            )


def _one(layer: Mapping[str, Any], input_shape: tuple[int, ...], name: str) -> int:
    found = count({"input_shape": input_shape, "layers": [layer]}, {})
    return found.flops if name.endswith("flops") else found.params


def _network_costs(area: Area) -> None:
    source = "the local rule: a weight costs if what it reads and what it writes are both on"
    hard = area.group("hard-cost", "hard_cost", "Counted with the gates of Eq. 13", source)
    expected = area.group(
        "expected-cost", "expected_cost", "Expected under independent gates", source
    )

    def inputs_twice(dice: Dice) -> dict[str, Any]:
        return network(
            (4,), dense_layer(dice, 4, 3, "inputs"), RELU, dense_layer(dice, 3, 2, "inputs")
        )

    def outputs_and_inputs(dice: Dice) -> dict[str, Any]:
        return network(
            (2,),
            dense_layer(dice, 2, 4, "outputs", True),
            RELU,
            dense_layer(dice, 4, 3, "inputs"),
            law=LOPSIDED,
        )

    def weights(dice: Dice) -> dict[str, Any]:
        return network(
            (3,), dense_layer(dice, 3, 2, "weights"), RELU, dense_layer(dice, 2, 4, "inputs")
        )

    def maps(dice: Dice) -> dict[str, Any]:
        return network(
            (2, 5, 7),
            conv_layer(dice, (3, 2, 2, 3), "outputs", True, stride=(1, 2)),
            RELU,
            pool(2, 2),
            conv_layer(dice, (2, 3, 2, 1), "outputs", True, padding=(1, 0)),
            RELU,
            FLATTEN,
            dense_layer(dice, 6, 2, "inputs"),
        )

    def no_bias(dice: Dice) -> dict[str, Any]:
        return network(
            (2, 4, 3),
            conv_layer(dice, (3, 2, 1, 2), "outputs", bias=None),
            RELU,
            conv_layer(dice, (2, 3, 2, 2), "outputs", bias=None),
            FLATTEN,
            dense_layer(dice, 6, 3),
            law=COLD,
        )

    def grouped(dice: Dice) -> dict[str, Any]:
        return network(
            (2, 3, 4),
            conv_layer(dice, (4, 1, 2, 2), "outputs", True, groups=2),
            RELU,
            conv_layer(dice, (2, 2, 1, 1), "weights", groups=2, bias=None),
            FLATTEN,
            dense_layer(dice, 12, 2),
        )

    def none(dice: Dice) -> dict[str, Any]:
        return network((3,), dense_layer(dice, 3, 4), RELU, dense_layer(dice, 4, 2))

    for id_, comment, flags, build in (
        ("inputs", "Gates on the inputs of each layer.", ["one-sided-cost"], inputs_twice),
        (
            "outputs-and-inputs",
            "Hidden units with gates on either side: one that writes, one that reads.",
            ["one-sided-cost"],
            outputs_and_inputs,
        ),
        ("weights", "A gate a weight, between gates on units.", ["one-sided-cost"], weights),
        (
            "maps",
            "Elements of maps with gates of their own: a map is read if one of them is on.",
            ["one-sided-cost", "expected-is-no-product", "floor", "height-width"],
            maps,
        ),
        (
            "no-bias",
            "Convolutions without a bias: a sum of t terms takes t - 1 additions.",
            ["cost-of-sums", "one-sided-cost", "expected-is-no-product"],
            no_bias,
        ),
        ("groups", "Grouped convolutions.", ["groups", "one-sided-cost"], grouped),
        ("no-gates", "No gates at all.", ["cost-of-sums"], none),
    ):
        for k in range(2 if build is not none else 1):

            def attempt(dice: Dice) -> Any:
                made = build(dice)
                return made, hard_cost(made)

            net, counted = settled(f"cost {id_} {k}", attempt)
            suffix = f"-{k + 1}"
            hard.match(
                id_ + suffix,
                comment,
                [*flags, "beta-in-hard-cost"],
                counted._asdict,
                network=net,
            )
            alphas = [
                abs(float(la))
                for layer in net["layers"]
                for la in _leaves(layer.get("log_alpha"))
                if la is not None
            ]
            eps = 32 * (1 + max(alphas, default=0.0))
            expected.match(
                id_ + suffix,
                comment,
                flags,
                lambda: expected_cost(net),
                tolerance=lambda v: Allowed(eps * 2.0**-52 * v.size, eps * 2.0**-23 * v.size),
                reason=_SUMS,
                network=net,
            )
    barely = _barely_open()
    hard.match(
        "barely-open",
        "Gates of 6e-7, 1e-3 and 1e-4 are open, and one is just closed.",
        ["beta-in-hard-cost"],
        lambda: hard_cost(barely, values_only=True)._asdict(),
        network=barely,
    )
    net = _lenet5()
    hard.match(
        "lenet-5",
        "The LeNet-5 of 9-18-65-25 that the paper reports; weights are constants.",
        ["one-sided-cost", "floor", "cost-of-sums", "beta-in-hard-cost"],
        lambda: _lenet5_cost(net)._asdict(),
        network=net,
    )


def _barely_open() -> dict[str, Any]:
    """Return a layer with gates of 6e-7, 0, 1e-3 and 1e-4."""
    return network(
        (4,),
        dense_layer(
            Dice("barely open"),
            4,
            3,
            "inputs",
            log_alpha=q("-2.39788818359375 -2.39794921875 -2.38671875 -2.396728515625"),
        ),
    )


def _filled(value: str, *shape: int) -> dict[str, Any]:
    return {"fill": Fraction(value), "shape": list(shape)}


def _lenet5() -> dict[str, Any]:
    """LeNet-5-Caffe, of which 9-18-65-25 of 20-50-800-500 are left.

    Open dense inputs belong to open maps, and every open map has one.
    """
    closed, opened = Fraction(-4), Fraction(3)

    def gates(n: int, is_open: Callable[[int], bool]) -> list[Fraction]:
        return [opened if is_open(i) else closed for i in range(n)]

    maps = [m for m in range(50) if m % 3 == 1 or m == 48]
    inputs = {16 * m + 5 for m in maps} | {16 * m + k for m in maps for k in (0, 7, 12)}
    while len(inputs) > 65:
        inputs.remove(max(i for i in inputs if i % 16 != 5))
    rest = {"log_alpha": None, "gates_bias": True} | PLAIN

    def conv(c_out: int, c_in: int, la: Any) -> dict[str, Any]:
        return {
            "kind": "conv2d",
            "weight": _filled("0.125", c_out, c_in, 5, 5),
            "bias": _filled("-0.25", c_out),
            "on": "outputs",
        } | (rest | {"log_alpha": la})

    def full(n_in: int, n_out: int, la: Any) -> dict[str, Any]:
        return {
            "kind": "dense",
            "weight": _filled("0.0625", n_in, n_out),
            "bias": _filled("0.5", n_out),
            "on": "inputs",
            "log_alpha": la,
            "gates_bias": False,
        }

    return network(
        (1, 28, 28),
        conv(20, 1, gates(20, lambda i: i % 2 == 1 and i < 18)),
        RELU,
        pool(2, 2),
        conv(50, 20, gates(50, lambda i: i in maps)),
        RELU,
        pool(2, 2),
        FLATTEN,
        full(800, 500, gates(800, lambda i: i in inputs)),
        RELU,
        full(500, 10, gates(500, lambda i: i % 20 == 3)),
    )


def _lenet5_cost(net: Mapping[str, Any]) -> Cost:
    def whole(layer: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(layer)
        for name in ("weight", "bias"):
            if name in made:
                nested: Any = made[name]["fill"]
                for n in reversed(made[name]["shape"]):
                    nested = [nested] * n
                made[name] = nested
        return made

    found = hard_cost(dict(net) | {"layers": [whole(layer) for layer in net["layers"]]})
    if found != (781_350, 6_212):
        raise AssertionError(f"LeNet-5 of 9-18-65-25 costs {found}")
    return found


# --- training ---


def training() -> Area:
    """Adam, the average, the objective, and whole traces."""
    area = Area("training", "One step, and several", PAPER)
    _adam(area)
    _average(area)
    _loss(area)
    _traces(area)
    return area


def _adam(area: Area) -> None:
    group = area.group(
        "adam", "adam", "Adam with its own hyperparameters", "D. P. Kingma, J. Ba, ICLR 2015"
    )
    dice = Dice("adam")
    small = Fraction(1, 2**24)
    for id_, comment, flags, shape, steps, lr, scale in (
        (
            "typical",
            "Gradients of order 1.",
            ["adam-debiasing", "adam-state"],
            (2, 3),
            4,
            f32(0.001),
            1,
        ),
        ("vector", "A larger rate, more steps.", ["adam-debiasing"], (3,), 7, Fraction(1, 64), 1),
        (
            "small-gradients",
            "Gradients of order 1e-7, where epsilon matters, and whether it is outside the root.",
            ["adam-epsilon"],
            (4,),
            5,
            Fraction(1, 64),
            small,
        ),
    ):
        theta = dice.array(-2, 2, *shape)
        grads = fmap(lambda g: g * scale, dice.array(-2, 2, steps, *shape))
        group.match(
            id_,
            comment,
            flags,
            lambda: adam(fmap(exact, theta), fmap(exact, grads), lr=lr),
            theta=theta,
            grads=grads,
            lr=lr,
        )
    theta = q("0.5 -1.25")
    grads = [q(text) for text in ("0 0.75", "0 0", "1.5 0", "-0.25 0", "0 -2")]
    group.match(
        "zeros",
        "Gradients of exactly 0, as closed gates give: no step, and moments that decay.",
        ["adam-state", "adam-debiasing"],
        lambda: adam(fmap(exact, theta), fmap(exact, grads), lr=Fraction(1, 128)),
        theta=theta,
        grads=grads,
        lr=Fraction(1, 128),
    )


_STARTS_AT_FIRST = "an average that starts at the first value, and is not divided"


def _average(area: Area) -> None:
    group = area.group(
        "temporal-average",
        "temporal_average",
        "Average over the steps, weights proportional to decay^(t-i)",
        "section 4 of the paper; the division by 1 - decay^t as in Adam",
    )
    dice = Dice("average")

    def from_first(values: Any, decay: Fraction) -> Any:
        rest = averages(values[1:], decay=decay, first=values[0])
        return [values[0], *rest]

    for id_, shape, steps, decay in (
        ("half", (3,), 4, Fraction(1, 2)),
        ("slow", (2, 3), 5, f32(0.999)),
        ("tenth", (2,), 6, f32(0.9)),
        ("none", (3,), 3, Fraction(0)),
    ):
        values = dice.array(-2, 2, steps, *shape)
        if id_ == "none":
            values[1] = fmap(lambda v: v * 3, values[1])
        others = (
            []
            if id_ == "none"
            else [(_STARTS_AT_FIRST, lambda: from_first(fmap(exact, values), decay))]
        )
        group.match(
            id_,
            f"A decay of {float(decay):.4g}; the first average is the first value."
            if decay
            else "A decay of 0: the latest value.",
            ["average-debiasing"],
            lambda: averages(fmap(exact, values), decay=decay),
            others=others,
            values=values,
            decay=decay,
        )


_MIRRORED = "the noise enters with the other sign: u and 1-u have one law"


def _mirror(u: Any) -> Any:
    return fmap(lambda value: 1 - value, u)


def _loss(area: Area) -> None:
    source = "Eq. 9, 14 and 15 on one minibatch and one draw"
    group = area.group("loss-and-grads", "loss_and_grads", "The objective and its gradient", source)
    strengths: tuple[tuple[str, dict[str, Any]], ...] = (
        ("l0", {"lam": Fraction(3, 2), "l2": Fraction(0), "n_train": 60}),
        ("l2", {"lam": Fraction(1, 2), "l2": Fraction(3, 4), "n_train": 7}),
    )
    for id_, comment, flags, build in _NETWORKS:
        for name, options in strengths:

            def attempt(dice: Dice) -> Any:
                net = build(dice)
                made = {
                    "network": net,
                    "x": dice.array(-1.5, 1.5, 3, *net["input_shape"]),
                    "labels": dice.labels(len(net["layers"][-1]["bias"]), 3),
                    "u": _u(dice, net),
                }
                _kink_free(made, options, mirrored=False)
                _kink_free(made, options, mirrored=True)
                return made

            case = settled(f"loss {id_} {name}", attempt)
            more = ["batch-mean", "n-train", "mean-for-sum"]
            more += ["half", "weight-decay-ungated"] if options["l2"] else []
            group.match(
                f"{id_}-{name}",
                comment,
                [*flags, *more],
                lambda: _loss_of(case, options),
                others=[(_MIRRORED, lambda: _loss_of(case, options, mirrored=True))],
                **_inputs(case),
                **options,
            )
    _large_logits(group)
    _distant_logits(group)
    _loss_kinks(area, source)


def _loss_of(case: Case, options: Case, *, mirrored: bool = False, **kinks: Any) -> Any:
    net, u = case["network"], _mirror(case["u"]) if mirrored else case["u"]
    params = fmap(exact, parameters(net))
    return loss_and_grads(net, params, case["x"], case["labels"], u, **options, **kinks)


def _inputs(case: Case) -> dict[str, Any]:
    """Return the inputs as a file has them, with a list of arrays for the noise."""
    return {**case, "u": {"list": case["u"]}}


def _kink_free(case: Case, options: Case, *, mirrored: bool) -> None:
    """Raise if the gradient depends on the slope of a ReLU at 0, or anything is near a kink."""
    grads = [
        _loss_of(case, options, mirrored=mirrored, at_zero=slope)["grads"] for slope in (ZERO, ONE)
    ]
    for one, other in zip(*(_leaves(list(g.values())) for g in grads), strict=True):
        if not one.v.overlaps(other.v):
            raise KinkError("the slope of a ReLU at 0 matters")


def _large_logits(group: Group) -> None:
    dice = Dice("large logits")
    net = network((3,), dense_layer(dice, 3, 4, "inputs", log_alpha=q("4.5 0.5 -5")))
    net["layers"][0]["bias"] = q("800 799.5 -750 801.25")
    case: dict[str, Any] = {
        "network": net,
        "x": dice.array(-1, 1, 2, 3),
        "labels": [1, 3],
        "u": [q("0.4375 0.296875 0.34375")],
    }
    options: dict[str, Any] = {"lam": Fraction(1, 4), "l2": Fraction(0), "n_train": 30}
    group.match(
        "large-logits",
        "Logits near 800: their exponentials are no floating-point numbers.",
        ["softmax"],
        lambda: _loss_of(case, options),
        others=[(_MIRRORED, lambda: _loss_of(case, options, mirrored=True))],
        **_inputs(case),
        **options,
    )


def _distant_logits(group: Group) -> None:
    dice = Dice("distant logits")
    first = dense_layer(dice, 3, 4, "inputs", log_alpha=q("4.5 0.5 -5"))
    first["weight"] = fmap(lambda w: 512 * w, first["weight"])
    case: dict[str, Any] = {
        "network": network((3,), first),
        "x": dice.array(-1.5, 1.5, 3, 3),
        "labels": [0, 1, 2],
        "u": [q("0.4375 0.296875 0.34375")],
    }
    options: dict[str, Any] = {"lam": Fraction(1, 4), "l2": Fraction(0), "n_train": 30}
    group.match(
        "distant-logits",
        "Logits a thousand apart, and labels whose probabilities are no floating-point numbers.",
        ["softmax"],
        lambda: _loss_of(case, options),
        others=[(_MIRRORED, lambda: _loss_of(case, options, mirrored=True))],
        **_inputs(case),
        **options,
    )


def _loss_kinks(area: Area, source: str) -> None:
    group = area.group(
        "loss-and-grads-kinks", "loss_and_grads", "Exactly on a kink", source + "; a convention"
    )
    options: dict[str, Any] = {"lam": Fraction(0), "l2": Fraction(0), "n_train": 30}
    half = exact(Fraction(1, 2))
    dice = Dice("relu kink")
    first = dense_layer(
        dice, 2, 3, weight=[q("0.5 1 -0.75"), q("-1 0.5 0.25")], bias=q("0 0.5 0.25")
    )
    case: dict[str, Any] = {
        "network": network((2,), first, RELU, dense_layer(dice, 3, 2)),
        "x": [q("1 0.5"), q("-0.5 0.75")],
        "labels": [1, 0],
        "u": [],
    }
    group.match(
        "relu",
        "The first unit of the first example is exactly 0.",
        ["kink", "convention"],
        lambda: _loss_of(case, options),
        others=[
            ("slope 1 at 0", lambda: _loss_of(case, options, at_zero=ONE)),
            ("slope 1/2 at 0", lambda: _loss_of(case, options, at_zero=half)),
        ],
        **_inputs(case),
        **options,
    )
    dice = Dice("pool kink")
    first = conv_layer(dice, (2, 2, 1, 1), bias=q("0.25 -0.5"))
    first["weight"] = [[[q("1")], [q("1")]], [[q("0.5")], [q("-0.75")]]]
    case = {
        "network": network((2, 1, 4), first, pool(1, 2), FLATTEN, dense_layer(dice, 4, 3)),
        "x": [[[q("0.75 0.25 -0.5 1")], [q("0.25 0.75 0.5 -0.25")]]],
        "labels": [2],
        "u": [],
    }
    group.match(
        "pool",
        "Two elements of a window are equal, of different inputs.",
        ["kink", "convention", "pool"],
        lambda: _loss_of(case, options, at_tie=(ONE, ZERO)),
        others=[
            ("to the last", lambda: _loss_of(case, options, at_tie=(ZERO, ONE))),
            ("half to each", lambda: _loss_of(case, options, at_tie=(half, half))),
        ],
        **_inputs(case),
        **options,
    )


def _traces(area: Area) -> None:
    group = area.group(
        "train",
        "train",
        "Every number of five steps of training",
        "Eq. 9 with Adam and the temporal average, section 4",
    )
    steps, n = 5, 3
    for id_, lr, lam, l2, n_train, decay in (
        ("mlp-inputs", Fraction(1, 64), Fraction(3, 4), Fraction(0), 12, Fraction(3, 4)),
        ("mlp-outputs-bias", Fraction(1, 32), Fraction(1, 2), Fraction(5, 4), 10, f32(0.9)),
        ("mlp-outputs", f32(0.01), Fraction(1), Fraction(1, 2), 15, Fraction(7, 8)),
        ("mlp-weights", Fraction(1, 64), Fraction(2), Fraction(0), 20, f32(0.999)),
        ("mlp-both-sides", Fraction(1, 64), Fraction(1), Fraction(1, 4), 9, f32(0.99)),
        ("convnet", Fraction(1, 128), Fraction(1, 2), Fraction(0), 16, Fraction(3, 4)),
        ("convnet-l2", Fraction(1, 128), Fraction(1, 2), Fraction(3, 4), 16, f32(0.9)),
        ("mlp-far", Fraction(1, 64), Fraction(1, 2), Fraction(0), 12, Fraction(3, 4)),
    ):
        comment, flags, build = next(
            rest[1:] for rest in _TRACED if rest[0] == id_.removesuffix("-l2")
        )
        options: dict[str, Any] = {
            "lr": lr,
            "lam": lam,
            "l2": l2,
            "n_train": n_train,
            "decay": decay,
        }

        def attempt(dice: Dice) -> Any:
            net = build(dice)
            classes = len(net["layers"][-1]["bias"])
            x = dice.array(-1.5, 1.5, steps, n, *net["input_shape"], steps=16)
            labels = [dice.labels(classes, n) for _ in range(steps)]
            u = _u(dice, net, steps)
            for noise in (u, _mirror(u)):
                train(net, x, labels, noise, **options)
            return {"network": net, "x": x, "labels": labels, "u": u}

        case = settled(f"train {id_}", attempt)

        def run(mirrored: bool = False, first: bool = False) -> Any:
            noise = _mirror(case["u"]) if mirrored else case["u"]
            given = case["network"], case["x"], case["labels"], noise
            return train(*given, **options, start_at_first=first)

        group.match(
            id_,
            comment,
            [*flags, "trace", "adam-state", "average-debiasing", *(["half"] if l2 else [])],
            run,
            others=[
                (_STARTS_AT_FIRST, lambda: run(first=True)),
                (_MIRRORED, lambda: run(mirrored=True)),
                (
                    "the noise with the other sign, the average started at the first",
                    lambda: run(mirrored=True, first=True),
                ),
            ],
            **_inputs(case),
            **options,
        )


# --- networks at test time ---


def networks() -> Area:
    """Predictions under Eq. 13, and compaction."""
    area = Area("networks", "Networks at test time", PAPER)
    _predictions(area)
    _compaction(area)
    return area


def _predictions(area: Area) -> None:
    group = area.group("predict", "predict", "Logits under the gates of Eq. 13", "Eq. 13")
    for id_, comment, flags, build in _NETWORKS:

        def attempt(dice: Dice) -> Any:
            net = build(dice)
            x = dice.array(-1.5, 1.5, 3, *net["input_shape"])
            predict(net, x)
            return net, x

        net, x = settled(f"predict {id_}", attempt)
        group.match(
            id_,
            comment,
            [*flags, "beta-in-test-gate", "test-gate-is-no-mean", "test-gate-is-no-median"],
            lambda: predict(net, x),
            network=net,
            x=x,
        )
    net, x = _barely_open(), Dice("barely open x").array(-24, 24, 3, 4)
    group.match(
        "barely-open",
        "Gates of 6e-7, 1e-3 and 1e-4 are open, and one is just closed.",
        [],
        lambda: predict(net, x),
        network=net,
        x=x,
    )


CLOSED, OPEN = Fraction(-5), Fraction(5)


def _compaction(area: Area) -> None:
    group = area.group(
        "compact",
        "compact",
        "The small network that computes the same",
        "Eq. 13, and what follows from weights of exactly 0",
    )

    def add(
        id_: str,
        comment: str,
        flags: list[str],
        net: dict[str, Any],
        shapes: list[tuple[int, ...]] | None,
    ) -> None:
        x = Dice(f"compact x {id_}").array(-1.5, 1.5, 3, *net["input_shape"])
        group.match(
            id_,
            comment,
            flags,
            lambda: {"logits": predict(net, x), "shapes": shapes},
            probe={"x": x},
            network=net,
        )

    def gates(text: str) -> list[Fraction]:
        return [{"x": CLOSED, "1": OPEN}.get(word) or Fraction(word) for word in text.split()]

    dice = Dice("compact")
    add(
        "inputs",
        "Two inputs and a hidden unit are closed; what is left is folded in.",
        ["gate-not-folded", "dead-code"],
        network(
            (5,),
            dense_layer(dice, 5, 4, "inputs", log_alpha=gates("0.5 x 1 -0.75 x")),
            RELU,
            dense_layer(dice, 4, 2, "inputs", log_alpha=gates("0.25 1 x -1.25")),
        ),
        [(3, 3), (3, 2)],
    )
    add(
        "outputs-bias",
        "Closed units whose bias goes with them leave nothing.",
        ["gates-bias", "gate-not-folded"],
        network(
            (3,),
            dense_layer(dice, 3, 5, "outputs", True, log_alpha=gates("x 0.75 1 x -0.5")),
            RELU,
            dense_layer(dice, 5, 2),
        ),
        [(3, 3), (3, 2)],
    )
    add(
        "outputs",
        "Closed units whose bias stays on are constants, some of them above 0 behind the ReLU.",
        ["gates-bias", "constant-lost", "gate-not-folded"],
        network(
            (3,),
            dense_layer(
                dice,
                3,
                5,
                "outputs",
                log_alpha=gates("x 0.75 x 1 -0.5"),
                bias=q("0.75 -0.25 -0.5 0.375 0.125"),
            ),
            RELU,
            dense_layer(dice, 5, 2),
        ),
        [(3, 3), (3, 2)],
    )
    add(
        "weights",
        "A gate a weight: a hidden unit that reads nothing, and an input that nothing reads.",
        ["constant-lost", "dead-code", "gate-not-folded"],
        network(
            (4,),
            dense_layer(
                dice,
                4,
                3,
                "weights",
                log_alpha=[gates("0.5 x 1"), gates("x x x"), gates("1 x -0.75"), gates("0.25 x x")],
                bias=q("0.25 0.875 -0.375"),
            ),
            RELU,
            dense_layer(dice, 3, 2),
        ),
        None,
    )
    add(
        "dead-chain",
        "A unit that only a closed unit read goes too, and the input that only it read.",
        ["dead-code"],
        network(
            (4,),
            dense_layer(
                dice,
                4,
                3,
                "weights",
                log_alpha=[gates("1 x 0.5"), gates("x 1 x"), gates("0.25 1 1"), gates("1 x x")],
            ),
            RELU,
            dense_layer(
                dice,
                3,
                3,
                "weights",
                log_alpha=[gates("1 x 0.5"), gates("x 1 x"), gates("-0.25 x 1")],
            ),
            RELU,
            dense_layer(dice, 3, 2, "inputs", log_alpha=gates("0.5 x 1")),
        ),
        None,
    )
    add(
        "maps",
        "Closed maps of either convolution; a map all of whose elements are closed goes as well.",
        ["flatten-order", "dead-code", "gate-not-folded", "height-width"],
        network(
            (1, 5, 6),
            conv_layer(dice, (4, 1, 2, 3), "outputs", True, log_alpha=gates("0.5 x 1 -0.75")),
            RELU,
            pool(2, 2),
            conv_layer(dice, (4, 4, 1, 1), "outputs", True, log_alpha=gates("1 0.25 x 0.5")),
            RELU,
            FLATTEN,
            dense_layer(
                dice,
                16,
                3,
                "inputs",
                log_alpha=gates("0.5 x 1 1 x x x x 1 1 1 1 -0.5 1 x 0.75"),
            ),
        ),
        [(3, 1, 2, 3), (2, 3, 1, 1), (6, 3)],
    )
    add(
        "constant-maps",
        "Closed maps whose bias stays on are constants, through ReLU, pooling and flattening.",
        ["constant-lost", "flatten-order", "gates-bias"],
        network(
            (2, 4, 5),
            conv_layer(
                dice,
                (4, 2, 2, 1),
                "outputs",
                log_alpha=gates("x 0.5 x 1"),
                bias=q("0.625 0.25 -0.5 0.125"),
            ),
            RELU,
            pool(2, 2),
            FLATTEN,
            dense_layer(dice, 8, 3),
        ),
        [(2, 2, 2, 1), (4, 3)],
    )
    add(
        "border",
        "A constant map behind a convolution with padding: its border sees less of the constant.",
        ["constant-lost", "border-constant", "padding"],
        network(
            (1, 4, 3),
            conv_layer(
                dice,
                (3, 1, 2, 2),
                "outputs",
                log_alpha=gates("0.5 x 1"),
                bias=q("0.25 0.75 -0.125"),
            ),
            RELU,
            conv_layer(
                dice, (2, 3, 3, 2), "outputs", True, log_alpha=gates("0.75 1"), padding=(1, 1)
            ),
            RELU,
            FLATTEN,
            dense_layer(dice, 18, 2),
        ),
        [(2, 1, 2, 2), (2, 2, 3, 2), (18, 2)],
    )
    add(
        "groups",
        "Closed maps of a grouped convolution: groups may have to stay even.",
        ["groups", "gate-not-folded"],
        network(
            (2, 3, 4),
            conv_layer(
                dice, (6, 1, 2, 2), "outputs", True, log_alpha=gates("x 0.5 1 1 x x"), groups=2
            ),
            RELU,
            FLATTEN,
            dense_layer(dice, 36, 2),
        ),
        None,
    )
    add(
        "all-inputs-closed",
        "Nothing of the input is read: the logits are those of a constant.",
        ["all-closed", "constant-lost"],
        network(
            (3,),
            dense_layer(
                dice, 3, 4, "inputs", log_alpha=gates("x x x"), bias=q("0.5 -0.25 0.75 0.125")
            ),
            RELU,
            dense_layer(dice, 4, 2, "inputs", log_alpha=gates("0.5 1 x 1")),
        ),
        None,
    )
    add(
        "all-units-closed",
        "A layer has lost every unit: the logits are the last layer's bias.",
        ["all-closed"],
        network(
            (3,),
            dense_layer(dice, 3, 4, "outputs", True, log_alpha=gates("x x x x")),
            RELU,
            dense_layer(dice, 4, 2),
        ),
        None,
    )
    add(
        "all-maps-closed",
        "A convolution has lost every map, before another.",
        ["all-closed", "constant-lost"],
        network(
            (1, 4, 5),
            conv_layer(dice, (2, 1, 2, 2), "outputs", log_alpha=gates("x x"), bias=q("0.5 -0.25")),
            RELU,
            conv_layer(dice, (3, 2, 2, 1), "outputs", True, log_alpha=gates("0.5 1 x")),
            FLATTEN,
            dense_layer(dice, 24, 2, "inputs", log_alpha=dice.array(-2.5, 3, 24, steps=4)),
        ),
        None,
    )
    add(
        "barely-open",
        "Gates of 6e-7, 1e-3 and 1e-4 are open, and one is just closed.",
        ["gate-not-folded"],
        _barely_open(),
        [(3, 3)],
    )
    add(
        "all-open",
        "Nothing is closed, nothing is folded: the network as it was.",
        ["gate-not-folded"],
        network(
            (3,),
            dense_layer(dice, 3, 4, "inputs", log_alpha=gates("1 1 1")),
            RELU,
            dense_layer(dice, 4, 2, "outputs", True, log_alpha=gates("1 1")),
            law=LAWS["lopsided"],
        ),
        [(3, 4), (4, 2)],
    )
