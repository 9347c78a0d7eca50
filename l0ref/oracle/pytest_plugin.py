"""The checks as pytest items: ``pytest --l0ref-target=package.module``.

Every vector is an item, and every other phase of a function is one, so that ``-k`` chooses among
them: ``-k prob_active``, ``-k random``, ``-k "l0ref and not draws"``. What the target does not have
is skipped, what is on the list of expected failures is a strict xfail. Of the vectors that a line
``vectors:function`` of that list covers some may pass by themselves: one more item, a strict xfail
of that name, runs them all, and fails if none of them does.

This module is loaded whenever pytest runs where l0ref is installed. It imports nothing but pytest
and the standard library until a target is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .check import Checker
    from .report import Outcome
    from .vectors import VectorTest

DTYPES = ("float64", "float32")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("l0ref", "checks of an implementation of L0 regularisation (l0ref)")
    group.addoption(
        "--l0ref-target",
        metavar="TARGET",
        help='what to check: package.module, file.py:attribute, or "command: node target.js"',
    )
    group.addoption(
        "--l0ref-dtype",
        choices=(*DTYPES, "both"),
        default="both",
        help="precision to check in (both)",
    )
    group.addoption(
        "--l0ref-quick", action="store_true", help="fewer random inputs and fewer draws"
    )
    group.addoption(
        "--l0ref-expect-fail",
        metavar="FILE",
        help="file of expected failures: phase:function or the id of a vector, one a line",
    )
    group.addoption(
        "--l0ref-seed", type=int, default=0, metavar="N", help="of random inputs and draws (0)"
    )
    group.addoption(
        "--l0ref-timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long a call may take (10)",
    )


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Let it be named with ``-p`` where it is installed, too: once it is there it is not loaded."""
    if getattr(plugin, "__name__", "") == __name__:
        other = {"l0ref": __name__, __name__: "l0ref"}.get(str(manager.get_name(plugin)))
        if other is not None:
            manager.set_blocked(other)


def pytest_configure(config: pytest.Config) -> None:
    """Open the target, if one is named."""
    target = config.getoption("l0ref_target")
    if target is None or config.getoption("help", False):
        return
    from .check import Checker, read_expected_failures
    from .targets import TargetError

    dtype, listed = config.getoption("l0ref_dtype"), config.getoption("l0ref_expect_fail")
    try:
        checker = Checker(
            target,
            dtypes=DTYPES if dtype == "both" else (dtype,),
            seed=config.getoption("l0ref_seed"),
            quick=config.getoption("l0ref_quick"),
            timeout=config.getoption("l0ref_timeout"),
            expected_failures=read_expected_failures(listed) if listed else (),
        )
    except (TargetError, ValueError, OSError) as error:
        raise pytest.UsageError(f"--l0ref-target: {error}") from None
    config.pluginmanager.register(_Checks(checker), "l0ref-checks")


class _Checks:
    """Adds the items, and says at the end what the failures look like."""

    def __init__(self, checker: Checker) -> None:
        self.checker = checker
        self.outcomes: list[Outcome] = []

    @pytest.hookimpl(tryfirst=True)  # before -k and -m choose
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        """Put the checks behind what was collected."""
        root = _Root.from_parent(session, name="l0ref", nodeid="l0ref", checks=self)
        own = list(root.collect())
        # without a report "collected" would not count them
        report = pytest.CollectReport(root.nodeid, "passed", None, [*own])
        root.ihook.pytest_collectreport(report=report)
        items.extend(own)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Name the mistakes that explain the failures."""
        from .check import no_diagnosis

        remarks = self.checker.remarks()
        try:
            diagnoses = self.checker.diagnose(self.outcomes)
        except Exception as error:  # what was found is worth more than what explains it
            diagnoses = []
            remarks.append(no_diagnosis(error))
        if remarks:
            terminalreporter.section("l0ref's checks")
        for remark in remarks:
            terminalreporter.line(remark)
        if diagnoses:
            terminalreporter.section("what the failures of l0ref's checks look like")
        for diagnosis in diagnoses:
            terminalreporter.line(f"{diagnosis.sentence} ({diagnosis.deviation})")

    def pytest_unconfigure(self) -> None:
        """End the target."""
        self.checker.close()


class _Root(pytest.Collector):
    """Holds all items of a target."""

    def __init__(self, *, checks: _Checks, **rest: Any) -> None:
        super().__init__(**rest)
        self.checks = checks

    def collect(self) -> Iterator[pytest.Item]:
        """Make an item of each vector and of each other phase of each function."""
        checker = self.checks.checker
        for phase, function in checker.parts():
            name = f"{phase}:{function}"
            if phase != "vectors" or name in checker.expected_failures:
                yield self._item(name, function, _phase(checker, phase, function))
            if phase != "vectors":
                continue
            for test in checker.tests[function]:
                name = f"vectors:{function}:{test.id}"
                yield self._item(name, function, _vector(checker, test), test.id)

    def _item(
        self, name: str, function: str, run: Callable[[], Outcome], vector: str = ""
    ) -> pytest.Item:
        item: pytest.Item = _Item.from_parent(self, name=name, run=run, checks=self.checks)
        expected = self.checks.checker.expected_failures
        phase = name.partition(":")[0]
        if {vector, f"{phase}:{function}"} & expected:
            # Of all vectors of a function some are right by any formula.
            strict = not vector or vector in expected
            item.add_marker(pytest.mark.xfail(strict=strict, reason="an expected failure"))
        return item


def _phase(checker: Checker, phase: str, function: str) -> Callable[[], Outcome]:
    return lambda: checker.run(phase, function)


def _vector(checker: Checker, test: VectorTest) -> Callable[[], Outcome]:
    return lambda: checker.run("vectors", test.function, [test])


class _Failed(Exception):  # noqa: N818  # carries what is to be shown
    """A check failed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class _Item(pytest.Item):
    """A vector, or another phase of a function."""

    def __init__(self, *, run: Callable[[], Outcome], checks: _Checks, **rest: Any) -> None:
        super().__init__(**rest)
        self._run, self._checks = run, checks

    def runtest(self) -> None:
        """Run it."""
        from .report import Status

        outcome = self._run()
        self._checks.outcomes.append(outcome)
        if outcome.status is Status.NOT_IMPLEMENTED:
            pytest.skip(f"not implemented: {outcome.message or outcome.function}")
        if outcome.status is Status.ACCEPTABLE:
            self.add_report_section("call", "l0ref", f"accepted: {outcome.message}")
        # What was expected to fail has a mark, and pytest itself judges it by that.
        if outcome.n_failed:
            raise _Failed(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what was found, not where in l0ref it was raised."""
        if not isinstance(excinfo.value, _Failed):
            return super().repr_failure(excinfo, style)
        from .report import lines_of

        outcome = excinfo.value.outcome
        lines = [outcome.message]
        args = outcome.evidence.get("args")
        if isinstance(args, dict):
            lines += ["with", *(f"    {line}" for line in lines_of(args))]
        return "\n".join(lines)

    def reportinfo(self) -> tuple[str, None, str]:
        """Name it as it is named elsewhere."""
        return "l0ref", None, self.name
