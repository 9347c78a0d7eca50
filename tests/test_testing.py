"""What a library author imports: right code passes on many seeds, planted errors are found."""

import re
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from l0ref import HardConcrete, ops, testing
from l0ref.noise import open_uniform
from l0ref.oracle.interface import FUNCTIONS
from l0ref.oracle.reference import reference
from l0ref.oracle.strategies import STRATEGIES
from l0ref.testing import (
    ApproximateWarning,
    NotSmoothError,
    assert_matches_reference,
    check_unbiased,
    check_vjp,
    inputs_of,
    numerical_gradient,
)
from tests import naive

DTYPES = (np.float32, np.float64)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
few = settings(max_examples=3)  # of those that take long
X = np.array([[0.5, -1.25, 2.0], [-0.75, 0.25, 1.5]])
WEIGHT = np.array([[1.0, -2.0, 0.5, 3.0], [0.25, 1.5, -1.0, 0.75], [-0.5, 2.5, 1.25, -3.0]])
BIAS = np.array([0.5, -0.25, 1.0, 2.0])


def test_the_public_names_are_there_and_documented() -> None:
    for name in testing.__all__:
        assert getattr(testing, name).__doc__, name
        assert name in (testing.__doc__ or "") or not callable(getattr(testing, name)) or (
            "strategies" in getattr(testing, name).__module__
            or isinstance(getattr(testing, name), type)
        ), name  # fmt: skip


# --- strategies ---


@given(testing.hyperparameters())
def test_hyperparameters_are_valid_and_exact_in_float32(hyper: dict[str, float]) -> None:
    assert hyper["beta"] > 0
    assert hyper["gamma"] < 0
    assert hyper["zeta"] > 1
    assert all(type(value) is float and np.float32(value) == value for value in hyper.values())


@pytest.mark.parametrize(
    ("strategy", "condition"),
    [
        (testing.betas(), lambda beta: beta == np.float32(2 / 3)),
        (testing.betas(), lambda beta: beta < 0.15),
        (testing.betas(1.0, 1.5), lambda beta: beta > 1.4),
        (testing.gammas(), lambda gamma: -1 < gamma < -0.5),
        (testing.zetas(), lambda zeta: zeta > 1.9),
        (testing.noise(np.float32), lambda u: u < 1e-7),
        (testing.noise(np.float32), lambda u: 1 - u < 1e-7),
        (testing.noise(), lambda u: u < 1e-200),
        (testing.noise(), lambda u: 1 - u == 2.0**-53),
        (testing.log_alphas(), lambda log_alpha: log_alpha < -30),
        (testing.gates(where="off kinks"), lambda case: len(set(np.sign(case.dz.flat))) > 1),
        (testing.dense_layers(), lambda layer: layer.arrays["z"].size > 8),
        (testing.dense_layers(on="inputs", per_example=False), lambda layer: len(layer.arrays["x"])
         == len(layer.arrays["weight"]) > 1),  # where one draw could be taken for several
        (testing.conv2d_layers(), lambda layer: layer.options["groups"] == 3),
        (testing.conv2d_layers(), lambda layer: len(set(layer.options["stride"])) == 2),
        (testing.conv2d_layers(), lambda layer: layer.options["dilation"] == (1, 2)),
        (testing.problems(), lambda problem: len(problem.u) > 2),
        (testing.problems(convolutional=True),
         lambda problem: any(layer["kind"] == "max_pool2d" for layer in problem.network["layers"])),
    ],
)  # fmt: skip
def test_strategies_reach(strategy: Any, condition: Any) -> None:
    find(
        strategy,
        condition,
        settings=settings(max_examples=1000, database=None, phases=[Phase.generate]),
    )


def test_beyond_their_bounds_strategies_do_not_go() -> None:
    for strategy, condition in (
        (testing.betas(0.5, 0.7), lambda beta: not 0.5 <= beta <= 0.7),
        (testing.log_alphas(bound=2.0), lambda log_alpha: abs(log_alpha) > 2),
        (testing.dense_layers(), lambda layer: len(set(layer.arrays["weight"].shape)) == 1),
        (testing.conv2d_layers(), lambda layer: len(set(layer.arrays["x"].shape[2:])) == 1),
        (testing.dense_layers(), lambda layer: (layer.dy == 0).any()),
    ):
        with pytest.raises(NoSuchExample):
            find(strategy, condition, settings=settings(max_examples=50, database=None))


@both_dtypes
@pytest.mark.parametrize("where", ["inside", "closed", "open", "off kinks"])
@given(st.data())
def test_gates_lie_where_they_should(dtype: Any, where: Any, data: Any) -> None:
    case = data.draw(testing.gates(dtype=dtype, where=where, margin=0.1))
    beta, gamma, zeta = case.hyperparameters.values()
    assert case.log_alpha.dtype == case.u.dtype == case.dz.dtype == dtype
    for log_alpha, u in zip(case.log_alpha.flat, case.u.flat, strict=True):
        s_bar = naive.stretched_sample(float(log_alpha), float(u), beta, gamma, zeta)
        # A tenth of the stretch, less the rounding of log_alpha, up to 700 and over beta > 0.1.
        room = 0.1 - 700 / 0.1 * np.finfo(dtype).eps
        found = {
            "closed": gamma * (1 - room) <= s_bar <= gamma * room,
            "inside": room <= s_bar <= 1 - room,
            "open": (zeta - 1) * room <= s_bar - 1 <= (zeta - 1) * (1 - room),
        }
        assert any(found.values()) if where == "off kinks" else found[where]


