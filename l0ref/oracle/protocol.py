r"""JSON lines: how the oracle talks to an implementation that runs in a process of its own.

Any program in any language is a target if it reads requests from its standard input and writes
answers to its standard output, one JSON object a line, in UTF-8. It is started as
``"command: node target.js"``, lives through all calls, and ends when its input ends. This page is
all that its author needs, together with the list of functions in `l0ref.oracle.interface`.

1. The first request asks who is there, and which functions it has::

       {"id": 0, "function": "hello", "args": {"protocol": 1}}
       {"id": 0, "result": {"name": "my gates", "functions": ["prob_active", "sample"]}}

   A target that cannot work answers with an error, as in 4.

2. Every other request calls one of the functions that were named. All arguments are given, by the
   names of the interface, and no others::

       {"id": 7, "function": "prob_active", "args": {"log_alpha": ARRAY, "beta": 0.6666666865348816,
        "gamma": -0.10000000149011612, "zeta": 1.100000023841858}}
       {"id": 7, "result": ARRAY}

   The answer has the request's ``id``, and comes before the next request is sent.

3. Values:

   =======================  =====================================================================
   array                    ``{"dtype": "float64", "shape": [2, 3], "data": [6 numbers]}``, the
                            last axis running fastest; dtypes are float64, float32 and int64
   number                   a JSON number
   NaN and infinities       the strings ``"nan"``, ``"inf"``, ``"-inf"``, in data and alone
   several results          a list, where the interface says tuple or sequence
   network, named results   an object
   None                     null
   =======================  =====================================================================

   An array goes out with the dtype of the arrays that came in: float32 in, float32 out. All
   float32 numbers are written as decimals that are exactly theirs when read as doubles. Where the
   interface says Scalar, a number or an array of shape [] will do.

   Every argument of the interface that is an array is sent as one, one without axes too.

4. If a call fails, the answer is an error, and the target lives on::

       {"id": 7, "error": {"type": "ValueError", "message": "u must lie in (0, 1)"}}

   The type is the target's own name for it. One has a meaning: ``NotImplementedError`` says that
   this function, or this case of it, is not there, and it is reported as that and not as wrong.
   Such an answer is the only way to refuse arguments: to exit, or to be silent, is none.

5. Nothing else may be written to standard output. What is to be read by people goes to standard
   error, of which the end is shown if the process dies. A process that writes anything else, dies,
   or does not answer in time has failed the call; it is ended and started again for the next one.
   After three such calls of a function that one is not called any more, and after twelve in a row
   nothing is.

An answer may also say what else happened: ``"stdout"``, a text that was printed (and kept away from
the protocol); ``"changed"``, a list of arguments that were changed in place; ``"state"``, a list of
changes to global state, in words; ``"warnings"``, a list of texts. `l0ref.oracle.worker`, which
serves Python targets, says all of this.

The result of ``hello`` may have ``"others"``, a list of names that the target has besides: one that
is nearly the name of a function is reported, in case it was meant to be it.

If it has ``"base64": true``, arrays are sent with ``"base64"``, the numbers' bytes (little-endian)
in base64, in place of ``"data"``; they may always be answered that way. ``"layout": "F"`` or
``"strided"`` then asks for the array to be laid out in memory in Fortran's order, or with gaps; the
numbers are in the order of ``shape`` all the same.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "VERSION",
    "Foreign",
    "ProtocolError",
    "decode",
    "encode",
    "layout_of",
    "read_message",
    "with_layout",
    "write_message",
]

VERSION = 1
"""Of the protocol, sent in ``hello``."""

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class ProtocolError(ValueError):
    """What came is not what the protocol allows."""


class Foreign:
    """Stands for a result of a type that does not cross a process; its class has that name."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Foreign) and type(self).__name__ == type(other).__name__

    def __hash__(self) -> int:
        return hash(type(self).__name__)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Foreign.of, (type(self).__name__,)

    @staticmethod
    def of(name: str) -> Foreign:
        """Make one that stands for an object of a class of this name.

        Examples
        --------
        >>> Foreign.of("Tensor")
        <Tensor>
        """
        made: Foreign = type(name, (Foreign,), {})()
        return made


