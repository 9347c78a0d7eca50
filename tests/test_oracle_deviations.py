"""Every known deviation is wrong by what it says, caught by the vectors, and called by its name."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from l0ref.oracle import vectors
from l0ref.oracle.check import check
from l0ref.oracle.compare import Tolerance, compare
from l0ref.oracle.deviations import DEVIATIONS, cost, markdown, touched
from l0ref.oracle.deviations.catalogue import call, difference, known
from l0ref.oracle.deviations.inputs import INPUTS
from l0ref.oracle.diagnosis import Diagnosis, diagnose
from l0ref.oracle.interface import FUNCTIONS
from l0ref.oracle.plain import Plain
from l0ref.oracle.reference import reference
from l0ref.oracle.report import Observation
from l0ref.oracle.vectors import VectorTest

DRAWN = ("draw", "draw_vjp")
TESTS = [test for test in vectors.load_all() if test.result != "raise"]

SAMPLE = (
    "prob-plus-sign",
    "prob-clamped",
    "prob-by-subtraction",
    "sf-by-subtraction",
    "pdf-without-beta",
    "noise-plus",
    "beta-on-noise-only",
    "clip-forgotten-in-draws",
    "draw-grad-at-z",
    "draw-grad-through-clip",
    "test-gate-median",
    "test-gate-top-k",
    "init-fan-out",
    "group-size-bias-subtracted",
    "lambda-on-density",
    "norm-with-every-bias",
    "conv-bias-dropped",
    "dz-without-bias",
    "flops-of-the-authors",
    "cost-one-sided",
    "adam-epsilon-hat",
    "average-started-and-debiased",
    "gates-detached-in-training",
    "compact-constants-dropped",
)
"""Of all areas; the other deviations are slow tests."""

every_deviation = pytest.mark.parametrize(
    "name",
    [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in DEVIATIONS],
)


def mismatch(test: VectorTest, got: Any) -> Any:
    """Compare as a check does: the first convention that fits, and compact networks by logits."""
    right, tolerance = test.expected, test.tolerance("float64")
    assert tolerance is not None
    if test.function == "compact":
        try:
            got = Plain().predict(got, test.probe("float64")["x"])
        except (ValueError, IndexError) as error:  # no network at all
            return error
        right = right["logits"]
        tolerance = tolerance._replace(abs=tolerance.abs["logits"])
    wrong = compare(got, right, tolerance, dtype=None)
    for other in test.alternatives if wrong is not None else ():
        if compare(got, other.expected, other.tolerance("float64"), dtype=None) is None:
            return None
    return wrong


def observe(target: Plain, functions: tuple[str, ...]) -> Iterator[Observation]:
    """Run the vectors of some functions."""
    for test in TESTS:
        if test.function not in functions:
            continue
        args = test.args("float64")
        try:
            got = call(target, test.function, args)
        except (ValueError, IndexError):
            got = None
        ok = got is not None and mismatch(test, got) is None
        tolerance = test.tolerance("float64")
        yield Observation(test.function, args, got, test.expected, tolerance, ok, test.id)


def observe_inputs(target: Plain, functions: tuple[str, ...]) -> Iterator[Observation]:
    """Run the catalogue's own inputs of some functions."""
    for function in functions:
        if function in DRAWN:
            continue
        for given in INPUTS[function]:
            right = call(Plain(), function, given.args)
            try:
                got = call(target, function, given.args)
            except (ValueError, IndexError):
                continue
            ok = difference(got, right) == 0
            rounding = Tolerance(1e-15, 1e-15, "eps")
            yield Observation(function, given.args, got, right, rounding, ok, "input")


def test_plain_passes_the_vectors() -> None:
    failed = [seen.where for seen in observe(Plain(), tuple(FUNCTIONS)) if not seen.ok]
    assert failed == []


def test_plain_has_every_function() -> None:
    assert all(callable(getattr(Plain, name, None)) for name in FUNCTIONS)


@pytest.mark.parametrize("function", sorted(INPUTS))
def test_plain_agrees_with_the_reference(function: str) -> None:
    """Two implementations that share no line; 1e-12 is some thousand eps, for sums in networks."""
    if function in DRAWN:
        pytest.skip("each has its own noise")
    for given in INPUTS[function]:
        right = getattr(reference, function)(**given.args)
        assert difference(call(Plain(), function, given.args), right) < 1e-12 * _size(right)