def test_gates_off_kinks_are_closed_and_inside_and_open() -> None:
    seen: set[float] = set()

    @settings(max_examples=30, database=None)
    @given(testing.gates((4,), where="off kinks"))
    def collect(case: testing.Gates) -> None:
        z = HardConcrete(case.log_alpha, **case.hyperparameters).sample(case.u)
        seen.update(np.where((z > 0) & (z < 1), 0.5, z))

    collect()
    assert seen == {0.0, 0.5, 1.0}


@given(testing.dense_layers())
def test_dense_layers_fit(layer: testing.Layer) -> None:
    y, residuals = layer.call(ops.dense)
    assert y.shape == layer.dy.shape
    ops.dense_vjp(layer.dy, residuals)
    np.testing.assert_array_equal(layer.call_vjp(reference.dense_vjp)[0],
                                  ops.dense_vjp(layer.dy, residuals)[0])  # fmt: skip


@given(testing.conv2d_layers(np.float32))
def test_conv2d_layers_fit(layer: testing.Layer) -> None:
    y, _ = layer.call(ops.conv2d)
    assert y.shape == layer.dy.shape
    assert y.dtype == layer.dy.dtype == np.float32


@given(testing.problems(margin=0.01, convolutional=False))
def test_problems_keep_their_distance(problem: testing.Problem) -> None:
    network, noise = problem.network, iter(problem.u)
    gate = partial(naive.sample, beta=network["beta"], gamma=network["gamma"], zeta=network["zeta"])
    h = problem.x.tolist()
    for layer in network["layers"]:
        if layer["kind"] == "relu":
            for row in h:
                assert all(abs(a) >= 0.0099 or a == 0.0 for a in row)
            h = [[max(a, 0.0) for a in row] for row in h]
            continue
        weight, bias, on = layer["weight"].tolist(), layer["bias"].tolist(), layer["on"]
        z = np.ones(())
        if on:
            log_alpha, u = layer["log_alpha"], next(noise)
            for a, one in zip(log_alpha.flat, u.flat, strict=True):
                s_bar = naive.stretched_sample(a, one, network["beta"], network["gamma"],
                                               network["zeta"])  # fmt: skip
                width = min(0.01, -network["gamma"] / 4, (network["zeta"] - 1) / 4)
                assert min(abs(s_bar), abs(s_bar - 1)) > 0.99 * width
            z = np.reshape([gate(a, one) for a, one in zip(log_alpha.flat, u.flat, strict=True)],
                           log_alpha.shape)  # fmt: skip
        gated = [[w * (z[i] if on == "inputs" else z[i][o] if on == "weights" else 1)
                  for o, w in enumerate(row)] for i, row in enumerate(weight)]  # fmt: skip
        out = [[sum(a * row[o] for a, row in zip(x, gated, strict=True))
                for o in range(len(bias))] for x in h]  # fmt: skip
        if on == "outputs" and layer["gates_bias"]:
            h = [[(a + b) * g for a, b, g in zip(y, bias, z, strict=True)] for y in out]
        else:
            factors = z if on == "outputs" else np.ones(len(bias))
            h = [[a * g + b for a, b, g in zip(y, bias, factors, strict=True)] for y in out]


@few
@given(testing.problems())
def test_problems_can_be_trained_and_differentiated(problem: testing.Problem) -> None:
    """No margin is too small for the differences, and the reference's gradients are right."""
    names = list(reference.loss_and_grads(**problem._asdict())["grads"])
    values = {name: parameter(problem.network, name) for name in names}

    def results(params: dict[str, Any]) -> Any:
        network = {**problem.network, "layers": [dict(a) for a in problem.network["layers"]]}
        for name, value in params.items():
            position, _, attribute = name.partition(".")
            network["layers"][int(position)][attribute] = value
        return reference.loss_and_grads(**{**problem._asdict(), "network": network})

    def loss(*params: Any) -> Any:
        return np.asarray(results(dict(zip(names, params, strict=True)))["loss"])

    def backward(dy: Any, *params: Any) -> Any:
        grads = results(dict(zip(names, params, strict=True)))["grads"]
        return [dy * grads[name] for name in names]

    assert (
        check_vjp(loss, backward, list(values.values()), directions=1, coordinates=1).n_skipped == 0
    )


def parameter(network: Any, name: str) -> Any:
    position, _, attribute = name.partition(".")
    return network["layers"][int(position)][attribute]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: testing.betas(0.0), "min_value"),
        (lambda: testing.betas(2.0, 1.0), "max_value"),
        (lambda: testing.gates(where="somewhere"), "where must be one of"),
        (lambda: testing.gates(margin=0.5), "margin must lie in"),
        (lambda: testing.dense_layers(on="bias"), "on must be one of"),
        (lambda: testing.conv2d_layers(on="inputs"), "on must be one of"),
        (lambda: testing.problems(margin=1.0), "margin must be None or"),
        (lambda: inputs_of("pdff"), "function must be one of"),
        (lambda: inputs_of("draw"), "check_unbiased"),
    ],
)
def test_strategies_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find(make(), lambda _: True)


# --- check_vjp: right ones pass ---


