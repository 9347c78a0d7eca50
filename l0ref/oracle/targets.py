"""Targets: what can be checked, named or given, and called with whatever goes wrong reported.

A target runs wrong in more ways than by a wrong number. It raises, hangs, prints, exits, crashes.
Each of these is one failed call with a message that says so; the next call finds a target again.
Those that are named run in a process of their own, which can be ended and started again at will
(on systems with POSIX's processes and pipes); objects run in this one.
"""

from __future__ import annotations

import _thread
import abc
import contextlib
import difflib
import functools
import importlib
import importlib.util
import inspect
import io
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import IO, Any, NoReturn

from . import protocol
from .interface import FUNCTIONS, Target
from .watch import Call, Raised, observe

__all__ = [
    "Call",
    "NotImplementedByTarget",
    "OpenTarget",
    "TargetError",
    "TargetExited",
    "TargetGarbled",
    "TargetImportError",
    "TargetRaised",
    "TargetTimeout",
    "functions_of",
    "load_object",
    "open_target",
]

STARTUP_TIMEOUT = 120.0
"""Seconds that a process may take to be imported and to say hello."""

MOST_LOST = 12
"""After so many calls in a row that cost the process, it is not started again."""
NO_ANSWER = f"the target gave no answer {MOST_LOST} times in a row"

_ALIKE = 0.85
"""How much alike two names are (see difflib) of which one may be meant for the other."""

_LONGEST_ANSWER = 2**30
_TURN = 0.25
"""Seconds that are waited at a stretch."""

_MACHINERY = re.compile(r"oracle.(watch|worker)\.py\"|<frozen runpy>|^Extension modules:")
"""In a worker's traceback of a crash: what is not the target's."""

_COMMAND = "command:"


class NotImplementedByTarget(Exception):  # noqa: N818  # not an error: an answer
    """The target does not have the function, or not for this case (it raised so itself)."""


class TargetError(Exception):
    """A call failed; the message says how.

    Attributes
    ----------
    call : Call
        What the call did all the same: what it printed, changed, warned of.
    """

    def __init__(self, message: str, call: Call | None = None) -> None:
        super().__init__(message)
        self.call = Call() if call is None else call


class TargetRaised(TargetError):  # noqa: N818  # "Error" is said by its base
    """The target itself reports an error: the only way to refuse an argument."""


class TargetTimeout(TargetError):  # noqa: N818  # likewise
    """It did not answer in time."""


class TargetExited(TargetError):  # noqa: N818  # likewise
    """Its process is gone, or it asked to exit."""


class TargetGarbled(TargetError):  # noqa: N818  # likewise
    """Its process wrote to standard output what is no answer."""


class TargetImportError(TargetError):
    """It cannot be imported or started at all; the message ends as the traceback does."""


