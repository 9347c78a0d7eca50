"""The checks of other implementations: what is right passes, and what is planted is found."""

import io
import itertools
import json
import math
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from rich.console import Console

from l0ref import cli
from l0ref.network import Network
from l0ref.optimizers import Adam
from l0ref.oracle import check as oracle
from l0ref.oracle import differential, hygiene, protocol, report, targets
from l0ref.oracle.allowed import CASES, _moved_by_adam, as_dtype, sign_of, tolerance_for
from l0ref.oracle.calls import TIMEOUTS, Calls, GivenUp
from l0ref.oracle.check import Checker, Status, check
from l0ref.oracle.compare import Tolerance, compare
from l0ref.oracle.diagnosis import diagnose
from l0ref.oracle.differential import Found, check_function, expect, smallest
from l0ref.oracle.interface import FUNCTIONS
from l0ref.oracle.reference import network_of, noise_of, numba, reference
from l0ref.oracle.strategies import PROBES, STRATEGIES
from l0ref.oracle.vectors import load_all
from tests.honest_target import Honest, only, planted, sigmoid

DTYPES = ("float64", "float32")


def calls_of(target: Any, timeout: float = 10.0) -> Calls:
    return Calls(targets.open_target(target), timeout)


# --- compare ---

EXACTLY = Tolerance(0.0, 0.0, "exact")


@pytest.mark.parametrize(
    ("got", "expected", "says"),
    [
        ([0.5], np.array([0.5]), "a list of 1 came, an array of shape (1,) is due"),
        (np.zeros((2, 1)), np.zeros(2), "shape (2, 1), float64 came, an array of shape (2,)"),
        (np.zeros(2, np.float32), np.zeros(2), "float32 came, float64 is due"),
        (np.zeros(2, complex), np.zeros(2), "complex128 came, floating numbers are due"),
        (np.zeros(2, int), np.zeros(2), "int64 came, floating numbers are due"),
        (np.array(["a", "b"]), np.array([1, 2]), "integers are due"),
        (np.array([0.0, np.nan]), np.zeros(2), "at [1]: got nan, expected 0.0, never allowed"),
        (np.array([np.inf]), np.array([-np.inf]), "got inf, expected -inf, never allowed"),
        (np.array([1e300]), np.array([np.inf]), "never allowed"),
        (np.zeros(1), 0.0, "a number or an array without axes is due"),
        (True, 1.0, "True came, a number is due"),
        (1, True, "1 came, True is right"),
        ("0.5", 0.5, "a number is due"),
        (1j, 0.5, "a number is due"),
        (None, 0.5, "None came, a number is due"),
        (0.5, None, "0.5 came, None is right"),
        ("relu", "dense", "'relu' came, 'dense' is right"),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}, "the dict lacks 'b'"),
        ({"a": 1.0, "c": 1.0}, {"a": 1.0}, "has 'c', which is not due"),
        (3.0, {"a": 1.0}, "a dict with 'a' is due"),
        ((1.0,), (1.0, 2.0), "a tuple of 1 came, 2 in a sequence are due"),
        (np.array(1.0), (1.0,), "a sequence of 1 is due"),
        ({"x": [1.0, {"y": np.array([0.0, 1.0])}]}, {"x": [1.0, {"y": np.zeros(2)}]},
         "at ['x'][1]['y'][1]: got 1.0, expected 0.0, off by 1, allowed 0"),
        (2, 1, "got 2, expected 1"),
        (10**30, 10**30 + 10**20, "off by 1"),
    ],
)  # fmt: skip
def test_compare_says_what_is_wrong(got: Any, expected: Any, says: str) -> None:
    mismatch = compare(got, expected, EXACTLY, dtype="float64")
    assert mismatch is not None
    assert says in mismatch.message


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.array(0.5), 0.5),
        (0.5, np.array(0.5)),
        (7, np.float64(7)),
        (np.array([1, 2], np.int32), np.array([1, 2])),
        (np.array([1.0, 2.0]), np.array([1, 2])),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf])),
        ([np.zeros(2), 1.0], (np.zeros(2), 1.0)),
        (np.zeros((2, 3)), [np.zeros(3), np.zeros(3)]),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        ({"on": None, "kind": "relu", "bias": False}, {"on": None, "kind": "relu", "bias": False}),
    ],
)
def test_compare_takes_what_is_right(got: Any, expected: Any) -> None:
    assert compare(got, expected, EXACTLY, dtype="float64") is None