def dense(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight + bias


def dense_vjp(dy: Any, x: Any, weight: Any, bias: Any) -> Any:
    return dy @ weight.T, x.T @ dy, dy.sum(axis=0)


def pair(forward: Any, backward: Any, **options: Any) -> tuple[Any, Any]:
    """Make f and vjp of an op of the package."""

    def vjp(dy: Any, *args: Any) -> Any:
        return backward(dy, forward(*args, **options)[1])

    return lambda *args: forward(*args, **options)[0], vjp


def arrays(rng: np.random.Generator, dtype: Any, *shapes: tuple[int, ...]) -> list[Any]:
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


RIGHT = {
    "dense": (pair(ops.dense, ops.dense_vjp), ((2, 5), (5, 3), (3,), (5,))),
    "conv2d": (pair(ops.conv2d, ops.conv2d_vjp), ((2, 2, 5, 4), (3, 2, 2, 3), (3,), (3,))),
    "relu": (pair(ops.relu, ops.relu_vjp), ((4, 7),)),
    "tanh": (pair(ops.tanh, ops.tanh_vjp), ((4, 7),)),
    "batch_norm": (pair(ops.batch_norm, ops.batch_norm_vjp), ((6, 3), (3,), (3,))),
    "max_pool2d": (pair(ops.max_pool2d, ops.max_pool2d_vjp, kernel_size=2), ((1, 2, 4, 6),)),
    "exp": ((np.exp, lambda dy, x: dy * np.exp(x)), ((5,),)),
    "norm": ((lambda x: np.sqrt((x**2).sum(axis=1)),
              lambda dy, x: dy[:, None] * x / np.sqrt((x**2).sum(axis=1))[:, None]), ((2, 9),)),
    "abs": ((np.abs, lambda dy, x: dy * np.sign(x)), ((6,),)),
    "constant": ((lambda x: np.ones(3, x.dtype), lambda dy, x: 0 * x), ((2, 3),)),
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name: str, dtype: Any) -> None:
    (f, vjp), shapes = RIGHT[name]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scale = dtype(10.0 ** rng.uniform(-2, 2)) if name in ("relu", "abs", "norm") else dtype(1)
        args = [scale * array for array in arrays(rng, dtype, *shapes)]
        result = check_vjp(f, vjp, args, seed=seed)
        assert result.worst <= 1
        assert result.n_checks >= sum(min(array.size, 20) + 3 for array in args if array.size > 1)
        assert result.n_skipped == 0


@pytest.mark.slow
@both_dtypes
@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass_on_many_seeds(name: str, dtype: Any) -> None:
    (f, vjp), shapes = RIGHT[name]
    for seed in range(100, 150):
        check_vjp(f, vjp, arrays(np.random.default_rng(seed), dtype, *shapes), seed=seed)


@both_dtypes
@settings(max_examples=15)
@given(st.data())
def test_the_path_derivative_passes_off_kinks(dtype: Any, data: Any) -> None:
    case = data.draw(testing.gates(dtype=dtype, where="off kinks"))

    def gate(log_alpha: Any) -> HardConcrete:
        return HardConcrete(log_alpha, **case.hyperparameters)

    check_vjp(lambda a: gate(a).sample(case.u), lambda dz, a: gate(a).sample_vjp(case.u, dz),
              [case.log_alpha])  # fmt: skip


def test_differences_show_eleven_digits_and_complex_steps_all() -> None:
    def relu_of_product(x: Any, weight: Any) -> Any:
        return np.tanh(np.maximum(x @ weight, 0))  # comparisons of complex numbers go by real part

    def backward(dy: Any, x: Any, weight: Any) -> Any:
        a = x @ weight
        da = dy * (a > 0) / np.cosh(a) ** 2
        return da @ weight.T, x.T @ da

    complex_free = partial(check_vjp, lambda x, w: relu_of_product(x.real.copy(), w.real.copy()))
    assert check_vjp(relu_of_product, backward, [X, WEIGHT]).allowed < 1e-13
    assert complex_free(backward, [X, WEIGHT]).allowed < 1e-9


@pytest.mark.parametrize(
    "f",
    [lambda x: np.abs(x) * x, lambda x: x * x.real, lambda x: np.real(x) ** 2 * np.sign(x.real)],
)
def test_functions_that_lie_about_complex_numbers_are_believed_in_real_ones(f: Any) -> None:
    """Where the complex step is wrong it is not used, neither for nor against a gradient."""
    x = np.array([0.5, 1.5, 2.0])
    check_vjp(f, lambda dy, x: 2 * x * dy, [x])
    for factor in (0.0, 1.0, 1.999):
        with pytest.raises(AssertionError, match="is wrong"):
            check_vjp(f, lambda dy, x, factor=factor: factor * x * dy, [x])


def test_trees_and_names() -> None:
    def f(a: Any, *, ignored: str, b: Any) -> Any:
        return {"sum": a.sum() * b, "pair": (a * 2, [b * b])}

    def vjp(dy: Any, a: Any, ignored: str, b: Any) -> Any:
        from_pair, (from_b,) = dy["pair"]
        return {
            "b": (dy["sum"] * a.sum()).sum() + 2 * b * from_b,
            "a": np.full(a.shape, (dy["sum"] * b).sum()) + 2 * from_pair,
        }

    args = {"a": X, "ignored": "text", "b": np.array(1.5)}
    check_vjp(f, vjp, args)
    check_vjp(f, vjp, {**args, "b": 1.5}, wrt=["a", "b"])  # a plain number, if it is named
    wrong = {"a": lambda g: g.T.reshape(g.shape), "b": lambda g: g + 1e-6}
    for name, spoil in wrong.items():

        def spoilt(dy: Any, *, name: str = name, spoil: Any = spoil, **args: Any) -> Any:
            grads = vjp(dy, **args)
            return {**grads, name: np.asarray(spoil(grads[name]))}

        with pytest.raises(AssertionError, match=rf"gradient of args\['{name}'\] is wrong"):
            check_vjp(lambda a, ignored, b: f(a * a, ignored=ignored, b=b),
                      lambda dy, a, ignored, b, spoilt=spoilt: (
                          lambda grads: {**grads, "a": 2 * a * grads["a"]}
                      )(spoilt(dy, a=a * a, ignored=ignored, b=b)), args)  # fmt: skip


def test_an_f_that_takes_float32_alone() -> None:
    def strict(x: Any) -> Any:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return np.tanh(x)

    x = X.astype(np.float32)
    assert check_vjp(strict, lambda dy, x: dy * (1 - np.tanh(x) ** 2), [x]).allowed < 1e-3
    with pytest.raises(AssertionError, match="is wrong"):
        check_vjp(strict, lambda dy, x: dy * (1.01 - np.tanh(x) ** 2), [x])


# --- check_vjp: wrong ones do not ---


def one_off(dy: Any, x: Any, weight: Any, bias: Any) -> Any:
    dx, dweight, dbias = dense_vjp(dy, x, weight, bias)
    dweight[1, 2] += 1e-7
    return dx, dweight, dbias


WRONG: dict[str, tuple[Any, str, int]] = {
    "twice": (lambda dy, x, w, b: (dy @ w.T, 2 * x.T @ dy, dy.sum(axis=0)), "2 times", 1),
    "halved": (lambda dy, x, w, b: (dy @ w.T / 2, x.T @ dy, dy.sum(axis=0)), "0.5 times", 0),
    "sign": (lambda dy, x, w, b: (dy @ w.T, x.T @ dy, -dy.sum(axis=0)), "-1 times", 2),
    "mean over the batch": (lambda dy, x, w, b: (dy @ w.T, x.T @ dy, dy.mean(axis=0)),
                            "0.5 times", 2),
    "none": (lambda dy, x, w, b: (dy @ w.T, 0 * w, dy.sum(axis=0)), "0 times", 1),
    "one example": (lambda dy, x, w, b: (dy @ w.T, x.T @ dy, dy[0]), "4 of the 4", 2),
    "one coordinate": (one_off, "at [1, 2]", 1),
    "another argument": (lambda dy, x, w, b: (dy @ np.sign(w).T, x.T @ dy, dy.sum(axis=0)), "", 0),
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_found_and_named(name: str, dtype: Any) -> None:
    wrong, said, argument = WRONG[name]
    if name == "one coordinate" and dtype == np.float32:
        pytest.skip("1e-7 is rounding in float32")
    args = [array.astype(dtype) for array in (X, WEIGHT, BIAS)]
    check_vjp(dense, dense_vjp, args)
    for seed in range(4):
        with pytest.raises(AssertionError) as caught:
            check_vjp(dense, wrong, args, seed=seed)
        message = str(caught.value)
        assert f"the gradient of args[{argument}] is wrong" in message
        assert said in message
        assert message.count("is wrong") == 1
        others = [f"args[{i}]" for i in range(3) if i != argument]
        assert message.endswith(f"right: {', '.join(others)}")


@pytest.mark.parametrize("place", [(0, 0), (17, 3), (29, 19)])
def test_one_wrong_number_of_many_is_searched_for(place: tuple[int, int]) -> None:
    x, weight = arrays(np.random.default_rng(5), np.float64, (4, 30), (30, 20))

    def wrong(dy: Any, x: Any, weight: Any) -> Any:
        gradient = x.T @ dy
        gradient[place] *= 1 + 1e-6
        return dy @ weight.T, gradient

    with pytest.raises(AssertionError, match=re.escape(f"at {list(place)}")):
        check_vjp(lambda x, w: np.tanh(x @ w), lambda dy, x, w: wrong(
            dy / np.cosh(x @ w) ** 2, x, w), [x, weight], coordinates=2)  # fmt: skip


def test_errors_that_are_told_are_sizes() -> None:
    def wrong(dy: Any, x: Any) -> Any:
        gradient = dy * np.exp(x)
        gradient[17, 3] *= 1.5
        return gradient

    x = np.random.default_rng(6).normal(size=(30, 20))
    for seed in range(8):  # the step that is left of a random direction may go either way
        with pytest.raises(AssertionError, match=re.escape("at [17, 3]")) as caught:
            check_vjp(np.exp, wrong, [x], seed=seed, coordinates=1)
        assert re.search(r"\+- [0-9.e-]+ \(allowed [0-9.e-]+\)", str(caught.value))
        assert "+- -" not in str(caught.value)
        assert "allowed -" not in str(caught.value)


def test_an_error_of_a_millionth_shows_in_float64() -> None:
    wrong = lambda dy, x: dy * (1 + 1e-8) * np.exp(x)  # noqa: E731
    with pytest.raises(AssertionError, match=r"each is 1\.00000001 times what is right"):
        check_vjp(np.exp, wrong, [X])


def test_a_factor_is_that_of_what_is_wrong() -> None:
    """One wrong coordinate of 6 has no factor; two of 6 have theirs, whatever the others are."""
    x = np.arange(1.0, 7.0).reshape(2, 3)

    def wrong(places: slice) -> str:
        def vjp(dy: Any, x: Any) -> Any:
            gradient = dy * np.exp(x)
            gradient[0, places] *= 1 + 1e-6
            return gradient

        with pytest.raises(AssertionError) as caught:
            check_vjp(np.exp, vjp, [x])
        return str(caught.value)

    assert "1 of the 6 coordinates compared are wrong" in wrong(slice(1))
    assert "times what is right" not in wrong(slice(1))
    assert "2 of the 6 coordinates compared are wrong" in wrong(slice(2))
    assert "each is 1.000001 times what is right" in wrong(slice(2))


def test_an_error_of_a_thousandth_shows_in_float32() -> None:
    wrong = lambda dy, x: dy * np.float32(1.001) * np.exp(x)  # noqa: E731
    with pytest.raises(AssertionError, match=r"each is 1.001 times what is right"):
        check_vjp(np.exp, wrong, [X.astype(np.float32)])


def test_gradients_that_are_no_gradients() -> None:
    def returning(result: Any) -> Any:
        return lambda dy, x: result(dy, x)

    cases = {
        "has shape (2,), the argument (3,)": lambda dy, x: dy[:2],
        "is of float32, the argument of float64": lambda dy, x: dy.astype(np.float32),
        "is nan at [1], and not finite in 1 of 3": lambda dy, x: np.where([0, 1, 0], np.nan, dy),
        "returned 2": lambda dy, x: (dy, dy),
        "is no array: None": lambda dy, x: None,
        "no gradient of [0]": lambda dy, x: {"x": dy},
    }
    for message, result in cases.items():
        with pytest.raises(AssertionError, match=re.escape(message)):
            check_vjp(lambda x: x * 1, returning(result), [np.array([1.0, 2.0, 3.0])])


def test_state_is_found() -> None:
    total = np.zeros(3)

    def accumulates(dy: Any, x: Any) -> Any:
        total[...] += 2 * x * dy
        return total.copy()

    x = np.array([1.0, 2.0, 3.0])
    with pytest.raises(AssertionError, match=r"a second call of vjp.*for args\[0\]"):
        check_vjp(lambda x: x**2, accumulates, [x])
    rng = np.random.default_rng(1)
    with pytest.raises(AssertionError, match="a second call of f"):
        check_vjp(lambda x: x * rng.random(3), lambda dy, x: dy, [x])

    def relu(x: Any) -> Any:
        return np.maximum(x, 0, out=x)

    with pytest.raises(AssertionError, match=r"relu changed args\[0\] in place"):
        check_vjp(relu, lambda dy, x: dy * (x > 0), [np.array([-1.0, 2.0])])

    def scale(dy: Any, x: Any) -> Any:
        dy *= 2 * x
        return dy

    with pytest.raises(AssertionError, match="scale changed dy in place"):
        check_vjp(lambda x: x**2, scale, [x])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinks": "ignore"}, "kinks must be"),
        ({"directions": 0}, "directions must be at least 1"),
        ({"wrt": [2]}, "wrt must be among [0, 1], got 2"),
        ({"wrt": [1]}, "args[1] must be an array of floats"),
        ({"wrt": []}, "wrt must name an argument"),
        ({"dy": np.ones(2)}, "dy must have the shapes"),
    ],
)
def test_arguments_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_vjp(lambda x, k: x**k, lambda dy, x, k: k * x ** (k - 1) * dy,
                  [np.ones(3), np.array([2, 3, 2])], **options)  # fmt: skip
    with pytest.raises(ValueError, match="must return arrays of floats"):
        check_vjp(lambda x: x > 0, lambda dy, x: x, [np.ones(3)])