class OpenTarget(abc.ABC):
    """A target that can be called.

    Attributes
    ----------
    name : str
        What reports call it.
    functions : frozenset of str
        Which of `interface.FUNCTIONS` it has.
    restarts : int
        How often its process has been started again.
    in_python : bool
        Whether it gets NumPy's arrays: of any dtype, and not only of those that it works with.
    in_this_process : bool
        Whether its functions run here.
    given_up : str
        Why it is not called any more; empty as long as it is.
    misspelt : dict of str to str
        What it has that may be a function under a wrong name, and that function.
    """

    name: str
    functions: frozenset[str]
    restarts: int = 0
    in_python: bool = True
    in_this_process: bool = True
    given_up: str = ""
    misspelt: Mapping[str, str] = MappingProxyType({})

    def call(self, function: str, args: Mapping[str, Any], *, timeout: float = 10.0) -> Call:
        """Call one of its functions.

        Parameters
        ----------
        function : str
            One of `interface.FUNCTIONS`.
        args : mapping of str to object
            All arguments, by the names of the interface. The target gets copies.
        timeout : float, optional
            Seconds it may take.

        Returns
        -------
        Call

        Raises
        ------
        NotImplementedByTarget
            If it does not have the function, or raises NotImplementedError.
        TargetError
            If the call fails: `TargetRaised` if it reports an error, and `TargetTimeout`,
            `TargetExited` and `TargetGarbled` in their cases.
        """
        if function not in self.functions:
            raise NotImplementedByTarget(f"{self.name} has no {function}")
        return self._call(function, args, timeout)

    @abc.abstractmethod
    def _call(self, function: str, args: Mapping[str, Any], timeout: float) -> Call:
        """Call a function that it has."""

    def close(self) -> None:  # noqa: B027  # nothing to do, for most
        """End it; it is not to be called any more."""

    def __enter__(self) -> OpenTarget:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_target(
    target: Any, *, isolate: bool | None = None, startup_timeout: float = STARTUP_TIMEOUT
) -> OpenTarget:
    """Open a target, whatever it is given as.

    Parameters
    ----------
    target : str or object
        One of

        - ``"package.module"`` or ``"package.module:attribute"``, to be imported;
        - ``"path/file.py"`` or ``"path/file.py:attribute"``, to be run;
        - ``"command: node target.js"``, a process that speaks `l0ref.oracle.protocol`;
        - an object: a module, an instance, or a mapping of names to functions.

        Of a module or file that has a ``target``, that is taken. A class is called without
        arguments, and what it makes is the target.
    isolate : bool, optional
        Whether to run it in a process of its own: names are by default, objects never can be.
    startup_timeout : float, optional
        Seconds that such a process may take until it can be called, with all that it imports.

    Returns
    -------
    OpenTarget
        A context manager, closed at the end of a ``with``.

    Raises
    ------
    TargetImportError
        If it cannot be imported or started, or has none of the functions.
    ValueError
        If `isolate` asks for what cannot be.

    Examples
    --------
    >>> with open_target({"dense_params": lambda n_in, n_out, bias: (n_in + bias) * n_out}) as mine:
    ...     mine.call("dense_params", {"n_in": 3, "n_out": 2, "bias": True}).result
    8
    """
    if isinstance(target, OpenTarget):
        return target
    if not startup_timeout > 0:
        raise ValueError(f"startup_timeout must be positive, got {startup_timeout}")
    if not isinstance(target, str | os.PathLike):
        if isolate:
            raise ValueError(f"isolate must be False for an object, got True with {target!r}")
        name = getattr(target, "name", None) or getattr(target, "__name__", None)
        return _ObjectTarget(target, name if isinstance(name, str) else type(target).__name__)
    text = os.fspath(target).strip()
    if text.startswith(_COMMAND):
        if isolate is False:
            raise ValueError(f"isolate must be True for a command, got False with {text!r}")
        command = _words(text)
        return _ProcessTarget(command, text, in_python=False, startup_timeout=startup_timeout)
    where, _ = _split_name(text)
    if not where.endswith(".py") and ("" in where.split(".") or os.sep in where):
        raise TargetImportError(
            f"a target must be package.module, path/file.py, either with :attribute, or "
            f'"command: PROGRAM", got {text!r}'
        )
    if isolate is False:
        return _ObjectTarget(load_object(text), text)
    worker = [sys.executable, "-m", "l0ref.oracle.worker", text]
    return _ProcessTarget(worker, text, startup_timeout=startup_timeout)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text.removeprefix(_COMMAND))
    except ValueError as error:  # a quotation that does not end
        raise TargetImportError(f"{text!r} is no command: {error}") from None


# --- finding functions ---


def load_object(name: str) -> Any:
    """Import what a name stands for; see `open_target`.

    Raises
    ------
    TargetImportError
        If that fails, with the end of the traceback.
    """
    where, attribute = _split_name(name)
    try:
        if where.endswith(".py"):
            found: Any = _run_file(Path(where))
        else:
            found = importlib.import_module(where)
        if not attribute:
            found = getattr(found, "target", found)
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part)
        return found() if isinstance(found, type) else found
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() too
        raise TargetImportError(f"{name} cannot be imported:\n{_last_lines(error)}") from error


def _split_name(name: str) -> tuple[str, str]:
    if name.endswith(".py"):
        return name, ""
    where, colon, attribute = name.rpartition(":")
    return (where, attribute) if colon else (name, "")


