"""Whether a result is right: structure, shape, dtype, and every number within what is allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Mismatch", "Tolerance", "compare", "describe"]

_LONG = 10**40
"""Integers from here on are not written out."""


class Tolerance(NamedTuple):
    r"""What rounding is allowed: \|got - expected\| <= abs + rel * \|expected\|, elementwise.

    NaN equals NaN, and an infinity equals the same infinity.
    """

    abs: Any
    """A number, an array, or a structure like the expected result's with these at its leaves."""
    rel: float
    reason: str


class Mismatch(NamedTuple):
    """What is wrong with a result."""

    message: str
    """One line: where, what came, what is right, by how much it is off, how much is allowed."""
    worst: float
    """The largest error in units of what is allowed; infinity for a wrong shape or type."""


def compare(got: Any, expected: Any, tolerance: Tolerance, *, dtype: Any) -> Mismatch | None:
    """Compare a result with the right one; None if nothing is wrong.

    Parameters
    ----------
    got : object
        What an implementation returned.
    expected : object
        Arrays, numbers, strings, None, or dicts and sequences of them, as deep as need be. Where
        it has an array with axes, an array must have come: of this shape, and of `dtype` if the
        expected one is floating. Where it has an array of integers, integers of any width or
        whole floats are right. Where it has a number or an array without axes, either will do, of
        any width.
    tolerance : Tolerance
        What is allowed. `tolerance.abs` may be a structure as deep as `expected`, or stop higher
        up and hold for all below.
    dtype : dtype or None
        Of floating arrays; None if it is not to be looked at.

    Returns
    -------
    Mismatch or None
        The worst number if all structures, shapes and types are right, else the first that is not.

    Examples
    --------
    >>> allowed = Tolerance(1e-6, 0.0, "rounding")
    >>> compare(np.array([0.5, 1.0]), np.array([0.5, 1.0]), allowed, dtype="float64") is None
    True
    >>> compare([0.5, 1.0], np.array([0.5, 1.0]), allowed, dtype="float64").message
    'a list of 2 came, an array of shape (2,) is due'
    >>> print(compare(np.array([0.5, 0.9]), np.array([0.5, 1.0]), allowed, dtype=None).message)
    at [1]: got 0.9, expected 1.0, off by 0.1, allowed 1e-06
    """
    return _compare(plain_arrays(got), expected, tolerance, tolerance.abs, dtype, "")


def plain_arrays(value: Any) -> Any:
    """Return the same with NumPy's own arrays for those of subclasses, which compute by own rules.

    Masked arrays stay: numbers that are masked are none, and `compare` refuses them.

    Examples
    --------
    >>> plain_arrays([np.zeros(2).view(np.recarray)])
    [array([0., 0.])]
    """
    if isinstance(value, np.ndarray):
        is_own = type(value) is np.ndarray or isinstance(value, np.ma.MaskedArray)
        return value if is_own else np.array(value, subok=False)
    if type(value) in (list, tuple):
        return type(value)(plain_arrays(part) for part in value)
    return (
        {key: plain_arrays(part) for key, part in value.items()} if type(value) is dict else value
    )


def describe(value: Any) -> str:
    """Say in a few words what kind of thing this is: "an array of shape (3,), float64".

    Examples
    --------
    >>> describe(np.zeros(3)), describe(None), describe((1, 2))
    ('an array of shape (3,), float64', 'None', 'a tuple of 2')
    """
    if value is None or isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, np.ma.MaskedArray):
        return f"a masked array of shape {value.shape}, {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, np.generic):
        return f"{value!s} ({value.dtype})"
    if isinstance(value, int) and abs(value) >= _LONG:
        return f"an integer of about {int(math.log10(abs(value))) + 1} digits"
    if isinstance(value, numbers.Number):
        return f"{value!r}"
    name = type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    if isinstance(value, Mapping | Sequence):
        return f"{article} {name} of {len(value)}"
    return f"{article} {name}"


def _wrong(where: str, message: str) -> Mismatch:
    return Mismatch(f"at {where}: {message}" if where else message, math.inf)


def _compare(
    got: Any, expected: Any, tolerance: Tolerance, allowed: Any, dtype: Any, where: str
) -> Mismatch | None:
    if isinstance(expected, Mapping):
        return _compare_mappings(got, expected, tolerance, allowed, dtype, where)
    if isinstance(expected, list | tuple):
        return _compare_sequences(got, expected, tolerance, allowed, dtype, where)
    if expected is None or isinstance(expected, str | bool | np.bool_):
        # `1 == True` is no answer to a question for yes or no
        same_type = isinstance(got, bool | np.bool_) == isinstance(expected, bool | np.bool_)
        if same_type and not isinstance(got, np.ndarray) and got == expected:
            return None
        return _wrong(where, f"{describe(got)} came, {expected!r} is right")
    right = np.asarray(expected)
    if right.ndim == 0:
        return _compare_scalars(got, right, tolerance, allowed, where)
    return _compare_arrays(got, right, tolerance, allowed, dtype, where)


def _compare_mappings(
    got: Any, expected: Any, tolerance: Tolerance, allowed: Any, dtype: Any, where: str
) -> Mismatch | None:
    if not isinstance(got, Mapping):
        return _wrong(where, f"{describe(got)} came, a dict with {_names(expected)} is due")
    missing = [key for key in expected if key not in got]
    extra = [key for key in got if key not in expected]
    if missing or extra:
        lacks = f"lacks {_names(missing)}" if missing else ""
        has = f"has {_names(extra)}, which is not due" if extra else ""
        return _wrong(where, "the dict " + " and ".join(filter(None, (lacks, has))))
    return _worst(
        _compare(got[k], part, tolerance, _part(allowed, k), dtype, f"{where}[{k!r}]")
        for k, part in expected.items()
    )