# --- check_vjp: kinks ---


def relu(x: Any) -> Any:
    return np.maximum(x, 0)


def relu_vjp(dy: Any, x: Any) -> Any:
    return dy * (x > 0)


@both_dtypes
@pytest.mark.parametrize("distance", [0.0, 1e-16, -1e-12])
def test_a_kink_is_no_verdict(dtype: Any, distance: float) -> None:
    x = np.array([1.5, distance, -0.5], dtype)
    with pytest.raises(NotSmoothError, match="a kink here"):
        check_vjp(relu, relu_vjp, [x])
    result = check_vjp(relu, relu_vjp, [x], kinks="skip")
    assert result.n_skipped == 4  # three directions, one coordinate
    assert result.n_checks == 2
    with pytest.raises(AssertionError, match=r"at \[0\]"):
        check_vjp(relu, lambda dy, x: 1.1 * relu_vjp(dy, x), [x], kinks="skip")
    if distance == 0:  # alone, it can be looked at so closely that 1e-16 is far away
        with pytest.raises(NotSmoothError, match=r"nothing of args\[0\] could be checked"):
            check_vjp(relu, relu_vjp, [x[1:2]], kinks="skip")


@pytest.mark.parametrize("distance", [1e-4, -1e-3, 0.01, -0.1, 0.3])
def test_a_kink_nearby_does_not_disturb(distance: float) -> None:
    x = np.array([1.5, distance, -0.5, 3 * distance])
    assert check_vjp(relu, relu_vjp, [x]).n_skipped == 0
    for wrong in (lambda dy, x: dy * (x >= -1), lambda dy, x: dy * (x > 0) * 1.001):
        with pytest.raises(AssertionError, match=r"args\[0\] is wrong"):
            check_vjp(relu, wrong, [x])


