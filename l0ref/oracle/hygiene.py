"""Manners: what a function leaves alone, how it takes arrays as they come, and extreme values.

A function with manners leaves its arguments and all global state as they were, prints and warns of
nothing, gives the same twice, keeps the dtype, and does not care how an array lies in memory, nor
whether it has no axes or no elements. NaN in is NaN out: min(1, max(0, NaN)) is 0, a gate closed in
silence; to refuse it is loud, and remarked upon. Infinite log_alpha is legal. Integers may be
refused, or computed with as floats are; a result that is rounded to integers as well is told, for
the interface promises floats. They go to targets in Python only, for log_alpha of integers is not
in the protocol.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .allowed import K, as_dtype
from .calls import Calls, NotImplementedByTarget, has_nan
from .compare import Mismatch, Tolerance, compare
from .differential import compare_compact, expect, smallest
from .protocol import with_layout
from .reference import reference
from .report import size_of
from .strategies import BETA, GAMMA, PROBES, STRATEGIES, ZETA
from .watch import changed_paths

__all__ = ["ELEMENTWISE", "Manners", "check_manners"]

LAW = {"beta": BETA, "gamma": GAMMA, "zeta": ZETA}
LAYOUTS = {"F": "in Fortran order", "strided": "with gaps between its numbers"}

ELEMENTWISE: dict[str, dict[str, float]] = {
    "prob_active": {},
    "log_prob_active": {},
    "prob_active_grad": {},
    "cdf": {"x": 0.3125},
    "sf": {"x": 0.3125},
    "pdf": {"x": 0.3125},
    "logpdf": {"x": 0.3125},
    "ppf": {"q": 0.28125},
    "sample": {"u": 0.28125},
    "sample_vjp": {"u": 0.28125, "dz": -1.25},
    "test_time": {},
    "test_time_grad": {},
    "mean": {},
    "var": {},
}
"""Functions that are elementwise in log_alpha, with another number that goes with each."""

BOUNDED_AT_INFINITY = frozenset(ELEMENTWISE) - {"logpdf"}
"""Where log_alpha of plus or minus infinity has a finite result, or minus infinity for a log."""

COARSE_IN_TAILS = frozenset(
    {"prob_active_grad", "cdf", "pdf", "mean", "var", "sample_vjp", "test_time_grad"}
)
"""Where eps of 1 is all that is asked for."""

EXTREMES = (-np.inf, -(2.0**100), -200.0, 200.0, 2.0**100, np.inf)


DRAWN_GATES = (
    np.array([0.5, -1.0, 2.0]),
    np.array([0.5]),
    np.array([[0.5], [-1.0]]),
    np.array(0.5),
    np.zeros((0,)),
)
"""Gates to draw: no axis may be lost, be it of length 1."""


class Manners(NamedTuple):
    """What was found for a function."""

    n_checks: int
    faults: list[tuple[str, dict[str, Any]]]
    """Sentences, each with its evidence."""
    remark: str = ""
    """On what is no fault, and worth knowing."""


def check_manners(
    calls: Calls,
    function: str,
    dtypes: tuple[str, ...],
    *,
    seed: int,
    quick: bool = False,
) -> Manners:
    """Check the manners of a function of the target; with `quick` on any inputs, not large ones.

    Raises
    ------
    GivenUp
        If the function runs out of time again and again.
    """
    run = _Run(calls, function, dtypes)
    if function in STRATEGIES:
        # Not those of the random phase: what a function does at first it may not do again.
        for args in _examples(function, 2 if quick else 4, seed):
            try:
                run.ordinary(args)
            except NotImplementedByTarget:  # this case of it
                continue
            break
    else:
        with contextlib.suppress(NotImplementedByTarget):
            run.draws()
    if function in ELEMENTWISE:
        with contextlib.suppress(NotImplementedByTarget):
            run.elementwise()
    for change, given in calls.state[function].items() if run.n else ():
        run.fault(f"it changes global state: {change}", given)
    return Manners(run.n, run.faults, run.remark)


def _examples(function: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Return inputs as the random phase draws them, the largest first."""
    drawn: list[dict[str, Any]] = []

    def keep(args: dict[str, Any]) -> bool:
        drawn.append(args)
        return False

    smallest(STRATEGIES[function], keep, max_examples=count, seed=seed)
    return sorted(drawn, key=size_of, reverse=True)