def _names(keys: Any) -> str:
    return ", ".join(repr(key) for key in keys) or "no keys"


def _compare_sequences(
    got: Any, expected: Any, tolerance: Tolerance, allowed: Any, dtype: Any, where: str
) -> Mismatch | None:
    is_sequence = isinstance(got, Sequence) and not isinstance(got, str | bytes)
    if not is_sequence and not (isinstance(got, np.ndarray) and got.ndim):
        return _wrong(where, f"{describe(got)} came, a sequence of {len(expected)} is due")
    if len(got) != len(expected):
        return _wrong(where, f"{describe(got)} came, {len(expected)} in a sequence are due")
    return _worst(
        _compare(item, part, tolerance, _part(allowed, i), dtype, f"{where}[{i}]")
        for i, (item, part) in enumerate(zip(got, expected, strict=True))
    )


def _part(allowed: Any, key: Any) -> Any:
    return allowed[key] if isinstance(allowed, Mapping | list | tuple) else allowed


def _worst(found: Any) -> Mismatch | None:
    """Return the first mismatch of structure, or else the one that is farthest off."""
    worst: Mismatch | None = None
    for mismatch in found:
        if mismatch is None:
            continue
        if mismatch.worst == math.inf:
            return mismatch  # type: ignore[no-any-return]
        if worst is None or mismatch.worst > worst.worst:
            worst = mismatch
    return worst


def _compare_scalars(
    got: Any, expected: Any, tolerance: Tolerance, allowed: Any, where: str
) -> Mismatch | None:
    got = plain_arrays(got)
    is_number = isinstance(got, numbers.Real | np.number | np.ndarray)
    is_number = is_number and not isinstance(got, np.ma.MaskedArray)
    if not is_number or isinstance(got, bool):
        return _wrong(where, f"{describe(got)} came, a number is due")
    value = np.asarray(got)
    if value.ndim:
        return _wrong(where, f"{describe(got)} came, a number or an array without axes is due")
    if value.dtype.kind not in "fiu":
        # a Python int beyond 64 bits is an array of objects, and a number all the same
        if not isinstance(got, int):
            return _wrong(where, f"{describe(got)} came, a real number is due")
        try:
            value = np.asarray(float(got))
        except OverflowError:
            return _wrong(where, f"{describe(got)} came, which no float64 can hold")
    return _compare_numbers(value, expected, tolerance, allowed, where)


def _compare_arrays(
    got: Any, expected: Any, tolerance: Tolerance, allowed: Any, dtype: Any, where: str
) -> Mismatch | None:
    due = f"an array of shape {expected.shape}"
    got = plain_arrays(got)  # it may come out of a container of another kind
    if not isinstance(got, np.ndarray) or isinstance(got, np.ma.MaskedArray):
        return _wrong(where, f"{describe(got)} came, {due} is due")
    if got.shape != expected.shape:
        return _wrong(where, f"{describe(got)} came, {due} is due")
    if expected.dtype.kind in "iu":
        if got.dtype.kind not in "iuf":
            return _wrong(where, f"{describe(got)} came, integers are due")
    elif got.dtype.kind != "f":
        return _wrong(where, f"{describe(got)} came, floating numbers are due")
    elif dtype is not None and got.dtype != np.dtype(dtype):
        return _wrong(where, f"{got.dtype} came, {np.dtype(dtype)} is due as that went in")
    return _compare_numbers(got, expected, tolerance, allowed, where)


def _compare_numbers(
    got: Any, expected: Any, tolerance: Tolerance, allowed: Any, where: str
) -> Mismatch | None:
    with np.errstate(all="ignore"):
        value = got.astype(np.float64, copy=False)
        right = expected.astype(np.float64, copy=False)
        limit = np.asarray(allowed, np.float64) + tolerance.rel * np.abs(right)
        error = np.abs(value - right)
        if ((error <= limit) & (error < math.inf)).all():  # as nearly always: nothing is special
            return None
        limit = np.broadcast_to(limit, right.shape)
        same = (value == right) | (np.isnan(value) & np.isnan(right))
        # what is not finite, on either side, is off by everything unless it is the same
        error = np.where(np.isfinite(value) & np.isfinite(right), error, math.inf)
        if bool(np.all(same | (error <= limit) & np.isfinite(error))):
            return None
        ratio = np.where(same, 0.0, np.where(limit > 0, error / limit, math.inf))
        ratio = np.where(np.isnan(ratio), math.inf, ratio)
    index = np.unravel_index(int(np.argmax(ratio)), right.shape) if right.shape else ()
    if index:
        where += "[" + ", ".join(str(int(i)) for i in index) + "]"
    off = error[index]
    by = f"off by {off:.3g}, allowed {limit[index]:.3g}" if math.isfinite(off) else "never allowed"
    message = f"got {_digits(got[index])}, expected {_digits(right[index])}, {by}"
    return Mismatch(f"at {where}: {message}" if where else message, float(ratio[index]))


def _digits(value: Any) -> str:
    """Return as many digits as tell a number from its neighbours."""
    if np.asarray(value).dtype.kind in "iu":
        return str(int(value))
    if np.asarray(value).dtype.itemsize <= 4:
        return str(np.float32(value))
    return repr(float(value))