def test_gates_at_the_moment_they_are_clipped() -> None:
    """At s_bar = 0 the derivative ahead is that inside, the one behind is 0."""
    u, kink = np.array([0.5, 0.5]), 2 / 3 * np.log(0.1 / 1.1)  # s = 0.1/1.2, as u = 1/2

    def gate(log_alpha: Any) -> HardConcrete:
        return HardConcrete(log_alpha)

    with pytest.raises(NotSmoothError):
        check_vjp(lambda a: gate(a).sample(u), lambda dz, a: gate(a).sample_vjp(u, dz),
                  [np.array([0.5, kink])])  # fmt: skip


@pytest.mark.parametrize(
    "f", [lambda x: (x > 0.5) * 1.0, lambda x: np.floor(x + 0.5), lambda x: np.sin(1e9 * x)]
)
def test_what_has_no_derivative_is_not_judged(f: Any) -> None:
    with pytest.raises(NotSmoothError):
        check_vjp(f, lambda dy, x: dy, [np.array([0.5, 1.5])])


def test_straight_through_is_wrong_where_f_is_smooth() -> None:
    with pytest.raises(AssertionError, match="differences of f give 0 "):
        check_vjp(lambda x: (x > 0) * 1.0, lambda dy, x: dy, [np.array([0.7, -1.2])])


