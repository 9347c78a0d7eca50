"""Two processes that check a target find what one finds, whatever becomes of the second one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from l0ref.oracle import partner
from l0ref.oracle.check import Checker, Report, Status, check

FUNCTIONS = (
    "prob_active", "cdf", "sf", "sample", "sample_vjp", "test_time", "group_size",
    "expected_l0", "dense_flops", "dense_params", "conv2d_flops", "conv2d_params", "draw",
)  # fmt: skip
"""One of them is not there; the other groups are enough for a partner."""

TARGET = """
import os
import sys
import time
from pathlib import Path

import numpy as np

from tests.honest_target import Honest

HERE = Path(__file__).parent


class target(Honest):
    conv2d_params = None

    def prob_active(self, log_alpha, *, beta, gamma, zeta):
        return 1 / (1 + np.exp(-log_alpha))

    def sample_vjp(self, log_alpha, u, dz, **law):
        return super().sample_vjp(log_alpha, 1 - u, dz, **law)

    def cdf(self, x, log_alpha, **law):
        raise RuntimeError("no table of cdf")

    def sf(self, x, log_alpha, **law):
        os._exit(3)

    def dense_flops(self, n_in, n_out, *, bias):
        print("so many")
        return (2 * n_in - 1 + bias) * n_out

    def dense_params(self, n_in, n_out, *, bias):
        if (HERE / "hang").exists():
            time.sleep(60)
        return (n_in + bias) * n_out

    def group_size(self, weight_shape, on, *, gates_bias):
        return [1]

    def expected_l0(self, log_alpha, group_size, **law):
        return float("nan")
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.getenv("PYTHONPATH", "")])
    )
    (tmp_path / "target.py").write_text(TARGET, encoding="utf-8")
    return str(tmp_path / "target.py")


def checked(target: str, **options: Any) -> Report:
    options = {"functions": FUNCTIONS, "timeout": 0.5, **options}
    return check(target, dtypes=["float64"], quick=True, seed=3, **options)


def without_time(report: Report) -> list[Any]:
    """What may not depend on who checks: not how often a sampler was timed."""
    shown = [
        (o.phase, o.function, o.status, o.message, None if o.phase == "draws" else o.n_checks)
        for o in report.outcomes
    ]
    return [shown, report.diagnoses, report.remarks]


