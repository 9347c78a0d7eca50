r"""Which known mistake explains what an implementation returned.

Every call that was made is made again, by each deviation of the catalogue
(`l0ref.oracle.deviations`). A deviation **explains** a function if it returns what the
implementation returned in all calls of it, right ones and wrong ones. What most failing functions
share as an explanation is named once, for all of them; what is left is looked at again. Two
mistakes at a time are tried where no single one explains a function. What is left after that may be
a mistake in one branch of the code: it is looked for in the calls with gates on the outputs alone,
in float32 alone, where log_alpha is negative, and so on (see `_CALLS` and `_PLACES`). What is found
there is never certain.

A diagnosis is **certain** if no other deviation explains the same functions; or if others do, but
would have shown in more functions that are right. Deviations that explain equally well are all
named, none of them as certain. Nor is a mistake certain whose own function is right, such as
`test_time` for a wrong test gate: it is made within the functions that show it, or it is another
mistake that looks the same there. Then the sentence says so, and the rivals are named too. Whole
numbers agree by accident: those of a function that counts make a diagnosis certain only if the
mistake is one of counting, and shows in everything that it changes.

Draws are compared by law, for the noise of an implementation is its own: each gate's distribution
(by the distance of Kolmogorov and Smirnov), and how gates and successive draws go together. A
mistake has to fit the draws of every law that was asked for; and to be certain, all gates together
have to fit as closely as so many draws can tell.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import stats

from .deviations import DEVIATIONS, cost, touched
from .interface import AREAS, FUNCTIONS
from .plain import Plain, sigmoid

if TYPE_CHECKING:
    from .compare import Tolerance
    from .report import Observation

__all__ = ["Diagnosis", "diagnose"]

N_FAILING, N_PASSING = 12, 12
"""Calls of a function that are made again."""
COUNTS = (
    "group_size",
    "dense_flops",
    "dense_params",
    "conv2d_flops",
    "conv2d_params",
    "hard_cost",
)
"""Functions that return whole numbers, which may agree by accident: more of these calls."""
N_COUNTS = 200
EXPENSIVE = {
    "train": 3,
    "loss_and_grads": 6,
    "expected_cost": 6,
    "compact": 6,
    "predict": 6,
    "conv2d_vjp": 8,
}
"""Fewer of these, and only by deviations that explain something else, if there is one that does."""
LATE = (*EXPENSIVE, "hard_cost")
"""Those that come last, for what explains something else is tried on them first."""
SLACK = 16
"""A deviation may be off by so many times what the right result may be off by."""
DIGITS = 512
"""And by so many eps of the largest number: its tolerance was made for the right result."""
ROUGHLY = 1e-3
"""What was computed in float32 may be off by no more than this, in parts of the largest number."""
BETTER = 0.1
"""An explanation is closer than what is right, by this factor at least."""
MANY = 6
"""More explanations than this are none."""
SECONDS = 2.0
"""For pairs of deviations."""
_EPS_SINGLE = float(np.finfo(np.float32).eps)
NO_ACCIDENT = 3
"""So few calls that count something may come out as a known mistake does, by accident."""
ENOUGH = 3
"""A branch must have so many failing calls, if others fail besides."""
ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    StopIteration,
    TypeError,
    ValueError,
)
"""What a known mistake may raise when it is called with arguments that were not made for it."""


class Diagnosis(NamedTuple):
    """A known mistake that explains what was seen."""

    deviation: str
    """Its name in the catalogue."""
    functions: tuple[str, ...]
    """The failing functions that it explains."""
    certain: bool
    """Whether it explains them all alone."""
    sentence: str
    """What is said to whom made it."""


def diagnose(observations: Iterable[Observation]) -> list[Diagnosis]:
    """Name the known mistakes that explain what was seen.

    Parameters
    ----------
    observations : iterable of Observation
        Of all functions, those that are right too, for they speak against a deviation that would
        show in them.

    Returns
    -------
    list of Diagnosis
        The best first: those that are certain, and of these what explains most.

    Examples
    --------
    >>> from l0ref.oracle.compare import Tolerance
    >>> from l0ref.oracle.report import Observation
    >>> gate = dict(beta=2 / 3, gamma=-0.1, zeta=1.1)
    >>> log_alpha = np.array([-1.0, 0.5, 1.5])
    >>> right = Plain().test_time(log_alpha, **gate)
    >>> got = np.clip(1.2 / (1 + np.exp(-log_alpha / gate["beta"])) - 0.1, 0, 1)
    >>> seen = Observation(
    ...     "test_time", {"log_alpha": log_alpha, **gate}, got, right, Tolerance(1e-15, 0, ""),
    ...     False, "random")
    >>> found = diagnose([seen])
    >>> [(one.deviation, one.certain) for one in found]
    [('test-gate-median', True)]
    >>> print(found[0].sentence)
    your test gate is sigmoid(log_alpha/beta), stretched and clipped: the median gate, not Eq. 13, \