def test_domains_may_end_nearby() -> None:
    x = np.array([1e-6, 0.3, 1 - 1e-5])
    check_vjp(lambda u: np.log(u) - np.log1p(-u), lambda dy, u: dy / (u * (1 - u)), [x])

    def refuses(u: Any) -> Any:
        if not ((u > 0) & (u < 1)).all():
            raise ValueError("u must lie in (0, 1)")
        return u**2

    check_vjp(refuses, lambda dy, u: 2 * u * dy, [x])
    with pytest.raises(ValueError, match=r"u must lie in \(0, 1\)"):
        check_vjp(refuses, lambda dy, u: 2 * u * dy, [x + 1])


# --- numerical_gradient ---


@pytest.mark.parametrize("seed", range(5))
def test_numerical_gradients_are_within_their_error(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(2, 3))
    gradient, error = numerical_gradient(lambda x: float(np.tanh(x.real).prod()), x)
    t = np.tanh(x)
    right = t.prod() / t / np.cosh(x) ** 2
    assert (np.abs(gradient - right) <= error).all()
    assert (error < 1e-9).all()


def test_numerical_gradients_refuse() -> None:
    with pytest.raises(NotSmoothError, match="kink"):
        numerical_gradient(lambda x: np.abs(x).sum(), [1.0, 0.0])
    with pytest.raises(NotSmoothError, match="do not settle"):
        numerical_gradient(lambda x: np.floor(x).sum(), [1.5, 1.0])
    with pytest.raises(ValueError, match="one number"):
        numerical_gradient(lambda x: x, [1.0, 0.0])


# --- check_unbiased ---

GATES = HardConcrete(np.array([-1.5, 0.5, 2.0]), beta=0.5, gamma=-0.2, zeta=1.3)
STEEPEST = 1.5 / (4 * 0.5)


def draw_gates(n: int, rng: np.random.Generator) -> Any:
    return GATES.sample(open_uniform(rng, (n, 3)))


def draw_gradients(n: int, rng: np.random.Generator) -> Any:
    return GATES.sample_partials(open_uniform(rng, (n, 3))).log_alpha


def gradient_of_mean() -> tuple[Any, Any]:
    return numerical_gradient(
        lambda a: HardConcrete(a, beta=0.5, gamma=-0.2, zeta=1.3).mean().sum(), GATES.log_alpha
    )


def test_unbiased_estimators_pass() -> None:
    gradient, error = gradient_of_mean()
    for seed in range(5):
        few = {"max_draws": 8000, "seed": seed}
        result = check_unbiased(draw_gates, GATES.mean(), bounds=(0, 1), **few)
        assert result.n == 8000
        assert (np.abs(result.mean - GATES.mean()) < result.allowed).all()
        check_unbiased(draw_gates, GATES.mean(), method="t", **few)
        check_unbiased(lambda n, rng: draw_gates(n, rng) != 0, GATES.prob_active(), bounds=(0, 1),
                       **few)  # fmt: skip
        for how in ({"bounds": (0, STEEPEST)}, {"method": "t"}):
            check_unbiased(draw_gradients, gradient, error=error, **how, **few)


def test_an_estimator_that_does_not_use_its_rng_is_told() -> None:
    def own(n: int, rng: np.random.Generator) -> Any:
        return np.random.default_rng(7).random((n, 2))

    def half(n: int, rng: np.random.Generator) -> Any:
        return np.stack([own(n, rng)[:, 0], rng.random(n)], axis=1)

    for draw, count in ((own, 2), (half, 1)):
        message = f"the same 1000 draws of {count} of 2 numbers: they do not depend on the rng"
        with pytest.raises(AssertionError, match=message):
            check_unbiased(draw, [0.5, 0.5], bounds=(0, 1))
    for p in (0.5, 1e-3, 0.0):  # in few different numbers, or only one, draws may well be alike
        check_unbiased(lambda n, rng, p=p: rng.random(n) < p, p, bounds=(0, 1), max_draws=8000)


@pytest.mark.parametrize("how", [{"bounds": (0, 1)}, {"method": "t"}])
def test_false_alarms_are_as_rare_as_stated(how: Any) -> None:
    """At most a tenth may fail; 100 runs leave room for 5 standard deviations, 15, above 10."""
    alarms = 0
    for seed in range(100):
        try:
            check_unbiased(draw_gates, GATES.mean(), false_alarms=0.1, max_draws=2000, seed=seed,
                           **how)  # fmt: skip
        except AssertionError:
            alarms += 1
    assert alarms <= 25


