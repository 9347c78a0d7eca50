"""Random inputs, the target beside the reference, and the smallest input on which they differ.

The reference is NumPy in float64; inputs are exact in float32 (`strategies`), and what rounding may
do is computed for each of them (`allowed`). Hypothesis draws the inputs and shrinks one that fails,
so that what is shown is a network of one layer and two numbers rather than three and two hundred.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st

from .allowed import CASES, as_dtype, sign_of, tolerance_for
from .calls import Calls, GivenUp, NotImplementedByTarget
from .compare import Mismatch, Tolerance, compare, describe
from .interface import FUNCTIONS
from .plain import Plain
from .reference import reference
from .report import Observation
from .strategies import PROBES, STRATEGIES
from .watch import copied

__all__ = ["Found", "check_function", "compare_compact", "smallest"]

SHRINKING = 5.0
"""Seconds that may be spent on making a failing input smaller."""


class Found(NamedTuple):
    """What the random inputs showed for a function in a dtype."""

    n_checks: int
    failure: Observation | None
    """The smallest failing call."""
    message: str
    n_missing: int = 0
    """Inputs for which the target said that this case is not implemented."""
    convention: str = ""
    """The other convention by which every result was right, if it was not ours."""
    sign: str = ""
    """That of the noise by which every result was right, "+" or "-"; "" if both or none do."""


def smallest(
    strategy: st.SearchStrategy[Any],
    fails: Callable[[Any], bool],
    *,
    max_examples: int,
    seed: int,
    shrinking: float = SHRINKING,
) -> tuple[int, Any]:
    """Draw until an input fails, and shrink that one.

    Parameters
    ----------
    strategy : hypothesis.SearchStrategy
    fails : callable
        Whether an input fails. May raise `GivenUp`: no more are drawn then.
    max_examples : int
        How many inputs are drawn.
    seed : int
        Of Hypothesis: the same inputs for the same seed.
    shrinking : float, optional
        Seconds for it.

    Returns
    -------
    n : int
        How many inputs were tried before one failed, and it.
    failing : object
        The smallest failing input that was met, or None.

    Examples
    --------
    >>> smallest(st.integers(0, 1000), lambda n: n > 100, max_examples=50, seed=1)[1]
    101
    """
    tried, last, deadline, stopped = 0, None, 0.0, None

    def attempt(drawn: Any) -> None:
        nonlocal tried, last, deadline, stopped
        if stopped is not None:
            return
        if last is None:
            tried += 1
        elif time.monotonic() > deadline:
            return
        try:
            failed = fails(drawn)
        except GivenUp as reason:
            stopped = reason
            return
        if failed:
            if last is None:
                deadline = time.monotonic() + shrinking
            last = (drawn,)
            raise AssertionError

    settings = hypothesis.settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def search(drawn: Any) -> None:  # short, for Hypothesis reads its source every time
        attempt(drawn)

    search = hypothesis.seed(seed)(settings(hypothesis.given(strategy)(search)))
    with warnings.catch_warnings():
        # what it says about a failure that does not come again is for authors of tests
        warnings.simplefilter("ignore", hypothesis.errors.HypothesisWarning)
        with contextlib.suppress(AssertionError, hypothesis.errors.HypothesisException):
            search()
    if stopped is not None and last is None:
        raise stopped
    return tried, None if last is None else last[0]


def check_function(
    calls: Calls, function: str, dtypes: Sequence[str], *, max_examples: int, seed: int
) -> dict[str, Found]:
    """Compare a function of the target with the reference on random inputs.

    Every input is given in all dtypes, for to draw one takes longer than to compare it. One that
    fails in a dtype is shrunk in that one, and the others are searched again without it.

    Raises
    ------
    GivenUp
        If the function runs out of time again and again.
    """
    takes_noise = "u" in FUNCTIONS[function].parameters
    found: dict[str, Found] = {}
    while left := [dtype for dtype in dtypes if dtype not in found]:
        shared = _Conventions(function)
        comparisons = [
            # signs of the noise are compared for all functions together
            _Comparison(calls, function, d, _Conventions(function) if takes_noise else shared)
            for d in left
        ]
        failing = _search(comparisons, max_examples=max_examples, seed=seed)
        if failing is not None and failing.is_mixed:
            # What was wrong by our convention, and before that right by another one, says more.
            alone = _Conventions(function, ours_alone=True)
            ours = [_Comparison(calls, function, dtype, alone) for dtype in left]
            failing = _search(ours, max_examples=max_examples, seed=seed) or failing
        found |= {one.dtype: one.found() for one in ([failing] if failing else comparisons)}
    return found


def _search(comparisons: list[_Comparison], *, max_examples: int, seed: int) -> _Comparison | None:
    """Search for an input that fails in a dtype, and shrink it in this one, which is returned."""
    failing: _Comparison | None = None

    def fails(args: dict[str, Any]) -> bool:
        nonlocal failing
        among = comparisons if failing is None else [failing]
        wrong = next((one for one in among if one.fails(args)), None)
        failing = failing or wrong
        return wrong is not None

    smallest(STRATEGIES[comparisons[0].function], fails, max_examples=max_examples, seed=seed)
    return failing


class _Conventions:
    """Those that explain every result of a function so far, in whatever dtype.

    Parameters
    ----------
    function : str
    ours_alone : bool, optional
        Let no other one excuse a result.

    Attributes
    ----------
    alive : dict of str to callable or None
        Ours, "", and others. None left: a failure.
    """

    def __init__(self, function: str, *, ours_alone: bool = False) -> None:
        self.function = function
        others = {} if ours_alone else CASES[function].alternatives
        self.alive: dict[str, _Convention | None] = {"": None, **others}
        # What ours explains is not held against the others until it matters, for that takes long.
        self._unread: list[tuple[dict[str, Any], Any, str]] = []

    def explaining(self, given: dict[str, Any], got: Any, dtype: str, *, ours: bool) -> set[str]:
        """Return which explain this result too; ours does, if it says so."""
        if ours and "" in self.alive:
            return set(self.alive)
        return {
            name
            for name, other in self.alive.items()
            if other
            and all(self._explains(other, *one) for one in [(given, got, dtype), *self._unread])
        }

    def keep(self, names: set[str], given: dict[str, Any], got: Any, dtype: str) -> None:
        """Take in a result, and by which it is right."""
        self.alive = {name: other for name, other in self.alive.items() if name in names}
        if "" in names:
            self._unread.append((given, copied(got), dtype))  # it may be written over
        else:
            self._unread.clear()

    def used(self) -> tuple[str, str]:
        """Return which convention explains all, and by which sign of the noise alone."""
        if "" not in self.alive:
            return next(iter(self.alive)), sign_of(self.alive)
        last_first = self._unread[::-1]  # the first are the simplest, which tell least
        others = [
            name
            for name, other in self.alive.items()
            if other
            and sign_of([name]) == "-"
            and all(self._explains(other, *one) for one in last_first)
        ]
        return "", sign_of(["", *others])

    def _explains(
        self, convention: _Convention, given: dict[str, Any], got: Any, dtype: str
    ) -> bool:
        right, inputs = convention(given)
        allowed = tolerance_for(self.function, inputs, right, dtype)
        return compare(got, right, allowed, dtype=dtype) is None


class _Comparison:
    """A function of the target and of the reference in a dtype, and what their results have shown.

    Parameters
    ----------
    calls : Calls
    function, dtype : str
    conventions : _Conventions
        Shared by all dtypes that are compared together: a function keeps to one.

    Attributes
    ----------
    failure : Observation or None
        The last call that failed, the smallest when all have been shrunk.
    """

    def __init__(self, calls: Calls, function: str, dtype: str, conventions: _Conventions) -> None:
        self.calls, self.function, self.dtype = calls, function, dtype
        self.conventions = conventions
        self.failure: Observation | None = None
        self._message = ""
        self._n_checks = self._n_missing = 0

    def fails(self, args: dict[str, Any]) -> bool:
        """Whether the target's result is wrong. What it shows is remembered."""
        given = {name: value for name, value in args.items() if name != PROBES}
        own = as_dtype(given, self.dtype)
        expected, tolerance = expect(self.function, args, self.dtype)

        def comparison(got: Any) -> Mismatch | None:
            if self.function == "compact":
                wrong = compare_compact(got, given["network"], args[PROBES], self.dtype)
            else:
                wrong = compare(got, expected, tolerance, dtype=self.dtype)
            names = self.conventions.explaining(given, got, self.dtype, ours=wrong is None)
            if not names:
                return wrong or Mismatch(MIXED, float("inf"))
            if self.failure is None:
                self.conventions.keep(names, given, got, self.dtype)
            return None

        if self.failure is None:
            self._n_checks += 1
        try:
            verdict = self.calls.judge(
                self.function,
                own,
                expected,
                tolerance,
                dtype=self.dtype,
                where="random",
                comparison=comparison,
            )
        except NotImplementedByTarget:
            if self.failure is None:
                self._n_checks -= 1
                self._n_missing += 1
            return False
        if verdict.wrong is None:
            return False
        self._message = verdict.wrong.message
        self.failure = Observation(
            self.function,
            own,
            verdict.answer.result,
            expected,
            tolerance,
            False,
            "random",
        )
        return True

    @property
    def is_mixed(self) -> bool:
        """Whether what failed is right by our convention, and by no other that fits the rest."""
        return self._message == MIXED

    def found(self) -> Found:
        """Sum up what the inputs have shown."""
        found = Found(self._n_checks, self.failure, self._message, self._n_missing)
        if self.failure is not None:
            return found
        convention, sign = self.conventions.used()
        return found._replace(convention=convention, sign=sign)