def _size(value: Any) -> float:
    if isinstance(value, dict):
        if "layers" in value:
            return 10.0
        return max(_size(part) for part in value.values())
    if isinstance(value, list | tuple):
        return max(_size(part) for part in value)
    finite = np.abs(np.asarray(value, np.float64))
    return 1 + float(np.max(finite[np.isfinite(finite)], initial=0.0))


def test_there_are_enough_and_all_are_told_apart() -> None:
    assert len(DEVIATIONS) >= 40
    sentences = [one.sentence for one in DEVIATIONS.values()]
    assert len(set(sentences)) == len(sentences)


def test_every_function_has_inputs_that_fit_it() -> None:
    assert set(INPUTS) == set(FUNCTIONS)
    for function, given in INPUTS.items():
        assert given[0].words
        assert all(set(one.args) == set(FUNCTIONS[function].parameters) for one in given)


@every_deviation
def test_it_costs_what_it_says(name: str) -> None:
    """It is wrong on its documented input, and what it changes has the documented function."""
    assert DEVIATIONS[name].at in touched(name)
    measured = cost(name)
    assert measured.largest > 0
    assert f"`{DEVIATIONS[name].at}`" in measured.text


def test_costs_that_the_paper_is_known_for() -> None:
    """max |median - test gate| is 0.108 and max |test gate - E[z]| is 0.103, at the defaults."""
    assert cost("test-gate-median").largest == pytest.approx(0.108, abs=5e-4)
    assert cost("mean-is-test-gate").largest == pytest.approx(0.103, abs=5e-4)


@every_deviation
def test_it_is_caught_and_named(name: str) -> None:
    """At least one vector fails; the diagnosis is this deviation, certain, first, and alone."""
    target = DEVIATIONS[name].implementation()
    functions = touched(name)
    if set(functions) <= set(DRAWN):
        pytest.skip("it shows in draws alone")
    seen = list(observe(target, functions))
    assert not all(one.ok for one in seen)
    # what it leaves alone speaks against others
    rest = tuple(one for one in FUNCTIONS if one not in functions and one != "train")
    seen += [*observe_inputs(target, functions), *observe_inputs(target, rest)]
    found = diagnose(seen)
    assert (found[0].deviation, found[0].certain) == (name, True)
    assert [one.deviation for one in found if one.certain] == [name]


def test_nothing_is_said_of_what_is_right() -> None:
    assert diagnose(list(observe(Plain(), ("prob_active", "dense", "adam")))) == []


def test_nothing_is_said_of_what_is_not_in_the_catalogue() -> None:
    class Odd(Plain):
        def _test_score(self, log_alpha: Any, beta: float) -> Any:
            s, slope = super()._test_score(log_alpha + 0.001, beta)
            return s, slope

    assert diagnose(list(observe(Odd(), ("test_time", "test_time_grad", "predict")))) == []


@pytest.mark.parametrize(
    ("names", "functions"),
    [
        (("prob-plus-sign", "test-gate-median"), ("prob_active", "test_time", "predict")),
        (("noise-plus", "stretch-plus"), ("sample",)),
        (("prob-unshifted", "l2-without-half"), ("prob_active", "expected_l2", "penalty")),
    ],
)
def test_two_at_once_are_both_named(names: tuple[str, str], functions: tuple[str, ...]) -> None:
    parents = tuple(DEVIATIONS[name].implementation for name in names)
    both = type("Both", parents, {})()
    found = diagnose(list(observe(both, functions)))
    assert {one.deviation for one in found if one.certain} == set(names)


def test_float32_inside_and_another_mistake_are_both_named() -> None:
    """By code that computes in float32 indeed, with its own rounding."""

    class Single(Plain):
        def test_time(self, log_alpha: Any, **law: float) -> Any:
            one = np.float32
            s = 1 / (1 + np.exp(-log_alpha.astype(one) / one(law["beta"])))
            stretched = s * one(law["zeta"] - law["gamma"]) + one(law["gamma"])
            return np.clip(stretched, 0, 1).astype(np.float64)

    with np.errstate(over="ignore"):
        found = diagnose(list(observe(Single(), ("test_time",))))
    names = [(one.deviation, one.certain) for one in found]
    assert sorted(names) == [("computed-in-float32", True), ("test-gate-median", True)]


