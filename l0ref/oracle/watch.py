"""One call of a target in this process, and all that it did besides returning: see `observe`."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import locale
import logging
import os
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .protocol import layout_of, with_layout

__all__ = [
    "Call",
    "Raised",
    "changed_paths",
    "copied",
    "observe",
    "readable",
    "snapshot",
    "state_changes",
]


_MACHINERY = tuple(os.path.join(os.path.dirname(__file__), f"{n}.py") for n in ("watch", "targets"))
"""Files that are between a target and whoever calls it."""


RECURSION = "the recursion limit"


class Call(NamedTuple):
    """What came of a call.

    Attributes
    ----------
    result : object
        What the function returned.
    stdout : str
        What it printed.
    changed : tuple of str
        Which of its arguments it changed in place, such as "x" or "network.layers[0].weight".
    state : tuple of str
        Which global state it changed, in words.
    warnings : tuple of str
        Those that it gave, such as "RuntimeWarning: overflow encountered in exp".
    """

    result: Any = None
    stdout: str = ""
    changed: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def readable(text: str) -> str:
    r"""Return a text that can be written, in any encoding of Unicode.

    Halves of characters, as JavaScript makes them when it cuts an emoji in two, cannot.

    Examples
    --------
    >>> readable("cut \ud83d")
    'cut \\ud83d'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Raised(NamedTuple):
    """What a function raised: the exception's type, its text, and the line that raised it."""

    type: str
    message: str
    where: str

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """Describe an exception."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename not in _MACHINERY]
        where = f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
        names = [kind.__name__ for kind in type(error).__mro__]
        # A subclass of NotImplementedError says the same thing as NotImplementedError itself.
        name = "NotImplementedError" if "NotImplementedError" in names else names[0]
        try:
            message = str(error)
        except Exception as another:
            message = f"(its text raises {type(another).__name__})"
        return cls(name, message, where)


def observe(
    function: Callable[..., Any], args: Mapping[str, Any], *, restore: bool = True
) -> tuple[Call, BaseException | None]:
    """Call a function with copies of the arguments, by name, and watch what it changes.

    Changes of global state, and that something is deprecated, are left out for a call that imports
    something for the first time: libraries set themselves up then. The global generators are moved
    on before, so that to seed them is a change every time; a call that leaves them alone leaves
    them as they were, for whoever else draws from them in this process.

    Parameters
    ----------
    function : callable
    args : mapping of str to object
    restore : bool, optional
        False if nobody else works here: the generators are left where they are, and what a call
        changes of the rest is left as it is, which takes less time.

    Returns
    -------
    call : Call
        With what the function did; what it printed is for the caller to catch.
    error : BaseException or None
        What it raised, whatever that was.
    """
    given = copied(args)
    generators = _generators()
    at_rest = {name: one.get() for name, one in generators.items()} if restore else {}
    for one in generators.values():
        one.move_on()
    before = snapshot()  # which may import something itself
    n_modules = len(sys.modules)
    result, raised, filters_changed = None, None, False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        try:
            result = function(**given)
        except BaseException as error:
            raised = error
        recursion = sys.getrecursionlimit()
        sys.setrecursionlimit(before[RECURSION])  # at once: to look at the rest takes calls, too
        filters_changed = list(warnings.filters) != filters
    after = snapshot() | {RECURSION: recursion}
    state = state_changes(before, after)
    if restore and state:
        _put_back(before, after)
    for name, one in generators.items():
        if name in at_rest and after.get(name) == before[name]:
            one.put(at_rest[name])
    state = (*state, *_Earlier.written_over())
    if filters_changed:
        state = (*state, "the filters of warnings changed")
    if len(sys.modules) > n_modules:  # an import's doing; what is the function's, it does again
        state = ()
        caught = [one for one in caught if not issubclass(one.category, DeprecationWarning)]
    _Earlier.keep(result)
    texts = (f"{one.category.__name__}: {one.message}" for one in caught)
    call = Call(
        result=result,
        changed=tuple(changed_paths(args, given)),
        state=state,
        warnings=tuple(dict.fromkeys(texts)),
    )
    return call, raised


# --- arguments ---


def copied(value: Any) -> Any:
    """Return a copy, all the way down, with arrays laid out in memory as they were."""
    if isinstance(value, np.ndarray):
        copy = np.array(value, order="C", subok=False)
        return with_layout(copy, layout_of(value))
    if isinstance(value, Mapping):
        return {key: copied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [copied(part) for part in value]
    if isinstance(value, tuple):
        return tuple(copied(part) for part in value)
    return value


def changed_paths(before: Any, after: Any, path: str = "") -> list[str]:
    """List where two values differ, to the bit.

    Examples
    --------
    >>> changed_paths({"x": np.zeros(2), "u": [1]}, {"x": np.ones(2), "u": [1]})
    ['x']
    """
    if before is after:
        return []
    if isinstance(before, np.ndarray):
        same = (
            isinstance(after, np.ndarray)
            and after.shape == before.shape
            and after.dtype == before.dtype
            and after.tobytes() == before.tobytes()
        )
        return [] if same else [path]
    if isinstance(before, Mapping):
        if not isinstance(after, Mapping) or before.keys() != after.keys():
            return [path or "the arguments"]
        dot = f"{path}." if path else ""
        return [
            p
            for key, part in before.items()
            for p in changed_paths(part, after[key], f"{dot}{key}")
        ]
    if isinstance(before, list | tuple):
        if not isinstance(after, list | tuple) or len(before) != len(after):
            return [path]
        pairs = enumerate(zip(before, after, strict=True))
        return [p for i, (a, b) in pairs for p in changed_paths(a, b, f"{path}[{i}]")]
    same_value = before == after or (before != before and after != after)  # NaN is as it was
    return [] if same_value else [path]


# --- global state ---


class _Generator(NamedTuple):
    """A global generator of random numbers."""

    get: Callable[[], Any]
    put: Callable[[Any], Any]
    move_on: Callable[[], Any]
    look: Callable[[], Any] | None = None
    """What is compared, where there is something faster than `get`: twice for every call."""


_seeds = itertools.count(0x10000EF5)  # not one that a function would use itself


def _move_numpy_on() -> None:
    """Put NumPy's global generator where it has not been, with no normal number that waits.

    It makes these in pairs: a call that takes the second one would leave all words as they were.
    """
    try:
        np.random.seed(next(_seeds) % 2**32)  # noqa: NPY002
    except TypeError:  # someone has put another kind of generator in its place
        np.random.random_sample()  # noqa: NPY002


def _words_of_numpy() -> Any:
    """Return the words of NumPy's global generator; as an array, they would take much longer."""
    bits: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if type(bits) is not np.random.MT19937:
        return np.random.get_state(legacy=False)  # noqa: NPY002
    # 624 words and the place among them, as the interface for C has them
    return ctypes.string_at(bits.ctypes.state_address, 625 * 4)


