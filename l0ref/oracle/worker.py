"""Serve a Python target over the protocol: ``python -m l0ref.oracle.worker TARGET``.

TARGET is what `l0ref.oracle.targets.load_object` takes. The protocol keeps the real standard input
and output to itself: what the target prints goes to a file, and is handed over with the answer.
What it prints while it is imported goes to standard error, where it can be read if that hangs.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from . import protocol
from .targets import TargetImportError, functions_of, load_object, names_of
from .watch import Call, Raised, observe

__all__ = ["main"]


class _Printed:
    """What is written to standard output from now on, by Python or by the system's call."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        os.set_inheritable(self._file.fileno(), False)
        os.dup2(self._file.fileno(), 1)
        self._stdout = sys.stdout

    def restored(self) -> list[str]:
        """Undo what the target did to standard output, and say it: the next call finds it whole."""
        done = []
        if sys.stdout is not self._stdout or _closed(self._stdout):
            done.append("sys.stdout was closed or replaced")
            if _closed(self._stdout):
                self._stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False, buffering=1)
            sys.stdout = self._stdout
        if not _same_file(1, self._file.fileno()):
            done.append("descriptor 1, standard output, was closed or redirected")
            os.dup2(self._file.fileno(), 1)
        return done

    def take(self) -> str:
        """Return it, and forget it."""
        _flush()
        fd = self._file.fileno()
        size = os.fstat(fd).st_size
        if not size:
            return ""
        text = os.pread(fd, size, 0).decode("utf-8", "replace")
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)  # where descriptor 1 writes next, too
        return text


def _closed(stream: Any) -> bool:
    return stream is None or getattr(stream, "closed", False)


def _same_file(first: int, second: int) -> bool:
    try:
        return os.path.samestat(os.fstat(first), os.fstat(second))
    except OSError:  # closed
        return False


def _end_with_the_parent() -> None:
    """End when the process that started this one has: while a target hangs nobody reads on."""
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, name="ends with its parent", daemon=True).start()


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # the target has closed it
            pass


def main() -> None:
    """Answer requests until there are no more."""
    name = sys.argv[1]
    _end_with_the_parent()
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # What the first message that is logged would do by itself is no change that a function makes.
    logging.basicConfig()
    faulthandler.enable()  # so that a crash names the line on standard error
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    printed: _Printed | None = None
    functions: dict[str, Any] = {}
    for line in requests:
        request = protocol.read_message(line)
        if printed is None or request["function"] == "hello":
            answer = _hello(name, functions)
            _flush()
            printed = printed or _Printed()
        else:
            answer = _answer(functions[request["function"]], protocol.decode(request["args"]))
        text, restored = printed.take(), printed.restored()
        if text:
            answer["stdout"] = text
        if restored:
            answer["state"] = [*answer.get("state", ()), *restored]
        _write(answers, {"id": request["id"], **answer})


def _hello(name: str, functions: dict[str, Any]) -> dict[str, Any]:
    try:
        target = load_object(name)
        functions.update(functions_of(target))
    except TargetImportError as error:
        return {"error": {"type": "TargetImportError", "message": str(error)}}
    others = [one for one in names_of(target, functions) if not one.startswith("_")]
    return {
        "result": {"name": name, "functions": list(functions), "others": others, "base64": True}
    }


def _answer(function: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    call, error = observe(function, args, restore=False)
    answer: dict[str, Any] = {
        key: list(getattr(call, key))
        for key in ("changed", "state", "warnings")
        if getattr(call, key)
    }
    if error is not None:
        return answer | {"error": Raised.of(error)._asdict()}
    return answer | _encoded(call)


def _encoded(call: Call) -> dict[str, Any]:
    try:
        return {"result": protocol.encode(call.result, binary=True)}
    except Exception as error:  # of a class of the target's own
        text = f"the result of type {type(call.result).__name__} cannot be sent: {error}"
        return {"error": {"type": type(error).__name__, "message": text}}


def _write(answers: Any, answer: Mapping[str, Any]) -> None:
    rest = memoryview(protocol.write_message(answer))
    while rest:
        rest = rest[answers.write(rest) :]


if __name__ == "__main__":
    main()
