"""A target under check: calls are judged and remembered; one that hangs or exits is let go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .compare import Mismatch, Tolerance, compare, plain_arrays
from .report import Observation
from .targets import (
    NO_ANSWER,
    Call,
    NotImplementedByTarget,
    OpenTarget,
    TargetError,
    TargetExited,
    TargetGarbled,
    TargetImportError,
    TargetRaised,
    TargetTimeout,
)
from .watch import Raised

__all__ = ["Answer", "Calls", "GivenUp", "NotImplementedByTarget", "Verdict", "has_nan"]

TIMEOUTS = 3
"""After so many, or as many times that its process was lost, a function is not called any more."""
FIRST = 6
"""The first call of a function may take so many times as long: much is compiled when it is met."""
DEEPEST = 100
"""Results that are nested deeper are not read."""
MOST = 1_000_000
"""Results of more parts (not numbers in arrays) are not read."""
REMEMBERED = 200
"""So many calls of a function are kept for the diagnosis, and as many that failed."""


class GivenUp(Exception):  # noqa: N818  # not an error of this program
    """A function has run out of time, or ended its process, too often to be called again.

    Attributes
    ----------
    given : mapping of str to object
        The arguments of the last call that was made; none if there was no call.
    """

    def __init__(self, message: str, given: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.given = given


class Answer(NamedTuple):
    """What came of a call: a result, or an error in words."""

    call: Call
    error: str | None
    refused: bool = False
    """Whether the target itself reports the error, and has not merely failed to answer."""

    @property
    def result(self) -> Any:
        """What was returned."""
        return self.call.result


class Verdict(NamedTuple):
    """A call, and what is wrong with what came of it; None if nothing is."""

    answer: Answer
    wrong: Mismatch | None
    remark: str = ""
    """On what is not wrong, and worth knowing."""


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
    state : dict of str to dict
        By function, the changes of global state that were seen, in words, each with the arguments
        of the call that made it first. What is set to the same in every call changes only once, so
        that all calls count.
    """

    def __init__(self, target: OpenTarget, timeout: float = 10.0) -> None:
        self.target, self.timeout = target, timeout
        self.observations: dict[str, list[Observation]] = defaultdict(list)
        self.state: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
        self._kept: Counter[tuple[str, bool]] = Counter()
        self._lost: Counter[str] = Counter()
        self._last_lost: dict[str, tuple[str, Mapping[str, Any]]] = {}
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
            If it has run out of time, or its process was lost, `TIMEOUTS` times before; or if the
            target as a whole is given up.
        """
        if self._lost[function] >= TIMEOUTS:
            raise GivenUp(*self._last_lost[function])
        if self.target.given_up:
            raise GivenUp(f"{function} is not called: {NO_ANSWER}", {})
        answer = self._answer(function, args)
        for change in answer.call.state:
            self.state[function].setdefault(change, args)
        return answer

    def _answer(self, function: str, args: Mapping[str, Any]) -> Answer:
        timeout = self.timeout if function in self._called else FIRST * self.timeout
        self._called.add(function)
        try:
            call = self.target.call(function, args, timeout=timeout)
            _walk(call.result, [0])
            plain = plain_arrays(call.result)
        except (TargetTimeout, TargetExited, TargetGarbled, TargetImportError) as error:
            self._lose(function, args, error)
            return Answer(error.call, str(error))
        except TargetRaised as error:
            return Answer(error.call, str(error), refused=True)
        except TargetError as error:
            return Answer(error.call, str(error))
        except NotImplementedByTarget:
            raise
        except Exception as error:  # of a class of the target's own
            return Answer(Call(), f"{function} returned what cannot be read: {_text(error)}")
        return Answer(call._replace(result=plain), None)

    def _lose(self, function: str, args: Mapping[str, Any], error: TargetError) -> None:
        """Count a call that cost its process, or its time."""
        self._lost[function] += 1
        why = f"{error}; that was the last of {TIMEOUTS} times"
        if isinstance(error, TargetTimeout):
            why = (
                f"it did not return within {self.timeout:g} s, nor within {FIRST} times that when "
                "it was called first"
            )
        self._last_lost[function] = f"{why}; it is not called any more", args

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
        """Call a function and compare what comes with what is right, or as `comparison` does.

        A result that raises while it is compared is wrong, and counts as none. To refuse NaN where
        NaN is right is no mistake: it is remarked upon, and not remembered.
        """
        answer = self.call(function, args)
        wrong: Mismatch | None
        if answer.refused and has_nan(args) and has_nan(expected):
            return Verdict(answer, None, f"it refuses NaN: {answer.error}")
        if answer.error is not None:
            wrong = Mismatch(answer.error, float("inf"))
        else:
            try:
                if comparison is not None:
                    wrong = comparison(answer.result)
                else:
                    wrong = compare(answer.result, expected, tolerance, dtype=dtype)
            except Exception as error:
                text = f"{function} returned what cannot be compared: {_text(error)}"
                answer = Answer(answer.call._replace(result=None), text)
                wrong = Mismatch(text, float("inf"))
        got = None if answer.error is not None else answer.result
        self.remember(Observation(function, args, got, expected, tolerance, wrong is None, where))
        return Verdict(answer, wrong)

    def remember(self, seen: Observation) -> None:
        """Keep what was seen for the diagnosis, unless there is enough of its kind."""
        self._kept[seen.function, seen.ok] += 1
        if self._kept[seen.function, seen.ok] <= REMEMBERED:
            self.observations[seen.function].append(seen)


def has_nan(value: Any) -> bool:
    """Whether there is a NaN anywhere in a value.

    Examples
    --------
    >>> has_nan({"x": [1.0, np.array([0.5, np.nan])]}), has_nan((0.5, np.inf, 3, "nan", None))
    (True, False)
    """
    if isinstance(value, Mapping):
        return any(map(has_nan, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_nan, value))
    numbers = np.asarray(value) if isinstance(value, float | np.ndarray | np.generic) else None
    return numbers is not None and numbers.dtype.kind == "f" and bool(np.isnan(numbers).any())


def _walk(value: Any, n_parts: list[int], depth: int = 0) -> None:
    """Visit all parts of a result once, so that what raises when it is read does so here."""
    n_parts[0] += 1
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep")
    if n_parts[0] > MOST:
        raise ValueError(f"it has more than {MOST:,} parts")
    if isinstance(value, Mapping):
        for key in value:
            _walk(value[key], n_parts, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for part in value:
            _walk(part, n_parts, depth + 1)


def _text(error: Exception) -> str:
    raised = Raised.of(error)
    return f"{raised.type}: {raised.message}" if raised.message else raised.type