def _generators() -> dict[str, _Generator]:
    """Return those that there are, by what they are called."""
    found = {
        "the global state of numpy.random": _Generator(
            lambda: np.random.get_state(legacy=False),  # noqa: NPY002
            np.random.set_state,
            _move_numpy_on,
            _words_of_numpy,
        ),
        "the global state of random": _Generator(random.getstate, random.setstate, random.random),
    }
    torch: Any = sys.modules.get("torch")
    if all(hasattr(torch, name) for name in ("get_rng_state", "set_rng_state", "rand")):
        found["the global state of torch.random"] = _Generator(
            torch.get_rng_state, torch.set_rng_state, lambda: torch.rand((), device="cpu")
        )
    return found


def snapshot() -> dict[str, Any]:
    """Return the global state that an honest function leaves alone, by what it is called."""
    state: dict[str, Any] = {
        name: _frozen((one.look or one.get)()) for name, one in _generators().items()
    }
    state |= {name: get() for name, (get, _) in _SETTINGS.items()}
    state |= {
        "os.environ": _environment(),
        RECURSION: sys.getrecursionlimit(),
        "the handlers of logging's root": list(logging.root.handlers),
    }
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_default_dtype") and hasattr(torch, "is_grad_enabled"):
        state["torch.get_default_dtype()"] = torch.get_default_dtype()
        state["torch.is_grad_enabled()"] = torch.is_grad_enabled()
    jax: Any = sys.modules.get("jax")
    if hasattr(jax, "config"):
        state["jax.config.jax_enable_x64"] = jax.config.jax_enable_x64
    return state


