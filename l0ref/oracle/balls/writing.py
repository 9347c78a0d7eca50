"""How vectors are written: groups of tests, exact inputs, proven digits, tolerances, JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from .arithmetic import (
    Num,
    UnprovenError,
    decimal,
    exact,
    exact_decimal,
    flat,
    float32,
    fmap,
    proven,
)

__all__ = ["Area", "Group", "pretty", "text_of"]

SAFETY = 8
"""Times the rounding errors of the formula that the generator takes: another may make more."""

WHOLE = (
    "group_size",
    "dense_flops",
    "dense_params",
    "conv2d_flops",
    "conv2d_params",
    "hard_cost",
)
"""Functions whose results are whole numbers, and are written as such."""

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}
TINY = {"float64": 2.3e-308, "float32": 1.2e-38}
"""Least normal numbers: what is smaller, some hardware makes 0."""

ROUNDING = "8 times the worst that rounding does to the equation as it stands, to first order"


class Allowed:
    """Absolute tolerances that are no multiples of eps."""

    def __init__(self, float64: float, float32: float) -> None:
        self.float64, self.float32 = float64, float32

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Allowed) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Area:
    """One file of vectors."""

    def __init__(self, area: str, title: str, source: str) -> None:
        self.area, self.title, self.source = area, title, source
        self.groups: list[Group] = []

    def group(self, id_: str, function: str, comment: str, source: str, **shared: Any) -> Group:
        """Begin a group; shared are inputs of all its tests."""
        group = Group(f"{self.area}/{id_}", function, comment, source, shared)
        self.groups.append(group)
        return group

    def written(self) -> dict[str, Any]:
        """Return the file's content."""
        content: dict[str, Any] = {
            "format": 1,
            "area": self.area,
            "title": self.title,
            "source": self.source,
            "n_tests": sum(len(group.tests) for group in self.groups),
            "groups": [group.written() for group in self.groups],
        }
        order = ("format", "area", "title", "source", "n_tests", "sha256", "groups")
        ordered = {key: content.get(key, "") for key in order}
        return ordered | {"sha256": hashlib.sha256(text_of(ordered).encode("ascii")).hexdigest()}


