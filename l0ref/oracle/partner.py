"""Check a target in several processes at once, which takes half the time on two cores.

What the check of one function learns, that of another one may need: such functions stay together,
in the order of the phases (`Checker.groups`). Whoever is done with a group takes the next one.

What fails may fail because two ran at once (a target may need a device, a port or a file for itself
alone) or because of what its process was asked before. So at the first failure the rest of the
group is left, and once all partners and their targets are gone, such groups are checked from their
beginning by one process alone: what is reported as wrong was found so.

Each partner is a process of its own, ``python -m l0ref.oracle.partner``, with a `Checker` and a
process of the target's, and is told over a pipe what to check. One that is lost, or does not start,
costs time and nothing else: what it has checked is checked again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from .worker import end_with_the_parent

if TYPE_CHECKING:
    from .check import Checker, Findings
    from .report import Outcome

__all__ = ["main", "processes_for", "run_all"]

Part = tuple[str, str]
Group = list[Part]
Tell = Callable[[str, str], None]

FEWEST = 8
"""Groups of functions, from which on a partner is worth the two seconds that it takes to start."""


def processes_for(target: Any, most: int) -> int:
    """Return how many processes may check a target: one for an object, else as many as are asked.

    Raises
    ------
    ValueError
        If less than one is asked for.
    """
    if most < 1:
        raise ValueError(f"processes must be 1 or more, got {most}")
    if os.name != "posix" or not isinstance(target, str | os.PathLike):
        return 1
    return most


def run_all(
    checker: Checker, options: Mapping[str, Any], processes: int, tell: Tell | None = None
) -> list[Outcome]:
    """Run all parts of a check, with partners if there are parts enough.

    Parameters
    ----------
    checker : Checker
        Takes in what its partners have found.
    options : mapping of str to object
        With which a partner makes its own checker.
    processes : int
        This one and its partners.
    tell : callable, optional
        Called with a phase and a function before they are checked, from one thread at a time. What
        is checked again is told again.

    Returns
    -------
    list of Outcome
        In the order of `Checker.parts`.
    """
    groups, parts = checker.groups(), checker.parts()
    n_checked = sum(any(checker.calls.has(function) for _, function in group) for group in groups)
    partners = min(processes, n_checked // FEWEST + 1) - 1
    lock = threading.Lock()

    def say(part: Part) -> None:
        if tell is not None:
            with lock:
                tell(*part)

    def alone(chosen: list[Part]) -> dict[Part, Outcome]:
        found = {}
        for part in chosen:
            say(part)
            found[part] = checker.run(*part)
        return found

    if not partners:
        outcomes = alone(parts)
    else:
        checker.is_first_pass = True
        outcomes = _share(checker, groups, options, partners, say)
        checker.is_first_pass = False
        again = [part for part in parts if part not in outcomes]
        if again:
            checker.begin_again(function for _, function in again)
            outcomes |= alone(again)
        if checker.calls.target.given_up:
            # It was, for calls in vain in a row, and there may have been others in between.
            checker.begin_again(checker.functions)
            outcomes = alone(parts)
    return [outcomes[part] for part in parts]


def _share(
    checker: Checker,
    groups: list[Group],
    options: Mapping[str, Any],
    partners: int,
    say: Callable[[Part], None],
) -> dict[Part, Outcome]:
    """Return the outcomes of the groups in which nothing failed."""
    waiting = deque(groups)
    outcomes: dict[Part, Outcome] = {}
    with contextlib.ExitStack() as stack:
        helpers = []
        for _ in range(partners):
            # one that cannot be started (no memory, no processes left) helps with nothing
            with contextlib.suppress(OSError, RuntimeError):
                helpers.append(stack.enter_context(_Helper(options, waiting, say)))
        while (group := _next(waiting)) is not None:
            outcomes |= _whole(group, say, checker.run)
        for helper in helpers:
            outcomes |= helper.finish()
        # what passed tells mistakes apart, where there are any
        any_failed = len(outcomes) < sum(map(len, groups))
        for helper in helpers:
            findings = helper.findings(with_observations=any_failed)
            if findings is None:
                for part in helper.outcomes:
                    del outcomes[part]
            else:
                checker.take_in(findings)
    return outcomes


def _next(waiting: deque[Group]) -> Group | None:
    try:
        return waiting.popleft()
    except IndexError:  # someone else was faster
        return None


def _whole(
    group: Group, say: Callable[[Part], None], run: Callable[[str, str], Outcome]
) -> dict[Part, Outcome]:
    """Return the outcomes of a group, or none from the first failure on."""
    found = {}
    for part in group:
        say(part)
        found[part] = run(*part)
        if found[part].n_failed:
            return {}
    return found


class _Helper:
    """A partner as seen from here: a thread waits for it."""

    def __init__(
        self,
        options: Mapping[str, Any],
        waiting: deque[Group],
        say: Callable[[Part], None],
    ) -> None:
        self.outcomes: dict[Part, Outcome] = {}
        self._waiting, self._say = waiting, say
        self._is_ready = self._is_lost = False
        # A pipe of its own: what interpreters and libraries print where they start is no answer.
        from_there, there = os.pipe()
        self._answers = os.fdopen(from_there, "rb")
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "l0ref.oracle.partner", str(there)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what matters is told over the pipe, or told again
                pass_fds=(there,),
            )
        except BaseException:
            self._answers.close()
            raise
        finally:
            os.close(there)
        self._options = dict(options)
        self._thread = threading.Thread(target=self._work, name="waits for a partner", daemon=True)

    def __enter__(self) -> _Helper:
        try:
            self._thread.start()
        except BaseException:
            self._end()
            self._answers.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()
        self._thread.join()
        self._answers.close()

    def _end(self) -> None:
        """End it: by its own will, so that it ends the target's process, too."""
        self._popen.terminate()
        try:
            self._popen.wait(5.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.close()

    def _ask(self, question: Any) -> Any:
        assert self._popen.stdin is not None
        pickle.dump(question, self._popen.stdin)
        self._popen.stdin.flush()
        return pickle.load(self._answers)  # of our own process

    def _work(self) -> None:
        try:
            self._ask(self._options)
            self._is_ready = True
            while (group := _next(self._waiting)) is not None:
                self.outcomes |= _whole(group, self._say, lambda *part: self._ask(part))
        except BaseException:  # it is gone, or what it says cannot be read
            self._is_lost = True

    def finish(self) -> dict[Part, Outcome]:
        """Wait for the groups that it has taken; it takes no more."""
        if not self._is_ready:  # and there is nothing left to do
            self._is_lost = True
            return {}
        self._thread.join()
        return self.outcomes

    def findings(self, *, with_observations: bool) -> Findings | None:
        """Return what else it has found, or None if it was lost."""
        if self._is_lost:
            return None
        try:
            found: Findings = self._ask(with_observations)
        except Exception:
            return None
        return found


def main() -> None:
    """Check what the process that started this one asks for, until it asks no more.

    The argument is the number of the pipe that takes the answers.
    """
    from .check import Checker

    end_with_the_parent()
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(int(sys.argv[1]), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def answer(what: Any) -> None:
        pickle.dump(what, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()

    opened: list[Checker] = []

    def stop(signum: int, frame: Any) -> NoReturn:
        if not opened:
            raise SystemExit(0)  # whoever starts the target ends it
        opened[0].close()
        os._exit(0)  # not an exception, which Hypothesis might catch

    signal.signal(signal.SIGTERM, stop)
    # The terminal interrupts the process that started this one, too, and that one ends this one.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    with Checker(**pickle.load(questions)) as checker:  # of our own process
        opened.append(checker)
        checker.is_first_pass = True
        answer(None)
        while True:
            try:
                question = pickle.load(questions)
            except EOFError:
                return
            if isinstance(question, bool):
                answer(checker.findings(with_observations=question))
            else:
                answer(checker.run(*question))


if __name__ == "__main__":
    main()