_Convention = Callable[[Any], Any]

MIXED = "right by our convention here, though only by another one before"


def expect(function: str, args: Mapping[str, Any], dtype: Any) -> tuple[Any, Tolerance]:
    """Return what is right, in float64, and what rounding is allowed."""
    given = {name: value for name, value in args.items() if name != PROBES}
    if function == "compact":
        # what the compact network must compute
        probes = {"network": given["network"], "x": args[PROBES]}
        logits = reference.predict(**probes)
        return logits, tolerance_for("predict", probes, logits, dtype)
    expected = getattr(reference, function)(**given)
    return expected, tolerance_for(function, given, expected, dtype)


# --- a network as a result ---


def compare_compact(got: Any, network: Mapping[str, Any], x: Any, dtype: Any) -> Mismatch | None:
    """Compare a compact network with the gated one: its logits on x, and its size.

    Its arrays must have the dtype asked for, it must have no gates, compute what the gated network
    does, and have no more weights and biases than what the interface lets stay: what is cut off by
    gates on single weights may stay, though the reference takes it out.
    """
    whole: Any = network
    logits = logits_of(got, network, x, dtype)
    if isinstance(logits, Mismatch):
        return logits
    expected, tolerance = expect("compact", {"network": network, PROBES: x}, dtype)
    mismatch = compare(logits, expected, tolerance, dtype=None)
    if mismatch is not None:
        return mismatch._replace(
            message=f"its logits are not those of the gated network: {mismatch.message}"
        )
    left = count(got)
    due = max(count(reference.compact(whole)), count(Plain().compact(whole)))
    if left > due:
        return Mismatch(f"{left} weights and biases are left, {due} are enough", float("inf"))
    return None


