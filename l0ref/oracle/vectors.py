r"""Expected values for single calls, read from the files in `vectors/`.

The files are plain JSON, for any language; ``vectors/schema.json`` describes them. Every number in
them is a decimal string or an integer. Inputs are exact float32 numbers, so that an implementation
in either precision is given the same numbers; expected values have 25 significant digits, all
proven by ball arithmetic (`l0ref.oracle.generate`). `load` reads an area for Python:

>>> test = load("law")[0]
>>> test.id, test.function, test.result
('law/prob-active-default/typical', 'prob_active', 'match')
>>> test.args("float32")["log_alpha"][0]
array([ 0.5 , -3.25,  2.75], dtype=float32)
>>> test.expected[0].round(6)
array([0.890767, 0.160919, 0.98724 ])
>>> float(test.tolerance("float32").abs.max()) < 1e-5
True
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .compare import Tolerance

__all__ = ["AREAS", "FLAGS", "Alternative", "VectorTest", "load", "load_all", "load_file"]

FOLDER = Path(__file__).parent / "vectors"
FORMAT = 1

AREAS = ("law", "gate", "initialisation", "penalties", "layers", "cost", "training", "networks")
"""Areas that have vectors; that of implementations which only draw has none."""

INTEGER_ARRAYS = ("labels", "group_size")
"""Inputs that are NumPy arrays of integers; other lists of integers are tuples, or `index`."""

_TEXTS = ("kind", "on")


def _schema() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "schema.json").read_text(encoding="ascii"))
    return content


FLAGS: dict[str, str] = {
    entry["const"]: entry["description"] for entry in _schema()["$defs"]["flag"]["oneOf"]
}
"""What a test is there for: the mistake that it catches, or the corner that it looks into."""


@dataclass(frozen=True)
class Alternative:
    """Another result that is honest."""

    convention: str
    """What it follows, in words."""
    expected: Any
    """As `VectorTest.expected`."""
    _tolerances: Mapping[str, Any] = field(repr=False)

    def tolerance(self, dtype: str) -> Tolerance:
        """Return what is allowed, for float64 or float32."""
        return _tolerance(self._tolerances[str(np.dtype(dtype))], self.expected)


@dataclass(frozen=True)
class VectorTest:
    """One call, and what must come of it."""

    id: str
    """Area, group and name: "law/prob-active-default/typical"."""
    function: str
    """One of `l0ref.oracle.interface.FUNCTIONS`."""
    area: str
    comment: str
    source: str
    """The equation, or what else the values follow from."""
    flags: tuple[str, ...]
    """See `FLAGS`."""
    result: str
    """``match``: as expected. ``raise``: it must raise. ``acceptable``: as expected or as one of
    the alternatives, for they differ by a convention."""
    dtypes: tuple[str, ...]
    expected: Any
    """Arrays of float64 or int64, numbers, tuples, lists and dicts of them; None for ``raise``.

    For `compact`, a dict: ``logits`` on the probe's x, and ``shapes`` of the weights of dense and
    convolutional layers in order, where there is only one smallest network (else None)."""
    alternatives: tuple[Alternative, ...]
    _inputs: Mapping[str, Any] = field(repr=False)
    _probe: Mapping[str, Any] = field(repr=False)
    _tolerances: Mapping[str, Any] | None = field(repr=False)

    def args(self, dtype: str) -> dict[str, Any]:
        """Return the arguments by name, made anew, arrays being of this dtype."""
        return {key: _argument(key, value, dtype) for key, value in self._inputs.items()}

    def probe(self, dtype: str) -> dict[str, Any]:
        """Return what the result is to be tried on: for `compact`, ``x``; else nothing."""
        return {key: _argument(key, value, dtype) for key, value in self._probe.items()}

    def tolerance(self, dtype: str) -> Tolerance | None:
        """Return what is allowed for float64 or float32, in the structure of `expected`."""
        if self._tolerances is None:
            return None
        return _tolerance(self._tolerances[str(np.dtype(dtype))], self.expected)


def load(area: str) -> list[VectorTest]:
    """Return the tests of an area, in the file's order.

    Raises
    ------
    ValueError
        If there is no such area, or its file is not what was generated.
    """
    if area not in AREAS:
        raise ValueError(f"area must be one of {', '.join(AREAS)}, got {area!r}")
    return list(_loaded(area))


@cache
def _loaded(area: str) -> tuple[VectorTest, ...]:
    return tuple(load_file(FOLDER / f"{area}.json"))


def load_all() -> list[VectorTest]:
    """Return the tests of all areas."""
    return [test for area in AREAS for test in load(area)]


def load_file(path: str | Path) -> list[VectorTest]:
    """Return the tests of a file.

    Raises
    ------
    ValueError
        If the file has another format, or its checksum does not fit.
    """
    try:
        raw = Path(path).read_bytes()
        content = json.loads(raw.decode("ascii"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read, and is a part of l0ref: {error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no file of vectors: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no file of vectors of format {FORMAT}")
    # of all that is in the file but the checksum itself
    rest = raw.replace(str(content.get("sha256")).encode(), b"", 1)
    if hashlib.sha256(rest).hexdigest() != content.get("sha256"):
        raise ValueError(
            f"{path} is not what was generated: its checksum does not fit; "
            "`python -m l0ref.oracle.generate` makes it anew"
        )
    return [
        _test(content["area"], group, test)
        for group in content["groups"]
        for test in group["tests"]
    ]


def _test(area: str, group: Mapping[str, Any], test: Mapping[str, Any]) -> VectorTest:
    raises = test["result"] == "raise"
    return VectorTest(
        id=test["id"],
        function=group["function"],
        area=area,
        comment=test["comment"],
        source=group["source"],
        flags=tuple(test["flags"]),
        result=test["result"],
        dtypes=tuple(group["dtypes"]),
        expected=None if raises else _result(test["expected"]),
        alternatives=tuple(
            Alternative(
                other["convention"],
                _result(_completed(other["expected"], test["expected"])),
                _completed(other.get("tolerance", "="), test["tolerance"]),
            )
            for other in test.get("alternatives", ())
        ),
        _inputs=group["shared"] | test["inputs"],
        _probe=test.get("probe", {}),
        _tolerances=None if raises else test["tolerance"],
    )


def _completed(part: Any, like: Any) -> Any:
    """Put what stands there in place of "="."""
    if isinstance(part, str) and part == "=":
        return like
    if isinstance(part, dict) and isinstance(like, dict):
        return {key: _completed(value, like.get(key)) for key, value in part.items()}
    if isinstance(part, list) and isinstance(like, list) and len(part) == len(like):
        return [_completed(a, b) for a, b in zip(part, like, strict=True)]
    return part


# --- inputs ---


def _argument(name: str, value: Any, dtype: str) -> Any:
    """Return an input as the interface wants it."""
    if isinstance(value, dict):
        if "fill" in value:
            return np.full(tuple(value["shape"]), float(value["fill"]), dtype=dtype)
        if "list" in value:
            return [_argument(name, part, dtype) for part in value["list"]]
        return {key: _argument(key, part, dtype) for key, part in value.items()}
    if isinstance(value, str):
        return value if name in _TEXTS else float(value)
    if not isinstance(value, list):
        return value
    first = _first(value)
    if isinstance(first, dict):
        return [_argument(name, part, dtype) for part in value]
    if isinstance(first, str):
        return np.array(_floats(value), dtype=dtype)
    if name in INTEGER_ARRAYS:
        return np.array(value, dtype=np.int64)
    return list(value) if name == "index" else tuple(value)


def _first(value: Any) -> Any:
    return _first(value[0]) if isinstance(value, list) and value else value


def _floats(value: Any) -> Any:
    return [_floats(part) for part in value] if isinstance(value, list) else float(value)


# --- results ---


def _result(value: Any) -> Any:
    """Return a result as an implementation would, in float64."""
    if isinstance(value, dict):
        if "tuple" in value:
            return tuple(_result(part) for part in value["tuple"])
        return {
            key: _shapes(part) if key == "shapes" else _result(part) for key, part in value.items()
        }
    if isinstance(value, str):
        return float(value)
    if not isinstance(value, list):
        return value
    first = _first(value)
    if isinstance(first, dict):
        return [_result(part) for part in value]
    if isinstance(first, str):
        return np.array(_floats(value), dtype=np.float64)
    return np.array(value, dtype=np.int64)


def _shapes(value: Any) -> list[tuple[int, ...]] | None:
    return None if value is None else [tuple(shape) for shape in value]


def _tolerance(written: Mapping[str, Any], expected: Any) -> Tolerance:
    return Tolerance(_spread(written["abs"], expected), float(written["rel"]), written["reason"])


def _spread(allowed: Any, expected: Any) -> Any:
    """Give each leaf of the expected result its tolerance, an array for an array."""
    if isinstance(expected, dict):
        return {
            key: _spread(allowed[key] if isinstance(allowed, dict) else allowed, part)
            for key, part in expected.items()
        }
    if isinstance(expected, list | tuple):
        parts = allowed["tuple"] if isinstance(allowed, dict) else allowed
        each = parts if isinstance(parts, list) else [parts] * len(expected)
        return type(expected)(_spread(a, part) for a, part in zip(each, expected, strict=True))
    if isinstance(expected, np.ndarray):
        return np.broadcast_to(np.array(_floats(allowed)), expected.shape)
    return 0.0 if expected is None else float(allowed)
