"""Check an implementation against the method: every phase on every function that it has."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .compare import Mismatch, Tolerance, compare
from .interface import FUNCTIONS
from .report import PHASES, Observation, Outcome, Report, Status, plain
from .watch import Raised, readable

if TYPE_CHECKING:
    from .calls import Calls, Verdict
    from .diagnosis import Diagnosis
    from .vectors import VectorTest

__all__ = [
    "Checker",
    "Observation",
    "Outcome",
    "Report",
    "Status",
    "check",
    "read_expected_failures",
]

DTYPES = ("float64", "float32")
EXAMPLES = 50
QUICK_EXAMPLES = 4
SLOW = {"train": 4, "loss_and_grads": 2, "predict": 2, "compact": 2, "expected_cost": 2, "var": 2}
"""Fewer random inputs by this, where the reference itself takes long."""
DRAWN = ("draw", "draw_vjp")
WITH_NOISE = tuple(name for name, function in FUNCTIONS.items() if "u" in function.parameters)


def check(
    target: Any,
    *,
    functions: Iterable[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    seed: int = 0,
    quick: bool = False,
    timeout: float = 10.0,
    expected_failures: Iterable[str] = (),
    name: str | None = None,
    startup_timeout: float = 120.0,
    tell: Callable[[str, str], None] | None = None,
) -> Report:
    """Check an implementation: vectors, random inputs, draws, manners, and a diagnosis.

    Parameters
    ----------
    target : str or object
        A module's name, a file, a command, or a Python object; see `targets.open_target`.
    functions : iterable of str, optional
        The only ones to check.
    dtypes : sequence of str, optional
        "float64", "float32", or both.
    seed : int, optional
        Of random inputs and draws, below 2^30.
    quick : bool, optional
        Fewer random inputs, and draws that show errors of 8 % rather than of 2 %.
    timeout : float, optional
        Seconds a call may take.
    expected_failures : iterable of str, optional
        ``phase:function``, or ids of vectors. What is listed and passes counts as a failure; what
        is listed and not implemented is remarked upon.
    name : str, optional
        What the report calls the target.
    startup_timeout : float, optional
        Seconds that a named target may take until it can be called, with all that it imports.
    tell : callable, optional
        Called with a phase and a function before they are checked.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a function, a dtype or an expected failure is unknown.
    TargetImportError
        If the target cannot be imported or started.

    Examples
    --------
    >>> report = check({"dense_params": lambda n_in, n_out, bias: n_in * n_out}, quick=True)
    >>> report.ok, [o.phase for o in report.outcomes if o.status is Status.FAILED]
    (False, ['vectors', 'random'])
    """
    start = time.monotonic()
    with Checker(
        target,
        functions=functions,
        dtypes=dtypes,
        seed=seed,
        quick=quick,
        timeout=timeout,
        expected_failures=expected_failures,
        name=name,
        startup_timeout=startup_timeout,
    ) as checker:
        outcomes = []
        for phase, function in checker.parts():
            if tell is not None:
                tell(phase, function)
            outcomes.append(checker.run(phase, function))
        remarks = checker.remarks()
        try:
            diagnoses = checker.diagnose(outcomes)
        except Exception as error:  # what was found is worth more than what explains it
            diagnoses = []
            remarks.append(no_diagnosis(error))
        seconds = time.monotonic() - start
        return Report(
            checker.name, checker.dtypes, outcomes, diagnoses, seconds, seed, tuple(remarks)
        )


def no_diagnosis(error: Exception) -> str:
    """Say that the failures cannot be diagnosed, and why."""
    raised = Raised.of(error)
    return f"The failures could not be diagnosed ({raised.type}: {raised.message})."


def read_expected_failures(path: str | Path) -> tuple[str, ...]:
    """Read a list of expected failures: one a line, ``#`` begins a comment.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"expected failures cannot be read from {path}: {error}") from None
    return tuple(filter(None, (line.partition("#")[0].strip() for line in lines)))