class Group:
    """Tests of one function that share inputs."""

    def __init__(
        self, id_: str, function: str, comment: str, source: str, shared: Mapping[str, Any]
    ) -> None:
        self.id, self.function, self.comment, self.source = id_, function, comment, source
        self.shared = dict(shared)
        self.tests: list[dict[str, Any]] = []

    def match(
        self,
        name: str,
        comment: str,
        flags: Sequence[str],
        compute: Callable[[], Any],
        *,
        probe: Mapping[str, Any] | None = None,
        tolerance: Callable[[Any], Any] | None = None,
        reason: str = ROUNDING,
        others: Sequence[tuple[str, Callable[[], Any]]] = (),
        **inputs: Any,
    ) -> None:
        """Add a test whose result is right or wrong; or, with others, right by a convention."""
        whole = self.function in WHOLE

        def write(value: Any) -> tuple[Any, Any]:
            return _results(value, tolerance, whole)

        expected, allowed = proven(compute, write)
        test = self._begun(name, comment, flags, inputs)
        if probe is not None:
            test["probe"] = {key: _input(value) for key, value in probe.items()}
        test |= {
            "result": "acceptable" if others else "match",
            "expected": expected,
            "tolerance": _tolerances(allowed, reason),
        }
        if others:
            test["alternatives"] = []
        for convention, compute_other in others:
            other, allowed_other = proven(compute_other, write)
            other = _marked_equal(other, expected)
            alternative = {"convention": convention, "expected": other}
            if allowed_other != allowed:
                alternative["tolerance"] = _tolerances(
                    _marked_equal_tolerance(other, allowed_other), reason
                )
            test["alternatives"].append(alternative)
        self.tests.append(test)

    def refuse(self, name: str, comment: str, flags: Sequence[str], **inputs: Any) -> None:
        """Add a test that must raise."""
        self.tests.append(self._begun(name, comment, flags, inputs) | {"result": "raise"})

    def _begun(
        self, name: str, comment: str, flags: Sequence[str], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        if twice := self.shared.keys() & inputs.keys():
            raise ValueError(f"{self.id}/{name} gives again what the group shares: {twice}")
        return {
            "id": f"{self.id}/{name}",
            "comment": comment,
            "flags": list(dict.fromkeys(flags)),
            "inputs": {key: _input(value) for key, value in inputs.items()},
        }

    def written(self) -> dict[str, Any]:
        """Return the group as JSON has it."""
        return {
            "id": self.id,
            "function": self.function,
            "comment": self.comment,
            "source": self.source,
            "dtypes": ["float32", "float64"],
            "shared": {key: _input(value) for key, value in self.shared.items()},
            "tests": self.tests,
        }


def _input(value: Any) -> Any:
    """Write an input; what is no float32 is refused."""
    if isinstance(value, Fraction):
        if float32(float(value)) != value:
            raise ValueError(f"{value} is no float32")
        return exact_decimal(value)
    if isinstance(value, dict):
        return {key: _input(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_input(part) for part in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"an input that is {value!r}")


def _results(value: Any, tolerance: Callable[[Any], Any] | None, whole: bool) -> tuple[Any, Any]:
    """Return digits, and tolerances in units of eps, or what `tolerance` makes of a number."""
    if isinstance(value, dict):
        pairs = {
            key: (part, 0.0) if key == "shapes" else _results(part, tolerance, whole)
            for key, part in value.items()
        }
        return {k: a for k, (a, _) in pairs.items()}, {k: b for k, (_, b) in pairs.items()}
    if isinstance(value, list | tuple):
        parts = [_results(part, tolerance, whole) for part in value]
        expected, allowed = [a for a, _ in parts], [b for _, b in parts]
        if isinstance(value, tuple):
            return {"tuple": expected}, {"tuple": allowed}
        return expected, allowed
    if isinstance(value, Num):
        if not math.isfinite(value.err):
            raise UnprovenError("the rounding error is not finite")
        digits = decimal(value.v)
        return digits, value.err * SAFETY if tolerance is None else tolerance(value)
    if isinstance(value, int):
        return value if whole else str(value), tolerance(exact(value)) if tolerance else 0.0
    if isinstance(value, str):
        return value, 0.0
    raise TypeError(f"a result that is {value!r}")


def _marked_equal(other: Any, expected: Any) -> Any:
    """Write "=" for each part of a dict that is the same in both, however deep."""
    if other == expected:
        return "="
    if isinstance(other, dict) and isinstance(expected, dict) and other.keys() == expected.keys():
        return {key: _marked_equal(part, expected[key]) for key, part in other.items()}
    if isinstance(other, list) and isinstance(_leaf(other), dict):
        return [_marked_equal(a, b) for a, b in zip(other, expected, strict=True)]
    return other


def _marked_equal_tolerance(other: Any, allowed: Any) -> Any:
    if isinstance(other, str) and other == "=":
        return "="
    if isinstance(other, dict):
        return {key: _marked_equal_tolerance(part, allowed[key]) for key, part in other.items()}
    if isinstance(other, list) and isinstance(_leaf(other), dict):
        return [_marked_equal_tolerance(a, b) for a, b in zip(other, allowed, strict=True)]
    return allowed


def _tolerances(allowed: Any, reason: str) -> dict[str, Any]:
    return {
        dtype: {"abs": _absolute(allowed, dtype), "rel": "0", "reason": reason}
        for dtype in ("float64", "float32")
    }


def _absolute(allowed: Any, dtype: str) -> Any:
    """Write absolute tolerances: one for an array if that is nearly as good as one a number."""
    if isinstance(allowed, dict):
        return {key: _absolute(part, dtype) for key, part in allowed.items()}
    if isinstance(allowed, list) and isinstance(_leaf(allowed), dict):
        return [_absolute(part, dtype) for part in allowed]
    if isinstance(allowed, str):
        return allowed
    values = [_value(leaf, dtype) for leaf in flat(allowed)]
    most = max(values, default=0.0)
    if most <= 10 * min(values, default=0.0) or most <= TINY[dtype]:
        return _number(most, dtype)
    return fmap(lambda leaf: _number(_value(leaf, dtype), dtype), allowed)


def _value(allowed: Any, dtype: str) -> float:
    return float(
        getattr(allowed, dtype) if isinstance(allowed, Allowed) else allowed * EPSILON[dtype]
    )


def _leaf(nested: Any) -> Any:
    return _leaf(nested[0]) if isinstance(nested, list) and nested else nested


def _number(value: float, dtype: str) -> str:
    """Write a tolerance with two digits, rounded up."""
    value = max(value, TINY[dtype])
    exponent = math.floor(math.log10(value))
    for exponent in (exponent, exponent + 1):  # noqa: B020
        mantissa = math.ceil(value / 10.0**exponent * 10 - 1e-9)
        if mantissa < 100:
            break
    return f"{mantissa / 10}e{exponent}"


# --- JSON ---


def text_of(content: Mapping[str, Any]) -> str:
    """Return the whole text of a file; its checksum is that of the text without the checksum."""
    return pretty(content) + "\n"


def pretty(value: Any, indent: int = 0, width: int = 100) -> str:
    """Return JSON in which what fits on a line stands on a line."""
    line = json.dumps(value, ensure_ascii=True)
    if len(line) + indent <= width or not isinstance(value, dict | list) or not value:
        return line
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(k)}: {pretty(v, indent + 1, width)}" for k, v in value.items()]
    elif not any(isinstance(part, dict | list) for part in value):
        return _filled_lines(value, indent, width)
    else:
        parts = [pretty(part, indent + 1, width) for part in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    body = f",\n{inner}".join(parts)
    return f"{opening}\n{inner}{body}\n{' ' * indent}{closing}"


def _filled_lines(values: Sequence[Any], indent: int, width: int) -> str:
    """Write a long list of numbers, as many on a line as fit."""
    lines, line = [], ""
    for text in (json.dumps(value) for value in values):
        if line and len(line) + len(text) + indent + 3 > width:
            lines.append(line)
            line = ""
        line += (", " if line else "") + text
    lines.append(line)
    inner = " " * (indent + 1)
    return "[\n" + ",\n".join(inner + text for text in lines) + f"\n{' ' * indent}]"
