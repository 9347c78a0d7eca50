"""What an entry of the catalogue is, and how one is written down."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..interface import FUNCTIONS
from ..plain import Plain
from .inputs import INPUTS

__all__ = ["DEVIATIONS", "Cost", "Deviation", "cost", "difference", "known", "touched"]

GENERAL = "in general"
AUTHORS = "AMLab-Amsterdam/L0_regularization"
"""The authors' own code."""


class Deviation(NamedTuple):
    """A known mistake."""

    name: str
    area: str
    """Heading of the list that it stands in."""
    formula: str
    """What it computes, in one line."""
    sentence: str
    """What is said to whom makes it."""
    at: str
    """The function on whose documented input its cost is measured."""
    given: int
    """The first of that function's inputs to measure at: 0, unless it cannot be seen there."""
    wild: str
    """Where it was seen: repository and file; or "in general"."""
    implementation: type[Plain]


class Cost(NamedTuple):
    """What a mistake does to the documented input."""

    largest: float
    """Largest difference from what is right; infinite where shapes or infinities differ."""
    text: str


DEVIATIONS: dict[str, Deviation] = {}
"""Every known mistake by name."""


def known(
    name: str,
    *,
    area: str,
    at: str,
    formula: str,
    sentence: str,
    given: int = 0,
    wild: str = GENERAL,
) -> Callable[[type[Plain]], type[Plain]]:
    """Enter a subclass of `Plain` in the catalogue."""

    def enter(implementation: type[Plain]) -> type[Plain]:
        if name in DEVIATIONS:
            raise ValueError(f"name must be new to the catalogue, got {name!r} again")
        if at not in FUNCTIONS:
            raise ValueError(f"at must be a function of the interface, got {at!r}")
        entry = Deviation(name, area, formula, sentence, at, given, wild, implementation)
        DEVIATIONS[name] = entry
        return implementation

    return enter


def call(target: Plain, function: str, args: dict[str, Any]) -> Any:
    """Call a function of `Plain` or a deviation of it, whatever floating point makes of it."""
    with np.errstate(all="ignore"):
        return getattr(target, function)(**args)


def difference(got: Any, right: Any) -> float:
    """Return the largest difference between two results; infinity if their shapes differ."""
    if isinstance(right, dict):
        if "layers" in right:
            return _difference_of_networks(got, right)
        return max((difference(got[key], part) for key, part in right.items()), default=0.0)
    if isinstance(right, list | tuple):
        return max((difference(a, b) for a, b in zip(got, right, strict=True)), default=0.0)
    a, b = np.asarray(got, np.float64), np.asarray(right, np.float64)
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(off), np.inf, off), initial=0.0))


def _difference_of_networks(got: Any, right: Any) -> float:
    x = np.random.default_rng(0).normal(size=(7, *right["input_shape"]))
    return difference(call(Plain(), "predict", {"network": got, "x": x}), _logits(right, x))


def _logits(network: Any, x: Any) -> Any:
    return call(Plain(), "predict", {"network": network, "x": x})


@functools.cache
def _right(function: str) -> list[Any]:
    return [call(Plain(), function, given.args) for given in INPUTS[function]]


@functools.cache
def touched(name: str) -> tuple[str, ...]:
    """Return the functions that a known mistake changes, found by calling them all."""
    wrong = DEVIATIONS[name].implementation()
    found = []
    for function, given in INPUTS.items():
        for one, right in zip(given, _right(function), strict=True):
            try:
                off = difference(call(wrong, function, one.args), right)
            except (ValueError, IndexError, TypeError):  # shapes that do not fit any more
                off = np.inf
            if off > 0:
                found.append(function)
                break
    return tuple(function for function in FUNCTIONS if function in found)


@functools.cache
def cost(name: str) -> Cost:
    """Measure what a known mistake does to the documented input of its function."""
    deviation = DEVIATIONS[name]
    wrong = deviation.implementation()
    inputs = list(zip(INPUTS[deviation.at], _right(deviation.at), strict=True))
    for given, right in inputs[deviation.given :]:
        got = call(wrong, deviation.at, given.args)
        off = difference(got, right)
        if off > 0:
            break
    where = f"`{deviation.at}`" + (f", {given.words}" if given.words else "")
    if deviation.at == "compact":
        return Cost(off, f"logits off by up to {off:.3g}: {where}")
    if isinstance(right, dict) and "flops" in right:
        key = max(right, key=lambda part: abs(got[part] / right[part] - 1))
        return Cost(off, f"{got[key]:,.6g} for {right[key]:,.6g} {key}: {where}")
    if not isinstance(right, list | tuple | dict) and np.ndim(right) == 0:
        return Cost(off, f"{float(got):,.6g} for {float(right):,.6g}: {where}")
    if not np.isfinite(off):
        why = "not finite" if np.shape(got) == np.shape(right) else "of another shape"
        return Cost(off, f"{why}: {where}")
    return Cost(off, f"off by up to {off:.3g}: {where}")