which has no beta (off by up to 0.108: `test_time`, log_alpha from -6 to 6 at the defaults)
    """
    with np.errstate(all="ignore"):
        return _Search(_Cases(observations)).run()


# --- what was seen ---


@dataclass
class _Case:
    """One call: what went in, what came, what is right."""

    function: str
    args: dict[str, Any]
    got: list[Any]
    """Arrays, one after the other, however they were nested."""
    right: list[Any] | None
    allowed: list[Any]
    ok: bool
    eps: float
    off: float = 0.0
    """How far from right, in units of what is allowed."""

    def values_of(self, target: Plain) -> list[Any] | None:
        """Return what a target makes of this call; None if it is nothing of the right shapes."""
        try:
            result = getattr(target, self.function)(**self.args)
            values = _leaves(self.function, result, self.args)
        except ERRORS:
            return None
        return values if values is not None and _same_shapes(values, self.got) else None

    def explained_by(self, target: Plain) -> bool:
        """Whether the target returns what came."""
        if target.IN_SINGLE and not self._is_float32_in_float64():
            return False
        values = self.values_of(target)
        return values is not None and self._agrees(values, target)

    def explained_where(self, target: Plain, holds: Callable[[dict[str, Any]], Any]) -> bool:
        """Whether the target returns what came where `holds`, and elsewhere what is right did."""
        if target.IN_SINGLE:
            return False  # a matter of whole calls
        wrong, right = self.values_of(target), self.values_of(Plain())
        if wrong is None or right is None:
            return False
        arrays = [value for value in self.args.values() if isinstance(value, np.ndarray)]
        where = np.broadcast_to(holds(self.args), np.broadcast_shapes(*map(np.shape, arrays)))
        (place,) = _leaves(self.function, where, self.args) or [where]
        mixed = [np.where(place, a, b) for a, b in zip(wrong, right, strict=True)]
        return self._agrees(mixed, target)

    def _agrees(self, values: list[Any], target: Plain) -> bool:
        worst = 0.0
        for value, got, allowed in zip(values, self.got, self.allowed, strict=True):
            off = _distance(value, got)
            size = np.where(np.isfinite(value), np.abs(value), 0.0)
            size = size + np.max(size, initial=0.0)
            limit = SLACK * (allowed + self.eps) + DIGITS * self.eps * size
            if target.IN_SINGLE:
                roughly = SLACK * _EPS_SINGLE + ROUGHLY * size
                limit = np.minimum(limit * (_EPS_SINGLE / self.eps), roughly)
            if np.any(off > limit):
                return False
            worst = max(worst, _ratio(off, allowed, got, self.eps))
        if self.ok or target.IN_SINGLE:
            return True
        if self.function in target.LOSES_DIGITS:
            return self._has_lost_digits()
        # what is wrong must come closer to it than what is right
        return worst < BETTER * self.off

    def _is_float32_in_float64(self) -> bool:
        """Whether all numbers are exact in float32, though they ought to be of float64."""
        with np.errstate(over="ignore"):
            return self.eps < _EPS_SINGLE and all(
                np.array_equal(values, values.astype(np.float32), equal_nan=True)
                for values in self.got
            )

    def _has_lost_digits(self) -> bool:
        """Whether all numbers are differences of 1 and a number below it, which float exactly."""
        steps = np.concatenate([np.ravel(values) for values in self.got]) / (self.eps / 2)
        steps = steps[np.isfinite(steps)]
        return steps.size > 0 and bool(np.all(steps == np.round(steps)))


def _distance(a: Any, b: Any) -> Any:
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    off = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(off), np.inf, off)


def _ratio(off: Any, allowed: Any, got: Any, eps: float) -> float:
    size = np.where(np.isfinite(got), np.abs(got), 0.0)
    floor = allowed + eps * (size + np.max(size, initial=0.0)) + 1e-300
    return float(np.max(off / floor, initial=0.0))


def _same_shapes(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape for x, y in zip(a, b, strict=True))


def _leaves(function: str, result: Any, args: dict[str, Any]) -> list[Any] | None:
    """Return the arrays of a result in a row; None if it is not made of numbers."""
    if function == "compact":
        if not isinstance(result, dict) or "layers" not in result:
            return None
        x = np.random.default_rng(0).normal(size=(9, *args["network"]["input_shape"]))
        return [np.asarray(Plain().predict(_doubled(result), x), np.float64)]
    found: list[Any] = []
    if not _collect(result, found):
        return None
    if function in ("pdf", "logpdf") and found[0].shape == np.shape(args["x"]):
        # outside and at the atoms there are conventions, and no mistakes
        return [found[0][(args["x"] > 0) & (args["x"] < 1)]]
    return found


def _collect(value: Any, found: list[Any]) -> bool:
    if isinstance(value, dict):
        return all(_collect(value[key], found) for key in sorted(value))
    if isinstance(value, list | tuple):
        return all(_collect(part, found) for part in value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return False
    found.append(array.astype(np.float64))
    return True


def _doubled(value: Any) -> Any:
    """Return the same data with every floating array in float64."""
    if isinstance(value, dict):
        return {key: _doubled(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_doubled(part) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(np.float64)
    return value


def _is_single(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_single(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(_is_single(part) for part in value)
    return isinstance(value, np.ndarray) and value.dtype == np.float32


def _allowed(expected: Any, tolerance: Tolerance, within: Any, found: list[Any]) -> None:
    """Collect what is allowed beside each array of `expected`, in the order of `_collect`."""
    if isinstance(expected, dict):
        for key in sorted(expected):
            _allowed(expected[key], tolerance, _part(within, key), found)
    elif isinstance(expected, list | tuple):
        for i, part in enumerate(expected):
            _allowed(part, tolerance, _part(within, i), found)
    else:
        right = np.abs(np.asarray(expected, np.float64))
        room = np.asarray(within, np.float64) + tolerance.rel * np.where(
            np.isfinite(right), right, 0.0
        )
        found.append(np.broadcast_to(room, right.shape))


def _part(within: Any, key: Any) -> Any:
    return within[key] if isinstance(within, dict | list | tuple) else within


class _Cases:
    """The calls that are made again, by function; draws on their own."""

    def __init__(self, observations: Iterable[Observation]) -> None:
        by_function: dict[str, list[_Case]] = {}
        self.draws: list[Observation] = []
        self.other_draws: list[Observation] = []
        """Those in which nothing was looked for."""
        self.pulled: list[Observation] = []
        for seen in observations:
            if seen.got is None or seen.function not in FUNCTIONS:
                continue
            if seen.function in ("draw", "draw_vjp"):
                if not seen.ok:
                    (self.draws if seen.function == "draw" else self.pulled).append(seen)
                elif seen.function == "draw" and seen.n >= MIN_DRAWS:
                    self.other_draws.append(seen)
                continue
            case = _case(seen)
            if case is not None:
                by_function.setdefault(seen.function, []).append(case)
        self.failing: dict[str, list[_Case]] = {}
        self.passing: dict[str, list[_Case]] = {}
        for function in FUNCTIONS:
            many = by_function.get(function, [])
            precise = [case for case in many if case.eps < 1e-10]
            if any(not case.ok for case in precise):
                many = precise  # rounding tells no mistakes apart
            wrong = sorted((c for c in many if not c.ok), key=lambda case: -case.off)
            right = [case for case in many if case.ok]
            if wrong:
                self.failing[function] = _some(wrong, _enough(function, N_FAILING))
            if right:
                self.passing[function] = _some(right, _enough(function, N_PASSING))


def _enough(function: str, n: int) -> int:
    return N_COUNTS if function in COUNTS else EXPENSIVE.get(function, n)


def _some(cases: list[_Case], n: int) -> list[_Case]:
    """Return n of them, from everywhere."""
    if len(cases) <= n:
        return cases
    return [cases[i * len(cases) // n] for i in range(n)]


def _case(seen: Observation) -> _Case | None:
    eps = float(np.finfo(np.float32 if _is_single(seen.args) else np.float64).eps)
    args = _doubled(seen.args)
    try:
        got = _leaves(seen.function, _doubled(seen.got), args)
    except ERRORS:
        return None
    if not got or seen.expected is None or seen.tolerance is None:
        return None
    right: list[Any] | None
    allowed: list[Any] = []
    if seen.function == "compact":
        right = _leaves("predict", Plain().predict(**_probe(args)), args)
        allowed = [np.full(got[0].shape, DIGITS * eps)]
    else:
        right = _leaves(seen.function, seen.expected, args)
        if right is None:
            return None
        _allowed(seen.expected, seen.tolerance, seen.tolerance.abs, allowed)
        if seen.function in ("pdf", "logpdf"):
            allowed = _leaves(seen.function, allowed[0], args) or []
    if right is None or not _same_shapes(right, got):
        # another shape: anything that has the same is closer
        zero = [np.zeros(value.shape) for value in got]
        return None if seen.ok else _Case(seen.function, args, got, None, zero, False, eps, np.inf)
    each = [(_distance(a, b), b, room) for a, b, room in zip(right, got, allowed, strict=True)]
    off = max(_ratio(distance, room, b, eps) for distance, b, room in each)
    if seen.ok and off > 2 * SLACK + 2:
        return None  # right by another convention, of which nothing can be read off
    # What failed may have these numbers right: of another dtype, or by another convention before.
    # Within what is allowed, that is, and not within rounding: digits that are lost are no more.
    within = all(bool(np.all(distance <= room)) for distance, _, room in each)
    # a compact network may be right and too large
    ok = seen.ok or (within and seen.function != "compact")
    return _Case(seen.function, args, got, right, allowed, ok, eps, off)


def _probe(args: dict[str, Any]) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(9, *args["network"]["input_shape"]))
    return {"network": args["network"], "x": x}


# --- the search ---


@cache
def _instance(names: tuple[str, ...]) -> Plain | None:
    """Return `Plain` with one mistake, or several at once; None if they do not go together."""
    classes = [DEVIATIONS[name].implementation for name in names]
    if len(classes) == 1:
        return classes[0]()
    for a, b in itertools.combinations(classes, 2):
        if _overrides(a) & _overrides(b):
            return None
    try:
        return type("Together", tuple(classes), {})()  # type: ignore[no-any-return]
    except TypeError:
        return None


def _overrides(kind: type[Plain]) -> frozenset[str]:
    classes = itertools.takewhile(lambda one: one is not Plain, kind.__mro__)
    return frozenset(name for one in classes for name in vars(one) if not name.startswith("__"))


@dataclass
class _Search:
    cases: _Cases
    explained: dict[str, set[str]] = field(default_factory=dict)
    """By failing function, the deviations that explain all calls of it."""
    partly: dict[str, set[str]] = field(default_factory=dict)
    """Those that explain what is wrong in it, but not what is right."""
    laws: _Laws = field(default_factory=lambda: _Laws(frozenset(), frozenset()))
    """Those that explain draws, asked for or not."""

    def run(self) -> list[Diagnosis]:
        plain = Plain()
        for function, cases in list(self.cases.failing.items()):
            # what is no mistake of a formula explains nothing
            wrong = [case for case in cases if not case.explained_by(plain)]
            if wrong:
                self.cases.failing[function] = wrong
            else:
                del self.cases.failing[function]
        for function in sorted(self.cases.failing, key=lambda name: name in LATE):
            self._explain(function)
        self.laws = _laws([*self.cases.draws, *self.cases.other_draws])
        if self.cases.draws:
            self.explained["draw"] = set(self.laws.fit)
        if self.cases.pulled:
            # the draws of some deviations cannot be told by their gradient
            can_tell = [n for n in DEVIATIONS if self.cases.draws or not _draws_otherwise(n)]
            known = _slopes(self.cases.pulled, can_tell)
            if self.laws.fit:
                # what draws otherwise than was seen is no explanation of the gradient either
                known = {n for n in known if n in self.laws.fit or not _draws_otherwise(n)}
            self.explained["draw_vjp"] = known
        named, picked = self._cover()
        left = [name for name in self.explained if not self.explained[name]]
        named, left = self._together(named, picked, left)
        branches: list[_Branch] = []
        for function in left:
            inside = self._in_branches(function) or self._in_places(function)
            branches += inside
            named += [] if inside else self._in_part(function)
        found = [one.diagnosis(self._right_home(one.name)) for one in named]
        found += [one.diagnosis() for one in _merged(branches)]
        return sorted(found, key=lambda one: (not one.certain, -len(one.functions)))

    def _explain(self, function: str) -> None:
        names: Iterable[str] = DEVIATIONS
        if function in LATE:
            known = set().union(*self.explained.values()) if self.explained else set()
            self._try(function, known)
            if self.explained[function]:
                return
            names = [name for name in DEVIATIONS if name not in known]
        self._try(function, names)

    def _try(self, function: str, names: Iterable[str]) -> None:
        full = self.explained.setdefault(function, set())
        part = self.partly.setdefault(function, set())
        for name in names:
            target = _instance((name,))
            assert target is not None
            if self._explains(target, function):
                full.add(name)
            elif self._explains_wrong(target, function):
                part.add(name)

    def _explains(self, target: Plain, function: str) -> bool:
        right = self.cases.passing.get(function, [])
        return self._explains_wrong(target, function) and all(
            case.explained_by(target) for case in right
        )

    def _explains_wrong(self, target: Plain, function: str) -> bool:
        if target.IN_SINGLE and self._is_in_half(function):
            return False
        return all(case.explained_by(target) for case in self.cases.failing[function])

    def _is_in_half(self, function: str) -> bool:
        """Whether all that is wrong is exact in half precision, which float32 would not be."""
        with np.errstate(over="ignore"):
            return all(
                np.array_equal(values, values.astype(np.float16), equal_nan=True)
                for case in self.cases.failing[function]
                for values in case.got
            )

    def _cover(self) -> tuple[list[_Named], list[str]]:
        """Name what explains most, then what explains most of the rest, and so on."""
        left = {name for name, known in self.explained.items() if known}
        found: list[_Named] = []
        picked: list[str] = []
        while left:
            sets = {
                name: frozenset(f for f in left if name in self.explained[f]) for name in DEVIATIONS
            }
            size = max(len(one) for one in sets.values())
            first = next(one for one in sets.values() if len(one) == size)
            rivals = [name for name, one in sets.items() if one == first]
            best = self._least_against(rivals)
            if len(rivals) <= MANY and all(self._right_home(name) for name in rivals):
                best = sorted(rivals, key=self._against)  # none of them is what it seems
            certain = len(best) == 1 and self._is_no_accident(best[0], first)
            functions = tuple(name for name in FUNCTIONS if name in first)
            if len(best) <= MANY:
                found += [_Named(name, functions, certain, len(best)) for name in best]
                picked.append(best[0])
            left -= first
        return found, picked

    def _is_no_accident(self, name: str, functions: Iterable[str]) -> bool:
        """Whether these functions show a deviation, and not only numbers that are like its own."""
        if set(functions) <= {"draw", "draw_vjp"} and name.endswith("-hard-coded"):
            return False  # draws do not tell 0.667 from 0.68
        if "draw" in functions and set(functions) <= {"draw", "draw_vjp"}:
            return name in self.laws.close
        if set(functions) == {"draw_vjp"} and ("draw" in self.explained or self.laws.fit):
            return False  # the draws are wrong, and not by this: the noise in them is a guess
        if not set(functions) <= set(COUNTS):
            return True
        wrong = {function: cases for function, cases in self.cases.failing.items() if cases}
        calls = sum(len(wrong.get(function, ())) for function in functions)
        if calls < NO_ACCIDENT or any(f not in COUNTS and not self.explained.get(f) for f in wrong):
            return False  # a few whole numbers, or what may follow from another mistake
        changed = touched(name)
        if not changed or changed[0] not in (*COUNTS, "expected_cost"):
            return False  # a mistake in the law or the gate, and nothing of these was wrong
        seen = {*self.cases.failing, *self.cases.passing}
        return all(name in self.explained.get(one, ()) for one in changed if one in seen)

    def _least_against(self, names: Iterable[str]) -> list[str]:
        """Return those of some deviations that the functions that are right speak least against."""
        against = {name: self._against(name) for name in names}
        return [name for name, count in against.items() if count == min(against.values())]

    def _against(self, name: str) -> int:
        """Return in how many functions a deviation would have shown otherwise than it did."""
        target = _instance((name,))
        assert target is not None
        count = 0
        for function in self.cases.passing:
            if name not in self.explained.get(function, ()):
                count += self._would_show(target, function)
        return count

    def _would_show(self, target: Plain, function: str) -> bool:
        """Whether a target is wrong where this function is right."""
        return not all(case.explained_by(target) for case in self.cases.passing[function])

    def _right_home(self, name: str) -> str | None:
        """Return the function that a deviation is a mistake in, if that one is right.

        It is the one at which its cost is measured; if that was not checked, or could not show the
        mistake, the first of the others that it changes. None if it is wrong.
        """
        target = _instance((name,))
        assert target is not None
        if target.IN_SINGLE:
            return None  # each function is computed in float32 or is not
        wrong = {*self.cases.failing, *self.explained}
        for function in (DEVIATIONS[name].at, *touched(name)):
            if function in wrong:
                return None
            if function in self.cases.passing and self._would_show(target, function):
                return function
        return None

    # --- several at once ---

    def _together(
        self, found: list[_Named], picked: list[str], left: list[str]
    ) -> tuple[list[_Named], list[str]]:
        """Explain what is left by all mistakes that are known by now, or by two new ones."""
        deadline = time.monotonic() + SECONDS
        for function in list(left):
            if function not in self.cases.failing:
                continue
            names = self._known_together(function, picked)
            if not names and function not in LATE:
                pairs = self._pairs(function, picked, deadline)
                pairs = pairs if len(pairs) <= MANY else []
                for pair in pairs:
                    known = {one.name for one in found}
                    new = [name for name in pair if name not in known]
                    certain = len(pairs) == 1 and function not in COUNTS
                    found += [_Named(name, (), certain, len(pairs)) for name in new]
                if len(pairs) == 1:
                    picked += [name for name in pairs[0] if name not in picked]
                names = tuple({name for pair in pairs for name in pair})
            if names:
                left.remove(function)
                found = [one.and_in(function) if one.name in names else one for one in found]
        return found, left

    def _known_together(self, function: str, picked: Sequence[str]) -> tuple[str, ...]:
        for size in range(2, len(picked) + 1):
            for names in itertools.combinations(picked, size):
                target = _instance(names)
                if target is not None and self._explains(target, function):
                    return names
        return ()

    def _pairs(
        self, function: str, picked: Sequence[str], deadline: float
    ) -> list[tuple[str, str]]:
        first = self.cases.failing[function][0]
        plain = Plain()
        right = _leaves(function, getattr(plain, function)(**first.args), first.args)
        changing = [name for name in DEVIATIONS if _changes(name, function, first, right)]
        changing.sort(key=lambda name: name not in picked)
        found = []
        for pair in itertools.combinations(changing, 2):
            if time.monotonic() > deadline:
                break
            target = _instance(pair)
            if target is None or not first.explained_by(target):
                continue
            if self._explains(target, function):
                found.append(pair)
        known = [pair for pair in found if set(pair) & set(picked)]
        return known or found

    # --- in a branch ---

    def _in_branches(self, function: str) -> list[_Branch]:
        """Explain the failing calls of one kind, with gates on the outputs for instance."""
        wrong, right = self.cases.failing.get(function, []), self.cases.passing.get(function, [])
        both = [*wrong, *right]

        @cache  # kinds of calls overlap
        def explains(name: str, i: int) -> bool:
            target = _instance((name,))
            return target is not None and both[i].explained_by(target)

        tried: dict[str, tuple[list[_Case], list[str]]] = {}
        for words, holds in _CALLS:
            places = [i for i, case in enumerate(both) if holds(case)]
            inside = [both[i] for i in places if i < len(wrong)]
            is_enough = len(inside) >= ENOUGH or len(inside) == len(wrong) > 0
            if len(places) == len(both) or not is_enough:
                continue
            found = [name for name in DEVIATIONS if all(explains(name, i) for i in places)]
            found = self._least_against(found)
            if 0 < len(found) <= MANY:
                tried[words] = (inside, found)
        best: list[_Branch] = []
        left = {id(case) for case in wrong}
        for words, (inside, found) in sorted(tried.items(), key=lambda item: -len(item[1][0])):
            if all(id(case) in left for case in inside):
                left -= {id(case) for case in inside}
                best += [
                    _Branch(name, words, (function,), len(inside), len(wrong), len(found))
                    for name in found
                ]
        return best

    def _in_places(self, function: str) -> list[_Branch]:
        """Explain the wrong elements of arrays, where log_alpha is negative for instance."""
        wrong, right = self.cases.failing.get(function, []), self.cases.passing.get(function, [])
        if function not in (*AREAS["law"], *AREAS["gate"]) or not wrong:
            return []
        for words, holds in _PLACES:
            found = []
            for name in DEVIATIONS:
                target = _instance((name,))
                assert target is not None
                if all(case.explained_where(target, holds) for case in (*wrong, *right)):
                    found.append(name)
            found = self._least_against(found)
            if 0 < len(found) <= MANY:
                n = len(wrong)
                return [_Branch(name, words, (function,), n, n, len(found)) for name in found]
        return []

    def _in_part(self, function: str) -> list[_Named]:
        names = sorted(self.partly.get(function, ()), key=self._against)
        return [_Named(name, (function,), False, len(names)) for name in names[:2]]


class _Named(NamedTuple):
    """A known mistake that explains some functions."""

    name: str
    functions: tuple[str, ...]
    certain: bool
    n_rivals: int

    def and_in(self, function: str) -> _Named:
        functions = {*self.functions, function}
        return self._replace(functions=tuple(name for name in FUNCTIONS if name in functions))

    def diagnosis(self, right_home: str | None) -> Diagnosis:
        """Say it; `right_home` is the function that the mistake ought to be in, if it is right."""
        certain = self.certain and right_home is None
        sentence = f"{DEVIATIONS[self.name].sentence} ({cost(self.name).text})"
        if not certain:
            one = f"one of {self.n_rivals}, " if self.n_rivals > 1 else ""
            within = ""
            if right_home is not None:
                functions = ", ".join(f"`{name}`" for name in self.functions)
                within = f", but only within {functions}, for `{right_home}` by itself is right"
            sentence = f"{one}perhaps{within}: {sentence}"
        return Diagnosis(self.name, self.functions, certain, sentence)


class _Branch(NamedTuple):
    """A known mistake that is made in some calls, or in some elements, alone."""

    name: str
    words: str
    functions: tuple[str, ...]
    n_explained: int
    n_failing: int
    n_rivals: int

    def diagnosis(self) -> Diagnosis:
        count = f"explains {self.n_explained} of {self.n_failing} failing calls tried"
        one = f"one of {self.n_rivals}, " if self.n_rivals > 1 else ""
        return Diagnosis(
            self.name,
            self.functions,
            False,
            f"{one}perhaps, but only {self.words} ({count}): "
            f"{DEVIATIONS[self.name].sentence} ({cost(self.name).text})",
        )


def _merged(branches: Iterable[_Branch]) -> list[_Branch]:
    """Put together what was found in several functions."""
    found: dict[tuple[str, str], _Branch] = {}
    for one in branches:
        key = (one.name, one.words)
        other = found.setdefault(key, one)
        if other is not one:
            found[key] = one._replace(
                functions=(*other.functions, *one.functions),
                n_explained=other.n_explained + one.n_explained,
                n_failing=other.n_failing + one.n_failing,
                n_rivals=min(other.n_rivals, one.n_rivals),
            )
    return list(found.values())


def _argument(name: str, value: bool | str) -> Callable[[_Case], bool]:
    # a bias is an array for some functions, and for others whether there is one
    return lambda case: np.ndim(case.args.get(name, 0)) == 0 and case.args.get(name) == value


def _draws_each(case: _Case) -> bool:
    """Whether a layer's call has gates of its own for each example."""
    z, on = case.args.get("z"), case.args.get("on")
    return z is not None and z.ndim > (np.ndim(case.args["weight"]) if on == "weights" else 1)