def _put_back(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Undo changes that would be in the way of whoever else works in this process."""
    for name, (_, put) in _SETTINGS.items():
        if before[name] != after.get(name):
            with contextlib.suppress(Exception):  # the folder may be gone
                put(before[name])


class _Earlier:
    """What the call before returned, and a copy of it."""

    BYTES = 2**20
    """Of more no copy is made, for it would take too long."""
    result: ClassVar[Any] = None
    copy: ClassVar[Any] = None

    @classmethod
    def keep(cls, result: Any) -> None:
        """Keep a result in place of the one before."""
        cls.result = cls.copy = None
        with contextlib.suppress(Exception):  # of classes of the target's own, or without an end
            if _bytes_in(result) <= cls.BYTES:
                cls.copy, cls.result = copied(result), result

    @classmethod
    def written_over(cls) -> tuple[str, ...]:
        """Say whether it is another one than it was."""
        with contextlib.suppress(Exception):
            if changed_paths(cls.copy, cls.result):
                return ("what an earlier call returned was written over",)
        return ()


def _bytes_in(value: Any) -> int:
    if type(value) is np.ndarray:
        return value.nbytes
    if isinstance(value, np.ndarray):
        raise TypeError("of other classes a copy is not the same")
    if isinstance(value, Mapping):
        return sum(map(_bytes_in, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes_in, value))
    return 0


def _environment() -> dict[Any, Any]:
    """Return a copy of os.environ; not as text if it can be had without: decoding it takes long."""
    return dict(getattr(os.environ, "_data", os.environ))


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # someone has removed it
        return "a directory that is gone"


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "numpy.geterr()": (np.geterr, lambda was: np.seterr(**was)),
    "numpy.get_printoptions()": (np.get_printoptions, lambda was: np.set_printoptions(**was)),
    "the working directory": (_working_directory, os.chdir),
    "sys.path": (lambda: list(sys.path), lambda was: sys.path.__setitem__(slice(None), was)),
    "the locale": (
        lambda: locale.setlocale(locale.LC_ALL),
        lambda was: locale.setlocale(locale.LC_ALL, was),
    ),
    "the level of logging's root": (lambda: logging.root.level, logging.root.setLevel),
}
"""How to look at what is watched, and how to put it back."""


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(part) for key, part in value.items()}
    if hasattr(value, "numpy"):  # of torch
        value = value.numpy()
    return value.tobytes() if isinstance(value, np.ndarray) else value


def state_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is different, in words; what is new in `after` (a module just imported) is not.

    Examples
    --------
    >>> state_changes({"the working directory": "/a"}, {"the working directory": "/b"})
    ("the working directory changed from '/a' to '/b'",)
    """
    return tuple(
        _change(name, value, after.get(name))
        for name, value in before.items()
        if after.get(name) != value
    )


def _change(name: str, before: Any, after: Any) -> str:
    if "random" in name:  # hundreds of numbers
        return f"{name} changed"
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        texts = (os.fsdecode(k) if isinstance(k, bytes) else str(k) for k in keys)
        return f"{name} changed in {', '.join(texts)}"
    return f"{name} changed from {before!r} to {after!r}"
