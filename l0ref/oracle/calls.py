"""A target under check: each call is judged and remembered, and one that hangs is let go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .compare import Mismatch, Tolerance, compare
from .report import Observation
from .targets import Call, NotImplementedByTarget, OpenTarget, TargetError, TargetTimeout

__all__ = ["Answer", "Calls", "GivenUp", "NotImplementedByTarget", "Verdict"]

TIMEOUTS = 3
"""After so many a function is not called any more."""
FIRST = 6
"""The first call of a function may take so many times as long: much is compiled when it is met."""
REMEMBERED = 200
"""So many calls of a function are kept for the diagnosis, and as many that failed."""


class GivenUp(Exception):  # noqa: N818  # not an error of this program
    """A function has run out of time too often to be called again."""


class Answer(NamedTuple):
    """What came of a call: a result, or an error in words."""

    call: Call
    error: str | None

    @property
    def result(self) -> Any:
        """What was returned."""
        return self.call.result


class Verdict(NamedTuple):
    """A call, and what is wrong with what came of it; None if nothing is."""

    answer: Answer
    wrong: Mismatch | None


class Calls:
    """Calls a target's functions and remembers what came of it.

    Parameters
    ----------
    target : OpenTarget
    timeout : float, optional
        Seconds a call may take; the first of each function, `FIRST` times as many.

    Attributes
    ----------
    observations : dict of str to list of Observation
        What was judged, by function.
    """

    def __init__(self, target: OpenTarget, timeout: float = 10.0) -> None:
        self.target, self.timeout = target, timeout
        self.observations: dict[str, list[Observation]] = defaultdict(list)
        self._kept: Counter[tuple[str, bool]] = Counter()
        self._timeouts: Counter[str] = Counter()
        self._called: set[str] = set()

    def has(self, function: str) -> bool:
        """Whether the target has the function."""
        return function in self.target.functions

    def call(self, function: str, args: Mapping[str, Any]) -> Answer:
        """Call a function, whatever comes.

        Raises
        ------
        NotImplementedByTarget
            If the target does not have it.
        GivenUp
            If it has run out of time `TIMEOUTS` times before.
        """
        if self._timeouts[function] >= TIMEOUTS:
            raise GivenUp(
                f"it did not return within {self.timeout:g} s, nor within {FIRST} times that when "
                "it was called first; it is not called any more"
            )
        timeout = self.timeout if function in self._called else FIRST * self.timeout
        self._called.add(function)
        try:
            return Answer(self.target.call(function, args, timeout=timeout), None)
        except TargetTimeout as error:
            self._timeouts[function] += 1
            return Answer(error.call, str(error))
        except TargetError as error:
            return Answer(error.call, str(error))

    def judge(
        self,
        function: str,
        args: dict[str, Any],
        expected: Any,
        tolerance: Tolerance,
        *,
        dtype: Any,
        where: str,
        comparison: Callable[[Any], Mismatch | None] | None = None,
    ) -> Verdict:
        """Call a function and compare what comes with what is right, or as `comparison` does."""
        answer = self.call(function, args)
        if answer.error is not None:
            wrong: Mismatch | None = Mismatch(answer.error, float("inf"))
        elif comparison is not None:
            wrong = comparison(answer.result)
        else:
            wrong = compare(answer.result, expected, tolerance, dtype=dtype)
        got = None if answer.error is not None else answer.result
        self.remember(Observation(function, args, got, expected, tolerance, wrong is None, where))
        return Verdict(answer, wrong)

    def remember(self, seen: Observation) -> None:
        """Keep what was seen for the diagnosis, unless there is enough of its kind."""
        self._kept[seen.function, seen.ok] += 1
        if self._kept[seen.function, seen.ok] <= REMEMBERED:
            self.observations[seen.function].append(seen)