_CALLS: tuple[tuple[str, Callable[[_Case], bool]], ...] = (
    ("in float32", lambda case: case.eps >= _EPS_SINGLE),
    ("with gates on the inputs", _argument("on", "inputs")),
    ("with gates on the outputs", _argument("on", "outputs")),
    ("with gates on single weights", _argument("on", "weights")),
    ("where gates_bias is true", _argument("gates_bias", True)),
    ("where gates_bias is false", _argument("gates_bias", False)),
    ("with a bias", _argument("bias", True)),
    ("without a bias", _argument("bias", False)),
    ("with gates for each example", _draws_each),
    ("with gates for all examples", lambda case: "z" in case.args and not _draws_each(case)),
    ("in convolutions", lambda case: len(_weight_shape(case)) == 4),
    ("in dense layers", lambda case: len(_weight_shape(case)) == 2),
    ("with several groups", lambda case: case.args.get("groups", 1) > 1),
    ("in networks with a convolution", lambda case: "conv2d" in _kinds(case)),
    (
        "in networks of dense layers",
        lambda case: "dense" in _kinds(case) and "conv2d" not in _kinds(case),
    ),
)
"""Kinds of calls that a branch of the code may be for."""


def _kinds(case: _Case) -> set[str]:
    return {layer["kind"] for layer in case.args.get("network", {}).get("layers", ())}