def _run_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise FileNotFoundError(f"there is no file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # it may import what lies beside it
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _last_lines(error: BaseException, n: int = 12) -> str:
    """Return the end of a traceback, without what lies in the machinery of imports and here."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    text = [*traceback.format_list(own), *traceback.format_exception_only(error)]
    return "\n".join("".join(text).rstrip().splitlines()[-n:])


def functions_of(target: Any) -> dict[str, Callable[..., Any]]:
    """Return which of the interface's functions an object has, by name.

    Those that it inherits from `interface.Target`, which do nothing, are not among them, nor is
    what a module or an object only happens to have under the name of one: it has none of its
    arguments, as NumPy's ``mean``, or the ``train`` of a PyTorch module. What a mapping has was put
    there. A property that raises is a function that raises.

    What a module has imported is its own if its ``__all__`` says so. Without that, it is if it is
    of the same package, or if the module is in no package: that is written around the code of
    others. What comes from l0ref is not what is to be checked.
    """
    found = {}
    get = target.get if isinstance(target, Mapping) else functools.partial(getattr, target)
    for name in FUNCTIONS:
        try:
            function = get(name, None)
        except Exception as error:
            function = functools.partial(_raise_again, error)
        documented_only = getattr(function, "__func__", function) is getattr(Target, name)
        is_meant = isinstance(target, Mapping) or (
            _may_be(function, name) and _is_own(target, function, name)
        )
        if callable(function) and not documented_only and is_meant:
            found[name] = function
    return found


def _may_be(function: Any, name: str) -> bool:
    """Whether a function takes any of the arguments that the interface's function of a name has."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except Exception:  # it does not say
        return True
    kinds = {parameter.kind for parameter in parameters}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return True
    return not {*FUNCTIONS[name].parameters}.isdisjoint(one.name for one in parameters)


def _is_own(target: Any, function: Any, name: str) -> bool:
    """Whether a module means a function to be its own, and has not only imported it for itself.

    An object that can be called was made by the module, as far as can be told: its class says where
    the class is from.
    """
    if not (inspect.isfunction(function) or inspect.isbuiltin(function)):
        return True
    origin = getattr(function, "__module__", None)
    if not isinstance(target, ModuleType) or origin in (None, target.__name__):
        return True
    if origin not in sys.modules:  # as compiled modules say that do not know their package
        return True
    exported = getattr(target, "__all__", None)
    if exported is not None:
        return name in exported
    package, dot, _ = target.__name__.partition(".")
    imported_from = str(origin).partition(".")[0]
    if imported_from == __name__.partition(".")[0]:
        return False
    is_in_package = dot or hasattr(target, "__path__")
    return imported_from == package if is_in_package else True


def _raise_again(error: Exception, **args: Any) -> NoReturn:
    raise error


def names_of(target: Any, functions: Collection[str]) -> list[str]:
    """Return the names of what an object has besides some, which may be meant for functions."""
    try:
        names = list(target) if isinstance(target, Mapping) else dir(target)
    except Exception:
        return []
    return [name for name in names if isinstance(name, str) and name not in functions]


def misspelt(names: Iterable[str], functions: Collection[str]) -> dict[str, str]:
    """Return names that are nearly those of functions which are not there, with these functions.

    Examples
    --------
    >>> misspelt(["dense_flop", "helper", "means"], {"mean"})
    {'dense_flop': 'dense_flops'}
    """
    missing = [name for name in FUNCTIONS if name not in functions]
    found = {
        name: difflib.get_close_matches(name.lower(), missing, n=1, cutoff=_ALIKE)
        for name in names
        if not name.startswith("_") and name not in functions
    }
    return {name: close[0] for name, close in found.items() if close}


def _require_some(
    functions: frozenset[str], name: str, others: Mapping[str, str]
) -> frozenset[str]:
    if not functions:
        some = ", ".join(list(FUNCTIONS)[:3])
        nearly = "".join(f"; {wrong} may be meant for {right}" for wrong, right in others.items())
        raise TargetImportError(
            f"{name} has none of the {len(FUNCTIONS)} functions that can be checked, such as {some}"
            + nearly
        )
    return functions


# --- in this process ---


class _Alarm(BaseException):
    """Raised in the middle of a call that takes too long: no error, so that none catches it."""


class _ObjectTarget(OpenTarget):
    """An object whose functions are called here."""

    def __init__(self, target: Any, name: str) -> None:
        if isinstance(target, type):
            target = target()
        self.name = name
        self._functions = functions_of(target)
        self.misspelt = misspelt(names_of(target, self._functions), self._functions)
        self.functions = _require_some(frozenset(self._functions), name, self.misspelt)

    def _call(self, function: str, args: Mapping[str, Any], timeout: float) -> Call:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            call, error = observe(_in_time(self._functions[function], timeout), args)
        call = call._replace(stdout=printed.getvalue())
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, _Alarm):
            raise TargetTimeout(_took_too_long(function, timeout), call)
        if error is not None:
            _raise_for(Raised.of(error), function, call, error)
        return call