def write_message(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line; its values must have gone through `encode`."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def read_message(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line.

    Raises
    ------
    ProtocolError
        If it is no JSON object.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON ({error})") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


# --- values ---


def encode(value: Any, *, binary: bool = False) -> Any:
    """Return a value as what JSON can hold.

    Parameters
    ----------
    value : object
        Arrays, numbers, strings, None, and dicts, lists and tuples of them. For anything else
        stands its type's name, as ``{"foreign": "Tensor"}``: the one who reads it is to know what
        came.
    binary : bool, optional
        Write arrays in base64: faster by far, and exact whatever their dtype.

    Examples
    --------
    >>> encode(np.array([0.5, np.inf]))
    {'dtype': 'float64', 'shape': [2], 'data': [0.5, 'inf']}
    >>> encode({"flops": 12, "loss": float("nan"), "shape": (2, 3)})
    {'flops': 12, 'loss': 'nan', 'shape': [2, 3]}
    """
    if isinstance(value, np.ma.MaskedArray):  # what is masked is no number
        return {"foreign": f"masked array of {value.dtype}"}
    if isinstance(value, np.ndarray | np.generic):
        return _encode_array(np.asarray(value), binary)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _name(value)
    if isinstance(value, Mapping):
        return {str(key): encode(part, binary=binary) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [encode(part, binary=binary) for part in value]
    return {"foreign": type(value).__name__}


def _name(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _encode_array(a: NDArray[Any], binary: bool) -> dict[str, Any]:
    if a.dtype.kind not in "fiub" and not (binary and a.dtype.kind == "c"):
        return {"foreign": f"array of {a.dtype}"}
    encoded: dict[str, Any] = {"dtype": a.dtype.name, "shape": list(a.shape)}
    if binary:
        raw = a.astype(a.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
        encoded["base64"] = b64encode(raw).decode("ascii")
        if not a.flags.c_contiguous:
            encoded["layout"] = layout_of(a)
    else:
        numbers = a.astype(np.float64) if a.dtype.kind == "f" else a
        data = numbers.ravel().tolist()
        if a.dtype.kind == "f" and not np.isfinite(numbers).all():
            data = [v if math.isfinite(v) else _name(v) for v in data]
        encoded["data"] = data
    return encoded


def decode(value: Any) -> Any:
    """Return the value that `encode` wrote; tuples have become lists.

    Raises
    ------
    ProtocolError
        If something that looks like an array is none.

    Examples
    --------
    >>> decode({"dtype": "float32", "shape": [1, 2], "data": [0.5, "nan"]})
    array([[0.5, nan]], dtype=float32)
    """
    if isinstance(value, dict):
        if "dtype" in value and "shape" in value:
            return _decode_array(value)
        if value.keys() == {"foreign"}:
            return Foreign.of(str(value["foreign"]))
        return {key: decode(part) for key, part in value.items()}
    if isinstance(value, list):
        return [decode(part) for part in value]
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    return value


def _decode_array(value: dict[str, Any]) -> NDArray[Any]:
    try:
        dtype, shape = np.dtype(value["dtype"]), tuple(int(n) for n in value["shape"])
        if dtype.kind not in "fiubc":
            raise ProtocolError(f"the dtype of an array must be of numbers, got {dtype}")
        if "base64" in value:
            raw = b64decode(value["base64"], validate=True)
            flat = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
        else:
            flat = _numbers(value["data"], dtype)
        if flat.size != math.prod(shape) or min(shape, default=0) < 0:
            raise ProtocolError(f"an array of shape {list(shape)} has {flat.size} numbers")
        return with_layout(flat.reshape(shape), value.get("layout", "C"))
    except ProtocolError:
        raise
    except KeyError:
        raise ProtocolError('an array has neither "data" nor "base64"') from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"an array cannot be read: {error}") from None


def _numbers(data: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(data, list):
        raise ProtocolError("the data of an array must be a flat list of numbers")
    for i, number in enumerate(data):
        if type(number) in (float, int, bool):
            continue
        if not (isinstance(number, str) and number in _NOT_FINITE):
            hint = ' (a NaN is written "nan")' if number is None else ""
            raise ProtocolError(f"number {i} of an array is {json.dumps(number)[:40]}{hint}")
        return _numbers([*data[:i], *(_NOT_FINITE.get(n, n) for n in data[i:])], dtype)
    if dtype.kind in "iub":
        for i, number in enumerate(data):
            if isinstance(number, float) and not number.is_integer():
                raise ProtocolError(f"number {i} of an array of {dtype} is {number!r}")
    with np.errstate(over="ignore"):  # beyond float32 is infinite there
        return np.array(data, dtype=dtype)


# --- layouts in memory ---


def layout_of(a: NDArray[Any]) -> str:
    """Return "C", "F" or "strided": how an array lies in memory.

    Examples
    --------
    >>> layout_of(np.zeros((2, 3)).T), layout_of(np.zeros(4)[::2])
    ('F', 'strided')
    """
    if a.flags.c_contiguous:
        return "C"
    return "F" if a.flags.f_contiguous else "strided"


def with_layout(a: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return the same numbers laid out in memory in that way: a itself for "C", else a copy.

    Raises
    ------
    ProtocolError
        If there is no such layout.
    """
    if layout == "C":
        return a
    if layout == "F":
        return np.array(a, order="F")
    if layout == "strided":
        wide = np.zeros((*a.shape, 2), a.dtype)  # every number has a gap behind it
        wide[..., 0] = a
        return wide[..., 0]
    raise ProtocolError(f"the layout of an array must be C, F or strided, got {layout!r}")