def test_results_in_half_precision_are_not_said_to_be_in_float32() -> None:
    """All that is exact in half precision is in float32, too."""

    class Half(Plain):
        def prob_active_grad(self, log_alpha: Any, **law: float) -> Any:
            right = Plain().prob_active_grad(log_alpha, **law)
            return right.astype(np.float16).astype(np.float64)

    found = diagnose(list(observe(Half(), ("prob_active_grad",))))
    assert "computed-in-float32" not in {one.deviation for one in found}
    assert not any(one.certain for one in found)


def test_a_few_whole_numbers_prove_nothing() -> None:
    """That come out like a known mistake's, or that follow from a mistake that is not known."""
    wrong = DEVIATIONS["flops-size-from-channels"].implementation()
    seen = [one for one in observe(wrong, ("conv2d_flops",)) if not one.ok]
    assert diagnose(seen)[0].certain
    assert not diagnose(seen[:1])[0].certain

    class Halved(Plain):
        def _test_score(self, log_alpha: Any, beta: float) -> Any:
            s, slope = super()._test_score(log_alpha / 2, beta)
            return s, slope / 2

    found = diagnose(list(observe(Halved(), ("test_time", "hard_cost", "predict"))))
    assert not any(one.certain for one in found), found


# --- mistakes in one branch of the code ---