def _weight_shape(case: _Case) -> Any:
    weight = case.args.get("weight", case.args.get("normal"))
    return case.args.get("weight_shape", np.shape(weight) if weight is not None else ())


_PLACES: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("where log_alpha < 0", lambda args: args["log_alpha"] < 0),
    ("where log_alpha <= 0", lambda args: args["log_alpha"] <= 0),
    ("where log_alpha > 0", lambda args: args["log_alpha"] > 0),
    ("where log_alpha >= 0", lambda args: args["log_alpha"] >= 0),
    ("where u < 1/2", lambda args: args.get("u", args.get("q", 1.0)) < 0.5),
    ("where u <= 1/2", lambda args: args.get("u", args.get("q", 1.0)) <= 0.5),
    ("where u > 1/2", lambda args: args.get("u", args.get("q", 0.0)) > 0.5),
    ("where u >= 1/2", lambda args: args.get("u", args.get("q", 0.0)) >= 0.5),
)
"""Elements of arrays that a branch of the code may be for."""


def _changes(name: str, function: str, case: _Case, right: list[Any] | None) -> bool:
    target = _instance((name,))
    try:
        values = _leaves(function, getattr(target, function)(**case.args), case.args)
    except ERRORS:
        return False
    if values is None or right is None or not _same_shapes(values, right):
        return values is not None
    return any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(values, right, strict=True))