class Agreeable(np.ndarray):  # type: ignore[type-arg]
    """Arrays that are equal to everything, and no distance from it."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(one) for one in inputs]
        result = getattr(ufunc, method)(*plain, **options)
        return np.ones_like(result) if result.dtype == bool else np.zeros_like(result)

    def __sub__(self, other: Any) -> Any:
        return np.zeros(self.shape)

    def __eq__(self, other: object) -> Any:
        return np.ones(self.shape, bool)

    def astype(self, *args: Any, **options: Any) -> Any:
        return self


@pytest.mark.parametrize("expected", [np.ones(3), (np.ones(3), 1.0), {"z": np.ones(3)}])
def test_arrays_that_say_they_are_right_are_not_believed(expected: Any) -> None:
    wrong = np.zeros(3).view(Agreeable)
    got = {"z": wrong} if isinstance(expected, dict) else wrong
    got = (wrong, 1.0) if isinstance(expected, tuple) else got
    mismatch = compare(got, expected, EXACTLY, dtype="float64")
    assert mismatch is not None
    assert "got 0.0, expected 1.0" in mismatch.message
    found = check(only(test_time=lambda log_alpha, **law: np.zeros_like(log_alpha).view(Agreeable)),
                  functions=["test_time"], quick=True)  # fmt: skip
    assert not found.ok


@pytest.mark.parametrize("expected", [np.zeros(2), 0.0])
def test_masked_arrays_are_refused(expected: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = np.ma.masked_all(np.shape(expected))
        mismatch = compare(got, expected, EXACTLY, dtype="float64")
    assert mismatch is not None
    assert f"a masked array of shape {np.shape(expected)}, float64 came" in mismatch.message


def test_tolerances_follow_the_structure() -> None:
    expected = {"a": [np.array([1.0, 2.0]), 3.0], "b": np.zeros(2)}
    allowed = Tolerance({"a": [np.array([0.5, 0.0]), 0.25], "b": 0.125}, 0.0, "given")
    assert compare({"a": [np.array([1.5, 2.0]), 3.25], "b": np.full(2, 0.125)}, expected, allowed,
                   dtype=None) is None  # fmt: skip
    mismatch = compare({"a": [np.array([1.5, 2.0]), 4.0], "b": np.full(2, 0.25)}, expected,
                       allowed, dtype=None)  # fmt: skip
    assert mismatch is not None
    assert mismatch.worst == 4.0
    assert mismatch.message.startswith("at ['a'][1]: got 4.0, expected 3.0, off by 1")
    relative = Tolerance(0.0, 0.125, "an eighth")
    assert compare(np.array([9.0, -9.0]), np.array([8.0, -8.0]), relative, dtype=None) is None
    assert compare(np.array([9.5]), np.array([8.0]), relative, dtype=None) is not None


# --- random inputs ---


def check_in(calls: Calls, function: str, dtype: str, *, max_examples: int, seed: int) -> Found:
    """Check a function in one dtype."""
    found = check_function(calls, function, (dtype,), max_examples=max_examples, seed=seed)
    return found[dtype]


@pytest.mark.parametrize("function", STRATEGIES)
def test_the_reference_passes_random_inputs(function: str) -> None:
    for dtype in DTYPES:
        found = check_in(calls_of(reference), function, dtype, max_examples=4, seed=8)
        assert found.failure is None, found.message
        assert found.convention == ""
        assert found.n_checks == 4


@pytest.mark.parametrize("function", ["sample", "sample_vjp", "expected_l0", "dense", "dense_vjp",
                                      "conv2d", "conv2d_vjp", "adam", "loss_and_grads",
                                      "train"])  # fmt: skip
def test_the_kernels_pass_random_inputs(function: str) -> None:
    for dtype in DTYPES:
        # kernels that are compiled, on a busy machine
        calls = calls_of(numba, timeout=300)
        found = check_in(calls, function, dtype, max_examples=4, seed=3)
        assert found.failure is None, found.message


@pytest.mark.parametrize("function", [name for name in vars(Honest) if name in STRATEGIES])
def test_an_honest_implementation_passes_random_inputs(function: str) -> None:
    for dtype in DTYPES:
        found = check_in(calls_of(Honest()), function, dtype, max_examples=100, seed=5)
        assert found.failure is None, found.message


def test_every_function_but_the_samplers_has_random_inputs() -> None:
    assert STRATEGIES.keys() == CASES.keys() == FUNCTIONS.keys() - {"draw", "draw_vjp"}
    for function in STRATEGIES:
        (args,) = drawn(function, 1)
        assert set(args) - {PROBES} == set(FUNCTIONS[function].parameters)


def drawn(function: str, n: int, seed: int = 1) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []

    def keep(args: dict[str, Any]) -> bool:
        kept.append(args)
        return False

    smallest(STRATEGIES[function], keep, max_examples=n, seed=seed)
    return kept


def arrays_in(value: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return list(itertools.chain.from_iterable(map(arrays_in, value.values())))
    if isinstance(value, list | tuple):
        return list(itertools.chain.from_iterable(map(arrays_in, value)))
    return [np.array(value)] if isinstance(value, float) else []


@pytest.mark.parametrize("function", STRATEGIES)
def test_inputs_are_exact_in_float32_and_seldom_square(function: str) -> None:
    square: dict[str, list[bool]] = {}
    for args in drawn(function, 20):
        for array in arrays_in(args):
            if array.dtype.kind == "f":
                np.testing.assert_array_equal(array, array.astype(np.float32))
        for name in ("weight", "x", "normal"):
            if name in args and args[name].ndim >= 2:
                height, width = args[name].shape[-2:]
                square.setdefault(name, []).append(height == width)
    for name, seen in square.items():
        assert not all(seen), name


def test_derivatives_are_asked_for_clear_of_kinks() -> None:
    for args in drawn("sample_partials", 60) + drawn("sample_vjp", 60):
        law = [args[name] for name in ("beta", "gamma", "zeta")]
        beta, gamma, zeta = law
        for la, u in zip(args["log_alpha"].flat, args["u"].flat, strict=True):
            logit = math.log(u) - math.log1p(-u) + la
            for s in (-gamma / (zeta - gamma), (1 - gamma) / (zeta - gamma)):
                assert abs(logit - beta * (math.log(s) - math.log1p(-s))) > 1e-3
    regions = {
        int(np.sign(z - 0.5)) if z in (0, 1) else 0
        for args in drawn("sample_partials", 30)
        for z in reference.sample(**args).flat
    }
    assert regions == {-1, 0, 1}


def test_networks_are_of_all_kinds() -> None:
    kinds, on, depths = set(), set(), set()
    for args in drawn("loss_and_grads", 60):
        layers = args["network"]["layers"]
        kinds |= {layer["kind"] for layer in layers}
        on |= {layer["on"] for layer in layers if "on" in layer}
        depths.add(sum("weight" in layer for layer in layers))
    assert kinds == {"dense", "conv2d", "relu", "max_pool2d", "flatten"}
    assert on == {None, "inputs", "outputs", "weights"}
    assert depths == {1, 2, 3}


def half_of_the_gradient(**args: Any) -> Any:
    out = reference.loss_and_grads(**args)
    grads = {k: v * 0.98 if k.endswith("log_alpha") else v for k, v in out["grads"].items()}
    return {"loss": out["loss"], "grads": grads}


def adam_with_epsilon_inside(theta: Any, grads: Any, *, lr: float) -> Any:
    m, v, after = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta = theta - lr * (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t) + 1e-8)
        after.append(theta)
    return np.array(after, dtype=grads.dtype)


def without_constants(network: Any) -> Any:
    """Compact, and forget what closed units send onward."""
    small = reference.compact(network)
    layers = [
        {**layer, "bias": np.zeros_like(layer["bias"])}
        if isinstance(layer.get("bias"), np.ndarray) else layer
        for layer in small["layers"]
    ]  # fmt: skip
    return {**small, "layers": layers}


WRONG: dict[str, Any] = {
    "test_time": lambda log_alpha, *, beta, gamma, zeta: np.clip(
        sigmoid(log_alpha / beta) * (zeta - gamma) + gamma, 0, 1
    ),
    "prob_active": lambda log_alpha, *, beta, gamma, zeta: sigmoid(
        log_alpha - np.log(-gamma / zeta).astype(log_alpha.dtype)
    ),
    "sf": lambda x, log_alpha, **law: reference.cdf(x, log_alpha, **law),
    "mean": lambda log_alpha, **law: reference.test_time(log_alpha, **law),
    "sample": lambda log_alpha, u, *, beta, **law: reference.sample(
        log_alpha, u, beta=1.0, **law
    ),
    "sample_vjp": lambda log_alpha, u, dz, **law: reference.sample_vjp(
        log_alpha, u, np.ones_like(dz), **law
    ),
    "group_size": lambda weight_shape, **how: reference.group_size(
        weight_shape[::-1], **how
    ),
    "expected_l0": lambda log_alpha, group_size, **law: float(
        np.mean(group_size * reference.prob_active(log_alpha, **law))
    ),
    "penalty": lambda n_train, **args: reference.penalty(n_train=1, **args),
    "dense_vjp": lambda **args: tuple(
        2 * part if i == 3 else part for i, part in enumerate(reference.dense_vjp(**args))
    ),
    "conv2d": lambda weight, **args: reference.conv2d(
        weight=np.ascontiguousarray(weight[..., ::-1]), **args
    ),
    "conv2d_flops": lambda size, **args: reference.conv2d_flops(
        size=(size[0] + 1, size[1] + 1), **args
    ),
    "expected_cost": lambda network: reference.hard_cost(network),
    "adam": adam_with_epsilon_inside,
    "temporal_average": lambda values, *, decay: np.stack(
        [values[: t + 1].mean(axis=0) for t in range(len(values))]
    ),
    "loss_and_grads": half_of_the_gradient,
    "train": lambda **args: reference.train(**{**args, "lr": args["lr"] * 1.001}),
    "predict": lambda network, x: reference.predict({**network, "zeta": 2 * network["zeta"]}, x),
    "compact": without_constants,
}  # fmt: skip


@pytest.mark.parametrize("function", WRONG)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_wrong_is_found(function: str, dtype: str) -> None:
    calls = calls_of(only(**{function: WRONG[function]}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_in(calls, function, dtype, max_examples=60, seed=2)
    assert found.failure is not None
    assert not found.failure.ok
    assert found.failure.function == function
    assert found.message
    assert any(not seen.ok for seen in calls.observations[function])


@pytest.mark.parametrize("function", ["sample", "expected_l0_grad", "dense", "loss_and_grads"])
def test_a_factor_close_to_one_is_found(function: str) -> None:
    """What is allowed is for rounding: in float32 a factor of 1.001 is no rounding."""

    def scaled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: scaled(part) for key, part in value.items()}
        return (value * 1.001).astype(value.dtype)

    own = getattr(reference, function)
    calls = calls_of(only(**{function: lambda **args: scaled(own(**args))}))
    assert check_in(calls, function, "float32", max_examples=30, seed=2).failure is not None


@pytest.mark.parametrize("wrong", [("float64",), ("float32",), DTYPES])
def test_what_is_wrong_in_one_dtype_is_found_in_that_one(wrong: tuple[str, ...]) -> None:
    def prob_active(log_alpha: Any, **law: Any) -> Any:
        right = reference.prob_active(log_alpha=log_alpha, **law)
        is_wrong = log_alpha.dtype.name in wrong and log_alpha.max() > 1
        return 1 - right if is_wrong else right

    calls = calls_of(only(prob_active=prob_active))
    found = check_function(calls, "prob_active", DTYPES, max_examples=40, seed=3)
    assert {dtype for dtype in DTYPES if found[dtype].failure is not None} == set(wrong)
    for dtype in wrong:
        failure = found[dtype].failure
        assert failure is not None
        assert failure.args["log_alpha"].dtype == dtype
        assert failure.args["log_alpha"].tolist() == [1.0625]
    for dtype in set(DTYPES) - set(wrong):
        assert found[dtype].n_checks == 40


def test_an_input_is_drawn_once_for_all_dtypes() -> None:
    given: dict[str, list[Any]] = {dtype: [] for dtype in DTYPES}

    def prob_active(log_alpha: Any, **law: Any) -> Any:
        given[log_alpha.dtype.name].append(log_alpha.tolist())
        return reference.prob_active(log_alpha=log_alpha, **law)

    calls = calls_of(only(prob_active=prob_active))
    found = check_function(calls, "prob_active", DTYPES, max_examples=10, seed=3)
    assert [found[dtype].n_checks for dtype in DTYPES] == [10, 10]
    assert given["float64"] == given["float32"]


def test_the_smallest_failing_input_is_small() -> None:
    found = check_in(
        calls_of(planted(test_time=WRONG["test_time"])), "test_time", "float64",
        max_examples=60, seed=2,
    )  # fmt: skip
    assert found.failure is not None
    assert found.failure.args["log_alpha"].shape == (1,)
    assert abs(found.failure.args["log_alpha"][0]) <= 1
    found = check_in(
        calls_of(only(loss_and_grads=half_of_the_gradient)), "loss_and_grads", "float64",
        max_examples=60, seed=2,
    )  # fmt: skip
    assert found.failure is not None
    assert sum("weight" in layer for layer in found.failure.args["network"]["layers"]) == 1


def test_the_same_seed_draws_the_same_inputs() -> None:
    def as_text(seed: int) -> str:
        return json.dumps(report.plain(drawn("train", 5, seed)))

    assert as_text(4) == as_text(4)
    assert as_text(4) != as_text(5)


def test_drawing_leaves_global_generators_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    drawn("sample", 3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_shrinking_ends_in_time() -> None:
    start = time.monotonic()
    _, found = smallest(
        st.lists(st.integers(0, 10**6), min_size=30, max_size=30),
        lambda numbers: bool(sum(numbers)) and time.sleep(0.01) is None,
        max_examples=20,
        seed=0,
        shrinking=0.3,
    )
    assert found is not None
    assert time.monotonic() - start < 3


def first_average(values: Any, *, decay: float) -> Any:
    after = [values[0]]
    for value in values[1:]:
        after.append(decay * after[-1] + (1 - decay) * value)
    return np.array(after, dtype=values.dtype)


def test_another_convention_is_told_apart() -> None:
    calls = calls_of(planted(temporal_average=first_average))
    found = check_in(calls, "temporal_average", "float32", max_examples=40, seed=1)
    assert found.failure is None
    assert found.convention == "an average that starts at the first value, and is not divided"


def test_other_conventions_are_tried_only_when_ours_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counting(function: str, *rest: Any) -> Tolerance:
        made.append(function)
        return tolerance_for(function, *rest)

    monkeypatch.setattr(differential, "tolerance_for", counting)
    found = check_in(calls_of(Honest()), "temporal_average", "float64", max_examples=9, seed=1)
    assert found.message == ""
    assert len(made) == found.n_checks == 9


def test_results_that_are_written_over_are_kept_as_they_came() -> None:
    buffer = np.zeros(0)

    def temporal_average(values: Any, *, decay: float) -> Any:
        nonlocal buffer
        own = first_average(values, decay=decay)
        if buffer.shape != own.shape:
            buffer = np.empty_like(own)
        buffer[...] = own
        return buffer

    calls = calls_of(only(temporal_average=temporal_average))
    found = check_in(calls, "temporal_average", "float64", max_examples=60, seed=1)
    assert found.message == ""
    assert found.convention.startswith("an average that starts at the first")


def test_the_check_imports_no_statistics_it_can_do_without() -> None:
    code = (
        "import sys, l0ref.oracle.check, l0ref.oracle.samplers, l0ref.oracle.hygiene\n"
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_shown_is_wrong_by_our_convention(seed: int) -> None:
    """Some draws of a wrong sampler are right with 1 - u for u, by chance, and others as it is."""

    def sample(log_alpha: Any, u: Any, **law: Any) -> Any:
        return reference.sample(np.exp(log_alpha).astype(log_alpha.dtype), u, **law)

    calls = calls_of(only(sample=sample))
    failure = check_in(calls, "sample", "float64", max_examples=40, seed=seed).failure
    assert failure is not None
    assert compare(failure.got, failure.expected, failure.tolerance, dtype="float64") is not None
    first, *_ = diagnose(calls.observations["sample"])
    assert first.deviation == "alpha-for-log-alpha"


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_convention_holds_for_all_dtypes(dtype: str) -> None:
    def temporal_average(values: Any, *, decay: float) -> Any:
        own = first_average if values.dtype == dtype else Honest().temporal_average
        return own(values, decay=decay)

    calls = calls_of(only(temporal_average=temporal_average))
    found = check_function(calls, "temporal_average", DTYPES, max_examples=40, seed=1)
    (failure,) = [one.failure for one in found.values() if one.failure is not None]
    assert failure.args["values"].dtype == dtype
    assert not np.array_equal(failure.got, failure.expected)


def test_texts_that_no_encoding_takes_are_shown_all_the_same() -> None:
    """Half an emoji, as where JavaScript has cut a text in two."""

    def dense_params(n_in: int, n_out: int, bias: bool) -> int:
        warnings.warn("cut \ud83d", stacklevel=1)
        raise ValueError("bad \ud83d")

    found = check(only(dense_params=dense_params), quick=True)
    assert all("\\ud83d" in o.message for o in found.outcomes if o.status is Status.FAILED)
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    report.show(found, Console(file=file))
    file.flush()
    assert json.dumps(found.to_json()).isascii()


def test_conventions_are_not_mixed() -> None:
    honest, turn = Honest(), itertools.count()

    def sometimes(values: Any, *, decay: float) -> Any:
        own = first_average if next(turn) % 2 else honest.temporal_average
        return own(values, decay=decay)

    calls = calls_of(planted(temporal_average=sometimes))
    assert check_in(calls, "temporal_average", "float64", max_examples=40, seed=1).message


def trained_from_the_first(**args: Any) -> Any:
    steps = [dict(step) for step in reference.train(**args)]
    average = steps[0]["params"]
    for step in steps:
        mixed = {k: args["decay"] * average[k] + (1 - args["decay"]) * v
                 for k, v in step["params"].items()}  # fmt: skip
        average = {k: v.astype(step["params"][k].dtype) for k, v in mixed.items()}
        step["average"] = average
    return steps


def test_another_convention_of_training_is_told_apart() -> None:
    calls = calls_of(only(train=trained_from_the_first))
    found = check_in(calls, "train", "float32", max_examples=6, seed=1)
    assert found.failure is None, found.message
    assert found.convention == "an average that starts at the first value, and is not divided"


@pytest.mark.parametrize("function", ["sample", "sample_vjp", "sample_partials", "loss_and_grads",
                                      "train"])  # fmt: skip
def test_noise_of_the_other_sign_is_told_apart(function: str) -> None:
    def mirrored(u: Any, **args: Any) -> Any:
        u = [1 - one for one in u] if isinstance(u, list) else 1 - u
        return getattr(reference, function)(u=u, **args)

    calls = calls_of(only(**{function: mirrored}))
    for dtype in DTYPES:
        found = check_in(calls, function, dtype, max_examples=5, seed=1)
        assert found.failure is None, found.message
        assert found.convention.startswith("the noise enters with the other sign")


WITH_NOISE = ("sample", "sample_vjp", "sample_partials", "loss_and_grads", "train")


def with_signs(**signs: str) -> Any:
    """Return functions of the reference that take the noise with these signs."""

    def own(function: str, sign: str) -> Any:
        def mirrored(u: Any, **args: Any) -> Any:
            u = [1 - one for one in u] if isinstance(u, list) else within(1 - u)
            return getattr(reference, function)(u=u, **args)

        return getattr(reference, function) if sign == "+" else mirrored

    def within(u: Any) -> Any:
        return np.minimum(u, 1 - np.finfo(u.dtype).epsneg)  # of noise in the tails

    return only(**{name: own(name, sign) for name, sign in signs.items()})


@pytest.mark.parametrize(
    ("signs", "where", "says"),
    [
        ({"sample": "+", "sample_vjp": "-"}, "sample_vjp",
         "with + in sample; with - in sample_vjp:"),
        ({"sample": "-", "sample_partials": "+"}, "sample_partials",
         "with + in sample_partials; with - in sample:"),
        ({"sample": "+", "sample_vjp": "+", "loss_and_grads": "-", "train": "+"}, "loss_and_grads",
         "with + in sample, sample_vjp, train; with - in loss_and_grads:"),
        ({"loss_and_grads": "-", "train": "+"}, "train", "with + in train; with - in loss_and"),
    ],
)  # fmt: skip
def test_signs_of_the_noise_are_not_mixed(signs: dict[str, str], where: str, says: str) -> None:
    found = check(with_signs(**signs), functions=[*signs], quick=True)
    bad = [outcome for outcome in found.outcomes if outcome.status.is_bad]
    assert [(one.phase, one.function, one.n_failed) for one in bad] == [("manners", where, 1)]
    assert says in bad[0].message
    assert found.diagnoses == []


def test_a_sign_that_changes_within_a_function_is_found() -> None:
    mirrored = with_signs(sample="-").sample

    def sample(log_alpha: Any, u: Any, **law: float) -> Any:
        own = reference.sample if log_alpha.dtype == "float32" else mirrored
        return own(log_alpha=log_alpha, u=u, **law)

    found = check(only(sample=sample), quick=True)
    bad = [outcome for outcome in found.outcomes if outcome.status.is_bad]
    assert [(one.phase, one.function) for one in bad] == [("manners", "sample")]
    assert "now with the one, now with the other in sample:" in bad[0].message


@pytest.mark.parametrize("sign", ["+", "-"])
def test_one_sign_of_the_noise_passes(sign: str) -> None:
    found = check(with_signs(**dict.fromkeys(WITH_NOISE, sign)), functions=WITH_NOISE, quick=True)
    assert found.ok, found
    marks = {o.status for o in found.outcomes if o.phase in ("vectors", "random")}
    assert (Status.ACCEPTABLE in marks) == (sign == "-")


def test_only_what_one_sign_explains_tells_the_sign() -> None:
    signs = {words: sign_of([words]) for words in CASES["train"].alternatives}
    assert sorted(signs.values()) == ["+", "+", "-", "-", "-"]
    assert all((sign == "-") == ("other sign" in words) for words, sign in signs.items())
    assert sign_of([""]) == "+"
    assert sign_of(["", *signs]) == ""


def test_the_words_for_conventions_are_those_of_the_vectors() -> None:
    known = {other.convention for test in load_all() for other in test.alternatives}
    for name, case in CASES.items():
        for words in case.alternatives:
            assert words in known or "initial" in words or words.endswith("not divided"), name


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (lambda network: network, "still has gates on its"),
        (lambda network: None, "None came, a network"),
        (lambda network: {"layers": [3]}, "layer 0 is 3, a dict with its 'kind' is due"),
        (lambda network: {**reference.compact(network), "layers": [{"kind": "gelu"}]},
         "it is no network"),
        (lambda network: {**network, "layers": [
            {**layer, "on": None, "log_alpha": None} for layer in network["layers"]]},
         "its logits are not those"),
    ],
)  # fmt: skip
def test_a_compact_network_is_looked_at(result: Any, says: str) -> None:
    found = check_in(calls_of(only(compact=result)), "compact", "float64", max_examples=40, seed=1)
    assert says in found.message


def test_a_compact_network_that_keeps_closed_units_is_found() -> None:
    def folded(network: Any) -> Any:
        """Multiply the test gates into the weights, and leave everything where it is."""
        law = {name: network[name] for name in ("beta", "gamma", "zeta")}
        layers = []
        for layer in network["layers"]:
            new = dict(layer)
            if layer.get("on") is not None:
                z = reference.test_time(layer["log_alpha"], **law)
                axis = {"inputs": 0, "outputs": 1 if layer["kind"] == "dense" else 0}
                if layer["on"] != "weights":
                    shape = [1] * layer["weight"].ndim
                    shape[axis[layer["on"]]] = -1
                    if layer["gates_bias"]:
                        new["bias"] = layer["bias"] * z
                    z = z.reshape(shape)
                new |= {"weight": layer["weight"] * z, "on": None, "log_alpha": None,
                        "gates_bias": False}  # fmt: skip
            layers.append(new)
        return {**network, "layers": layers}

    found = check_in(calls_of(only(compact=folded)), "compact", "float64", max_examples=60, seed=1)
    assert "are enough" in found.message


@pytest.mark.parametrize("function", ["sample", "sample_vjp", "sample_partials", "ppf"])
def test_a_librarys_logarithm_that_is_off_by_65_eps_is_no_mistake(function: str) -> None:
    """That of 1-u near u = 0.414, in float64, as XLA computes it; the noise is shifted as much."""

    def shifted(**args: Any) -> Any:
        near = np.abs(args.get("u", args.get("q")) - 0.41) < 0.01
        off = np.where(near, 65 * np.finfo(np.float64).eps, 0)
        return getattr(reference, function)(**{**args, "log_alpha": args["log_alpha"] + off})

    for seed in range(8):
        found = check_in(
            calls_of(only(**{function: shifted})), function, "float64", max_examples=60, seed=seed
        )
        assert found.message == ""


def certain_network(sure: float, dtype: Any) -> Any:
    """Return one whose logits are the farther apart the greater `sure` is."""
    generator = np.random.default_rng(4)
    weights = [generator.normal(size=shape) for shape in ((6, 5), (5, 3))]
    return {
        "input_shape": (6,), "beta": 0.5, "gamma": -0.125, "zeta": 1.125,
        "layers": [
            {"kind": "dense", "weight": weights[0].astype(dtype), "bias": np.zeros(5, dtype),
             "log_alpha": np.full(6, 9, dtype), "on": "inputs", "gates_bias": False},
            {"kind": "relu"},
            {"kind": "dense", "weight": (sure * weights[1]).astype(dtype),
             "bias": np.zeros(3, dtype), "log_alpha": None, "on": None, "gates_bias": False},
        ],
    }  # fmt: skip


def plain_loss_and_grads(made: Network, x: Any, labels: Any, u: Any) -> Any:
    """As anybody writes it: the softmax is rounded, and then 1 is taken from it."""
    logits, residuals = made.forward(x, noise_of(made, u))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    total, each = odds.sum(axis=1, keepdims=True), np.arange(len(x))
    dlogits = odds / total
    dlogits[each, labels] -= 1
    loss = np.mean(np.log(total[:, 0]) - (logits - logits.max(axis=1, keepdims=True))[each, labels])
    return loss, made.backward(dlogits / x.dtype.type(len(x)), residuals)[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize("sure", [1.0, 4.0, 10.0, 15.0, 40.0])
def test_softmax_less_1_may_be_rounded_beside_1(sure: float, wrong: int, dtype: Any) -> None:
    """The more certain the network, the smaller loss and gradient, the greater rounding's share.

    Adam makes much of small gradients: what was rounded there is in all that follows.
    """
    generator = np.random.default_rng(3)
    network, n_steps = certain_network(sure, dtype), 3
    x = generator.normal(size=(n_steps, 3, 6)).astype(dtype)
    u = [generator.uniform(0.3, 0.7, (n_steps, 6)).astype(dtype)]
    labels = np.array([reference.predict(network, one).argmax(axis=1) for one in x])
    labels[:, :wrong] = (labels[:, :wrong] + 1) % 3
    options = {"lam": 0.0, "l2": 0.0, "n_train": 10, "lr": 0.125, "decay": 0.5}
    args = {"network": network, "x": x, "labels": labels, "u": u, **options}
    wide = as_dtype(args, np.float64)
    expected = reference.train(**wide)
    allowed = tolerance_for("train", wide, expected, dtype).abs

    first = {name: wide[name] for name in ("network", "lam", "l2", "n_train")}
    first |= {"x": wide["x"][0], "labels": labels[0], "u": [wide["u"][0][0]]}
    alone = tolerance_for("loss_and_grads", first, reference.loss_and_grads(**first), dtype).abs
    loss, grads = plain_loss_and_grads(network_of(network), x[0], labels[0], [u[0][0]])
    assert abs(loss - expected[0]["loss"]) <= alone["loss"]
    for name, g in grads.items():
        assert np.all(np.abs(g - expected[0]["grads"][name]) <= alone["grads"][name]), name
        # far less than a mistake in a gradient that is worth speaking of
        assert np.all(alone["grads"][name] <= 1e5 * np.finfo(dtype).eps)

    made, adam = network_of(network), Adam(0.125)
    for t, (step, error) in enumerate(zip(expected, allowed, strict=True)):
        loss, grads = plain_loss_and_grads(made, x[t], labels[t], [u[0][t]])
        adam.step(made.params, grads)
        assert abs(loss - step["loss"]) <= error["loss"]
        for name, g in grads.items():
            assert np.all(np.abs(g - step["grads"][name]) <= error["grads"][name]), name
            moved = np.abs(made.params[name] - step["params"][name])
            assert np.all(moved <= error["params"][name]), name


@pytest.mark.parametrize("size", [1e-9, 1e-7, 1e-4, 0.5])
def test_rounding_of_small_gradients_moves_adam_by_no_more_than_is_allowed(size: float) -> None:
    """As where softmax - 1 is rounded beside 1, and is itself nearly 0."""
    generator = np.random.default_rng(3)
    grads = [size * generator.normal(size=50) for _ in range(5)]
    errors = [np.full(50, 2e-16) for _ in grads]
    steps = []
    for off in (0.0, 2e-16):
        theta, adam = {"w": np.zeros(50)}, Adam(0.25)
        steps.append([])
        for g in grads:
            adam.step(theta, {"w": g + off * generator.choice((-1, 1), 50)})
            steps[-1].append(theta["w"].copy())
    for t, (right, rounded) in enumerate(zip(*steps, strict=True), 1):
        error = _moved_by_adam(grads[:t], errors[:t])
        assert np.all(np.abs(rounded - right) <= 0.25 * 4 * error + 1e-14)


def test_what_is_exactly_0_is_allowed_no_rounding_by_adam() -> None:
    assert not np.any(_moved_by_adam([np.zeros(2)] * 3, [np.ones(2)] * 3))


def test_moving_the_inputs_widens_what_is_allowed_at_a_kink() -> None:
    """At a pre-activation of 0 the gradient is anyone's guess, and no false alarm is given."""
    network = {
        "input_shape": (1,), "beta": 0.5, "gamma": -0.125, "zeta": 1.125,
        "layers": [
            {"kind": "dense", "weight": np.array([[1.0, -1.0]]), "bias": np.array([-1.0, 1.0]),
             "on": None, "log_alpha": None, "gates_bias": False},
            {"kind": "relu"},
            {"kind": "dense", "weight": np.array([[1.0, 2.0], [0.5, 1.0]]), "on": None,
             "bias": np.array([0.5, 0.25]), "log_alpha": None, "gates_bias": False},
        ],
    }  # fmt: skip
    args = {"network": network, "labels": np.array([1]), "u": [], "lam": 0.5, "l2": 0.25,
            "n_train": 3}  # fmt: skip
    at_kink, clear = {**args, "x": np.array([[1.0]])}, {**args, "x": np.array([[1.5]])}
    for given, least, most in ((at_kink, 1e-2, math.inf), (clear, 0.0, 1e-11)):
        expected = reference.loss_and_grads(**given)
        allowed = tolerance_for("loss_and_grads", given, expected, "float64").abs
        assert least <= allowed["grads"]["0.weight"].max() <= most


