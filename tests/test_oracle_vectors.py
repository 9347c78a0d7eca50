"""The vectors: their files, their digits by a second route, and the reference against them."""

import ast
import json
import math
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from flint import arb, ctx, fmpq
from mpmath import MPContext

import l0ref.oracle
from l0ref.oracle import generate, interface, vectors
from l0ref.oracle.balls import arithmetic, tape
from l0ref.oracle.compare import compare
from l0ref.oracle.reference import reference

FOLDER = Path(vectors.FOLDER)
FILES = {area: json.loads((FOLDER / f"{area}.json").read_text()) for area in vectors.AREAS}
TESTS = vectors.load_all()
BY_ID = {test.id: test for test in TESTS}

mp = MPContext()
mp.dps = 60


def leaves(nested):
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        return [leaf for part in nested for leaf in leaves(part)]
    return [] if nested is None else [nested]


def numbers(nested):
    return np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in leaves(nested)] or [[]])


def raw(test_id):
    """Return a test as the file has it, with its group's inputs."""
    area = test_id.split("/")[0]
    for group in FILES[area]["groups"]:
        for test in group["tests"]:
            if test["id"] == test_id:
                return group["shared"] | test["inputs"], test
    raise KeyError(test_id)


# --- the files ---


@pytest.mark.parametrize("area", vectors.AREAS)
def test_schema(area):
    schema = json.loads((FOLDER / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(FILES[area])


def test_schema_refuses():
    validator = jsonschema.Draft202012Validator(json.loads((FOLDER / "schema.json").read_text()))

    def is_valid(change):
        content = json.loads((FOLDER / "initialisation.json").read_text())
        change(content["groups"][0]["tests"][0])
        return validator.is_valid(content)

    assert is_valid(lambda test: None)
    assert not is_valid(lambda test: test.update(flags=["no-such-flag"]))
    assert not is_valid(lambda test: test.update(result="raise"))
    assert not is_valid(lambda test: test.update(result="acceptable"))
    assert not is_valid(lambda test: test["inputs"].update(drop_rate=0.25))
    assert not is_valid(lambda test: test.pop("tolerance"))
    assert not is_valid(lambda test: test.update(more=1))


def test_areas_are_those_of_the_interface():
    assert tuple(generate.MAKERS) == vectors.AREAS
    assert tuple(area for area in interface.AREAS if area != "sampler") == vectors.AREAS
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(
        ["schema.json", *(f"{area}.json" for area in vectors.AREAS)]
    )


def test_ids_counts_and_names():
    assert len(BY_ID) == len(TESTS)
    for area, content in FILES.items():
        groups = content["groups"]
        assert content["area"] == area
        assert content["n_tests"] == sum(len(group["tests"]) for group in groups)
        assert len({group["id"] for group in groups}) == len(groups)
        for group in groups:
            function = interface.FUNCTIONS[group["function"]]
            assert function.area == area
            assert group["id"].startswith(f"{area}/")
            for test in group["tests"]:
                assert test["id"].startswith(f"{group['id']}/")
                names = list(group["shared"]) + list(test["inputs"])
                assert sorted(names) == sorted(function.parameters), test["id"]
                assert test["comment"].endswith("."), test["id"]


def test_every_function_has_tests_that_match():
    matched = Counter(test.function for test in TESTS if test.result != "raise")
    draws = set(interface.AREAS["sampler"])
    assert set(matched) == set(interface.FUNCTIONS) - draws
    assert min(matched.values()) >= 4


def test_flags():
    used = Counter(flag for test in TESTS for flag in test.flags)
    assert set(used) == set(vectors.FLAGS)
    for flag, meaning in vectors.FLAGS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", flag)
        assert len(meaning) > 20
        assert meaning.endswith(".")
    for test in TESTS:
        assert ("convention" in test.flags) <= (test.result == "acceptable")


@pytest.mark.parametrize("area", vectors.AREAS)
def test_inputs_are_exact_float32(area):
    for group in FILES[area]["groups"]:
        for inputs in (group["shared"], *(test["inputs"] for test in group["tests"])):
            for leaf in leaves(inputs):
                if isinstance(leaf, str) and re.fullmatch(r"-?[0-9.]+(e[+-][0-9]+)?", leaf):
                    assert Fraction(float(np.float32(float(leaf)))) == Fraction(leaf)


@pytest.mark.parametrize("area", vectors.AREAS)
def test_expected_values_have_25_digits_or_are_exact(area):
    for group in FILES[area]["groups"]:
        for test in group["tests"]:
            for leaf in leaves(test.get("expected")):
                if isinstance(leaf, str) and leaf not in ("nan", "inf", "-inf"):
                    digits = len(leaf.split("e")[0].replace(".", "").replace("-", "").lstrip("0"))
                    short = Fraction(leaf).denominator
                    assert digits == 25 or (digits < 25 and short & (short - 1) == 0), test["id"]


def test_no_group_hides_where_bugs_hide():
    """Values that mistakes leave unchanged are never all that a group has."""
    for group in {test.id.rsplit("/", 1)[0] for test in TESTS}:
        own = [test for test in TESTS if test.id.rsplit("/", 1)[0] == group]
        if all(test.result == "raise" or "kink" in test.flags for test in own):
            continue
        for name, idle in (("log_alpha", 0.0), ("u", 0.5), ("dy", 1.0), ("dz", 1.0), ("x", 0.0)):
            values = [
                numbers(args[name])
                for args in (test.args("float64") for test in own)
                if name in args
            ]
            if values:
                assert any((value != idle).any() for value in values), (group, name)


AGREE = r"as-many|by-one|by-three|by-five"
"""Tests in which sizes agree on purpose, by their ids."""


def test_pairs_of_sizes_differ():
    for test in TESTS:
        if re.search(AGREE, test.id):
            continue
        args = test.args("float64")
        if test.function in ("dense", "dense_vjp", "conv2d", "conv2d_vjp"):
            weight = args["weight"].shape
            assert weight[0] != weight[1]
            channels = (args["x"].shape[1], weight[0 if "stride" in args else 1])
            assert len(args["x"]) not in channels or test.result == "raise"
            assert weight[2:] in ((), (2, 3), (3, 2)) or test.result == "raise"


@pytest.mark.parametrize("function", ["dense", "dense_vjp"])
@pytest.mark.parametrize("on", ["inputs", "outputs", "weights"])
def test_sizes_agree_where_that_could_mislead(function, on):
    """A gate an input, as many inputs as examples: the same shape could be one gate an example."""
    own = [test.args("float64") for test in TESTS if test.function == function]
    own = [args for args in own if args["on"] == on]
    for shared in (False, True):
        sizes = {
            (len(args["x"]) == n_in, len(args["x"]) == n_out, n_in == n_out)
            for args in own
            for n_in, n_out in [args["weight"].shape]
            if (args["z"].ndim == (2 if on == "weights" else 1)) == shared
        }
        assert {(True, False, False), (False, True, False)} <= sizes
        assert not shared or (False, False, True) in sizes


@pytest.mark.parametrize("function", ["conv2d", "conv2d_vjp"])
@pytest.mark.parametrize("on", ["outputs", "weights"])
def test_square_kernels(function, on):
    own = [test.args("float64") for test in TESTS if test.function == function]
    seen = {
        (args["weight"].shape[2:], args["stride"], args["padding"])
        for args in own
        if args["on"] == on
    }
    assert {
        ((1, 1), (2, 2), (0, 0)),
        ((1, 1), (2, 2), (1, 1)),
        ((3, 3), (1, 1), (1, 1)),
        ((5, 5), (1, 1), (2, 2)),
    } <= seen


def test_labels_whose_probabilities_underflow():
    test = BY_ID["training/loss-and-grads/distant-logits"]
    for part in (test, *test.alternatives):
        assert 1000 < part.expected["loss"] < 2000
        for dtype in test.dtypes:
            assert part.tolerance(dtype).abs["loss"] < 1e-4 * part.expected["loss"]


# --- generation ---


@pytest.mark.parametrize("area", vectors.AREAS)
def test_generation_gives_the_same_bytes(area):
    assert generate.main([area, "--check"]) == 0


def test_check_notices_a_changed_file(tmp_path, capsys):
    assert generate.main(["initialisation", "--to", str(tmp_path)]) == 0
    path = tmp_path / "initialisation.json"
    assert path.read_bytes() == (FOLDER / "initialisation.json").read_bytes()
    path.write_text(path.read_text().replace("-1.34375", "-1.28125"))
    assert generate.main(["initialisation", "--check", "--to", str(tmp_path)]) == 1
    assert "initialisation.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        generate.main(["nothing"])


def test_the_generator_uses_nothing_of_the_package():
    """Not the reference, not NumPy: what it knows comes from the equations."""
    folder = Path(generate.__file__).parent
    files = [folder / "generate.py", *sorted((folder / "balls").glob("*.py"))]
    assert len(files) == 8
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = {node.module.split(".")[0]}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, f"{path.name} reaches out of its folder"
                assert path.name != "generate.py" or node.module.split(".")[0] == "balls"
                modules = set()
            else:
                continue
            assert not modules & {"numpy", "scipy", "l0ref"}, path.name


# --- balls ---


def ball(text, radius="0"):
    ctx.prec = 256
    return arb(text, radius)


def test_digits_are_refused_unless_proven():
    assert arithmetic.decimal(ball("0.5")) == "0.5"
    assert arithmetic.decimal(arb(0)) == "0"
    third = arb(fmpq(1, 3))
    assert arithmetic.decimal(third) == "0.3333333333333333333333333"
    with pytest.raises(arithmetic.UnprovenError):
        arithmetic.decimal(ball("0.3333333333333333333333333333", "1e-25"))
    # a ball around a rounding boundary, however small, has no 25 digits
    with pytest.raises(arithmetic.UnprovenError):
        arithmetic.decimal(ball("1.2345678901234567890123455", "1e-60"))
    with pytest.raises(arithmetic.UnprovenError):
        arithmetic.decimal(arb("nan"))
    with pytest.raises(arithmetic.UnprovenError):
        arithmetic.decimal(ball("0", "1e-300"))


@pytest.mark.parametrize(
    "value",
    [
        Fraction(1, 7),
        Fraction(-22, 7),
        Fraction(10**30, 3),
        Fraction(-1, 3 * 10**40),
        Fraction(2, 3),
    ],
)
def test_digits_are_rounded_to_nearest(value):
    ctx.prec = 256
    text = arithmetic.decimal(arb(fmpq(value.numerator, value.denominator)))
    assert abs(Fraction(text) / value - 1) <= Fraction(1, 2 * 10**24)
    assert len(re.sub(r"e.*|[-.]", "", text).lstrip("0")) == 25


def test_precision_is_raised_until_it_is_enough():
    tried = []

    def compute():
        tried.append(ctx.prec)
        return (arb(1) + arb(2) ** -600) - arb(1)

    assert arithmetic.proven(compute, arithmetic.decimal).endswith("e-181")
    assert tried == [256, 512, 1024]


def test_comparisons_are_proven():
    with pytest.raises(tape.KinkError):
        tape.Var(arithmetic.Num(arb(2) ** -20)).relu(at_zero=arithmetic.Num(arb(0)))
    with pytest.raises(tape.KinkError):
        tape.Var(arithmetic.Num(arb(1) - arb(2) ** -20)).clip()
    with pytest.raises(arithmetic.UnprovenError):
        arithmetic.Num(ball("0", "1e-9")) < arithmetic.Num(arb(0))  # noqa: B015


def test_likely_errors_are_not_forgotten():
    """(x + 1e6) - 1e6 loses what float code loses."""
    x, large = arithmetic.exact(Fraction(1, 3)), arithmetic.exact(10**6)
    difference = (x + large) - large
    assert abs(float(difference.v) - 1 / 3) < 1e-16
    lost = abs(np.float32(1 / 3) + np.float32(1e6) - np.float32(1e6) - 1 / 3)
    assert 1e-3 < lost <= difference.err * 2.0**-23 < 1


# --- a second route to the digits: mpmath ---


def m(value):
    return mp.mpf(value) if isinstance(value, str) else value


def law_of(args):
    return (m(args[name]) for name in ("beta", "gamma", "zeta"))


def sigmoid(t):
    return 1 / (1 + mp.exp(-t))


def sample_mp(la, u, beta, gamma, zeta):
    s = sigmoid((mp.log(u / (1 - u)) + la) / beta)
    return min(mp.one, max(mp.zero, s * (zeta - gamma) + gamma))


def cdf_mp(x, la, beta, gamma, zeta):
    s = (x - gamma) / (zeta - gamma)
    alpha = mp.exp(la)
    return 1 / (1 + alpha * (s / (1 - s)) ** -beta)


def derivative(function, at):
    h = mp.mpf(10) ** -20
    return (function(at + h) - function(at - h)) / (2 * h)


def flat_texts(nested):
    return [mp.mpf(leaf) for leaf in leaves(nested)]


def mp_elementwise(function, args):
    """Return the value by mpmath for each element."""
    beta, gamma, zeta = law_of(args)
    la = flat_texts(args["log_alpha"])
    law = (beta, gamma, zeta)
    shift = beta * mp.log(-gamma / zeta)
    if function == "prob_active":
        return [sigmoid(a - shift) for a in la]
    if function == "log_prob_active":
        return [mp.log(sigmoid(a - shift)) for a in la]
    if function == "prob_active_grad":
        return [derivative(lambda t: sigmoid(t - shift), a) for a in la]
    if function == "cdf":
        return [cdf_mp(x, a, *law) for x, a in zip(flat_texts(args["x"]), la, strict=True)]
    if function == "sf":
        return [1 - cdf_mp(x, a, *law) for x, a in zip(flat_texts(args["x"]), la, strict=True)]
    if function in ("pdf", "logpdf"):
        pairs = zip(flat_texts(args["x"]), la, strict=True)
        density = [derivative(lambda t, a=a: cdf_mp(t, a, *law), x) for x, a in pairs]
        return density if function == "pdf" else [mp.log(value) for value in density]
    if function == "test_time":
        s = [sigmoid(a) * (zeta - gamma) + gamma for a in la]
        return [min(mp.one, max(mp.zero, value)) for value in s]
    if function == "test_time_grad":
        return [
            derivative(lambda t: min(1, max(0, sigmoid(t) * (zeta - gamma) + gamma)), a) for a in la
        ]
    u = flat_texts(args["u" if "u" in args else "q"])
    if function in ("sample", "ppf"):
        return [sample_mp(a, v, *law) for a, v in zip(la, u, strict=True)]
    dz = flat_texts(args["dz"])
    return [
        c * derivative(lambda t, v=v: sample_mp(t, v, *law), a)
        for a, v, c in zip(la, u, dz, strict=True)
    ]


ELEMENTWISE = [
    test.id
    for test in TESTS
    if test.function
    in (
        *("prob_active", "log_prob_active", "prob_active_grad", "cdf", "sf", "pdf", "logpdf"),
        *("ppf", "sample", "sample_vjp", "test_time", "test_time_grad"),
    )
    and test.id.rsplit("/", 1)[1] in ("typical", "between", "noise-in-the-tails", "tails")
]


@pytest.mark.parametrize("test_id", ELEMENTWISE)
def test_elementwise_functions_in_mpmath(test_id):
    args, test = raw(test_id)
    got = mp_elementwise(BY_ID[test_id].function, args)
    for value, text in zip(got, flat_texts(test["expected"]), strict=True):
        # derivatives by differences of step 1e-20 are good to some 1e-38
        assert abs(value - text) <= mp.mpf(10) ** -24 * abs(text) + mp.mpf(10) ** -36


@pytest.mark.parametrize("law", ["default", "lopsided", "warm", "cold"])
def test_sample_partials_in_mpmath(law):
    args, test = raw(f"gate/sample-partials-{law}/typical")
    values = list(law_of(args))
    la, u = flat_texts(args["log_alpha"]), flat_texts(args["u"])
    for k, part in enumerate(test["expected"]["tuple"]):
        for a, v, text in zip(la, u, flat_texts(part), strict=True):

            def moved(t, a=a, v=v, k=k):
                four = [a, *values]
                four[k] = t
                return sample_mp(four[0], v, *four[1:])

            got = derivative(moved, [a, *values][k])
            assert abs(got - text) <= mp.mpf(10) ** -24 * abs(text) + mp.mpf(10) ** -36


@pytest.mark.parametrize("law", ["default", "cold"])
@pytest.mark.parametrize("name", ["typical", "tails"])
def test_moments_in_mpmath(law, name):
    """E[z] and E[z^2] as integrals over the noise, in its log odds y, whose law is logistic."""
    means, test = raw(f"law/mean-{law}/{name}")
    _, test2 = raw(f"law/var-{law}/{name}")
    beta, gamma, zeta = law_of(means)
    with mp.workdps(40):
        for la, mean, var in zip(
            flat_texts(means["log_alpha"]),
            flat_texts(test["expected"]),
            flat_texts(test2["expected"]),
            strict=True,
        ):
            low = beta * mp.log(-gamma / zeta) - la
            high = beta * mp.log((1 - gamma) / (zeta - 1)) - la

            def z(y, la=la):
                return gamma + (zeta - gamma) * sigmoid((y + la) / beta)

            def weight(y):
                return sigmoid(y) * sigmoid(-y)

            middle = [low + (high - low) * k / 8 for k in range(9)]
            inner = [mp.quad(lambda y, p=p: z(y) ** p * weight(y), middle) for p in (1, 2)]
            one = sigmoid(-high)
            assert abs(inner[0] + one - mean) <= mp.mpf(10) ** -23 * mean
            assert abs(inner[1] + one - (inner[0] + one) ** 2 - var) <= mp.mpf(10) ** -23


def nested_mp(value):
    if isinstance(value, list):
        return np.array([nested_mp(part) for part in value], dtype=object)
    return mp.mpf(value)


def forward_mp(network, params, x, gates):
    """Logits in mpmath on object arrays; written with slices where the generator has loops."""
    for i, layer in enumerate(network["layers"]):
        kind, on = layer["kind"], layer.get("on")
        z = gates.get(i)
        if kind == "dense":
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            if on == "inputs":
                x = x * z
            elif on == "weights":
                weight = weight * z
            x = x.dot(weight)
            if on == "outputs":
                x, bias = x * z, bias * (z if layer["gates_bias"] else 1)
            x = x + bias
        elif kind == "conv2d":
            weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
            if on == "weights":
                weight = weight * z
            elif on == "outputs":
                weight = weight * z[:, None, None, None]
                bias = bias * z if layer["gates_bias"] else bias
            x = conv_mp(x, weight, layer) + bias[None, :, None, None]
        elif kind == "relu":
            x = np.where(x > 0, x, mp.zero)
        elif kind == "max_pool2d":
            kh, kw = layer["kernel_size"]
            h, w = x.shape[2] // kh, x.shape[3] // kw
            x = x[:, :, : h * kh, : w * kw].reshape(*x.shape[:2], h, kh, w, kw).max(axis=(3, 5))
        else:
            x = x.reshape(len(x), -1)
    return x


def conv_mp(x, weight, layer):
    (sh, sw), (ph, pw), (dh, dw) = (layer[name] for name in ("stride", "padding", "dilation"))
    groups = layer["groups"]
    c_out, per, kh, kw = weight.shape
    padded = np.full((*x.shape[:2], x.shape[2] + 2 * ph, x.shape[3] + 2 * pw), mp.zero)
    padded[:, :, ph : ph + x.shape[2], pw : pw + x.shape[3]] = x
    h = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    w = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.full((len(x), c_out, h, w), mp.zero)
    each = c_out // groups
    for g in range(groups):
        maps = padded[:, g * per : (g + 1) * per]
        for i in range(kh):
            for j in range(kw):
                seen = maps[:, :, i * dh :: sh, j * dw :: sw][:, :, :h, :w]
                own = weight[g * each : (g + 1) * each, :, i, j]
                y[:, g * each : (g + 1) * each] += np.einsum(
                    "nchw,oc->nohw", seen, own, optimize=False
                )
    return y


def loss_mp(network, params, args):
    beta, gamma, zeta = law_of(network)
    gated = [i for i, layer in enumerate(network["layers"]) if layer.get("on")]
    sample = np.frompyfunc(lambda a, u: sample_mp(a, u, beta, gamma, zeta), 2, 1)
    noise = dict(zip(gated, map(nested_mp, args["u"]["list"]), strict=True))
    gates = {i: sample(params[f"{i}.log_alpha"], noise[i]) for i in gated}
    logits = forward_mp(network, params, nested_mp(args["x"]), gates)
    loss = mp.zero
    for row, label in zip(logits, args["labels"], strict=True):
        loss += mp.log(sum(mp.exp(v) for v in row)) - row[label]
    loss /= len(logits)
    n = args["n_train"]
    active = np.frompyfunc(lambda a: sigmoid(a - beta * mp.log(-gamma / zeta)), 1, 1)
    for i, layer in enumerate(network["layers"]):
        if layer["kind"] not in ("dense", "conv2d"):
            continue
        weight, bias = params[f"{i}.weight"], params[f"{i}.bias"]
        out = 0 if layer["kind"] == "conv2d" else 1
        squares, sizes = weight**2, weight * 0 + 1
        p = mp.one
        if i in gated:
            p = active(params[f"{i}.log_alpha"])
            if layer["on"] != "weights":
                axis = out if layer["on"] == "outputs" else 1 - out
                others = tuple(k for k in range(weight.ndim) if k != axis)
                squares, sizes = squares.sum(axis=others), sizes.sum(axis=others)
                if layer["gates_bias"]:
                    squares, sizes = squares + bias**2, sizes + 1
            loss += m(args["lam"]) / n * (p * sizes).sum()
        loss += m(args["l2"]) / (2 * n) * (p * squares).sum()
    return loss


LOSSES = [
    test.id
    for test in TESTS
    if test.id.startswith("training/loss-and-grads/") and "large" not in test.id
]


@pytest.mark.parametrize("test_id", LOSSES)
def test_loss_and_gradients_in_mpmath(test_id):
    """The loss by another forward pass, gradients by differences: no tape, no derivative."""
    args, test = raw(test_id)
    network, expected = args["network"], test["expected"]
    params = {
        f"{i}.{name}": nested_mp(layer[name])
        for i, layer in enumerate(network["layers"])
        for name in ("weight", "bias", "log_alpha")
        if layer.get(name) is not None
    }
    loss, digits = mp.mpf(expected["loss"]), mp.mpf(10) ** -24
    assert abs(loss_mp(network, params, args) - loss) < digits * max(10, loss)
    assert set(expected["grads"]) == set(params)
    rng = np.random.default_rng(0)
    for name, value in params.items():
        gradient = nested_mp(expected["grads"][name])
        assert gradient.shape == value.shape
        for flat in rng.choice(value.size, size=min(value.size, 3), replace=False):
            index = np.unravel_index(flat, value.shape)

            def moved(t, name=name, index=index, value=value):
                other = value.copy()
                other[index] = t
                return loss_mp(network, params | {name: other}, args)

            got = derivative(moved, value[index])
            room = digits * max(1, abs(gradient[index]))
            assert abs(got - gradient[index]) < room, (name, index)


@pytest.mark.parametrize("name", ["mlp-inputs", "mlp-outputs-bias", "convnet", "grouped"])
def test_predictions_in_mpmath(name):
    args, test = raw(f"networks/predict/{name}")
    network = args["network"]
    _, gamma, zeta = law_of(network)
    gate = np.frompyfunc(
        lambda a: min(mp.one, max(mp.zero, sigmoid(a) * (zeta - gamma) + gamma)), 1, 1
    )
    gates, params = {}, {}
    for i, layer in enumerate(network["layers"]):
        for part in ("weight", "bias"):
            if part in layer:
                params[f"{i}.{part}"] = nested_mp(layer[part])
        if layer.get("on"):
            gates[i] = gate(nested_mp(layer["log_alpha"]))
    got = forward_mp(network, params, nested_mp(args["x"]), gates)
    expected = nested_mp(test["expected"])
    assert got.shape == expected.shape
    assert (abs(got - expected) < mp.mpf(10) ** -23).all()


def test_traces_follow_from_their_own_gradients():
    """Adam and the average in mpmath, on the gradients that the vectors give."""
    for test_id in [test.id for test in TESTS if test.function == "train"]:
        args, test = raw(test_id)
        lr, decay = m(args["lr"]), m(args["decay"])
        steps = test["expected"]
        for name in steps[0]["params"]:
            position, part = name.split(".")
            theta = nested_mp(args["network"]["layers"][int(position)][part])
            mean, square, average = theta * 0, theta * 0, theta * 0
            for t, step in enumerate(steps, start=1):
                g = nested_mp(step["grads"][name])
                mean = g / 10 + mean * 9 / 10
                square = g * g / 1000 + square * 999 / 1000
                root = np.frompyfunc(mp.sqrt, 1, 1)(square / (1 - mp.mpf("0.999") ** t))
                theta = theta - lr * mean / (1 - mp.mpf("0.9") ** t) / (root + mp.mpf("1e-8"))
                average = decay * average + (1 - decay) * theta
                assert (abs(theta - nested_mp(step["params"][name])) < mp.mpf(10) ** -20).all()
                right = average / (1 - decay**t)
                assert (abs(right - nested_mp(step["average"][name])) < mp.mpf(10) ** -20).all()


def test_expected_cost_by_the_product_rule():
    """The dense example with gates on both its sides, by probabilities in place of enumeration."""
    for k in (1, 2):
        args, test = raw(f"cost/expected-cost/inputs-{k}")
        network = args["network"]
        beta, gamma, zeta = law_of(network)
        shift = beta * mp.log(-gamma / zeta)
        first, second = (
            [sigmoid(a - shift) for a in flat_texts(network["layers"][i]["log_alpha"])]
            for i in (0, 2)
        )
        weights = sum(first) * sum(second) + sum(second) * 2
        assert abs(2 * weights - mp.mpf(test["expected"]["flops"])) < mp.mpf(10) ** -22
        params = weights + sum(second) + 2
        assert abs(params - mp.mpf(test["expected"]["params"])) < mp.mpf(10) ** -22


# --- the loader ---


def test_arguments():
    test = BY_ID["training/loss-and-grads/convnet-l2"]
    for dtype in ("float32", "float64"):
        args = test.args(dtype)
        network = args["network"]
        assert network["input_shape"] == (1, 5, 4)
        assert network["layers"][0]["weight"].dtype == dtype
        assert network["layers"][0]["stride"] == (1, 1)
        assert network["layers"][0]["gates_bias"] is True
        assert isinstance(network["beta"], float)
        assert args["labels"].dtype == np.int64
        assert [u.shape for u in args["u"]] == [(2,), (3,), (18,)]
        assert args["u"][0].dtype == dtype
        assert isinstance(args["n_train"], int)
    again = test.args("float64")
    again["network"]["layers"][0]["weight"][:] = 0
    assert test.args("float64")["network"]["layers"][0]["weight"].any()
    sizes = BY_ID["penalties/expected-l0-default/typical"].args("float32")["group_size"]
    assert sizes.dtype == np.int64
    assert BY_ID["penalties/group-size/lenet-conv"].args("float64")["weight_shape"] == (4, 20, 5, 5)
    lenet = BY_ID["cost/hard-cost/lenet-5"].args("float32")["network"]
    assert lenet["layers"][3]["weight"].shape == (50, 20, 5, 5)
    assert (lenet["layers"][3]["weight"] == 0.125).all()


def test_expected_values_and_tolerances_have_one_structure():
    for test in TESTS:
        if test.result == "raise":
            assert test.expected is None
            assert test.tolerance("float64") is None
            continue
        for part in (test, *test.alternatives):
            for dtype in test.dtypes:
                tolerance = part.tolerance(dtype)
                shapes = [np.shape(leaf) for leaf in leaves(part.expected)]
                if test.function != "compact":
                    assert [np.shape(leaf) for leaf in leaves(tolerance.abs)] == shapes
                assert (numbers(tolerance.abs) >= 0).all()
                assert len(tolerance.reason) > 20


def test_alternatives_take_what_is_equal_from_the_test():
    test = BY_ID["training/train/mlp-inputs"]
    conventions = [other.convention for other in test.alternatives]
    assert len(conventions) == 3
    first = test.alternatives[0]
    assert "starts at the first" in first.convention
    for one, other in zip(test.expected, first.expected, strict=True):
        assert one["loss"] == other["loss"]
        assert (one["params"]["0.weight"] == other["params"]["0.weight"]).all()
        assert (one["average"]["0.weight"] != other["average"]["0.weight"]).any()
    # the first average is (1-d) theta_1 + d theta_0
    args = test.args("float64")
    theta = args["network"]["layers"][0]["weight"]
    right = args["decay"] * theta + (1 - args["decay"]) * test.expected[0]["params"]["0.weight"]
    np.testing.assert_allclose(first.expected[0]["average"]["0.weight"], right, rtol=1e-14)


def test_a_changed_file_is_refused(tmp_path):
    text = (FOLDER / "law.json").read_text()
    path = tmp_path / "law.json"
    path.write_text(text)
    assert len(vectors.load_file(path)) == len(vectors.load("law"))
    path.write_text(text.replace("0.89076", "0.89077", 1))
    with pytest.raises(ValueError, match=r"law\.json is not what was generated"):
        vectors.load_file(path)
    for edited in (text + "\n", text.replace("\n", "\r\n"), text.replace("[", "[ ", 1)):
        path.write_bytes(edited.encode())
        with pytest.raises(ValueError, match=r"law\.json is not what was generated"):
            vectors.load_file(path)
    path.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="no file of vectors of format 1"):
        vectors.load_file(path)
    path.write_text(text[:-100])
    with pytest.raises(ValueError, match="no file of vectors"):
        vectors.load_file(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"law\.json cannot be read, and is a part of l0ref"):
        vectors.load_file(path)
    with pytest.raises(ValueError, match=r"area must be one of law, gate.*got 'laws'"):
        vectors.load("laws")


def test_the_files_ship():
    """They lie inside the package, of which the wheel takes everything."""
    assert FOLDER.is_relative_to(Path(l0ref.__file__).parent)


# --- tolerances ---


def test_tolerances_leave_no_room_for_another_formula():
    """In float32 what is allowed is small beside the largest number of each result."""
    for test in TESTS:
        if test.result == "raise" or test.function == "prob_active_grad":
            continue
        if re.search(r"/pdf-\w+/(tails|extreme)", test.id):
            continue  # as for P (1-P), a subtraction is allowed
        for dtype, most in (("float32", 0.02), ("float64", 1e-9)):
            allowed = test.tolerance(dtype)
            for right, limit in zip(leaves(test.expected), leaves(allowed.abs), strict=False):
                finite = np.asarray(right, float)[np.isfinite(right)]
                if test.function == "compact" or not finite.any():
                    continue
                if test.function in ("mean", "var"):
                    most = max(most, 1e-5)
                scale = np.abs(finite).max()
                assert np.min(limit) <= most * scale, (test.id, dtype)


def epsilon_inside(theta, grads, lr):
    mean, square, after = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(grads, start=1):
        mean = 0.9 * mean + 0.1 * g
        square = 0.999 * square + 0.001 * g**2
        root = np.sqrt(square / (1 - 0.999**t) + 1e-8)
        theta = theta - lr * mean / (1 - 0.9**t) / root
        after.append(theta)
    return np.array(after)


MISTAKES = {
    "beta-dropped": (
        "prob_active",
        lambda log_alpha, beta, gamma, zeta: 1 / (1 + np.exp(np.log(-gamma / zeta) - log_alpha)),
    ),
    "clamped-gradient": (
        "prob_active_grad",
        lambda log_alpha, beta, gamma, zeta: np.where(
            abs(log_alpha - beta * np.log(-gamma / zeta)) > 13.8,
            0,
            reference.prob_active_grad(log_alpha, beta=beta, gamma=gamma, zeta=zeta),
        ).astype(log_alpha.dtype),
    ),
    "one-minus-cdf": (
        "sf",
        lambda x, log_alpha, **law: 1 - reference.cdf(x, log_alpha, **law),
    ),
    "beta-in-test-gate": (
        "test_time",
        lambda log_alpha, beta, gamma, zeta: np.clip(
            (zeta - gamma) / (1 + np.exp(-log_alpha / beta)) + gamma, 0, 1
        ),
    ),
    "mean-is-no-test-gate": (
        "mean",
        lambda log_alpha, **law: reference.test_time(log_alpha, **law),
    ),
    "keep-for-drop": (
        "init_log_alpha",
        lambda drop_rate, normal: np.log(drop_rate / (1 - drop_rate)) + 0.01 * normal,
    ),
    "bias-not-counted": (
        "group_size",
        lambda weight_shape, on, gates_bias: reference.group_size(
            weight_shape, on=on, gates_bias=False
        ),
    ),
    "flatten-order": (
        "predict",
        lambda network, x: reference.predict(network, x[..., ::-1, :].copy() if x.ndim == 4 else x),
    ),
    "adam-epsilon": ("adam", lambda theta, grads, lr: epsilon_inside(theta, grads, lr)),
}


@pytest.mark.parametrize("flag", MISTAKES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_flags_mark_tests_that_catch_the_mistake(flag, dtype):
    """Some test that bears the flag fails, by a hundred times what is allowed."""
    function, wrong = MISTAKES[flag]
    worst = 0.0
    for test in TESTS:
        if test.function == function and flag in test.flags and test.result != "raise":
            with np.errstate(all="ignore"):
                got = wrong(**test.args(dtype))
            found = compare(got, test.expected, test.tolerance(dtype), dtype=dtype)
            worst = max(worst, 0.0 if found is None else found.worst)
    assert worst > 100


# --- the reference ---


def judged(test, dtype):
    """Return a test's mismatch, or the convention that is followed, or None."""
    function = getattr(reference, test.function)
    if test.result == "raise":
        with pytest.raises(ValueError, match=r"."):
            function(**test.args(dtype))
        return None
    got = function(**test.args(dtype))
    expected, allowed = test.expected, test.tolerance(dtype)
    if test.function == "compact":
        shapes = [layer["weight"].shape for layer in got["layers"] if "weight" in layer]
        if expected["shapes"] is not None:
            assert shapes == expected["shapes"]
        got = reference.predict(got, **test.probe(dtype))
        expected, allowed = expected["logits"], allowed._replace(abs=allowed.abs["logits"])
    found = compare(got, expected, allowed, dtype=dtype)
    for other in test.alternatives if found is not None else ():
        if compare(got, other.expected, other.tolerance(dtype), dtype=dtype) is None:
            return other.convention
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("area", vectors.AREAS)
def test_reference(area, dtype):
    found = {}
    for test in vectors.load(area):
        result = judged(test, dtype)
        if result is not None:
            found[test.id] = result
    # what the reference does by the other convention, and nothing else
    assert found == {
        f"law/{name}-edges/atoms": "the mass of the atom"
        for name in ("pdf", "logpdf")
        if area == "law"
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_density_by_subtraction_passes(dtype):
    for test in TESTS:
        if re.search(r"/pdf-\w+/(typical|tails|extreme)", test.id):
            args = test.args(dtype)
            x, gamma, zeta = args["x"], args["gamma"], args["zeta"]
            below = reference.cdf(**args)
            s = (x - gamma) / (zeta - gamma)
            got = args["beta"] / (zeta - gamma) * below * (1 - below) / (s * (1 - s))
            assert compare(got, test.expected, test.tolerance(dtype), dtype=dtype) is None, test.id


@pytest.mark.parametrize("name", ["mean", "var"])
def test_moments_by_quadrature_may_be_off_at_their_ends_too(name):
    test = BY_ID[f"law/{name}-edges/infinite"]
    for dtype, off in (("float64", 1e-12), ("float32", 1e-6)):
        for sign in (-1, 1):
            got = (test.expected + sign * 0.9 * off).astype(dtype)
            assert compare(got, test.expected, test.tolerance(dtype), dtype=dtype) is None


def test_spot_values_of_the_method():
    """At log_alpha = 0.5, u = 0.3 and the defaults, as they are quoted everywhere."""
    expected = BY_ID["law/prob-active-default/typical"].expected
    assert math.isclose(expected[0, 0], 0.890767, abs_tol=1e-6)
    cost = BY_ID["cost/hard-cost/lenet-5"].expected
    assert cost == {"flops": 781_350, "params": 6_212}