def logits_of(got: Any, network: Mapping[str, Any], x: Any, dtype: Any) -> Any:
    """Return the logits of a compact network that came, or what is wrong with it as a network."""

    def wrong(message: str) -> Mismatch:
        return Mismatch(message, float("inf"))

    if not isinstance(got, Mapping) or not isinstance(got.get("layers"), list | tuple):
        return wrong(f"{describe(got)} came, a network with 'input_shape' and 'layers' is due")
    for position, layer in enumerate(got["layers"]):
        if not isinstance(layer, Mapping) or "kind" not in layer:
            return wrong(f"layer {position} is {describe(layer)}, a dict with its 'kind' is due")
        if layer.get("on") is not None:
            return wrong(f"layer {position} still has gates on its {layer['on']}")
        for name in ("weight", "bias"):
            array = layer.get(name)
            if array is not None and (
                not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype)
            ):
                return wrong(f"{name} of layer {position} is {describe(array)}, {dtype} is due")
    wide: Any = as_dtype(dict(got), np.float64)
    wide |= {name: network[name] for name in ("beta", "gamma", "zeta")}
    try:
        return np.asarray(reference.predict(wide, x))
    except Exception as error:
        return wrong(f"it is no network: {type(error).__name__}: {error}")


def count(network: Any) -> int:
    """How many weights and biases there are."""
    arrays = (layer.get(n) for layer in network["layers"] for n in ("weight", "bias"))
    return sum(int(np.size(a)) for a in arrays if a is not None)