# --- targets that misbehave ---


def hang(*args: Any, **named: Any) -> Any:
    while True:
        time.sleep(0.01)


def test_a_function_that_hangs_is_let_go() -> None:
    asked = []

    def hang_and_count(log_alpha: Any, **law: float) -> Any:
        asked.append(1)
        hang(log_alpha)

    found = check(planted(prob_active=hang_and_count), functions=["prob_active", "test_time"],
                  quick=True, timeout=0.05)  # fmt: skip
    assert len(asked) == TIMEOUTS
    by_part = {(o.phase, o.function): o for o in found.outcomes}
    assert "did not return within 0.05 s" in by_part["vectors", "prob_active"].message
    assert by_part["random", "prob_active"].status is Status.FAILED
    assert "not called any more" in by_part["random", "prob_active"].message
    assert by_part["random", "test_time"].status is Status.PASSED


def test_calls_give_up() -> None:
    calls = calls_of(planted(prob_active=hang), 0.02)
    args = {"log_alpha": np.zeros(2), "beta": 0.5, "gamma": -0.1, "zeta": 1.1}
    for _ in range(TIMEOUTS):
        assert calls.call("prob_active", args).error is not None
    with pytest.raises(GivenUp, match="not called any more"):
        calls.call("prob_active", args)


def raise_it(error: BaseException) -> Any:
    def function(**args: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    ("misbehaves", "says"),
    [
        (raise_it(KeyError("beta")), "KeyError: 'beta'"),
        (raise_it(SystemExit(3)), "asked to exit"),
        (lambda log_alpha, **law: log_alpha.tolist(), "a list of"),
        (lambda log_alpha, **law: sigmoid(log_alpha)[..., None], "is due"),
        (lambda log_alpha, **law: log_alpha * np.nan, "got nan"),
        (lambda log_alpha, **law: None, "None came"),
        (lambda log_alpha, **law: np.asarray(sigmoid(log_alpha), object), "floating numbers"),
    ],
)
def test_whatever_a_function_does_the_rest_is_checked(misbehaves: Any, says: str) -> None:
    found = check(planted(prob_active=misbehaves), functions=["prob_active", "test_time"],
                  quick=True)  # fmt: skip
    by_part = {(o.phase, o.function): o for o in found.outcomes}
    for phase in ("vectors", "random"):
        assert by_part[phase, "prob_active"].status is Status.FAILED
        assert by_part[phase, "test_time"].status is Status.PASSED
    assert says in by_part["random", "prob_active"].message
    assert not found.ok
    json.dumps(found.to_json(), allow_nan=False)