@pytest.mark.parametrize(
    ("draw", "expected", "bounds"),
    [
        (draw_gates, GATES.test_time(), (0, 1)),  # three things that are near each other
        (draw_gates, GATES.median(), (0, 1)),
        (lambda n, rng: draw_gates(n, rng) != 0, GATES.prob_active() - 0.02, (0, 1)),
        (lambda n, rng: 0.97 * draw_gates(n, rng), GATES.mean(), (0, 1)),
        # clipped gates let the gradient through
        (lambda n, rng: 1.5 * (lambda s: s * (1 - s) / 0.5)(
            1 / (1 + np.exp(-(np.log(1 / rng.random((n, 3)) - 1) + GATES.log_alpha) / 0.5))),
         gradient_of_mean()[0], (0, STEEPEST)),
        (lambda n, rng: np.ones((n, 3)) * 0.3, gradient_of_mean()[0], (0, STEEPEST)),
        (lambda n, rng: draw_gradients(n, rng) * 2 / 3, gradient_of_mean()[0], (0, STEEPEST)),
    ],
    ids=["z_hat", "median", "P(z != 0)", "shrunk", "unclipped", "constant", "beta left out"],
)  # fmt: skip
@pytest.mark.parametrize("bounded", [True, False])
def test_biased_estimators_fail(draw: Any, expected: Any, bounds: Any, bounded: bool) -> None:
    how: Any = {"bounds": bounds} if bounded else {"method": "t"}
    first = np.asarray(draw(9, np.random.default_rng(0)), np.float64)
    varies = np.ptp(first, axis=0).any()
    # without bounds, nothing is said of what does not vary
    error = AssertionError if bounded or varies else ValueError
    words = "is not what was expected|bounds must be given"
    for seed in range(3):
        with pytest.raises(error, match=words):
            check_unbiased(draw, expected, seed=seed, **how)


def test_a_gross_error_is_found_at_the_first_look() -> None:
    with pytest.raises(AssertionError, match=r"the mean of 1000 draws.*in 1 of 3 numbers\n  worst"):
        check_unbiased(draw_gates, [*GATES.mean()[:2], 0.2], bounds=(0, 1))


def test_a_bias_of_twice_what_is_allowed_is_found() -> None:
    allowed = check_unbiased(draw_gates, GATES.mean(), bounds=(-1, 2)).allowed
    for i in range(3):
        for sign in (-1, 1):
            shift = np.zeros(3)
            shift[i] = sign * 2 * allowed[i]
            with pytest.raises(AssertionError, match=rf"worst at \[{i}\]"):
                check_unbiased(lambda n, rng, shift=shift: draw_gates(n, rng) + shift,
                               GATES.mean(), bounds=(-1, 2))  # fmt: skip


def test_what_is_allowed_is_the_inequality_for_every_number_and_look() -> None:
    """Three numbers, looks at 1000, 2000 and 3000 draws: each has a ninth of the false alarms."""
    values = np.random.default_rng(3).random((3000, 3)) * [1.0, 2.0, 0.5]
    chunks = iter(np.split(values, [1000, 2000]))
    seen = check_unbiased(lambda n, rng: next(chunks), [0.5, 1.0, 0.25], bounds=(0, [1, 2, 3]),
                          max_draws=3000, false_alarms=1e-3)  # fmt: skip
    assert seen.n == 3000
    nats, n = np.log(4 * 9 / 1e-3), 3000
    spread = np.sqrt(2 * values.var(axis=0, ddof=1) * nats / n)
    ranges = np.array([1, 2, 3]) * 7 * nats / (3 * (n - 1))
    np.testing.assert_allclose(seen.allowed, spread + ranges, rtol=1e-12)
    np.testing.assert_allclose(seen.mean, values.mean(axis=0), rtol=1e-12)


def test_precision_ends_it_early() -> None:
    result = check_unbiased(draw_gates, GATES.mean(), bounds=(0, 1), precision=0.1)
    assert result.n < 128_000
    assert (2 * result.allowed <= 0.1).all()


def test_what_is_too_rare_to_be_drawn_is_no_bias() -> None:
    rare = HardConcrete(np.array([-20.0, 0.5]))
    draw = lambda n, rng: rare.sample(open_uniform(rng, (n, 2))) != 0  # noqa: E731
    for how in ({"bounds": (0, 1)}, {"method": "t"}):
        check_unbiased(draw, rare.prob_active(), max_draws=2000, **how)


def test_one_number_and_float32_and_many() -> None:
    check_unbiased(lambda n, rng: rng.random(n), 0.5, bounds=(0, 1), max_draws=1500)
    mean = float(np.float32(0.1))
    check_unbiased(lambda n, rng: np.full(n, 0.1, np.float32), mean, bounds=(0, 1))
    check_unbiased(lambda n, rng: np.full(n, 0.1, np.float32), 0.1, method="t")
    check_unbiased(lambda n, rng: rng.random((n, 70, 50)), np.full((70, 50), 0.5), bounds=(0, 1),
                   max_draws=1500)  # fmt: skip
    with pytest.raises(AssertionError, match="off by"):
        check_unbiased(lambda n, rng: np.full((n, 2), 0.1), [0.1, 0.9], bounds=(0, 1))


def test_without_bounds_draws_that_do_not_vary_are_not_judged() -> None:
    """Zeros may be those of an estimator that is 1e6 once in 1e6 draws: unbiased, and unseen."""
    zeros = lambda n, rng: np.zeros(n)  # noqa: E731
    with pytest.raises(ValueError, match="bounds must be given: all 2000 draws are 0, 1 was"):
        check_unbiased(zeros, 1.0, method="t", max_draws=2000)
    with pytest.raises(AssertionError, match="off by"):
        check_unbiased(zeros, 1.0, bounds=(0, 1))

    def half(n: int, rng: np.random.Generator) -> Any:
        return np.stack([np.zeros(n), 1e-6 * rng.random(n)], axis=1)

    with pytest.raises(ValueError, match=r"draws at \[0\] are 0, 1 was expected"):
        check_unbiased(half, [1.0, 5e-7], method="t", max_draws=2000)
    # and it does not keep what varies from being seen
    with pytest.raises(AssertionError, match=r"worst at \[1\]"):
        check_unbiased(half, [1.0, 5e-6], method="t", max_draws=2000)

    late = lambda n, rng: (rng.random(n) < 1e-3).astype(float)  # noqa: E731
    check_unbiased(late, 1e-3, method="t")