def _laid_out(value: Any, layout: str) -> Any:
    """Return the same with every array in it laid out in memory in this way."""
    if isinstance(value, np.ndarray):
        return with_layout(value, layout)
    if isinstance(value, Mapping):
        return {key: _laid_out(part, layout) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_laid_out(part, layout) for part in value)
    return value


ANOTHER = "it gives another result when it is called again with the same arguments"


class _Run:
    def __init__(self, calls: Calls, function: str, dtypes: tuple[str, ...]) -> None:
        self.calls, self.function, self.dtypes = calls, function, dtypes
        self.n = 0
        self.faults: list[tuple[str, dict[str, Any]]] = []
        self.remark = ""

    def fault(self, message: str, args: Mapping[str, Any], **evidence: Any) -> None:
        """Note a fault, once."""
        if all(message != known for known, _ in self.faults):
            self.faults.append((message, {"args": dict(args), **evidence}))

    def conduct(self, call: Any, args: Mapping[str, Any], at: str = "") -> None:
        """Look at what a call did besides returning."""
        self.n += 1
        for name in call.changed:
            self.fault(f"it changes its argument {name} in place", args)
        if call.stdout:
            self.fault(f"it prints: {call.stdout[:60]!r}", args)
        for warning in call.warnings:
            if at and warning.startswith("RuntimeWarning"):
                # NumPy's word on an infinity on the way to what may be the right result.
                self.remark = self.remark or f"it warns{at}: {warning}"
            else:
                self.fault(f"it warns{at}: {warning}", args)

    def compare(
        self,
        args: dict[str, Any],
        expected: Any,
        tolerance: Tolerance,
        at: str,
    ) -> None:
        """Call it, look at its conduct, and compare the result."""
        verdict = self.calls.judge(
            self.function, args, expected, tolerance, dtype=None, where="manners"
        )
        self.conduct(verdict.answer.call, args, at)
        self.remark = self.remark or verdict.remark
        if verdict.wrong is not None:
            self.fault(
                f"{at.strip()}: {verdict.wrong.message}",
                args,
                got=verdict.answer.result,
                expected=expected,
            )

    # --- ordinary inputs ---

    def ordinary(self, drawn: dict[str, Any]) -> None:
        """Call it twice, and with arrays laid out in other ways: nothing changes."""
        for dtype in self.dtypes:
            args = as_dtype({k: v for k, v in drawn.items() if k != PROBES}, dtype)
            first = self.calls.call(self.function, args)
            self.conduct(first.call, args)
            if first.error is not None:
                self.fault(first.error, args)
                return
            self.n += 1
            again = self.calls.call(self.function, args)
            if again.error is not None:
                self.fault(f"called again with the same arguments: {again.error}", args)
                return
            same = not changed_paths({"": first.result}, {"": again.result})
            results = {"first": first.result, "again": again.result}
            expected, tolerance = expect(self.function, drawn, dtype)
            if self.function == "compact":
                if not same:
                    self.fault(ANOTHER, args, **results)
                self._compact_layouts(drawn, args, dtype)
                continue
            anything = Tolerance(np.inf, 0.0, "")
            wrong = compare(first.result, expected, anything, dtype=dtype)
            self.n += 1
            if wrong is not None:
                self.fault(wrong.message, args, got=first.result)
                continue
            # its own result, for whether that is right is the business of other phases
            own = as_dtype(first.result, np.float64)
            if not same:
                if compare(again.result, own, tolerance, dtype=dtype) is not None:
                    self.fault(ANOTHER, args, **results)
                # as sums in no fixed order are: of threads, or on a graphics card
                self.remark = self.remark or f"{ANOTHER}, by rounding"
            for layout, words in LAYOUTS.items():
                self.n += 1
                answer = self.calls.call(self.function, _laid_out(args, layout))
                if answer.error is not None:
                    wrong = Mismatch(answer.error, np.inf)
                else:
                    wrong = compare(answer.result, own, tolerance, dtype=dtype)
                if wrong is not None:
                    self.fault(f"when arrays lie in memory {words}: {wrong.message}", args)

    def _compact_layouts(self, drawn: dict[str, Any], args: dict[str, Any], dtype: str) -> None:
        network, x = drawn["network"], drawn[PROBES]
        for layout, words in LAYOUTS.items():
            self.n += 1
            answer = self.calls.call(self.function, _laid_out(args, layout))
            if answer.error is not None:
                self.fault(f"when arrays lie in memory {words}: {answer.error}", args)
            elif wrong := compare_compact(answer.result, network, x, dtype):
                plainly = self.calls.call(self.function, args)
                if plainly.error is None and not compare_compact(plainly.result, network, x, dtype):
                    self.fault(f"when arrays lie in memory {words}: {wrong.message}", args)

    # --- functions that draw ---

    def draws(self) -> None:
        """Call `draw` and `draw_vjp` with few draws, none, and gates that know no chance."""
        for dtype in self.dtypes:
            for log_alpha in DRAWN_GATES:
                for n in (5, 1, 0):
                    shape = (n, *log_alpha.shape)
                    args = self._drawing(log_alpha, n, dtype)
                    answer = self.calls.call(self.function, args)
                    self.conduct(answer.call, args)
                    due = np.zeros(shape if self.function == "draw" else log_alpha.shape)
                    anything = Tolerance(np.inf if n else 0.0, 0.0, "nothing was drawn")
                    wrong = (
                        Mismatch(answer.error, np.inf)
                        if answer.error is not None
                        else compare(answer.result, due, anything, dtype=dtype)
                    )
                    if wrong is not None:
                        at = f"with log_alpha of shape {log_alpha.shape} and n = {n}"
                        self.fault(f"{at}: {wrong.message}", args, got=answer.result)
            if not self._certain([-np.inf, np.nan, np.inf], [0.0, np.nan, 1.0], dtype):
                self._certain([-np.inf, np.inf], [0.0, 1.0], dtype)

    def _certain(self, log_alpha: list[float], z: list[float], dtype: str) -> bool:
        """Draw gates that know no chance; return False if the target refuses NaN among them."""
        args = self._drawing(np.array(log_alpha), 5, dtype)
        answer = self.calls.call(self.function, args)
        self.conduct(answer.call, args, " at NaN and infinity")
        if answer.refused and has_nan(z):
            self.remark = self.remark or f"it refuses NaN: {answer.error}"
            return False
        gates = np.array(z)
        due = np.tile(gates, (5, 1)) if self.function == "draw" else 0 * gates
        wrong = (
            Mismatch(answer.error, np.inf)
            if answer.error is not None
            else compare(answer.result, due, Tolerance(0.0, 0.0, "no chance"), dtype=dtype)
        )
        if wrong is not None:
            at = ", ".join(map(str, log_alpha))
            self.fault(f"with log_alpha = {at}: {wrong.message}", args, got=answer.result)
        return True

    def _drawing(self, log_alpha: Any, n: int, dtype: str) -> dict[str, Any]:
        args = {"log_alpha": np.asarray(log_alpha, dtype), "n": n, "seed": 3, **LAW}
        if self.function == "draw_vjp":
            args["dz"] = np.full((n, *np.shape(log_alpha)), 0.625, dtype)
        return args

    # --- elementwise functions ---

    def elementwise(self) -> None:
        """Call it with arrays without axes, without elements, of integers, and extreme ones."""
        for dtype in self.dtypes:
            self._empty(dtype)
            self._alone(dtype)
            self._integers(dtype)
            self._nan(dtype)
            if self.function in BOUNDED_AT_INFINITY:
                self._extremes(dtype)

    def _filled(self, log_alpha: Any) -> dict[str, Any]:
        others = ELEMENTWISE[self.function]
        return {
            "log_alpha": log_alpha,
            **{name: np.full(np.shape(log_alpha), value) for name, value in others.items()},
            **LAW,
        }

    def _own(self, log_alpha: Any, dtype: str) -> tuple[Any, Tolerance] | None:
        """Return what it gives itself on an ordinary array; whether that is right is not asked."""
        drawn = self._filled(log_alpha)
        answer = self.calls.call(self.function, as_dtype(drawn, dtype))
        expected, tolerance = expect(self.function, drawn, dtype)
        anything = Tolerance(np.inf, 0.0, "")
        if answer.error is not None or compare(answer.result, expected, anything, dtype=None):
            return None
        return answer.result.astype(np.float64), tolerance

    def _empty(self, dtype: str) -> None:
        for shape in ((0,), (2, 0)):
            drawn = self._filled(np.zeros(shape))
            nothing = Tolerance(0.0, 0.0, "")
            at = " with arrays that have no elements"
            self.compare(as_dtype(drawn, dtype), np.zeros(shape), nothing, at)

    def _alone(self, dtype: str) -> None:
        own = self._own(np.array([0.5]), dtype)
        if own is not None:
            drawn = self._filled(np.array(0.5))
            at = " with arrays that have no axes"
            tolerance = own[1]._replace(abs=np.reshape(own[1].abs, ()))
            self.compare(as_dtype(drawn, dtype), own[0].reshape(()), tolerance, at)

    def _integers(self, dtype: str) -> None:
        """Whole numbers as integers are refused, or taken as what they are.

        The interface promises floats: a result that is rounded to integers is remarked upon.
        """
        if not self.calls.target.in_python:
            return
        whole = np.array([-1, 2, 1])
        own = self._own(whole.astype(np.float64), dtype)
        if own is None:
            return
        args = {**as_dtype(self._filled(whole.astype(np.float64)), dtype), "log_alpha": whole}
        answer = self.calls.call(self.function, args)
        self.conduct(answer.call, args, " of integers")
        if answer.error is not None:
            return
        eps = float(np.finfo(np.float32).eps)  # it may answer in either dtype
        allowed = 64 * K * eps * float(1 + np.max(np.abs(own[0])))
        tolerance = Tolerance(allowed, 0.0, "rounding in float32")
        wrong = compare(answer.result, own[0], tolerance, dtype=None)
        if wrong is None:
            return
        if isinstance(answer.result, np.ndarray) and answer.result.dtype.kind in "iu":
            # as `.astype(log_alpha.dtype)` does, which is right for what the interface promises
            self.remark = self.remark or "log_alpha of integers makes it round its result to them"
        else:
            self.fault(
                "log_alpha of integers is neither refused nor computed with as floats are: "
                + wrong.message,
                args,
                got=answer.result,
                expected=own[0],
            )

    def _nan(self, dtype: str) -> None:
        """NaN gives NaN, and only there."""
        own = self._own(np.array([0.5, 0.0, -1.25]), dtype)
        if own is None:
            return
        log_alpha = np.array([0.5, np.nan, -1.25])
        expected = np.where(np.isnan(log_alpha), np.nan, own[0])
        drawn = as_dtype(self._filled(log_alpha), dtype)
        self.compare(drawn, expected, own[1], " at NaN")

    def _extremes(self, dtype: str) -> None:
        drawn = self._filled(np.array(EXTREMES))
        with np.errstate(all="ignore"):
            expected = getattr(reference, self.function)(**drawn)
        eps = float(np.finfo(dtype).eps)
        tiny = float(np.finfo(dtype).tiny)
        # The relative error of exp(-200) is 200 eps; derivatives and cdf may come of 1 - P.
        absolute = {"mean": 1e-9, "var": 1e-9}.get(self.function, tiny)
        if self.function in COARSE_IN_TAILS:
            absolute += K * eps
        tolerance = Tolerance(absolute, K * 256 * eps, f"{K} eps, 256 times that in the tails")
        self.compare(as_dtype(drawn, dtype), expected, tolerance, " at extreme log_alpha")