class Raises(dict[str, Any]):
    """A dict whose parts cannot be had."""

    def __getitem__(self, key: str) -> Any:
        raise LookupError("gone")


class RaisesLater(dict[str, Any]):
    """A dict that raises when it is asked what it lacks."""

    def __contains__(self, key: object) -> bool:
        raise LookupError("gone")


class NoText:
    """Something that cannot be printed."""

    def __repr__(self) -> str:
        raise RuntimeError


def nested(depth: int) -> Any:
    value: Any = 0.5
    for _ in range(depth):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = [0.5]
    value += [value, value]
    return value


@pytest.mark.parametrize(
    ("function", "result", "says"),
    [
        ("dense_flops", 10**400, "an integer of about 401 digits came, which no float64 can hold"),
        ("dense_flops", -(10**5000), "an integer of about 5001 digits came"),
        ("dense_flops", endless(), "cannot be read: ValueError: it is nested more than 100"),
        ("dense_flops", nested(5000), "cannot be read: ValueError: it is nested more than 100"),
        ("loss_and_grads", Raises(loss=1.0), "cannot be read: LookupError: gone"),
        ("loss_and_grads", RaisesLater(loss=1.0), "cannot be compared: LookupError: gone"),
        ("dense_flops", NoText(), "a NoText came"),
        ("loss_and_grads", {"loss": NoText()}, "the dict lacks"),
    ],
    ids=["huge", "longer", "endless", "deep", "raises", "raises-later", "no-text", "no-text-in"],
)
def test_a_result_that_cannot_be_read_is_a_failed_check(
    function: str, result: Any, says: str
) -> None:
    target = planted(**{function: lambda **args: result})
    found = check(target, functions=[function, "test_time"], quick=True)
    for outcome in found.outcomes:
        if outcome.function == "test_time":
            assert outcome.status is Status.PASSED
        elif outcome.phase != "manners":
            assert outcome.status is Status.FAILED
            assert says in outcome.message
            assert outcome.n_checks >= outcome.n_failed > 0
            assert outcome.evidence["args"]
    json.dumps(found.to_json(), allow_nan=False)


