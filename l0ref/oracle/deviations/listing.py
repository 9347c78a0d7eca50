"""The catalogue as text."""

from __future__ import annotations

from ..interface import AREAS, FUNCTIONS
from .catalogue import DEVIATIONS, Deviation, cost, touched

__all__ = ["markdown"]


def markdown(*, heading: str = "###") -> str:
    """Return the list of all known deviations: what each computes, changes and costs.

    Parameters
    ----------
    heading : str, optional
        What stands before the name of an area.
    """
    lines = [
        f"{len(DEVIATIONS)} known deviations. What each costs is measured on the input that is "
        "named; what it changes was found by calling everything.",
        "",
    ]
    area = ""
    for deviation in sorted(DEVIATIONS.values(), key=_place):
        if deviation.area != area:
            area = deviation.area
            lines += [f"{heading} {area}", ""]
        lines += [_entry(deviation), ""]
    return "\n".join(lines).rstrip()


def _place(deviation: Deviation) -> int:
    areas = [one.area for one in DEVIATIONS.values()]
    return areas.index(deviation.area)


def _entry(deviation: Deviation) -> str:
    sentence = deviation.sentence[0].upper() + deviation.sentence[1:]
    parts = [
        f"- **{deviation.name}**: `{deviation.formula}`.",
        f"{sentence}.",
        f"Costs: {cost(deviation.name).text}.",
        f"Changes: {_functions(touched(deviation.name))}.",
    ]
    if deviation.wild != "in general":
        parts.append(f"Met in: {deviation.wild}.")
    return "\n  ".join(parts)


def _functions(names: tuple[str, ...]) -> str:
    """Name functions, and whole areas where all of them are meant."""
    if len(names) > len(FUNCTIONS) * 3 // 4:
        left = [name for name in FUNCTIONS if name not in names]
        return f"all but {', '.join(left)}" if left else "everything"
    words = []
    for area, members in AREAS.items():
        inside = [name for name in members if name in names]
        if len(inside) == len(members) > 3:
            words.append(f"all of {area}")
        else:
            words += [f"`{name}`" for name in inside]
    return ", ".join(words)