class Checker:
    """An open target and how it is to be checked; its parts are run one by one.

    Parameters are those of `check`. It is a context manager: the target is closed at its end.
    """

    def __init__(
        self,
        target: Any,
        *,
        functions: Iterable[str] | None = None,
        dtypes: Sequence[str] = DTYPES,
        seed: int = 0,
        quick: bool = False,
        timeout: float = 10.0,
        expected_failures: Iterable[str] = (),
        name: str | None = None,
        startup_timeout: float = 120.0,
    ) -> None:
        from .calls import Calls
        from .targets import open_target

        self.functions = tuple(FUNCTIONS) if functions is None else _known(functions)
        for dtype in dtypes:
            if dtype not in DTYPES:
                raise ValueError(f"dtypes must be among {', '.join(DTYPES)}, got {dtype!r}")
        if not dtypes:
            raise ValueError("dtypes must name one at least, got none")
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, got {timeout}")
        if not startup_timeout > 0:
            raise ValueError(f"startup_timeout must be positive, got {startup_timeout}")
        if not 0 <= seed < 2**30:  # its draws take seeds behind it, too, below 2**31
            raise ValueError(f"seed must be in [0, 2**30), got {seed}")
        self.dtypes, self.seed, self.quick = tuple(dtypes), seed, quick
        self.tests = _tests()
        self.expected_failures = frozenset(expected_failures)
        self._check_expected_failures()
        self._listed: set[str] = set()
        self._checked: set[str] = set()
        self._not_drawn: list[str] = []
        # By function that takes u: the signs of the noise by which alone its results were right.
        self._signs: dict[str, set[str]] = {}
        opened = open_target(target, startup_timeout=startup_timeout)
        self.name = name or opened.name
        self.calls: Calls = Calls(opened, timeout)

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the target."""
        self.calls.target.close()

    def _check_expected_failures(self) -> None:
        ids = {test.id for tests in self.tests.values() for test in tests}
        for entry in sorted(self.expected_failures - ids):
            phase, colon, function = entry.partition(":")
            if not colon or phase not in PHASES or function not in FUNCTIONS:
                raise ValueError(
                    "an expected failure must be the id of a vector or phase:function, with a "
                    f"phase of {', '.join(PHASES)}, got {entry!r}"
                )
            if not self.applies(phase, function):
                raise ValueError(
                    f"an expected failure must be of a phase that checks the function, "
                    f"got {entry!r}"
                )

    def parts(self) -> list[tuple[str, str]]:
        """All phases of all chosen functions, in the order in which they are run."""
        return [
            (phase, function)
            for phase in PHASES
            for function in self.functions
            if self.applies(phase, function)
        ]

    def applies(self, phase: str, function: str) -> bool:
        """Whether there is anything to check a function for in a phase."""
        if phase == "vectors":
            return function in self.tests
        if phase == "random":
            return function not in DRAWN
        return phase == "manners" or function in DRAWN

    def run(self, phase: str, function: str, tests: Sequence[VectorTest] | None = None) -> Outcome:
        """Run a phase on a function; of vectors, only some if they are given."""
        from .calls import GivenUp, NotImplementedByTarget

        run = {"random": self._random, "draws": self._draws, "manners": self._manners}
        chosen = tests or self.tests.get(function, [])
        listed = {f"{phase}:{function}"}
        if phase == "vectors":
            listed |= {test.id for test in chosen}
        self._listed |= listed & self.expected_failures
        missing = Outcome(phase, function, Status.NOT_IMPLEMENTED, 0, 0)
        try:
            if not self.calls.has(function):
                return missing
            if phase == "vectors":
                outcome = self._vectors(function, chosen)
            else:
                outcome = run[phase](function)
        except NotImplementedByTarget as reason:
            return missing._replace(message=str(reason))
        except GivenUp as reason:
            self._checked |= listed
            evidence = {"args": dict(reason.given)} if reason.given else {}
            outcome = Outcome(phase, function, Status.FAILED, 1, 1, str(reason), evidence)
        except Exception as error:  # a result can raise wherever it is read
            self._checked |= listed
            raised = Raised.of(error)
            message = f"what it returned cannot be checked: {raised.type}: {raised.message}"
            outcome = Outcome(phase, function, Status.FAILED, 1, 1, message)
        return self._against_expectation(_writable(outcome))

    def _against_expectation(self, outcome: Outcome) -> Outcome:
        entry = f"{outcome.phase}:{outcome.function}"
        if outcome.status is not Status.NOT_IMPLEMENTED:
            self._checked.add(entry)
        if entry not in self.expected_failures:
            return outcome
        if outcome.status is Status.FAILED:
            return outcome._replace(status=Status.EXPECTED_FAILURE)
        # Vectors that are listed one by one have been judged already.
        if outcome.status not in (Status.PASSED, Status.ACCEPTABLE):
            return outcome
        return outcome._replace(
            status=Status.UNEXPECTED_PASS,
            message="it is among the expected failures and passes; take it off the list",
        )

    def remarks(self) -> list[str]:
        """Say what else there is to say of the check so far.

        Why the target was given up, names that may be misspelt, draws that were not made, and
        expected failures that were not checked.
        """
        given_up = self.calls.target.given_up
        remarks = [f"{given_up[0].upper()}{given_up[1:]}"] if given_up else []
        remarks += [
            f"It has {wrong}, which is not checked: {right} is the name of the function."
            if wrong != right
            else f"Its {wrong} is not checked: it has none of the arguments of the function, or it "
            "is of another package and only imported there."
            for wrong, right in self.calls.target.misspelt.items()
            if right in self.functions
        ]
        remarks += self._not_drawn
        unchecked = sorted(self._listed - self._checked)
        if unchecked:
            remarks.append(
                "Among the expected failures, and not implemented, so that nothing was checked: "
                f"{', '.join(unchecked)}. Take it off the list."
            )
        return [readable(remark) for remark in remarks]

    # --- vectors ---

    def _vectors(self, function: str, tests: Sequence[VectorTest]) -> Outcome:
        n_checks = n_failed = n_missing = 0
        failed, passed, conventions = [], [], set()
        first: Outcome | None = None
        all_expected = f"vectors:{function}" in self.expected_failures
        for test in tests:
            verdicts = [self._vector(test, dtype) for dtype in self.dtypes if dtype in test.dtypes]
            wrong = [one for one in verdicts if one.status is Status.FAILED]
            missing = [one for one in verdicts if one.status is Status.NOT_IMPLEMENTED]
            n_checks += len(verdicts) - len(missing)
            n_failed += len(wrong)
            n_missing += len(missing)
            if len(missing) < len(verdicts) or not verdicts:
                self._checked.add(test.id)
            conventions |= {one.message for one in verdicts if one.status is Status.ACCEPTABLE}
            if wrong:
                failed.append(test.id)
                if first is None and test.id not in self.expected_failures:
                    first = wrong[0]
            elif len(missing) < len(verdicts):
                passed.append(test.id)
        unexpected = [one for one in passed if one in self.expected_failures]
        outcome = Outcome("vectors", function, Status.PASSED, n_checks, n_failed)
        passes = f"passes against expectation: {', '.join(unexpected)}"
        if unexpected and all_expected:
            return outcome._replace(status=Status.UNEXPECTED_PASS, message=passes)
        if first is not None:
            return outcome._replace(
                status=Status.FAILED, message=first.message, evidence=first.evidence
            )
        if unexpected:
            return outcome._replace(status=Status.UNEXPECTED_PASS, message=passes)
        if failed:
            return outcome._replace(
                status=Status.EXPECTED_FAILURE, message=f"fails, as expected: {', '.join(failed)}"
            )
        if n_checks == 0:
            return outcome._replace(status=Status.NOT_IMPLEMENTED)
        remark = f"{n_missing} cases are not implemented" if n_missing else ""
        if conventions:
            return outcome._replace(
                status=Status.ACCEPTABLE,
                message="; ".join(filter(None, [*sorted(conventions), remark])),
            )
        return outcome._replace(message=remark)

    def _vector(self, test: VectorTest, dtype: str) -> Outcome:
        """Run one vector in one dtype."""
        from .allowed import sign_of
        from .calls import NotImplementedByTarget

        outcome = Outcome("vectors", test.function, Status.PASSED, 1, 0)
        args = test.args(dtype)
        tolerance = test.tolerance(dtype) or Tolerance(0.0, 0.0, "")
        convention = ""

        def comparison(got: Any) -> Mismatch | None:
            nonlocal convention
            wrong = _compare_vector(test, got, test.expected, tolerance, dtype)
            by = [""] if wrong is None else []
            if wrong is not None or test.function in WITH_NOISE:
                by += [
                    other.convention
                    for other in test.alternatives
                    if _compare_vector(test, got, other.expected, other.tolerance(dtype), dtype)
                    is None
                ]
            if not by:
                return wrong
            convention = by[0]
            if any(sign_of([other.convention]) == "-" for other in test.alternatives):
                self._note_sign(test.function, sign_of(by))
            return None

        try:
            if test.result == "raise":
                return self._refusal(test, args, dtype)
            verdict = self.calls.judge(
                test.function,
                args,
                test.expected,
                tolerance,
                dtype=dtype,
                where=test.id,
                comparison=comparison,
            )
        except NotImplementedByTarget as reason:
            return outcome._replace(status=Status.NOT_IMPLEMENTED, message=str(reason))
        if verdict.wrong is not None:
            return self._failed_vector(test, args, dtype, verdict, tolerance)
        if verdict.remark:
            return outcome._replace(status=Status.ACCEPTABLE, message=verdict.remark)
        if convention:
            remark = f"another convention: {convention}"
            return outcome._replace(status=Status.ACCEPTABLE, message=remark)
        return outcome

    def _refusal(self, test: VectorTest, args: dict[str, Any], dtype: str) -> Outcome:
        """Run a vector that must be refused."""
        answer = self.calls.call(test.function, args)
        outcome = Outcome("vectors", test.function, Status.PASSED, 1, 0)
        self.calls.remember(
            Observation(test.function, args, answer.result, None, None, answer.refused, test.id)
        )
        if answer.refused:
            return outcome
        message = f"{test.id} ({dtype}): it must raise, for {_lowered(test.comment)}"
        if answer.error is not None:
            message = f"{message.removesuffix('.')}, and did not answer: {answer.error}"
        elif "parameters" in test.flags:
            # Not to check one's arguments makes nothing wrong for whoever gives right ones.
            remark = "it does not refuse parameters out of their range"
            return outcome._replace(status=Status.ACCEPTABLE, message=remark)
        evidence = {"vector": test.id, "dtype": dtype, "args": args, "got": answer.result}
        return outcome._replace(status=Status.FAILED, message=message, evidence=evidence)

    def _failed_vector(
        self,
        test: VectorTest,
        args: dict[str, Any],
        dtype: str,
        verdict: Verdict,
        tolerance: Tolerance,
    ) -> Outcome:
        assert verdict.wrong is not None
        evidence = {
            "vector": test.id,
            "comment": test.comment,
            "source": test.source,
            "flags": list(test.flags),
            "dtype": dtype,
            "args": args,
            "got": verdict.answer.result,
            "expected": test.expected,
            "times_allowed": verdict.wrong.worst,
            "reason": tolerance.reason,
        }
        message = f"{test.id} ({dtype}): {verdict.wrong.message}"
        return Outcome("vectors", test.function, Status.FAILED, 1, 1, message, evidence)

    # --- the other phases ---

    def _random(self, function: str) -> Outcome:
        from .differential import check_function

        n_examples = (QUICK_EXAMPLES if self.quick else EXAMPLES) // SLOW.get(function, 1)
        by_dtype = check_function(
            self.calls,
            function,
            self.dtypes,
            max_examples=max(n_examples, 4),
            seed=_seed(self.seed, function),
        )
        outcome, n_missing = Outcome("random", function, Status.PASSED, 0, 0), 0
        for dtype in self.dtypes:
            found = by_dtype[dtype]
            n_missing += found.n_missing
            outcome = outcome._replace(n_checks=outcome.n_checks + found.n_checks)
            if found.convention and outcome.status is Status.PASSED:
                remark = f"another convention: {found.convention}"
                outcome = outcome._replace(status=Status.ACCEPTABLE, message=remark)
            seen = found.failure
            if seen is None:
                if found.n_checks:
                    self._note_sign(function, found.sign)
                continue
            outcome = outcome._replace(n_failed=outcome.n_failed + 1)
            if outcome.status is not Status.FAILED:
                tolerance = seen.tolerance
                outcome = outcome._replace(
                    status=Status.FAILED,
                    message=f"{dtype}: {found.message}",
                    evidence={
                        "dtype": dtype,
                        "args": seen.args,
                        "got": seen.got,
                        "expected": seen.expected,
                        "allowed": None if tolerance is None else tolerance.abs,
                        "reason": "" if tolerance is None else tolerance.reason,
                    },
                )
        if outcome.n_checks == 0:
            return outcome._replace(status=Status.NOT_IMPLEMENTED)
        if n_missing and outcome.status in (Status.PASSED, Status.ACCEPTABLE):
            remark = f"{n_missing} cases are not implemented"
            message = "; ".join(filter(None, (outcome.message, remark)))
            outcome = outcome._replace(message=message)
        return outcome

    def _draws(self, function: str) -> Outcome:
        from .calls import GivenUp
        from .samplers import check_draw, check_draw_vjp

        test = check_draw if function == "draw" else check_draw_vjp
        outcome = Outcome("draws", function, Status.PASSED, 0, 0)
        for dtype in self.dtypes:
            try:
                drawn = test(self.calls, dtype, seed=self.seed, quick=self.quick)
            except GivenUp:
                if outcome.status is Status.FAILED:  # what was found before says more
                    break
                raise
            if drawn.remark:
                self._not_drawn.append(f"{function} in {dtype}: {drawn.remark}")
            if drawn.failure is not None:
                self.calls.remember(drawn.failure)
            for seen in drawn.more:
                self.calls.remember(seen)
            n_failed = outcome.n_failed + bool(drawn.message)
            outcome = outcome._replace(
                n_checks=outcome.n_checks + drawn.n_checks, n_failed=n_failed
            )
            if drawn.message and outcome.status is Status.PASSED:
                outcome = outcome._replace(
                    status=Status.FAILED,
                    message=f"{dtype}: {drawn.message}",
                    evidence=drawn.evidence,
                )
        return outcome

    def _manners(self, function: str) -> Outcome:
        from .hygiene import check_manners

        seed = _seed(self.seed, function, "manners")
        manners = check_manners(self.calls, function, self.dtypes, seed=seed, quick=self.quick)
        signs = self._signs_differ(function)
        if signs:
            manners = manners._replace(
                n_checks=manners.n_checks + 1, faults=[(signs, {}), *manners.faults]
            )
        if manners.n_checks == 0:
            return Outcome("manners", function, Status.NOT_IMPLEMENTED, 0, 0)
        if not manners.faults:
            status = Status.ACCEPTABLE if manners.remark else Status.PASSED
            return Outcome("manners", function, status, manners.n_checks, 0, manners.remark)
        messages = [message for message, _ in manners.faults]
        rest = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
        return Outcome(
            "manners",
            function,
            Status.FAILED,
            manners.n_checks,
            len(messages),
            "; ".join(messages[:3]) + rest,
            {"faults": messages, **manners.faults[0][1]},
        )

    def _note_sign(self, function: str, sign: str) -> None:
        """Remember with which sign the noise enters a function, if its results tell."""
        if function in WITH_NOISE and sign:
            self._signs.setdefault(function, set()).add(sign)

    def _signs_differ(self, function: str) -> str:
        """Say that functions take the noise with different signs; "" if it is not for this one.

        Either sign is right, but not both in one target: with u for 1 - u, a gradient is not that
        of its own draw. It is the fault of the first function that differs from the first of all,
        so that it is told once.
        """
        used = [(name, self._signs[name]) for name in WITH_NOISE if name in self._signs]
        if not used:
            return ""
        (_, first), *_ = used
        differ = [name for name, signs in used if len(signs) > 1 or signs != first]
        if function not in differ[:1]:
            return ""
        groups = {
            "with +": [name for name, signs in used if signs == {"+"}],
            "with -": [name for name, signs in used if signs == {"-"}],
            "now with the one, now with the other": [n for n, signs in used if len(signs) > 1],
        }
        words = [f"{how} in {', '.join(names)}" for how, names in groups.items() if names]
        return (
            f"the noise log u - log(1-u) enters {'; '.join(words)}: one sign must hold for all, or "
            "a gradient is not that of the draw with the same u"
        )

    def diagnose(self, outcomes: Iterable[Outcome]) -> list[Diagnosis]:
        """Name the mistakes that explain what was seen: what failed, and what did not."""
        failed = {
            o.function for o in outcomes if o.status in (Status.FAILED, Status.EXPECTED_FAILURE)
        }
        observations = self.calls.observations
        if all(one.ok for name in failed for one in observations[name]):
            return []
        # What passes tells two mistakes apart that make the same of what fails.
        seen = [one for name in FUNCTIONS for one in observations[name]]
        from .diagnosis import diagnose

        return diagnose(seen)


def _known(functions: Iterable[str]) -> tuple[str, ...]:
    chosen = set(functions)
    unknown = sorted(chosen - FUNCTIONS.keys())
    if unknown:
        raise ValueError(
            f"functions must be among those that `l0ref check --list` shows, got {unknown[0]!r}"
        )
    return tuple(name for name in FUNCTIONS if name in chosen)


def _tests() -> dict[str, list[VectorTest]]:
    from .vectors import load_all

    tests: dict[str, list[VectorTest]] = {}
    for test in load_all():
        tests.setdefault(test.function, []).append(test)
    return tests


def _seed(seed: int, *names: str) -> int:
    """Make a seed of its own for each function, the same on every machine."""
    return zlib.crc32(":".join((str(seed), *names)).encode())


def _writable(outcome: Outcome) -> Outcome:
    """Leave a result out of the evidence if it raises when it is written; let its text be read."""
    outcome = outcome._replace(message=readable(outcome.message))
    try:
        json.dumps(plain(outcome.evidence))
    except Exception as error:
        got = f"(it cannot be written: {type(error).__name__})"
        return outcome._replace(evidence={**outcome.evidence, "got": got})
    return outcome


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _compare_vector(
    test: VectorTest, got: Any, expected: Any, tolerance: Tolerance, dtype: str
) -> Mismatch | None:
    if test.function != "compact":
        return compare(got, expected, tolerance, dtype=dtype)
    return _compare_compact(test, got, expected, tolerance, dtype)


def _compare_compact(
    test: VectorTest, got: Any, expected: Mapping[str, Any], tolerance: Tolerance, dtype: str
) -> Mismatch | None:
    """Compare the logits of a compact network on the probe, and the shapes of its weights."""
    from .differential import logits_of

    args = test.args("float64")
    logits = logits_of(got, args["network"], test.probe("float64")["x"], dtype)
    if isinstance(logits, Mismatch):
        return logits
    allowed = tolerance.abs["logits"] if isinstance(tolerance.abs, Mapping) else tolerance.abs
    wrong = compare(logits, expected["logits"], tolerance._replace(abs=allowed), dtype=None)
    if wrong is not None:
        return wrong._replace(message=f"the logits on the probe: {wrong.message}")
    shapes = [np.shape(one["weight"]) for one in got["layers"] if "weight" in one]
    if expected["shapes"] is not None and shapes != expected["shapes"]:
        return Mismatch(
            f"weights of shapes {shapes} are left, {expected['shapes']} are enough", float("inf")
        )
    return None