def test_an_error_in_a_phase_fails_that_phase_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(checker: Checker, function: str) -> Any:
        raise RecursionError("too deep")

    monkeypatch.setattr(Checker, "_random", broken)
    found = check(Honest(), functions=["test_time"], quick=True)
    statuses = [o.status for o in found.outcomes]
    assert statuses == [Status.PASSED, Status.FAILED, Status.PASSED]
    assert "RecursionError: too deep" in found.outcomes[1].message


def test_a_report_comes_without_its_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(checker: Checker, outcomes: Any) -> Any:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr(Checker, "diagnose", broken)
    found = check(planted(test_time=WRONG["test_time"]), functions=["test_time"], quick=True)
    assert found.diagnoses == []
    assert found.remarks == ("The failures could not be diagnosed (ZeroDivisionError: by chance).",)
    assert found.to_json()["remarks"] == list(found.remarks)


def test_a_target_that_exits_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "exits.py"
    path.write_text(
        "import os\n"
        "def dense_flops(n_in, n_out, *, bias): os._exit(3)\n"
        "def dense_params(n_in, n_out, *, bias): return (n_in + bias) * n_out\n"
    )
    with Checker(path, quick=True) as checker:
        outcomes = [
            checker.run(phase, function)
            for phase in ("vectors", "random", "manners")
            for function in ("dense_flops", "dense_params")
        ]
        assert checker.calls.target.restarts == TIMEOUTS
    for outcome in outcomes[::2]:
        assert outcome.status is Status.FAILED
        assert "its process exited with status 3" in outcome.message
        assert "it is not called any more" in outcome.message
        assert outcome.evidence["args"].keys() == {"n_in", "n_out", "bias"}
    assert {outcome.status for outcome in outcomes[1::2]} == {Status.PASSED}


GARBLED = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["function"] == "hello":
        result = {"name": "loud", "functions": NAMES}
        print(json.dumps({"id": 0, "result": result}), flush=True)
    else:
        print("now", request["function"], flush=True)