def test_without_bounds_there_is_a_warning() -> None:
    with pytest.warns(ApproximateWarning, match="approximate"):
        check_unbiased(draw_gates, GATES.mean(), max_draws=1000)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda n, rng: np.full((n, 3), np.nan), "3000 of 3000 numbers drawn are NaN"),
        (lambda n, rng: np.full((n, 3), [0.5, 1.5, 0.5]), "1.5 was drawn at [1], out of bounds"),
        (lambda n, rng: np.full((n, 3), -np.inf), "-inf was drawn at [0], out of bounds"),
    ],
)
def test_draws_that_are_no_draws(draw: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        check_unbiased(draw, GATES.mean(), bounds=(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected": 0.5}, "draw must return shape (1000,)"),
        ({"expected": [0.5, np.nan, 0.5]}, "expected must be finite"),
        ({"bounds": (1, 0)}, "low <= high"),
        ({"bounds": (0, np.inf)}, "bounds must be finite"),
        ({"bounds": (np.zeros(2), 1)}, "bounds must broadcast"),
        ({"method": "z"}, "method must be"),
        ({"method": "bernstein", "bounds": None}, "bounds must be given"),
        ({"false_alarms": 0.0}, "false_alarms must lie"),
        ({"max_draws": 10}, "max_draws must be at least 1000"),
        ({"precision": 0.0}, "precision must be positive"),
    ],
)
def test_unbiased_arguments_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_unbiased(draw_gates, **{"expected": GATES.mean(), "bounds": (0, 1), **options})


# --- assert_matches_reference ---


@both_dtypes
@pytest.mark.parametrize("function", [name for name in STRATEGIES if name != "train"])
@few
@given(st.data())
def test_the_reference_matches_itself(function: str, dtype: Any, data: Any) -> None:
    inputs = data.draw(inputs_of(function, dtype))
    assert set(inputs) == set(FUNCTIONS[function].parameters)
    assert_matches_reference(function, getattr(reference, function), **inputs)


LOG_ALPHA, U = np.array([-1.0, 0.5, 3.0]), np.array([0.3, 0.6, 0.45])


def test_results_and_functions_and_positions() -> None:
    gate = HardConcrete(LOG_ALPHA)
    assert_matches_reference("sample", gate.sample(U), LOG_ALPHA, U)
    assert_matches_reference("sample", gate.sample(U), log_alpha=LOG_ALPHA, u=U, beta=2 / 3)
    assert_matches_reference(
        "sample", lambda log_alpha, u, beta: HardConcrete(log_alpha, beta=beta).sample(u),
        LOG_ALPHA, U, beta=0.5,
    )  # fmt: skip
    assert_matches_reference("dense_params", 4 * 3 + 3, 4, 3, bias=True)
    with pytest.raises(AssertionError, match="dense_params differs"):
        assert_matches_reference("dense_params", 4 * 3, 4, 3, bias=True)


def test_a_wrong_result_is_shown_with_all_that_explains_it() -> None:
    median = (1.2 / (1 + np.exp(-1.5 * LOG_ALPHA)) - 0.1).clip(0, 1)
    with pytest.raises(AssertionError) as caught:
        assert_matches_reference("test_time", median, LOG_ALPHA)
    message = str(caught.value)
    assert message.startswith("test_time differs from the reference\n")
    assert "log_alpha = array([-1. ,  0.5,  3. ])" in message
    assert "allowed" in message
    assert f"got {median[0]}, expected {HardConcrete(LOG_ALPHA).test_time()[0]}" in message
    assert "the median gate, not Eq. 13" in message


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (HardConcrete(LOG_ALPHA).test_time().astype(np.float32), "float32"),
        (HardConcrete(LOG_ALPHA[:2]).test_time(), r"shape \(2,\)"),
        (None, "None"),
        (np.array([0.2, np.nan, 1.0]), "nan"),
    ],
)
def test_what_is_no_such_result(got: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_matches_reference("test_time", got, LOG_ALPHA)


def test_another_honest_convention_is_right() -> None:
    values, decay = np.array([[1.0], [3.0], [2.0]]), 0.9
    average, averages = values[0].copy(), []
    for value in values:
        average = decay * average + (1 - decay) * value
        averages.append(average)
    assert_matches_reference("temporal_average", np.array(averages), values, decay=decay)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: assert_matches_reference("sampel", None), "function must be one of"),
        (lambda: assert_matches_reference("draw", None), "use check_unbiased"),
        (lambda: assert_matches_reference("sample", None, LOG_ALPHA), "sample needs u too"),
        (lambda: assert_matches_reference("test_time", None, LOG_ALPHA, U=U), "got U too"),
        (lambda: assert_matches_reference("test_time", None, U, log_alpha=U), "log_alpha twice"),
        (lambda: assert_matches_reference("dense_params", None, 1, 2, 3, 4), "takes 3 arguments"),
    ],
)
def test_reference_arguments_that_make_no_sense(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_importing_the_library_does_not_import_hypothesis(tmp_path: Any) -> None:
    import subprocess
    import sys

    code = "import sys, l0ref; sys.exit('hypothesis' in sys.modules or 'pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_takes_milliseconds() -> None:
    """A tool of property tests is called hundreds of times: 0.5 s would be no tool."""
    check_vjp(dense, dense_vjp, [X, WEIGHT, BIAS])
    start = time.thread_time()
    for seed in range(5):
        check_vjp(dense, dense_vjp, [X, WEIGHT, BIAS], seed=seed)
    assert time.thread_time() - start < 2.5