def test_a_mistake_where_log_alpha_is_negative_is_named_with_its_place() -> None:
    wrong = DEVIATIONS["prob-plus-sign"].implementation()

    class Sided(Plain):
        def _prob(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
            law = (beta, gamma, zeta)
            both = zip(wrong._prob(log_alpha, *law), super()._prob(log_alpha, *law), strict=True)
            return tuple(np.where(log_alpha < 0, a, b) for a, b in both)

    found = diagnose(list(observe(Sided(), ("prob_active", "prob_active_grad", "log_prob_active"))))
    assert [one.deviation for one in found] == ["prob-plus-sign"]
    assert set(found[0].functions) == {"prob_active", "prob_active_grad", "log_prob_active"}
    assert not found[0].certain
    assert found[0].sentence.startswith("perhaps, but only where log_alpha < 0 (")


@pytest.mark.parametrize(
    ("name", "function", "words", "keep"),
    [
        ("dweight-ungated", "dense_vjp", "with gates on the inputs", {"on": "inputs"}),
        ("gate-applied-twice", "dense", "with gates on the outputs", {"on": "outputs"}),
        (
            "norm-with-prob-squared",
            "expected_l2",
            "where gates_bias is false",
            {"gates_bias": False},
        ),
        ("flops-one-addition-too-many", "dense_flops", "with a bias", {"bias": True}),
    ],
)
def test_a_mistake_in_some_calls_is_named_with_them(
    name: str, function: str, words: str, keep: dict[str, Any]
) -> None:
    wrong = DEVIATIONS[name].implementation()

    def call_of(**args: Any) -> Any:
        is_wrong = all(args[key] == value for key, value in keep.items())
        return getattr(wrong if is_wrong else Plain(), function)(**args)

    target = type("Branched", (Plain,), {function: staticmethod(call_of)})()
    seen = [*observe(target, (function,)), *observe_inputs(target, (function,))]
    found = diagnose(seen)
    assert (found[0].deviation, found[0].certain) == (name, False)
    assert f"perhaps, but only {words} (" in found[0].sentence


def test_a_mistake_in_float32_alone_is_named_so() -> None:
    wrong, seen = DEVIATIONS["test-gate-median"].implementation(), []
    for test in TESTS:
        if test.function != "test_time":
            continue
        for dtype, target in (("float64", Plain()), ("float32", wrong)):
            args, tolerance = test.args(dtype), test.tolerance(dtype)
            got = call(target, "test_time", test.args("float64")).astype(dtype)
            assert tolerance is not None
            ok = compare(got, test.expected, tolerance, dtype=dtype) is None
            one = Observation("test_time", args, got, test.expected, tolerance, ok, test.id)
            seen.append(one)
    (found,) = diagnose(seen)
    assert (found.deviation, found.certain) == ("test-gate-median", False)
    assert found.sentence.startswith("perhaps, but only in float32 (")


def test_two_mistakes_in_two_branches_are_both_named() -> None:
    class Both(Plain):
        def dense(self, x: Any, weight: Any, bias: Any, z: Any, **how: Any) -> Any:
            name = {"inputs": "gate-applied-twice", "outputs": "dense-bias-dropped"}.get(how["on"])
            target = DEVIATIONS[name].implementation() if name else Plain()
            return target.dense(x, weight, bias, z, **how)

    found = diagnose([*observe(Both(), ("dense",)), *observe_inputs(Both(), ("dense",))])
    assert {one.deviation for one in found} >= {"gate-applied-twice", "dense-bias-dropped"}
    assert not any(one.certain for one in found)


def test_equal_explanations_are_all_named_and_none_is_certain() -> None:
    """A draw's derivative without the clip is that of gates that are never clipped."""
    target = DEVIATIONS["draw-grad-through-clip"].implementation()
    found = diagnose(list(observe(target, ("sample_vjp",))))
    names = {one.deviation for one in found}
    assert {"clip-forgotten", "draw-grad-through-clip"} <= names
    assert not any(one.certain for one in found)
    assert all("one of" in one.sentence for one in found)


@pytest.mark.parametrize("threshold", [0.015, 0.02, 0.03, 0.05])
def test_counts_that_agree_by_accident_are_not_certain(threshold: float) -> None:
    """A gate that is stretched by zeta + gamma opens at 0.02, at the defaults."""

    class Above(Plain):
        def _is_on(self, log_alpha: Any, beta: float, gamma: float, zeta: float) -> Any:
            return self._test_gate(log_alpha, beta, gamma, zeta)[0] > threshold

    for made in (observe, observe_inputs):
        found = diagnose(list(made(Above(), ("hard_cost",))))
        assert not any(one.certain for one in found if one.deviation != "hard-cost-by-threshold")


def test_mistakes_in_counting_are_certain_by_counts() -> None:
    for name, function in (("flops-not-floored", "conv2d_flops"),
                           ("hard-cost-by-half", "hard_cost"),
                           ("group-size-square-kernel", "group_size")):  # fmt: skip
        target = DEVIATIONS[name].implementation()
        seen = [*observe(target, (function,)), *observe_inputs(target, (function,))]
        assert [(one.deviation, one.certain) for one in diagnose(seen)] == [(name, True)]


def test_what_fits_counts_but_not_what_it_changes_besides_is_not_certain() -> None:
    """Group sizes are wrong, the penalty is not: it is another mistake, or half of this one."""
    target = DEVIATIONS["group-size-without-bias"].implementation()
    seen = [*observe(target, ("group_size",)), *observe(Plain(), ("penalty",))]
    found = diagnose(seen)
    assert found[0].deviation == "group-size-without-bias"
    assert not any(one.certain for one in found)


class OpenIsOneInPredict(Plain):
    def predict(self, network: Any, x: Any) -> Any:
        return DEVIATIONS["test-gate-open-is-one"].implementation().predict(network, x)


class RoundedInCompact(Plain):
    def _folded(self, z: Any) -> Any:
        return (z > 0.5) * 1.0


class SizesOneInPenalty(Plain):
    def penalty(self, *args: Any, **more: Any) -> Any:
        return DEVIATIONS["group-size-one"].implementation().penalty(*args, **more)


class L0OfTestGates(Plain):
    def expected_l0(self, log_alpha: Any, group_size: Any, **law: float) -> Any:
        return np.sum(self.test_time(log_alpha, **law) * group_size)


@pytest.mark.parametrize(
    ("target", "name", "within", "home"),
    [
        (OpenIsOneInPredict(), "test-gate-open-is-one", "predict", "test_time"),
        (RoundedInCompact(), "test-gate-rounded", "compact", "test_time"),
        (SizesOneInPenalty(), "group-size-one", "penalty", "group_size"),
        (L0OfTestGates(), "prob-is-test-gate", "expected_l0", "prob_active"),
    ],
)
def test_a_mistake_whose_own_function_is_right_is_not_certain(
    target: Plain, name: str, within: str, home: str
) -> None:
    """The sentence says within which function it is made."""
    found = diagnose(list(observe(target, (within, home, "expected_l1", "expected_l0"))))
    assert not any(one.certain for one in found)
    (one,) = [one for one in found if one.deviation == name]
    assert f"perhaps, but only within `{within}`, for `{home}` by itself is right: " in one.sentence


def test_a_mistake_is_certain_where_its_own_function_was_not_checked() -> None:
    (found,) = diagnose(list(observe(OpenIsOneInPredict(), ("predict",))))
    assert (found.deviation, found.certain) == ("test-gate-open-is-one", True)


def test_all_whose_own_functions_are_right_are_named() -> None:
    """A penalty without sizes: all sizes are 1, or they are not multiplied by."""
    functions = ("penalty", "group_size", "expected_l0")
    found = diagnose(list(observe(SizesOneInPenalty(), functions)))
    assert {one.deviation for one in found} >= {"group-size-one", "l0-without-group-size"}
    assert not any(one.certain for one in found)


def test_another_convention_is_no_evidence() -> None:
    """What was accepted by another convention neither explains nor contradicts."""
    values = np.array([[1.0], [2.0], [4.0]])
    right = Plain().temporal_average(values, decay=0.5)
    other = np.array([[1.0], [1.5], [2.75]])
    args = {"values": values, "decay": 0.5}
    accepted = Observation(
        "temporal_average", args, other, right, Tolerance(1e-15, 0.0, ""), True, "other"
    )
    assert diagnose([accepted]) == []


# --- draws ---


@pytest.mark.parametrize(
    "name",
    ["noise-gumbel", "noise-one-sided", "beta-omitted", "stretch-plus", "noise-one-for-all-gates",
     "noise-one-for-all-draws", "draw-binarised"],
)  # fmt: skip
def test_draws_are_told_by_their_law(name: str) -> None:
    law = {"beta": 2 / 3, "gamma": -0.25, "zeta": 1.125}
    log_alpha = np.array([-0.75, 0.25, 1.0])
    target = DEVIATIONS[name].implementation()
    got = target.draw(log_alpha, 2**15, 3, **law)
    args = {"log_alpha": log_alpha, "n": 2**15, "seed": 3, **law}
    found = diagnose([Observation("draw", args, got, None, None, False, "draws", 2**15)])
    assert [(one.deviation, one.certain) for one in found] == [(name, True)]


def test_the_right_law_is_no_deviation() -> None:
    """Though reversed noise has it, too."""
    law = {"beta": 2 / 3, "gamma": -0.25, "zeta": 1.125}
    log_alpha = np.array([-0.75, 0.25, 1.0])
    got = Plain().draw(log_alpha, 2**15, 3, **law)
    args = {"log_alpha": log_alpha, "n": 2**15, "seed": 3, **law}
    assert diagnose([Observation("draw", args, got, None, None, False, "draws", 2**15)]) == []


@pytest.mark.parametrize("with_draws", [True, False])
@pytest.mark.parametrize("name", ["draw-grad-without-beta", "draw-grad-negative"])
def test_gradients_through_draws_are_told(name: str, with_draws: bool) -> None:
    law = {"beta": 0.75, "gamma": -0.25, "zeta": 1.125}
    log_alpha, dz = np.array([-0.75, 0.25, 1.0]), np.random.default_rng(5).normal(size=(7, 3))
    target = DEVIATIONS[name].implementation()
    args = {"log_alpha": log_alpha, "n": 7, "seed": 3, "dz": dz, **law}
    got, right = target.draw_vjp(**args), Plain().draw_vjp(**args)
    if with_draws:
        args["draws"] = Plain().draw(log_alpha, 7, 3, **law)
    tolerance = Tolerance(np.full(3, 1e-13), 0.0, "")
    found = diagnose([Observation("draw_vjp", args, got, right, tolerance, False, "draws", 7)])
    assert [(one.deviation, one.certain) for one in found] == [(name, True)]


def pathwise(z: Any, dz: Any, law: dict[str, float]) -> Any:
    """Return the right gradient through draws, of which the noise is not known."""
    s = (z - law["gamma"]) / (law["zeta"] - law["gamma"])
    slope = (law["zeta"] - law["gamma"]) * s * (1 - s) / law["beta"]
    return np.sum(dz * np.where((z > 0) & (z < 1), slope, 0.0), axis=0)


def drawn_and_pulled(target: Plain, seed: int, slopes_of: Plain | None = None) -> list[Observation]:
    """Make what a check of `draw` and `draw_vjp` remembers."""
    law = {"beta": 0.5, "gamma": -0.3125, "zeta": 1.4375}
    log_alpha = np.array([-3.0, -0.25, 1.5, 0.75, -1.25, 2.5])
    args = {"log_alpha": log_alpha, "n": 2**14, "seed": seed, **law}
    many = target.draw(**args)
    few = {**args, "n": 7, "dz": np.random.default_rng(seed).integers(-16, 17, (7, 6)) / 8}
    z = target.draw(log_alpha, 7, seed, **law)
    got = (slopes_of or target).draw_vjp(**few)
    right, tolerance = pathwise(z, few["dz"], law), Tolerance(np.full(6, 1e-13), 0.0, "")
    few["draws"] = z
    return [
        Observation("draw", args, many, None, None, False, "draws", 2**14),
        Observation("draw_vjp", few, got, right, tolerance, False, "draws", 7),
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["beta-on-noise-only", "beta-omitted"])
def test_draws_and_their_gradient_have_one_name(name: str, seed: int) -> None:
    """Whatever the noise of gates at an atom was, of which there are some among 7 draws."""
    seen = drawn_and_pulled(DEVIATIONS[name].implementation(), seed)
    assert [(one.deviation, one.functions, one.certain) for one in diagnose(seen)] == [
        (name, DRAWN, True)
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_gradient_through_draws_that_are_otherwise_wrong_is_not_certain(seed: int) -> None:
    """The noise of draws that are not known is a guess, and so is what the gradient lacks."""
    target = DEVIATIONS["stretch-plus"].implementation()
    seen = drawn_and_pulled(target, seed, DEVIATIONS["beta-omitted"].implementation())
    found = diagnose(seen)
    assert [one.deviation for one in found if one.certain] == ["stretch-plus"]
    assert not any(one.deviation == "beta-omitted" for one in found)


class AtTwo(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return super()._heat(noise, location, slope, 2.0)


class NearlyOmitted(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return super()._heat(noise, location, slope, 0.985)


class NearlyOnNoiseOnly(Plain):
    def _heat(self, noise: Any, location: Any, slope: Any, beta: float) -> Any:
        return noise / beta + 1.01 * location, slope, -noise / beta**2


def draw_of(target: Plain) -> Any:
    def draw(log_alpha: Any, n: int, seed: int, **law: float) -> Any:
        return target.draw(log_alpha.astype(float), n, seed, **law).astype(log_alpha.dtype)

    return type("Sampler", (), {"draw": staticmethod(draw)})()


@pytest.mark.parametrize("target", [AtTwo(), NearlyOmitted(), NearlyOnNoiseOnly()])
def test_a_law_that_is_like_a_known_one_is_not_certain(target: Plain) -> None:
    """One at beta = 1/2 alone is 1/2 = beta; the others are known ones, but for a hundredth."""
    found = check(draw_of(target), functions=["draw"], quick=True)
    assert not found.ok
    assert not any(one.certain for one in found.diagnoses)


@pytest.mark.parametrize("name", ["beta-multiplies", "beta-on-noise-only", "log-alpha-clamped"])
def test_a_known_law_is_certain_by_all_that_is_drawn(name: str) -> None:
    """Also if it is the right one but for gates that are nearly always closed, or open."""
    found = check(
        draw_of(DEVIATIONS[name].implementation()),
        functions=["draw"],
        dtypes=["float64"],
        quick=True,
    )
    assert [(one.deviation, one.certain) for one in found.diagnoses] == [(name, True)]


def test_a_gradient_at_draws_that_are_wrong_is_not_certain() -> None:
    """Though nobody asked for the draws themselves: it is the right one, of other draws."""
    target = DEVIATIONS["beta-on-noise-only"].implementation()
    found = check(target, functions=["draw_vjp"], dtypes=["float64"], quick=True)
    assert not any(one.certain for one in found.diagnoses)


# --- the list ---


def test_the_list_names_them_all() -> None:
    text = markdown()
    assert all(f"**{name}**" in text for name in DEVIATIONS)
    assert text.startswith(f"{len(DEVIATIONS)} known deviations.")
    rows = [line for line in markdown(brief=True).splitlines() if line.startswith("| ")]
    areas = {one.area for one in DEVIATIONS.values()}
    assert len(rows) == len(DEVIATIONS) + 2 * len(areas)
    assert all(row.replace("\\|", "").count("|") == 4 for row in rows)


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="name must be new to the catalogue"):
        known("prob-plus-sign", area="", at="sample", formula="", sentence="")(Plain)
    with pytest.raises(ValueError, match="at must be a function of the interface"):
        known("new", area="", at="no_such", formula="", sentence="")(Plain)


def test_a_diagnosis_is_plain_data() -> None:
    one = Diagnosis("prob-plus-sign", ("prob_active",), True, "your P adds")
    assert one._asdict()["functions"] == ("prob_active",)