"""


def test_a_target_that_writes_what_is_no_answer_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "loud.py"
    names = ["prob_active", "test_time", "mean", "var", "dense_flops", "adam", "draw"]
    path.write_text(GARBLED.replace("NAMES", repr(names)))
    start = time.monotonic()
    with Checker(f"command: {sys.executable} {path}", functions=names, quick=True) as checker:
        outcomes = [checker.run(*part) for part in checker.parts()]
        assert checker.calls.target.restarts == targets.MOST_LOST - 1
        (remark,) = checker.remarks()
    assert time.monotonic() - start < 60
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}
    # of four functions it is told what was written, of the others that they were not called
    told = {o.function for o in outcomes if "wrote to standard output: 'now " in o.message}
    assert len(told) == targets.MOST_LOST // TIMEOUTS
    for outcome in outcomes:
        if outcome.function not in told:
            assert "is not called: the target gave no answer 12 times in a row" in outcome.message
            assert outcome.evidence == {}
    assert remark.startswith("The target gave no answer 12 times in a row, the last time: ")
    printed = io.StringIO()
    found = report.Report("loud", DTYPES, outcomes, [], 0.0, remarks=(remark,))
    report.show(found, Console(file=printed, width=200))
    # once a function, whatever the phases, and once for all
    assert printed.getvalue().count("wrote to standard output") == len(told) + 1
    assert "wrote to standard output: 'now " in remark


# --- manners ---


def test_global_state_that_is_set_alike_in_every_call_is_seen(tmp_path: Path) -> None:
    """At the second call it is what the function sets."""
    path = tmp_path / "seeding.py"
    path.write_text(
        "import numpy as np\n"
        "def dense_params(n_in, n_out, *, bias):\n"
        "    np.random.seed(0)\n"
        "    np.seterr(all='ignore')\n"
        "    return (n_in + bias) * n_out\n"
    )
    found = check(str(path), functions=["dense_params"], quick=True)
    (message,) = [o.message for o in found.outcomes if o.status is Status.FAILED]
    assert "the global state of numpy.random changed" in message
    assert "numpy.geterr() changed in" in message


def test_a_name_that_is_nearly_a_functions_is_remarked_upon() -> None:
    target = only(dense_params=lambda n_in, n_out, bias: (n_in + bias) * n_out, dense_flop=min)
    report_ = check(target, quick=True)
    assert any("dense_flop, which is not checked: dense_flops" in one for one in report_.remarks)


def test_training_that_clamps_log_alpha_is_caught() -> None:
    """Some public code keeps log_alpha within log 1e-2 and log 1e2 after every step."""

    def train(**args: Any) -> Any:
        steps = reference.train(**args)
        for step in steps:
            for kind in ("params", "average"):
                step[kind] = {
                    name: np.clip(value, math.log(1e-2), math.log(1e2))
                    if name.endswith("log_alpha")
                    else value
                    for name, value in step[kind].items()
                }
        return steps

    found = check(only(train=train), dtypes=("float64",), quick=True)
    failed = {o.phase: o.message for o in found.outcomes if o.status is Status.FAILED}
    assert failed.keys() == {"vectors", "random"}
    assert "training/train/mlp-far" in failed["vectors"]


def faults(function: str, own: Any) -> list[str]:
    manners = hygiene.check_manners(calls_of(planted(**{function: own})), function, DTYPES, seed=0)
    return [message for message, _ in manners.faults]


def in_place(log_alpha: Any, **law: float) -> Any:
    out = Honest().test_time(log_alpha, **law)
    log_alpha += 1
    return out


def swallows_nan(log_alpha: Any, **law: float) -> Any:
    return np.nan_to_num(Honest().test_time(log_alpha, **law))


def prints(log_alpha: Any, **law: float) -> Any:
    print("open gates:", 3)
    return Honest().test_time(log_alpha, **law)


def warns(log_alpha: Any, **law: float) -> Any:
    warnings.warn("it is getting late", stacklevel=1)
    return Honest().test_time(log_alpha, **law)


def seeds_globally(log_alpha: Any, **law: float) -> Any:
    np.random.seed(0)  # noqa: NPY002
    return Honest().test_time(log_alpha, **law)


def widens(log_alpha: Any, **law: float) -> Any:
    return Honest().test_time(log_alpha.astype(np.float64), **law)


def reads_memory(log_alpha: Any, **law: float) -> Any:
    flat = np.frombuffer(log_alpha.tobytes(order="A"), log_alpha.dtype)
    return Honest().test_time(flat.reshape(log_alpha.shape), **law)


def wants_axes(log_alpha: Any, **law: float) -> Any:
    return np.stack([Honest().test_time(row, **law) for row in log_alpha])


def truncates(log_alpha: Any, **law: float) -> Any:
    return np.asarray(Honest().test_time(log_alpha, **law), log_alpha.dtype)


def takes_bits(log_alpha: Any, **law: float) -> Any:
    floats = log_alpha if log_alpha.dtype.kind == "f" else log_alpha.view(np.float64)
    return Honest().test_time(floats, **law)


def overflows(log_alpha: Any, *, beta: float, gamma: float, zeta: float) -> Any:
    return np.clip(1 / (1 + np.exp(-log_alpha)) * (zeta - gamma) + gamma, 0, 1)


def remembers() -> Any:
    turn = itertools.count()
    return lambda log_alpha, **law: Honest().test_time(log_alpha, **law) + next(turn) % 2 * 0.25


def rounds_otherwise() -> Any:
    turn = itertools.count()

    def expected_l0(log_alpha: Any, group_size: Any, **law: float) -> Any:
        total = Honest().expected_l0(log_alpha, group_size, **law)
        return np.nextafter(total, total + 1) if next(turn) % 2 else total

    return expected_l0


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (in_place, "it changes its argument log_alpha in place"),
        (swallows_nan, "at NaN: at [1]: got 0.0, expected nan"),
        (prints, "it prints: 'open gates: 3"),
        (warns, "it warns: UserWarning: it is getting late"),
        (seeds_globally, "it changes global state: the global state of numpy.random"),
        (widens, "float64 came, float32 is due as that went in"),
        (reads_memory, "when arrays lie in memory in Fortran order"),
        (wants_axes, "with arrays that have no axes"),
        (takes_bits, "log_alpha of integers is neither refused nor computed with"),
        (remembers(), "it gives another result when it is called again"),
        (lambda log_alpha, **law: np.clip(Honest().test_time(log_alpha, **law), 0.01, 1),
         "at extreme log_alpha"),
    ],
)  # fmt: skip
def test_bad_manners_are_seen(own: Any, says: str) -> None:
    found = faults("test_time", own)
    assert any(message.startswith(says) for message in found), found


def test_an_overflow_on_the_way_to_what_is_right_is_remarked() -> None:
    manners = hygiene.check_manners(
        calls_of(only(test_time=overflows)), "test_time", DTYPES, seed=1
    )
    assert manners.faults == []
    assert manners.remark.startswith("it warns at extreme log_alpha: RuntimeWarning: overflow")


def test_a_sum_that_rounds_otherwise_each_time_is_no_fault() -> None:
    """As threads and graphics cards add up."""
    manners = hygiene.check_manners(
        calls_of(only(expected_l0=rounds_otherwise())), "expected_l0", DTYPES, seed=1
    )
    assert manners.faults == []
    said = "it gives another result when it is called again with the same arguments, by rounding"
    assert manners.remark == said


def test_of_a_result_of_another_type_it_is_said_that_it_is_one() -> None:
    class Tensor(protocol.Foreign):
        pass

    found = faults("test_time", lambda log_alpha, **law: Tensor())
    assert found
    assert not any("again" in message for message in found), found


def refusing_nan(**args: Any) -> Any:
    if np.isnan(args["log_alpha"]).any():
        raise ValueError("log_alpha is NaN")
    return Honest().test_time(**args)


def test_to_refuse_nan_is_no_fault() -> None:
    manners = hygiene.check_manners(
        calls_of(only(test_time=refusing_nan)), "test_time", DTYPES, seed=1
    )
    assert manners.faults == []
    said = "it refuses NaN: test_time raised ValueError: log_alpha is NaN"
    assert manners.remark.startswith(said)
    checker = Checker(only(test_time=refusing_nan), quick=True)
    outcome = checker.run("vectors", "test_time")
    assert outcome.status is Status.ACCEPTABLE
    assert said in outcome.message
    assert outcome.n_failed == 0
    # nothing of it reaches the diagnosis
    assert all(one.ok for one in checker.calls.observations["test_time"])


def test_to_refuse_other_numbers_is_a_fault() -> None:
    def refuses_infinity(log_alpha: Any, **law: float) -> Any:
        if not np.isfinite(log_alpha).all():
            raise ValueError("log_alpha is not finite")
        return Honest().test_time(log_alpha, **law)

    found = faults("test_time", refuses_infinity)
    assert [message.partition(":")[0] for message in found] == ["at extreme log_alpha"]

    def hangs_at_nan(log_alpha: Any, **law: float) -> Any:
        if np.isnan(log_alpha).any():
            hang(log_alpha)
        return Honest().test_time(log_alpha, **law)

    calls = calls_of(only(test_time=hangs_at_nan), 0.05)
    manners = hygiene.check_manners(calls, "test_time", DTYPES, seed=1)
    assert any("at NaN: test_time did not return" in message for message, _ in manners.faults)


@pytest.mark.parametrize("ends_right", [True, False])
def test_draws_that_refuse_nan_are_asked_for_infinity(ends_right: bool) -> None:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        if np.isnan(log_alpha).any():
            raise ValueError("log_alpha is NaN")
        return Honest().draw(log_alpha if ends_right else np.clip(log_alpha, -1, 1), n, seed, **law)

    manners = hygiene.check_manners(calls_of(only(draw=draw)), "draw", DTYPES, seed=1)
    assert manners.remark.startswith("it refuses NaN: draw raised ValueError: log_alpha is NaN")
    faulty = {message.partition(":")[0] for message, _ in manners.faults}
    assert faulty == (set() if ends_right else {"with log_alpha = -inf, inf"})


class Elsewhere(targets.OpenTarget):
    """A target of another language, as far as the checks can tell."""

    name, in_python = "elsewhere", False

    def __init__(self, **functions: Any) -> None:
        self._own = functions
        self.functions = frozenset(functions)

    def _call(self, function: str, args: Any, timeout: float) -> targets.Call:
        return targets.Call(self._own[function](**args))


def test_a_result_rounded_to_the_integers_that_went_in_is_told() -> None:
    found = check(only(test_time=truncates), functions=["test_time"], quick=True)
    assert found.ok
    manners = [one for one in found.outcomes if one.phase == "manners"]
    assert [one.status for one in manners] == [Status.ACCEPTABLE]
    assert "log_alpha of integers makes it round" in manners[0].message


def test_integers_are_for_targets_in_python() -> None:
    kinds = set()

    def watched(log_alpha: Any, **law: float) -> Any:
        kinds.add(log_alpha.dtype.kind)
        return truncates(log_alpha, **law)

    manners = hygiene.check_manners(Calls(Elsewhere(test_time=watched)), "test_time", DTYPES,
                                    seed=1)  # fmt: skip
    assert kinds == {"f"}
    assert manners.faults == []
    in_python = hygiene.check_manners(calls_of(only(test_time=watched)), "test_time", DTYPES,
                                      seed=1)  # fmt: skip
    assert kinds == {"f", "i"}
    assert manners.n_checks == in_python.n_checks - 2  # one a dtype


@pytest.mark.parametrize("function", [name for name in vars(Honest) if not name.startswith("_")])
def test_an_honest_implementation_has_manners(function: str) -> None:
    own = getattr(Honest(), function)
    assert faults(function, own) == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_reference_has_manners(function: str) -> None:
    manners = hygiene.check_manners(calls_of(reference), function, DTYPES, seed=1)
    assert manners.faults == []
    assert manners.n_checks > 0


def test_manners_leave_wrong_numbers_to_other_phases() -> None:
    assert faults("test_time", WRONG["test_time"]) == []


def test_draws_with_bad_manners_are_seen() -> None:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        np.random.seed(seed)  # noqa: NPY002
        u = np.random.random((n, *log_alpha.shape))  # noqa: NPY002
        z = Honest().sample(log_alpha, np.maximum(u, 1e-12), **law)
        return np.fmin(1, np.fmax(0, z)).astype(log_alpha.dtype)

    found = faults("draw", draw)
    assert any("global state" in message for message in found)
    assert any("-inf, nan, inf" in message for message in found)


# --- the whole check ---

FEW = ["prob_active", "test_time", "dense_params", "temporal_average"]


def test_an_honest_implementation_passes() -> None:
    found = check(Honest(), functions=FEW, quick=True)
    assert found.ok, [o.message for o in found.outcomes if o.message]
    assert {o.status for o in found.outcomes} == {Status.PASSED}
    assert {o.phase for o in found.outcomes} == {"vectors", "random", "manners"}
    assert found.diagnoses == []


def test_what_is_missing_is_not_passed() -> None:
    found = check(only(dense_params=Honest().dense_params), functions=[*FEW, "draw"], quick=True)
    missing = {o.function for o in found.outcomes if o.status is Status.NOT_IMPLEMENTED}
    assert missing == {*FEW, "draw"} - {"dense_params"}
    assert found.ok
    nothing = check(only(dense_params=Honest().dense_params), functions=["draw"], quick=True)
    assert not nothing.ok  # nothing was checked

    def there_is_none(**args: Any) -> Any:
        raise NotImplementedError("no gates on weights")

    found = check(only(dense=there_is_none), functions=["dense"], quick=True)
    assert {o.status for o in found.outcomes} == {Status.NOT_IMPLEMENTED}
    assert found.outcomes[1].n_checks == 0


def test_some_cases_may_be_missing() -> None:
    def dense(**args: Any) -> Any:
        if args["on"] == "weights":
            raise NotImplementedError
        return Honest().dense(**args)

    found = check(only(dense=dense), functions=["dense"], quick=True, seed=1)
    assert {o.status for o in found.outcomes} == {Status.PASSED}
    for outcome in found.outcomes[:2]:
        assert outcome.n_checks > 0
        assert "cases are not implemented" in outcome.message


def test_an_expected_failure_is_none() -> None:
    wrong = planted(test_time=WRONG["test_time"])
    ids = [t.id for t in Checker(wrong).tests["test_time"]]
    found = check(wrong, functions=["test_time"], quick=True)
    assert [o.status for o in found.outcomes][:2] == [Status.FAILED] * 2
    everything = ["random:test_time", "vectors:test_time"]
    found = check(wrong, functions=["test_time"], quick=True, expected_failures=everything)
    assert [o.status for o in found.outcomes][:2] == [Status.EXPECTED_FAILURE] * 2
    assert found.ok
    found = check(wrong, functions=["test_time"], quick=True,
                  expected_failures=["random:test_time", *ids])  # fmt: skip
    assert found.outcomes[0].status is Status.UNEXPECTED_PASS  # extremes are right by any formula
    assert not found.ok
    passing = found.outcomes[0].message.partition(": ")[2].split(", ")
    found = check(wrong, functions=["test_time"], quick=True,
                  expected_failures=["random:test_time", *set(ids) - set(passing)])  # fmt: skip
    assert found.outcomes[0].status is Status.EXPECTED_FAILURE
    assert found.ok


def test_an_expected_failure_that_passes_fails() -> None:
    found = check(Honest(), functions=["test_time"], quick=True,
                  expected_failures=["random:test_time"])  # fmt: skip
    assert [o.status for o in found.outcomes][1] is Status.UNEXPECTED_PASS
    assert "take it off the list" in found.outcomes[1].message
    assert not found.ok


def test_an_expected_failure_that_is_not_implemented_is_remarked_upon() -> None:
    target = only(dense_params=Honest().dense_params)
    vector = Checker(target).tests["adam"][0].id
    found = check(target, functions=["dense_params", "test_time", "adam"], quick=True,
                  expected_failures=["random:test_time", vector])  # fmt: skip
    assert {o.status for o in found.outcomes if o.function != "dense_params"} == {
        Status.NOT_IMPLEMENTED
    }
    assert found.ok
    (remark,) = found.remarks
    assert f"random:test_time, {vector}" in remark
    assert "off the list" in remark

    def there_is_none(**args: Any) -> Any:
        raise NotImplementedError("no gates on weights")

    listed = ["vectors:dense", "random:dense", "manners:dense"]
    found = check(only(dense=there_is_none), functions=["dense"], quick=True,
                  expected_failures=listed)  # fmt: skip
    assert {o.status for o in found.outcomes} == {Status.NOT_IMPLEMENTED}
    assert all(entry in found.remarks[0] for entry in listed)


def test_a_vector_listed_twice_is_judged_once() -> None:
    wrong = planted(test_time=WRONG["test_time"])
    checker = Checker(wrong)
    verdicts = {t.id: checker.run("vectors", "test_time", [t]).status
                for t in checker.tests["test_time"]}  # fmt: skip
    failing = [one for one, status in verdicts.items() if status is Status.FAILED]
    passing = [one for one, status in verdicts.items() if status is not Status.FAILED]
    for ids, status in (
        (failing, Status.EXPECTED_FAILURE),
        (failing[:1], Status.EXPECTED_FAILURE),
        (passing[:1], Status.UNEXPECTED_PASS),
    ):
        checker = Checker(wrong, expected_failures=["vectors:test_time", *ids])
        assert checker.run("vectors", "test_time").status is status
        assert checker.remarks() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"expected_failures": ["vectors:draw"]}, "a phase that checks .* got 'vectors:draw'"),
        ({"expected_failures": ["draws:test_time"]}, "got 'draws:test_time'"),
        ({"functions": ["prob_activ"]}, "functions must be among.*got 'prob_activ'"),
        ({"dtypes": ("float16",)}, "dtypes must be among float64, float32, got 'float16'"),
        ({"dtypes": ()}, "dtypes must name one at least"),
        ({"timeout": 0}, "timeout must be positive, got 0"),
        ({"seed": -1}, r"seed must be in \[0, 2\*\*30\), got -1"),
        ({"seed": 2**30}, r"seed must be in \[0, 2\*\*30\), got 1073741824"),
        ({"expected_failures": ["random:gelu"]}, "got 'random:gelu'"),
        ({"expected_failures": ["test_time"]}, "phase:function.*got 'test_time'"),
    ],
)
def test_bad_arguments_are_refused(options: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(Honest(), **options)


@pytest.mark.parametrize(
    ("flag", "status", "says"),
    [("shapes", Status.FAILED, "it must raise"),
     ("parameters", Status.ACCEPTABLE, "does not refuse parameters out of their range")],
)  # fmt: skip
def test_a_vector_that_must_be_refused(flag: str, status: Status, says: str) -> None:
    tests = [t for ts in Checker(Honest()).tests.values() for t in ts
             if t.result == "raise" and flag in t.flags]  # fmt: skip
    test = tests[0]
    checker = Checker(only(**{test.function: lambda **args: np.zeros(2)}))
    outcome = checker.run("vectors", test.function, [test])
    assert outcome.status is status
    assert says in outcome.message
    checker = Checker(only(**{test.function: raise_it(ValueError("no"))}))
    assert checker.run("vectors", test.function, [test]).status is Status.PASSED
    for no_refusal, message in ((hang, "did not return"), (raise_it(SystemExit(3)), "to exit")):
        checker = Checker(only(**{test.function: no_refusal}), timeout=0.02)
        outcome = checker.run("vectors", test.function, [test])
        assert outcome.status is Status.FAILED
        assert "it must raise, for " in outcome.message
        assert message in outcome.message
        assert not any(one.ok for one in checker.calls.observations[test.function])


def test_vectors_of_compaction() -> None:
    checker = Checker(only(compact=lambda network: network))
    assert "still has gates" in checker.run("vectors", "compact").message


def test_a_compaction_that_takes_out_gates_that_are_barely_open_is_found() -> None:
    def compact(network: Any) -> Any:
        def closed(log_alpha: Any) -> Any:
            gates = reference.test_time(log_alpha, **law)
            return np.where(gates < 1e-2, log_alpha.dtype.type(-9), log_alpha)

        law = {name: network[name] for name in ("beta", "gamma", "zeta")}
        layers = [
            {**layer, "log_alpha": closed(layer["log_alpha"])}
            if layer.get("log_alpha") is not None
            else layer
            for layer in network["layers"]
        ]
        return reference.compact({**network, "layers": layers})

    for dtype in ("float64", "float32"):
        outcome = Checker(only(compact=compact), dtypes=(dtype,)).run("vectors", "compact")
        assert "networks/compact/barely-open" in outcome.message
    checker = Checker(only(compact=without_constants))
    assert "logits" in checker.run("vectors", "compact").message
    assert Checker(reference).run("vectors", "compact").status is Status.PASSED


@pytest.mark.parametrize("area", ["law", "gate", "penalties", "cost", "networks"])
def test_the_reference_passes_the_vectors(area: str) -> None:
    checker = Checker(reference)
    for name, function in FUNCTIONS.items():
        if function.area == area and name in checker.tests:
            outcome = checker.run("vectors", name)
            assert outcome.status in (Status.PASSED, Status.ACCEPTABLE), outcome.message


def test_observations_of_failures_are_kept_for_the_diagnosis() -> None:
    checker = Checker(planted(test_time=WRONG["test_time"]))
    outcomes = [checker.run("vectors", "test_time"), checker.run("random", "test_time")]
    seen = checker.calls.observations["test_time"]
    assert {one.where for one in seen} >= {"random", "gate/" + seen[0].where.partition("/")[2]}
    assert any(one.ok for one in seen)
    assert any(not one.ok and one.expected is not None for one in seen)
    assert all(one.args.keys() == {"log_alpha", "beta", "gamma", "zeta"} for one in seen)
    assert any("median" in d.deviation for d in checker.diagnose(outcomes))


# --- the command ---


def call(*arguments: str | Path) -> int:
    before, sys.argv = sys.argv, ["l0ref", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    finally:
        sys.argv = before
    return int(exit_.value.code or 0)


HONEST = "tests/honest_target.py:Honest"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "def test_time(log_alpha, *, beta, gamma, zeta):\n"
        "    s = 1 / (1 + np.exp(np.minimum(-log_alpha / beta, 80)))\n"
        "    return np.clip(s * (zeta - gamma) + gamma, 0, 1)\n"
        "def dense_params(n_in, n_out, *, bias):\n"
        "    return (n_in + bias) * n_out\n"
    )
    return path


def test_the_command(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.console, "_width", 100)
    arguments = ("check", mine, "--quick", "--functions", "test_time", "dense_params", "draw")
    assert call(*arguments, "--json", tmp_path / "out.json") == 1
    printed = capsys.readouterr().out
    assert "✗ test_time\n  vectors  gate/" in printed
    assert "\n  random   float64: at [0]: got" in printed
    assert "the smallest input that fails (random):\n    log_alpha = [" in printed
    assert "What it looks like" in printed
    assert "perhaps: perhaps" not in printed
    assert "Not implemented: draw." in printed
    assert "1 function right, 1 wrong, 1 not implemented and not checked" in printed
    assert all(len(line) <= 100 for line in printed.splitlines() if "│" in line)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["ok"] is False
    assert {o["status"] for o in found["outcomes"] if o["function"] == "draw"} == {
        "not_implemented"
    }
    (random,) = (
        o for o in found["outcomes"] if (o["phase"], o["function"]) == ("random", "test_time")
    )
    assert {"args", "got", "expected", "allowed"} <= random["evidence"].keys()
    assert random["evidence"]["args"]["beta"] > 0

    listed = tmp_path / "expected.txt"
    listed.write_text("# Eq. 13 is on its way\nrandom:test_time  # see above\nvectors:test_time\n")
    assert call(*arguments, "--expect-fail", listed) == 0
    assert "1 wrong as expected" in capsys.readouterr().out
    listed.write_text("random:dense_params\n")
    assert call(*arguments, "--expect-fail", listed) == 1
    assert "take it off the list" in capsys.readouterr().out
    listed.write_text("random:dense_parameters\n")
    assert call(*arguments, "--expect-fail", listed) == 2
    assert "random:dense_parameters" in capsys.readouterr().err
    listed.write_text("draws:draw\n")
    assert call("check", mine, "--quick", "--functions", "dense_params", "draw",
                "--expect-fail", listed) == 0  # fmt: skip
    assert "nothing was checked: draws:draw." in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "check", lambda *a, **k: pytest.fail("it was checked"))
    for path, says in (
        (tmp_path / "none" / "out.json", "in a folder that exists"),
        (tmp_path, "must be a file, got the folder"),
    ):
        for command in (("check", "absent.py"), ("bench", "--quick")):
            assert call(*command, "--json", path) == 2
            said = capsys.readouterr().err.replace("\n", "")
            assert says in said
            assert str(path) in said


def test_what_cannot_be_imported_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import numpy\n\nimport nowhere_to_be_found\n")
    assert call("check", broken) == 2
    said = capsys.readouterr().err
    assert "No module named 'nowhere_to_be_found'" in said
    assert "line 3" in said
    assert call("check", tmp_path / "absent.py") == 2
    assert "absent.py" in capsys.readouterr().err
    assert call("check") == 2
    assert "target must be given" in capsys.readouterr().err
    assert call("check", broken, "--expect-fail", tmp_path / "none.txt") == 2
    assert "none.txt" in capsys.readouterr().err


def test_the_functions_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "--list") == 0
    printed = capsys.readouterr().out
    assert all(f"  {name}({', '.join(f.parameters)})" in printed for name, f in FUNCTIONS.items())


# --- no false alarms ---


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 102))
@pytest.mark.parametrize("which", [reference, numba], ids=["numpy", "numba"])
def test_no_false_alarm(which: Any, seed: int) -> None:
    found = check(which, seed=seed, quick=True)
    bad = [o for o in found.outcomes if o.status not in (Status.PASSED, Status.ACCEPTABLE)]
    assert not bad, bad


def test_expected_results_are_those_of_the_reference() -> None:
    (args,) = drawn("prob_active", 1)
    expected, tolerance = expect("prob_active", args, "float32")
    np.testing.assert_array_equal(expected, reference.prob_active(**args))
    assert oracle.DTYPES == DTYPES
    assert np.all(tolerance.abs > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_below_the_smallest_normal_one_may_be_taken_for_0(dtype: str) -> None:
    args = {"values": np.array([[np.finfo(dtype).tiny]]), "decay": 0.5}
    tolerance = tolerance_for("temporal_average", args, args["values"], dtype)
    assert compare(np.zeros((1, 1), dtype), args["values"], tolerance, dtype=dtype) is None
    assert tolerance.abs < 1e-30


def test_what_a_function_does_only_the_first_time_is_told_with_quick_too() -> None:
    """As one does that is traced or compiled when it meets its arguments first."""
    met: set[str] = set()

    def dense(**args: Any) -> Any:
        if repr(args) not in met:
            met.add(repr(args))
            print("tracing")
        return Honest().dense(**args)

    found = check(only(dense=dense), functions=["dense"], quick=True)
    (manners,) = (o for o in found.outcomes if o.phase == "manners")
    assert manners.status is Status.FAILED
    assert "it prints: 'tracing" in manners.message
