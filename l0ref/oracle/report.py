"""What a check found: its data, as JSON, and as a table for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .compare import Tolerance

if TYPE_CHECKING:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from .diagnosis import Diagnosis

__all__ = ["PHASES", "Observation", "Outcome", "Report", "Status", "lines_of", "plain", "show"]

PHASES = {
    "vectors": "fixed inputs, with results that are proven",
    "random": "random inputs, against the reference",
    "draws": "the target's own draws, against the law",
    "manners": "what a function should leave alone, and extreme values",
}


class Observation(NamedTuple):
    """One call that was made, whatever came of it: what a diagnosis is read off."""

    function: str
    args: dict[str, Any]
    """By the parameters' names of `Target`; arrays are NumPy's."""
    got: Any
    """What came; None if it raised."""
    expected: Any
    tolerance: Tolerance | None
    ok: bool
    where: str
    """The id of the vector, or the phase."""
    n: int = 0
    """For draws: how many were made."""


class Status(StrEnum):
    """What came of a phase on a function."""

    PASSED = "passed"
    FAILED = "failed"
    ACCEPTABLE = "accepted"
    NOT_IMPLEMENTED = "not implemented"
    EXPECTED_FAILURE = "fails, as expected"
    UNEXPECTED_PASS = "passes, against expectation"

    @property
    def is_bad(self) -> bool:
        """Whether a check that has this among its outcomes has failed."""
        return self in (Status.FAILED, Status.UNEXPECTED_PASS)


class Outcome(NamedTuple):
    """A phase on a function."""

    phase: str
    function: str
    status: Status
    n_checks: int
    n_failed: int
    message: str = ""
    """The first failure, with the smallest failing input, in a paragraph; or a remark."""
    evidence: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    """Inputs, result, expected result, error and what is allowed, of that failure."""


class Report(NamedTuple):
    """Everything that a check found."""

    target: str
    dtypes: tuple[str, ...]
    outcomes: list[Outcome]
    diagnoses: list[Diagnosis]
    seconds: float
    seed: int = 0
    remarks: tuple[str, ...] = ()
    """On the check itself, and on the list of expected failures."""

    @property
    def ok(self) -> bool:
        """True if nothing failed that was not expected to, and something was checked."""
        statuses = {outcome.status for outcome in self.outcomes}
        checked = statuses - {Status.NOT_IMPLEMENTED}
        return bool(checked) and not any(status.is_bad for status in checked)

    def to_json(self) -> dict[str, Any]:
        """Return the report as dicts, lists, strings and numbers; arrays become nested lists."""
        return {
            "format": 1,
            "target": self.target,
            "ok": self.ok,
            "dtypes": list(self.dtypes),
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "outcomes": [
                {**outcome._asdict(), "status": outcome.status.name.lower()}
                | {"evidence": plain(outcome.evidence)}
                for outcome in self.outcomes
            ],
            "diagnoses": [plain(diagnosis._asdict()) for diagnosis in self.diagnoses],
            "remarks": list(self.remarks),
        }


def plain(value: Any) -> Any:
    """Return data as JSON knows it; what is not finite becomes "nan", "inf" or "-inf".

    Examples
    --------
    >>> plain({"z": np.array([0.5, np.inf]), "pair": (1, None)})
    {'z': [0.5, 'inf'], 'pair': [1, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return repr(value)


# --- for people ---

MARKS = {
    Status.PASSED: ("✓", "green"),
    Status.FAILED: ("✗", "bold red"),
    Status.ACCEPTABLE: ("≈", "yellow"),
    Status.NOT_IMPLEMENTED: ("-", "dim"),
    Status.EXPECTED_FAILURE: ("(✗)", "yellow"),
    Status.UNEXPECTED_PASS: ("✓!", "bold red"),
}


def show(report: Report, console: Console, *, verbose: bool = False) -> None:
    """Print a report: a table, each failure with its smallest input, the diagnosis, a summary.

    Parameters
    ----------
    report : Report
    console : rich.console.Console
    verbose : bool, optional
        Show functions that are not implemented in the table too, and arrays in full.
    """
    from rich.text import Text

    from .interface import FUNCTIONS

    by_function: dict[str, dict[str, Outcome]] = {
        name: {o.phase: o for o in report.outcomes if o.function == name} for name in FUNCTIONS
    }
    by_function = {name: row for name, row in by_function.items() if row}
    missing = [name for name, row in by_function.items() if _is_missing(row)]
    shown = [name for name in by_function if verbose or name not in missing]
    if shown:
        console.print(_table(report, by_function, shown))
        used = {outcome.status for name in shown for outcome in by_function[name].values()}
        legend = [f"{MARKS[status][0]} {status}" for status in Status if status in used]
        console.print(Text("  " + "   ".join(legend) + "   (numbers are checks)", "dim"))
    for name in shown:
        bad = [outcome for outcome in by_function[name].values() if outcome.status.is_bad]
        if bad:
            _show_failures(name, bad, console, full=verbose)
    _show_remarks(report, console)
    if report.diagnoses:
        console.print()
        console.print(Text("What it looks like", "bold"))
        for diagnosis in report.diagnoses:
            where = ", ".join(diagnosis.functions)
            console.print(_hanging(diagnosis.sentence, f"({diagnosis.deviation}: {where})"))
    if report.remarks:
        console.print()
        for remark in report.remarks:
            console.print(_hanging(remark))
    console.print()
    console.print(_summary(report, by_function, missing))


def _is_missing(row: Mapping[str, Outcome]) -> bool:
    return all(outcome.status is Status.NOT_IMPLEMENTED for outcome in row.values())


def _table(
    report: Report, by_function: Mapping[str, Mapping[str, Outcome]], shown: Sequence[str]
) -> Table:
    from rich.table import Table
    from rich.text import Text

    from .interface import FUNCTIONS

    table = Table(title=f"{report.target} in {' and '.join(report.dtypes)}", title_justify="left")
    table.add_column("")
    table.add_column("function")
    for phase in PHASES:
        table.add_column(phase, justify="right")
    area = ""
    for name in shown:
        row = by_function[name]
        cells = [_cell(row.get(phase)) for phase in PHASES]
        new = FUNCTIONS[name].area
        if new != area and area:
            table.add_section()
        table.add_row(Text(new if new != area else "", "dim"), name, *cells)
        area = new
    return table


def _cell(outcome: Outcome | None) -> Text:
    from rich.text import Text

    if outcome is None:
        return Text("")
    mark, style = MARKS[outcome.status]
    if outcome.status is Status.NOT_IMPLEMENTED:
        return Text(mark, style)
    failed = f"{outcome.n_failed} of " if outcome.n_failed else ""
    return Text(f"{failed}{outcome.n_checks} {mark}", style)


def _show_failures(name: str, bad: Sequence[Outcome], console: Console, *, full: bool) -> None:
    """Print what each phase found wrong with a function, and the smallest input of them all."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print()
    console.print(Text(f"✗ {name}", "bold red"))
    grid = Table.grid(padding=(0, 2))
    phases: dict[str, list[str]] = {}  # one cause has the same words in all of them
    for outcome in bad:
        phases.setdefault(outcome.message, []).append(outcome.phase)
    for message, where in phases.items():
        cut = len(message) > LETTERS and not full
        text = message[:LETTERS] + " ..." if cut else message
        grid.add_row(Text("\n".join(where), "dim"), Text(text))
    console.print(Padding(grid, (0, 0, 0, 2)))
    with_inputs = [o for o in bad if isinstance(o.evidence.get("args"), Mapping)]
    if not with_inputs:
        return
    smallest = min(with_inputs, key=lambda outcome: size_of(outcome.evidence["args"]))
    console.print(Text(f"  the smallest input that fails ({smallest.phase}):", "dim"))
    for line in lines_of(smallest.evidence["args"], full=full):
        console.print(Text(f"    {line}"), soft_wrap=True)


def size_of(value: Any) -> int:
    """How many numbers, and other things, there are in a structure."""
    if isinstance(value, Mapping):
        return sum(size_of(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(size_of(part) for part in value)
    return int(np.size(value))


def _hanging(text: str, rest: str = "") -> Padding:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text.assemble(text, (f" {rest}" if rest else "", "dim")), (0, 0, 0, 2))


def _show_remarks(report: Report, console: Console) -> None:
    from rich.text import Text

    remarks = [
        outcome
        for outcome in report.outcomes
        if outcome.message and outcome.status in (Status.ACCEPTABLE, Status.NOT_IMPLEMENTED)
    ]
    if remarks:
        console.print()
        console.print(Text("Accepted, or not there", "bold"))
    for outcome in dict.fromkeys((o.function, str(o.status), o.message) for o in remarks):
        function, status, message = outcome
        console.print(_hanging(f"{function}: {message or status}"))


def _summary(
    report: Report, by_function: Mapping[str, Mapping[str, Outcome]], missing: Sequence[str]
) -> Text:
    from rich.text import Text

    rows = [row for name, row in by_function.items() if name not in missing]
    bad = sum(any(o.status.is_bad for o in row.values()) for row in rows)
    expected = sum(
        any(o.status is Status.EXPECTED_FAILURE for o in row.values())
        and not any(o.status.is_bad for o in row.values())
        for row in rows
    )
    right = len(rows) - bad - expected
    n_checks = sum(outcome.n_checks for outcome in report.outcomes)
    parts = [f"{right} {_functions(right)} right"]
    if bad:
        parts.append(f"{bad} wrong")
    if expected:
        parts.append(f"{expected} wrong as expected")
    if missing:
        parts.append(f"{len(missing)} not implemented and not checked")
    head = f"{', '.join(parts)}; {n_checks:,} checks in {report.seconds:.0f} s, seed {report.seed}."
    text = Text(head, "bold" if report.ok else "bold red")
    if missing:
        text.append(f"\nNot implemented: {', '.join(missing)}.", "not bold dim")
    return text


def _functions(n: int) -> str:
    return "function" if n == 1 else "functions"


LETTERS = 400
"""Longer messages, of exceptions, are cut likewise."""

ELEMENTS = 40
"""Longer arrays are cut where they are shown to people."""


def lines_of(args: Mapping[str, Any], *, full: bool = False) -> list[str]:
    """Return inputs as a few lines for people; arrays of more than 40 numbers are cut.

    Examples
    --------
    >>> lines_of({"log_alpha": np.array([[0.5, -1.0]]), "beta": 0.5, "on": "inputs"})
    ['log_alpha = [[0.5, -1.0]]', "beta = 0.5, on = 'inputs'"]
    """
    lines: list[str] = []
    plain_ones = []
    for name, value in args.items():
        if isinstance(value, Mapping) and "layers" in value:
            lines += _lines_of_network(value, full)
        elif isinstance(value, list | tuple) and any(isinstance(v, np.ndarray) for v in value):
            lines += [f"{name}[{i}] = {_brief(part, full)}" for i, part in enumerate(value)]
        elif isinstance(value, np.ndarray):
            lines.append(f"{name} = {_brief(value, full)}")
        else:
            plain_ones.append(f"{name} = {value!r}")
    if plain_ones:
        lines.append(", ".join(plain_ones))
    return lines


def _lines_of_network(network: Mapping[str, Any], full: bool) -> list[str]:
    rest = {name: value for name, value in network.items() if name != "layers"}
    lines = ["network: " + ", ".join(f"{name} = {value!r}" for name, value in rest.items())]
    for position, layer in enumerate(network["layers"]):
        simple = ", ".join(
            f"{name} = {value!r}"
            for name, value in layer.items()
            if name != "kind" and not isinstance(value, np.ndarray)
        )
        lines.append(f"  {position} {layer['kind']}" + (f": {simple}" if simple else ""))
        lines += [
            f"    {name} = {_brief(value, full)}"
            for name, value in layer.items()
            if isinstance(value, np.ndarray)
        ]
    return lines


def _brief(array: np.ndarray[Any, Any], full: bool) -> str:
    if full or array.size <= ELEMENTS:
        return str(array.tolist())
    few = ", ".join(repr(value) for value in array.reshape(-1)[:6].tolist())
    return f"array of shape {array.shape}: {few}, ..."
