"""Two processes that check a target find what one finds, whatever becomes of the second one."""

import os
import signal
import threading
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
        with open(HERE / "calls.txt", "a") as file:
            print(os.getpid(), file=file)
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
    return check(
        target, functions=FUNCTIONS, dtypes=["float64"], quick=True, timeout=0.5, seed=3, **options
    )


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
    (tmp_path / "calls.txt").unlink()
    both = checked(target, processes=2, tell=lambda *part: told.append(part), **options)
    assert without_time(both) == without_time(alone)
    assert sorted(told) == sorted((o.phase, o.function) for o in both.outcomes)
    status = {(o.phase, o.function): o.status for o in both.outcomes}
    assert status["manners", "dense_flops"] is Status.EXPECTED_FAILURE
    assert status["random", "test_time"] is Status.UNEXPECTED_PASS
    assert status["vectors", "conv2d_params"] is Status.NOT_IMPLEMENTED
    assert status["draws", "draw"] is Status.PASSED
    bad = {"prob_active", "cdf", "sf", "dense_params", "group_size", "expected_l0", "sample_vjp"}
    assert {o.function for o in both.outcomes if o.status is Status.FAILED} == bad
    assert "one sign must hold for all" in str(without_time(both))
    assert "prob-unshifted" in [one.deviation for one in both.diagnoses]


def test_the_work_is_shared_and_nothing_is_done_twice(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = []
    run = Checker.run
    monkeypatch.setattr(Checker, "run", lambda self, *part: own.append(part) or run(self, *part))
    found = checked(target, processes=2)
    assert 0 < len(own) < len(found.outcomes)
    assert len(set((tmp_path / "calls.txt").read_text().split())) == 1


def test_a_partner_that_is_lost_costs_nothing_that_is_found(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = partner._Helper._ask

    def kill_at_the_second_group(self: Any, question: Any) -> Any:
        asked.append(question)
        if len(self.groups) == 2:
            os.kill(self._popen.pid, signal.SIGKILL)
        return ask(self, question)

    alone = checked(target, processes=1)
    monkeypatch.setattr(partner._Helper, "_ask", kill_at_the_second_group)
    both = checked(target, processes=2)
    assert len(asked) > 2
    assert without_time(both) == without_time(alone)


def test_a_partner_is_gone_when_the_check_is_over(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    enter = partner._Helper.__enter__

    def note(self: Any) -> Any:
        started.append(self._popen)
        return enter(self)

    monkeypatch.setattr(partner._Helper, "__enter__", note)

    def interrupt(phase: str, function: str) -> None:
        if phase == "manners" and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(target, processes=2, tell=interrupt)
    assert [one.poll() is not None for one in started] == [True]


@pytest.mark.parametrize(
    ("target", "most", "n"),
    [("mine", 1, 1), ("mine", 3, 3), (Path("mine.py"), 2, 2), ({}, 1, 1), ({}, 3, 1)],
)
def test_how_many_check(target: Any, most: int, n: int) -> None:
    assert partner.processes_for(target, most) == n


def test_less_than_one_process_is_refused() -> None:
    with pytest.raises(ValueError, match="processes must be 1 or more, got 0"):
        check("mine", processes=0)