_LONGEST = 1e6
"""Seconds, the most that a timer is set to: eleven days. Systems refuse much more."""
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 1e-3
"""Seconds until the alarm rings again, if it is not heeded, and the least of them."""


class _Bell(int):
    """Number of a signal, which arrives when `rings` is looked up.

    Python answers signals after a call, but not after it has looked something up: this one is
    answered by the code that goes on, not by that which rings.
    """

    rings = property(_thread.interrupt_main)


_ALARM_BELL = _Bell(getattr(signal, "SIGALRM", 0))


def _in_time(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Return the function, out of which `_Alarm` is raised when the time is over.

    That is done where there are signals, and in the main thread. A function may catch it: the alarm
    rings until it is left, sooner every time, so that it rings once where nothing catches it. What
    still goes on then is in a loop that catches everything; there it rings without a pause, and so
    also where the loop begins anew, which is outside of what catches.
    """
    possible = hasattr(signal, "setitimer")
    if not possible or threading.current_thread() is not threading.main_thread():
        return function

    def call(**args: Any) -> Any:
        is_over, pause = False, _FIRST_PAUSE

        def ring(signum: int, frame: Any) -> None:
            nonlocal pause
            if is_over:
                return
            if pause >= _LAST_PAUSE:
                signal.setitimer(signal.ITIMER_REAL, pause)
                pause /= 2
            else:
                # No timer can be trusted to ring in the microsecond between two rounds of a loop.
                _ALARM_BELL.rings  # noqa: B018
            raise _Alarm

        start = time.monotonic()
        handler = signal.signal(signal.SIGALRM, ring)
        before, interval = signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST))
        try:
            return function(**args)
        finally:
            is_over = True  # first of all, for it can ring here
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if before:  # someone else's, which goes on
                left = max(before - (time.monotonic() - start), 1e-3)
                signal.setitimer(signal.ITIMER_REAL, left, interval)

    return call


def _took_too_long(function: str, timeout: float) -> str:
    return f"{function} did not return within {timeout:g} s"


def _raise_for(
    raised: Raised, function: str, call: Call, cause: BaseException | None = None
) -> NoReturn:
    """Raise what says that a function raised."""
    at = f" [{raised.where}]" if raised.where else ""
    text = f"{raised.type}: {raised.message}" if raised.message else raised.type
    if raised.type == "NotImplementedError":
        raise NotImplementedByTarget(f"{function}: {raised.message or raised.type}") from cause
    if raised.type == "SystemExit":
        raise TargetExited(f"{function} asked to exit ({text}){at}", call) from cause
    raise TargetRaised(f"{function} raised {text}{at}", call) from cause


# --- in a process of its own ---


class _Broken(Exception):  # noqa: N818  # a state of the process
    """The process cannot be used any more; it is ended, and started again when next called."""

    def __init__(self, kind: type[TargetError], message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


class _ProcessTarget(OpenTarget):
    """A process that speaks JSON lines; a worker that serves a Python target is one."""

    in_this_process = False

    def __init__(
        self,
        command: list[str],
        name: str,
        *,
        in_python: bool = True,
        startup_timeout: float = STARTUP_TIMEOUT,
    ) -> None:
        if os.name != "posix":
            raise TargetImportError(
                f"{name}: targets in processes need POSIX (Linux, macOS, WSL); "
                "give an object, or isolate=False"
            )
        if not command:
            raise TargetImportError(f"{name!r} names no program")
        self._command, self.name, self.in_python = command, name, in_python
        self._startup_timeout = startup_timeout
        self._n_lost = 0
        self._process: _Process | None = None
        self._start()

    def _start(self) -> None:
        process, limit = _Process(self._command, self.name), self._startup_timeout
        try:
            hello = {"id": 0, "function": "hello", "args": {"protocol": protocol.VERSION}}
            answer = process.exchange(protocol.write_message(hello), 0, limit)
            if "error" in answer:
                raise _Broken(TargetImportError, _raised(answer["error"]).message)
            hello_result = answer.get("result")
            if not isinstance(hello_result, dict) or not isinstance(
                hello_result.get("functions"), list
            ):
                raise _Broken(
                    TargetImportError,
                    f"{self.name} must answer hello with its functions, got {answer!r:.200}",
                )
        except _Broken as broken:
            text = broken.message
            if broken.kind is TargetTimeout:
                text = f"{self.name} did not start within {limit:g} s{process.said()}"
            elif broken.kind is not TargetImportError:
                text = f"{self.name} did not start: {text}"
            process.end()
            raise TargetImportError(text) from None
        except BaseException:
            process.end()
            raise
        self._process, self._end = process, weakref.finalize(self, process.end)
        self._binary = hello_result.get("base64") is True
        named = [str(name) for name in hello_result["functions"]]
        own = frozenset(name for name in named if name in FUNCTIONS)
        others = hello_result.get("others")
        self.misspelt = misspelt(
            [*named, *map(str, others if isinstance(others, list) else [])], own
        )
        try:
            self.functions = _require_some(own, self.name, self.misspelt)
        except TargetImportError:
            self.close()
            raise
        self._id = 0

    def _call(self, function: str, args: Mapping[str, Any], timeout: float) -> Call:
        if self.given_up:
            raise TargetExited(f"{function} is not called: {NO_ANSWER}")
        try:
            answer = self._answer(function, args, timeout)
        except TargetError as lost:
            self._n_lost += 1
            if self._n_lost == MOST_LOST:
                self.given_up = f"{NO_ANSWER}, the last time: {lost}"
            raise
        self._n_lost = 0
        call = Call()
        try:
            call = _call_of(answer)
            raised = _raised(answer["error"]) if "error" in answer else None
            result = protocol.decode(answer.get("result"))
        except (ValueError, TypeError, RecursionError) as error:
            raise TargetError(f"{function} returned what cannot be read: {error}", call) from None
        if raised is not None:
            _raise_for(raised, function, call)
        return call._replace(result=result)

    def _answer(self, function: str, args: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Return what its process answers; a process that gives no answer is ended."""
        if self._process is None:
            self._start()
            self.restarts += 1
        assert self._process is not None
        self._id += 1
        request = {
            "id": self._id,
            "function": function,
            "args": protocol.encode(args, binary=self._binary),
        }
        try:
            line = protocol.write_message(request)
            return self._process.exchange(line, self._id, timeout)
        except _Broken as broken:
            self.close()
            if broken.kind is TargetTimeout:
                raise TargetTimeout(_took_too_long(function, timeout)) from None
            raise broken.kind(f"{function}: {broken.message}") from None
        except BaseException:  # an interrupt: what it would answer belongs to no call
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end()
            self._process = None


def _raised(error: Any) -> Raised:
    if not isinstance(error, dict):
        return Raised("Error", str(error), "")
    return Raised(*(str(error.get(key) or "") for key in ("type", "message", "where")))


def _call_of(answer: Mapping[str, Any]) -> Call:
    """Return what an answer says besides the result."""

    def texts(key: str) -> tuple[str, ...]:
        given = answer.get(key)
        return tuple(str(text) for text in given) if isinstance(given, list) else ()

    printed = str(answer.get("stdout") or "")
    return Call(None, printed, texts("changed"), texts("state"), texts("warnings"))


class _Process:
    """A running process, and the lines that go to it and come from it."""

    def __init__(self, command: list[str], name: str) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise TargetImportError(f"{name} cannot be started: {error}") from error
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._to, self._from = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)
        self._answers = select.poll()
        self._answers.register(self._from, select.POLLIN)
        self._both = select.poll()
        self._both.register(self._from, select.POLLIN)
        self._both.register(self._to, select.POLLOUT)

    def exchange(self, request: bytes, number: int, timeout: float) -> dict[str, Any]:
        """Send a request and return its answer; raise `_Broken` if there is none."""
        left = timeout
        pieces: list[bytes] = []
        rest = memoryview(request)
        rest = rest[self._send(rest) :]
        size = 0
        while True:
            if left <= 0:
                raise _Broken(TargetTimeout, "")
            turn, start = min(left, _TURN), time.monotonic()
            (self._both if rest else self._answers).poll(turn * 1000)
            # A turn that is far too long was spent suspended, and so was the target.
            left -= min(time.monotonic() - start, 2 * turn)
            if rest:
                rest = rest[self._send(rest) :]
            piece = self._receive()
            if piece:
                pieces.append(piece)
                size += len(piece)
                if b"\n" in piece:
                    break
                if size > _LONGEST_ANSWER:
                    raise _Broken(
                        TargetGarbled, f"it wrote a line of {size} bytes, and no end to it"
                    )
        line, _, more = b"".join(pieces).partition(b"\n")
        return self._checked(line, more, number)

    def _send(self, rest: memoryview) -> int:
        try:
            return os.write(self._to, rest) if rest else 0
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            if self._has_ended():
                raise self._ended() from None
            raise _Broken(TargetExited, "it has closed its standard input") from None

    def _receive(self) -> bytes:
        try:
            piece = os.read(self._from, 1 << 20)
        except BlockingIOError:
            return b""
        if not piece:
            if self._has_ended():
                raise self._ended()
            raise _Broken(TargetExited, "it has closed its standard output")
        return piece

    def _checked(self, line: bytes, more: bytes, number: int) -> dict[str, Any]:
        try:
            answer = protocol.read_message(line)
            if answer.get("id") != number or isinstance(answer.get("id"), bool):
                raise protocol.ProtocolError(f"its id is not {number}")
            if ("result" in answer) == ("error" in answer):
                raise protocol.ProtocolError('it has not one of "result" and "error"')
        except protocol.ProtocolError as error:
            raise _Broken(
                TargetGarbled,
                f"it wrote to standard output: {_shown(line)}, which is no answer ({error}). "
                "What is for people goes to standard error",
            ) from None
        if more:
            raise _Broken(
                TargetGarbled,
                f"it wrote to standard output: {_shown(more)}, behind its answer. "
                "What is for people goes to standard error",
            )
        return answer

    def _has_ended(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(1.0)  # its pipes are closed a moment before it is gone
        return self._popen.poll() is not None

    def _ended(self) -> _Broken:
        status = self._popen.returncode
        if status < 0:
            try:
                how = f"was ended by {signal.Signals(-status).name}"
            except ValueError:
                how = f"was ended by signal {-status}"
        else:
            how = f"exited with status {status}"
        return _Broken(TargetExited, f"its process {how}{self.said()}")

    def said(self, n_lines: int = 8, n_bytes: int = 4000) -> str:
        """Return the end of what it has written to standard error, in words."""
        size = os.fstat(self._errors.fileno()).st_size
        start = max(size - n_bytes, 0)
        text = os.pread(self._errors.fileno(), n_bytes, start).decode("utf-8", "replace")
        lines = [line for line in text.rstrip().splitlines() if not _MACHINERY.search(line)]
        said = "\n".join(lines[-n_lines:]).strip()
        return f"; it said:\n{said}" if said else ""

    def end(self) -> None:
        """Kill it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._errors.close()


def _shown(line: bytes) -> str:
    text = line[:80].decode("utf-8", "replace")
    return repr(text) + ("..." if len(line) > 80 else "")