# --- draws ---

LEVEL = 1e-3
"""Of the test whether a law fits the draws."""
GRIDS = (2**8, 2**14)
"""Noise for the law of one gate: at first few, for most laws do not fit."""
FINE = 2**16
"""And for those that do, at last."""
WAVES = (1, 2, 3, 4)
"""Half periods of cosines over the noise: the first shows a location, the second a scale."""
ENOUGH_DRAWS = 2**14
"""Of fewer, nothing is certain."""
N_DEPENDENCE = 4000
MIN_DRAWS = 1000
N_GATES = 12
"""About so many of the gates are looked at; 6 and fewer are all looked at."""
FAR = 30.0
"""A logit of noise that closes any gate, or opens it; 1 - u is a number beside 0 there."""


class _Laws(NamedTuple):
    """The deviations whose law some draws have."""

    fit: frozenset[str]
    close: frozenset[str]
    """Those that fit as closely as enough draws can tell."""


def _laws(observations: Sequence[Observation]) -> _Laws:
    """Return the deviations whose law fits all the draws; none if the right one does."""
    none = _Laws(frozenset(), frozenset())
    seen = [_drawn(one) for one in observations]
    drawn = [one for one in seen if one is not None]
    if not drawn or len(drawn) < len(seen):
        return none
    level = LEVEL / len(drawn)

    def is_close(name: str) -> bool:
        target = _instance((name,))
        assert target is not None
        return all(one.fits_closely(target, level) for one in drawn)

    found = [name for name in DEVIATIONS if _draws_otherwise(name)]
    for one in drawn:
        found = [name for name in found if one.fits(_instance((name,)))]
    close = frozenset(filter(is_close, found))
    if all(one.fits(Plain()) for one in drawn):
        if all(one.fits_closely(Plain(), level) for one in drawn):
            return none
        # the right law is nearly that of the draws, and so are those of many: what is no closer to
        # them than it is explains nothing
        found = list(close)
    is_enough = max(len(one.z) for one in drawn) >= ENOUGH_DRAWS
    return _Laws(frozenset(found), close if is_enough else frozenset())