def test_two_processes_find_what_one_finds(target: str, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    (tmp_path / "hang").touch()
    listed = ["manners:dense_flops", "random:test_time", "vectors:conv2d_params"]
    options = {"expected_failures": listed, "name": "mine"}
    alone = checked(target, processes=1, **options)
    both = checked(target, processes=2, tell=lambda *part: told.append(part), **options)
    assert without_time(both) == without_time(alone)
    assert set(told) == {(o.phase, o.function) for o in both.outcomes}
    status = {(o.phase, o.function): o.status for o in both.outcomes}
    assert status["manners", "dense_flops"] is Status.EXPECTED_FAILURE
    assert status["random", "test_time"] is Status.UNEXPECTED_PASS
    assert status["vectors", "conv2d_params"] is Status.NOT_IMPLEMENTED
    assert status["draws", "draw"] is Status.PASSED
    bad = {"prob_active", "cdf", "sf", "dense_params", "group_size", "expected_l0", "sample_vjp"}
    assert {o.function for o in both.outcomes if o.status is Status.FAILED} == bad
    assert "one sign must hold for all" in str(without_time(both))
    assert "prob-unshifted" in [one.deviation for one in both.diagnoses]


GOOD = """
from tests.honest_target import Honest


class target(Honest):
    pass
"""


def own_parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return a list that gets what the first process checks, and not its partner."""
    own: list[tuple[str, str]] = []
    run = Checker.run
    monkeypatch.setattr(Checker, "run", lambda self, *part: own.append(part) or run(self, *part))
    return own


def good(target: str, extra: str = "", **options: Any) -> Report:
    """Check all functions of what is right, with what is added to it: it takes a while."""
    Path(target).write_text(GOOD + extra, encoding="utf-8")
    return checked(target, **{"processes": 2, "functions": None, "timeout": 10, **options})


def test_the_work_is_shared_and_what_passes_is_not_checked_twice(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_parts(monkeypatch)
    told: list[tuple[str, str]] = []
    found = good(target, tell=lambda *part: told.append(part))
    assert found.ok
    assert 0 < len(own) < len(found.outcomes)
    assert sorted(told) == sorted((o.phase, o.function) for o in found.outcomes)


EXITS = """
    def {name}(self, *args, **kwargs):
        os._exit(3)
"""


@pytest.mark.parametrize(
    "names",
    [
        # so many calls in a row that the target is given up, by whoever checks these
        ("sample", "sample_vjp", "prob_active", "cdf", "sf"),
        # never so many, unless these are checked and no others
        ("prob_active", "sample", "group_size", "dense_flops", "conv2d_params"),
    ],
)
def test_functions_that_exit_leave_the_others_as_they_are(
    names: tuple[str, ...], target: str
) -> None:
    exits = "import os\n" + GOOD + "".join(EXITS.format(name=name) for name in names)
    Path(target).write_text(exits, encoding="utf-8")
    alone = checked(target, processes=1)
    assert {o.function for o in alone.outcomes if o.status is Status.FAILED} >= {*names}
    assert without_time(checked(target, processes=2)) == without_time(alone)


ONE_AT_A_TIME = """
import fcntl
import functools
from pathlib import Path

FILE = open(__file__)


def holding(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            fcntl.flock(FILE, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (Path(__file__).parent / "held").touch()
            raise
        return function(*args, **kwargs)
    return call


for name, function in vars(Honest).items():
    if name[0] != "_":
        setattr(target, name, holding(function))
"""


def test_a_target_of_which_one_runs_at_a_time_is_not_wrong(target: str, tmp_path: Path) -> None:
    # whoever is first keeps it, and the other finds all wrong
    found = good(target, ONE_AT_A_TIME)
    assert found.ok, without_time(found)
    assert (tmp_path / "held").exists()


def test_a_partner_whose_target_waits_for_the_first_is_not_waited_for(target: str) -> None:
    start = time.monotonic()
    found = good(
        target,
        """
import fcntl

file = open(__file__)
fcntl.flock(file, fcntl.LOCK_EX)
""",
    )
    assert found.ok, without_time(found)
    assert time.monotonic() - start < 60  # it has 120 s to start


def test_what_an_interpreter_prints_at_its_start_is_no_answer(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    own = own_parts(monkeypatch)
    Path(target).write_text(GOOD, encoding="utf-8")
    # the target itself may not print: its answers are what it writes
    worker = f"env PYTHONPATH={Path.cwd()} {sys.executable} -m l0ref.oracle.worker {target}"
    found = checked(f"command: {worker}", processes=2, functions=None, timeout=10)
    assert found.ok, without_time(found)
    assert len(own) < len(found.outcomes)


@pytest.mark.parametrize("where", ["Popen", "start"])
def test_a_partner_that_cannot_be_started_is_done_without(
    where: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = subprocess.Popen, []

    def refuse(command: list[str], *args: Any, **kwargs: Any) -> Any:
        if "l0ref.oracle.partner" in command and where == "Popen":
            raise OSError("no more processes")
        started.append(start(command, *args, **kwargs))
        return started[-1]

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    if where == "start":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    assert good(target).ok
    assert all(one.poll() is not None for one in started)


def test_a_partner_that_is_lost_costs_nothing_that_is_found(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = partner._Helper._ask

    def kill_in_the_second_group(self: Any, question: Any) -> Any:
        asked.append(question)
        if len(asked) == 6:
            os.kill(self._popen.pid, signal.SIGKILL)
        return ask(self, question)

    alone = good(target, processes=1)
    monkeypatch.setattr(partner._Helper, "_ask", kill_in_the_second_group)
    both = good(target)
    assert len(asked) >= 6
    assert without_time(both) == without_time(alone)


def test_a_partner_is_gone_when_the_check_is_over(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    enter = partner._Helper.__enter__

    def note(self: Any) -> Any:
        started.append(self)
        return enter(self)

    monkeypatch.setattr(partner._Helper, "__enter__", note)

    def interrupt(phase: str, function: str) -> None:
        if started[0]._is_ready and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        good(target, tell=interrupt)
    # by its own will, so that it has ended its target
    assert [one._popen.returncode for one in started] == [0]


@pytest.mark.parametrize(
    ("target", "most", "n"),
    [("mine", 1, 1), ("mine", 3, 3), (Path("mine.py"), 2, 2), ({}, 1, 1), ({}, 3, 1)],
)
def test_how_many_check(target: Any, most: int, n: int) -> None:
    assert partner.processes_for(target, most) == n


def test_less_than_one_process_is_refused() -> None:
    with pytest.raises(ValueError, match="processes must be 1 or more, got 0"):
        check("mine", processes=0)
