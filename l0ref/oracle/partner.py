"""Check a target in several processes at once, which takes half the time on two cores.

What the check of one function learns, that of another one may need: such functions stay together,
in the order of the phases (`Checker.groups`). Whoever is done with a group takes the next one. That
is for targets of which two may run at once and disturb nobody, and which answer: whether one is
given up, after many calls in vain in a row, depends on what was called before.

Each partner is a process of its own, ``python -m l0ref.oracle.partner``, with a `Checker` and a
process of the target's, and is told over a pipe what to check. One that is lost costs time and
nothing else: what it has checked is checked again.
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
    from .check import Checker
    from .report import Outcome

__all__ = ["main", "processes_for", "run_all"]

Part = tuple[str, str]
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
        Called with a phase and a function before they are checked, from one thread at a time.

    Returns
    -------
    list of Outcome
        In the order of `Checker.parts`.
    """
    groups = checker.groups()
    n_checked = sum(any(checker.calls.has(function) for _, function in group) for group in groups)
    partners = min(processes, n_checked // FEWEST + 1) - 1
    outcomes: dict[Part, Outcome] = {}
    waiting = deque(groups if partners else [checker.parts()])
    lock = threading.Lock()

    def say(part: Part) -> None:
        if tell is not None:
            with lock:
                tell(*part)

    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(_Helper(options, waiting, say)) for _ in range(partners)]
        while True:
            while (group := _next(waiting)) is not None:
                for part in group:
                    say(part)
                    outcomes[part] = checker.run(*part)
            if not helpers:
                break
            for helper in helpers:
                helper.thread.join()
            any_failed = any(
                one.n_failed for found in (outcomes, *(h.outcomes for h in helpers))
                for one in found.values()
            )  # fmt: skip
            for helper in helpers:
                findings = helper.findings(with_observations=any_failed)
                if findings is None:
                    waiting.extend(helper.groups)
                else:
                    outcomes |= helper.outcomes
                    checker.take_in(findings)
            helpers = []
    return [outcomes[part] for part in checker.parts()]


def _next(waiting: deque[list[Part]]) -> list[Part] | None:
    try:
        return waiting.popleft()
    except IndexError:  # someone else was faster
        return None


class _Helper:
    """A partner as seen from here: a thread waits for it."""

    def __init__(
        self,
        options: Mapping[str, Any],
        waiting: deque[list[Part]],
        say: Callable[[Part], None],
    ) -> None:
        self.groups: list[list[Part]] = []
        self.outcomes: dict[Part, Outcome] = {}
        self._waiting, self._say, self._is_lost = waiting, say, False
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "l0ref.oracle.partner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what matters is told over the pipe, or told again
        )
        self._options = dict(options)
        self.thread = threading.Thread(target=self._work, name="waits for a partner", daemon=True)

    def __enter__(self) -> _Helper:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End it: by its own will, so that it ends the target's process, too."""
        with contextlib.suppress(OSError):
            self._popen.terminate()
        try:
            self._popen.wait(5.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self.thread.join()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _ask(self, question: Any) -> Any:
        to, back = self._popen.stdin, self._popen.stdout
        assert to is not None
        assert back is not None
        pickle.dump(question, to)
        to.flush()
        return pickle.load(back)  # of our own process

    def _work(self) -> None:
        try:
            self._ask(self._options)
            while (group := _next(self._waiting)) is not None:
                self.groups.append(group)
                for part in group:
                    self._say(part)
                    self.outcomes[part] = self._ask(part)
        except BaseException:  # it is gone, or what it says cannot be read
            self._is_lost = True

    def findings(self, *, with_observations: bool) -> Any:
        """Return what else it has found, or None if it was lost."""
        if self._is_lost:
            return None
        try:
            return self._ask(with_observations)
        except Exception:
            return None


def main() -> None:
    """Check what the process that started this one asks for, until it asks no more."""
    from .check import Checker

    end_with_the_parent()
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)

    def stop(signum: int, frame: Any) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)

    def answer(what: Any) -> None:
        pickle.dump(what, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()

    with Checker(**pickle.load(questions)) as checker:  # of our own process
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