def _drawn(seen: Observation) -> _Drawn | None:
    """Return the draws of some of the gates, or all; None if they are too few."""
    z = np.asarray(seen.got)
    log_alpha = np.asarray(seen.args["log_alpha"], np.float64)
    if z.shape[1:] != log_alpha.shape or len(z) < MIN_DRAWS:
        return None
    some = np.arange(0, max(1, log_alpha.size), 1 + log_alpha.size // N_GATES)
    z = z.reshape(len(z), -1)[:, some].astype(np.float64)
    law = {name: float(seen.args[name]) for name in ("beta", "gamma", "zeta")}
    flat = log_alpha.reshape(-1)[some]
    return _Drawn(np.sort(z, axis=0), z, _dependence(z), flat, law)


@cache
def _draws_otherwise(name: str) -> bool:
    """Whether a deviation changes what `Plain` draws, be it far out."""
    log_alpha, law = np.array([-30.0, -6.0, -1.0, 0.5, 2.0, 6.0, 30.0]), (0.7, -0.3, 1.2)
    target, plain = _instance((name,)), Plain()
    assert target is not None
    u = np.concatenate([[1e-13, 1e-9, 1e-7], np.arange(1, 64) / 64, [1 - 1e-7, 1 - 1e-9]])[:, None]
    more = dict(zip(("beta", "gamma", "zeta"), law, strict=True))
    return not np.array_equal(
        target._draw(log_alpha, u, *law).z, plain._draw(log_alpha, u, *law).z
    ) or not np.array_equal(
        target.draw(log_alpha, 64, 1, **more), plain.draw(log_alpha, 64, 1, **more)
    )


class _Drawn(NamedTuple):
    """The draws of some gates, each sorted, and how they went together."""

    z: Any
    rows: Any
    """The same as they came."""
    dependence: Any
    log_alpha: Any
    law: dict[str, float]

    def fits(self, target: Plain | None) -> bool:
        """Whether a deviation draws from this law."""
        assert target is not None
        n, n_gates = self.z.shape
        noise = np.sqrt(np.log(2 * n_gates / LEVEL) / (2 * n))
        if not np.ptp(self.z, axis=0).any():
            # one draw, again and again: of its law nothing can be said
            own = target.draw(self.log_alpha, N_DEPENDENCE, 0, **self.law)
            return not np.ptp(own, axis=0).any()
        try:
            for grid in GRIDS:
                u = ((np.arange(grid) + 0.5) / grid)[:, None]
                for gate in range(n_gates):
                    # a grid of u has the law of any single gate
                    one = self.log_alpha[gate : gate + 1]
                    values = np.sort(target._draw(one, u, *self.law.values()).z[:, 0])
                    if not _distance_of_laws(self.z[:, gate], values) <= noise + 1 / grid:
                        return False
            own = _dependence(target.draw(self.log_alpha, N_DEPENDENCE, 0, **self.law))
        except ERRORS:
            return False
        # where gates are nearly always closed, or open, only the other draws tell how they go
        atoms = np.maximum((self.z == 0).mean(axis=0), (self.z == 1).mean(axis=0))
        tell = np.minimum(1, 2 * (1 - atoms)) + 1 / n
        tell = np.concatenate([np.minimum.outer(tell, tell).ravel(), tell])
        near = 6 / np.sqrt(min(n, N_DEPENDENCE) * tell)
        return bool(np.all(np.abs(self.dependence - own) < near))

    def fits_closely(self, target: Plain, level: float) -> bool:
        """Whether the gates together have this law, in all that is smooth in the noise.

        A temperature or a location that is off by little moves all gates alike, or as their
        log_alpha is: the means of cosines of the noise, summed over gates, show it at once. Sums of
        a row vary as they do, so that gates that share their noise are no exception.
        """
        if not np.ptp(self.z, axis=0).any():
            return True  # one draw, again and again
        u = ((np.arange(FINE) + 0.5) / FINE)[:, None]
        weights = np.stack([np.ones_like(self.log_alpha), self.log_alpha])
        sums = np.zeros((len(WAVES), len(weights), len(self.rows)))
        try:
            for gate in range(self.rows.shape[1]):
                one = self.log_alpha[gate : gate + 1]
                values = np.sort(target._draw(one, u, *self.law.values()).z[:, 0])
                own, seen = _middles(values, values), _middles(values, self.rows[:, gate])
                for i, wave in enumerate(WAVES):
                    off = np.cos(np.pi * wave * seen) - np.mean(np.cos(np.pi * wave * own))
                    sums[i] += weights[:, gate, None] * off
        except ERRORS:
            return False
        size = sums.std(axis=-1) / np.sqrt(sums.shape[-1])
        allowed = float(stats.norm.isf(level / 2 / size.size))
        # of gates that are 0 or 1 alone, some waves are constant: only rounding is left there
        return bool(np.all(np.abs(sums.mean(axis=-1)) <= allowed * size + 1e-9))


def _middles(values: Any, z: Any) -> Any:
    """Return where each z lies among sorted values, from 0 to 1; an atom in its middle."""
    # a draw in float32 may lie a little beside where it was
    below, above = np.searchsorted(values, z - 2e-7), np.searchsorted(values, z + 2e-7, "right")
    return (below + above) / (2 * len(values))


def _distance_of_laws(a: Any, b: Any) -> float:
    """Return the largest distance of two distribution functions, of two sorted samples."""
    if np.isnan(a).any() or np.isnan(b).any():
        return np.inf
    # a draw in float32 may lie a little beside where it was
    places = b + 2e-7
    rank_a = np.searchsorted(a, places, side="right") / len(a)
    rank_b = np.searchsorted(b, places, side="right") / len(b)
    return float(np.max(np.abs(rank_a - rank_b)))


def _dependence(z: Any) -> Any:
    """Return how gates go together, and each with its next draw: rank correlations."""
    ranks = stats.rankdata(z[:N_DEPENDENCE], axis=0)  # ties, at the atoms, share theirs
    centred = ranks - ranks.mean(0)
    size = np.sqrt((centred**2).mean(0))
    unit = centred / np.where(size > 0, size, 1)
    between = unit.T @ unit / len(unit)
    after = (unit[1:] * unit[:-1]).mean(0)
    return np.concatenate([between.ravel(), after])


def _slopes(observations: Sequence[Observation], names: Iterable[str]) -> set[str]:
    """Return the deviations, of some, that explain gradients through draws.

    With the draws themselves in ``args["draws"]``, each deviation is asked which noise gave them,
    and for the gradient at it. Without them, only factors are recognised.
    """
    found = set(names)
    for seen in observations:
        if seen.expected is None:
            return set()
        found = {name for name in found if _pulls(name, seen)}
    return found


def _pulls(name: str, seen: Observation) -> bool:
    target = _instance((name,))
    assert target is not None
    assert seen.tolerance is not None
    law = [float(seen.args[key]) for key in ("beta", "gamma", "zeta")]
    log_alpha = np.asarray(seen.args["log_alpha"], np.float64)
    got, right = np.asarray(seen.got, np.float64), np.asarray(seen.expected, np.float64)
    try:
        if seen.args.get("draws") is not None:
            z = np.asarray(seen.args["draws"], np.float64)
            u = _noise_of(target, log_alpha, z, law)
            dz = np.asarray(seen.args["dz"], np.float64)
            value = target._pull(target._draw(log_alpha, u, *law), dz).sum(0)
        else:
            some = np.linspace(0.3, 0.7, 5)[:, None] * np.ones(log_alpha.size)
            one = np.zeros(log_alpha.size)
            wrong, plain = target._draw(one, some, *law), Plain()._draw(one, some, *law)
            factors = wrong.d_log_alpha / plain.d_log_alpha
            if not np.array_equal(wrong.z, plain.z) or np.ptp(factors) > 1e-9:
                return False
            if abs(factors.flat[0] - 1) < 1e-9:
                return False
            value = right * factors.flat[0]
    except ERRORS:
        return False
    room = SLACK * np.asarray(seen.tolerance.abs) + DIGITS * 2.0**-52 * np.abs(value)
    off, wrong_by = np.abs(value - got), np.abs(right - got)
    return bool(np.all(off <= room) and off.max() < BETTER * wrong_by.max())


def _noise_of(target: Plain, log_alpha: Any, z: Any, law: Sequence[float]) -> Any:
    """Return the noise that a deviation draws these gates from, by bisection of its logit.

    An atom is drawn from much noise. The far end of it is taken, for bisection finds the kink,
    where rounding decides whether a gate has a slope.
    """
    ends = [sigmoid(np.full(z.shape, end)) for end in (-FAR, FAR)]
    at_atom = [((z == 0) | (z == 1)) & (target._draw(log_alpha, end, *law).z == z) for end in ends]
    low, high = np.full(z.shape, -60.0), np.full(z.shape, 60.0)
    rises = np.all(
        target._draw(log_alpha, np.full(z.shape, 0.6), *law).z
        >= target._draw(log_alpha, np.full(z.shape, 0.4), *law).z
    )
    for _ in range(80):
        middle = (low + high) / 2
        above = target._draw(log_alpha, sigmoid(middle), *law).z >= z
        above = above if rises else ~above
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.select(at_atom, ends, sigmoid((low + high) / 2))
