r"""How the kernels are compiled, and how they are run on more than one core.

A parallel kernel is told whether it may share its loops out (`_loops.share_out`). On one thread
runs what is small, and what must not run on more: in a process that was forked from one that has
threads (whose threads the fork did not copy), and while another Python thread is inside a parallel
kernel (not every pool that Numba can run on allows two).

Compiled code is kept on disk, under a name with a fingerprint of this whole package in it: Numba
itself looks for changes only in the file that a kernel stands in, and not in those of the functions
that are compiled into it. Where no folder can be written to, or the disk is full, it is compiled
anew in each process and nothing else changes.

To get vectors out of a loop, run it from 0 over a slice: an index that starts elsewhere may be
negative, for all that the compiler knows, and then counts from the end.

Floating point is that of NumPy: NaN and infinities are what they are (no ``nnan``, no ``ninf``).
Only `CONTRACT` is allowed, a b + c rounded once; where there are two products, `rounded` says which
one is not a part of it. Sums keep the order that they are written in: see
`_sums`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import binding  # type: ignore[import-untyped]
from numba.core import compiler_lock, event

from ._loops import SIGNATURE, SYMBOL, in_vectors, on_all_threads, share_out

__all__ = [
    "CONTRACT",
    "FEW",
    "Kernel",
    "elementwise",
    "in_vectors",
    "inline",
    "kernel",
    "on_compilation",
    "parallel",
    "rounded",
    "share_out",
]

CONTRACT = frozenset({"contract"})

_OPTIONS: dict[str, Any] = {
    "fastmath": set(CONTRACT),
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # no other language calls them, and it takes a tenth of the time
}

# OpenMP's threads wait for work by spinning, for milliseconds, on cores that something else may
# want: on a busy machine a parallel loop of 3 microseconds then takes as many milliseconds. If they
# go to sleep at once, they take long to wake on an idle one. So they spin for a fraction of a
# millisecond, which is what lies between two parallel loops of a step. The variables are read when
# OpenMP is loaded, which Numba does later; who has chosen for themselves is left alone.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
    os.environ["GOMP_SPINCOUNT"] = "12000"
    os.environ["KMP_BLOCKTIME"] = "0"

FEW = 40_000
"""Numbers that one thread is through with in the time that it takes to wake another."""

_inside = threading.Lock()
_forked = False


def _note_fork() -> None:
    global _forked, _inside
    _forked, _inside = True, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
    # A child has a copy of Numba's lock, but not of the thread that held it and would release it.
    # So a fork waits until nobody compiles: else the child would wait for ever, for its first
    # kernel.
    if hasattr(compiler_lock, "global_compiler_lock"):
        _compiling = compiler_lock.global_compiler_lock
        os.register_at_fork(
            before=_compiling.acquire,
            after_in_parent=_compiling.release,
            after_in_child=_compiling.release,
        )


@functools.cache
def _fingerprint() -> str:
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in (*sorted(here.glob("*.py")), here.parent / "noise.py"):  # whose constants are used
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _decorated(
    decorator: Callable[..., Any], function: Callable[..., Any], *, cache: bool, **options: Any
) -> Any:
    """Apply one of Numba's decorators; keep the code on disk, if a folder is there for it."""
    assert isinstance(function, FunctionType)
    # Under a name of its own: by its name Numba knows what it has on disk.
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__
    )
    copy.__module__ = function.__module__
    copy.__qualname__ = f"{function.__qualname__}_{_fingerprint()}"
    try:
        return decorator(cache=cache, **options)(copy)
    except (RuntimeError, OSError):  # no folder, or one that is full or has become read-only
        if not cache:
            raise
        return decorator(**options)(copy)


_loops: list[Any] = []  # which must not be freed


def _let_kernels_find_threads() -> None:
    """Compile the loop that kernels share their turns out with, and tell them where it is."""
    if not _loops:
        decorator = functools.partial(numba.cfunc, SIGNATURE)
        loop = _decorated(decorator, on_all_threads, cache=True, parallel=True)
        binding.add_symbol(SYMBOL, loop.address)
        _loops.append(loop)  # and not before: another thread may look


def on_compilation(listener: Callable[[], None]) -> None:
    """Call `listener` once, before the first kernel that is not on disk is compiled."""
    told = False

    class Once(event.Listener):
        def on_start(self, event: Any) -> None:
            nonlocal told
            if not told:
                told = True
                listener()

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Once())


class Kernel:
    """A function that Numba compiles on its first call.

    A parallel one has a first parameter more than it is called with: whether it may use many
    threads.
    """

    def __init__(self, function: Callable[..., Any], *, parallel: bool):
        functools.update_wrapper(self, function)
        self._function, self.name = function, function.__name__
        self._has_loops = parallel
        self._compiled: Any = None

    def _compile(self, *, cache: bool) -> Any:
        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            # Of an overflow or a NaN, compiled code says nothing either.
            return np.errstate(all="ignore")(self._function)
        if self._has_loops:
            _let_kernels_find_threads()
        return _decorated(numba.njit, self._function, cache=cache, nogil=True, **_OPTIONS)

    def __call__(self, *args: Any) -> Any:
        """Run, on as many threads as may be."""
        if not self._has_loops:
            return self._run(args)
        if _forked or not _inside.acquire(blocking=False):
            return self._run((False, *args))
        try:
            return self._run((True, *args))
        finally:
            _inside.release()

    def alone(self, *args: Any) -> Any:
        """Run on one thread."""
        return self._run((False, *args) if self._has_loops else args)

    def sized(self, size: int, *args: Any) -> Any:
        """Run on one thread what is smaller than `FEW`: to wake another would take longer."""
        return self.alone(*args) if size < FEW else self(*args)

    def _run(self, args: tuple[Any, ...]) -> Any:
        if self._compiled is None:
            self._compiled = self._compile(cache=True)
        try:
            return self._compiled(*args)
        except OSError:  # the disk is full, or the folder has become read-only
            self._compiled = self._compile(cache=False)
            return self._compiled(*args)


def parallel(function: Callable[..., Any]) -> Kernel:
    """Make a kernel that shares loops out: it hands its first parameter on to `share_out`."""
    return Kernel(function, parallel=True)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Make a kernel for one thread: for what is too small to be shared out."""
    return Kernel(function, parallel=False)


def inline(function: Callable[..., Any]) -> Any:
    """Make a function that kernels call; it is compiled with them."""
    return numba.njit(function, **_OPTIONS)


def elementwise(function: Callable[..., Any]) -> Any:
    """Make a function for `in_vectors`, or one that such a function calls.

    It is copied to where it is called; of a loop with a call in it no vectors are made.
    """
    return numba.njit(function, forceinline=True, **_OPTIONS)


def _rounded(a, b):  # type: ignore[no-untyped-def]
    """Return a b, rounded, whatever it is added to.

    Of a b + c d a compiler may round either product and not the other, and does now this and now
    that: in vectors, in what is left at their end, when it compiles anew. Here one is chosen.
    """
    return a * b


# What is not said of `fastmath` is taken from the caller.
rounded: Any = numba.njit(_rounded, fastmath=False, error_model="numpy", forceinline=True)
