"""The catalogue as text."""

from __future__ import annotations

from ..interface import AREAS, FUNCTIONS
from .catalogue import DEVIATIONS, Deviation, cost, touched

__all__ = ["markdown"]

_BRIEF = "What each costs is measured on one input of the function that is named."
_INTRODUCTION = """\
For each: what it computes in place of the right formula; what is said
to whom makes it; what it costs on the input that is named; and which functions of
`l0ref.oracle.interface` it changes. "The defaults" are beta = 2/3, gamma = -0.1 and zeta = 1.1.
Costs and changes are not written down but found, by calling everything.

"Met in" names public code that had it when it was read; without it, no instance is known to us.
Equations are those of Louizos, Welling and Kingma, *Learning sparse neural networks through L0
regularization* (ICLR 2018)."""


def markdown(*, heading: str = "###", brief: bool = False) -> str:
    """Return the list of all known deviations: what each computes, changes and costs.

    Parameters
    ----------
    heading : str, optional
        What stands before the name of an area.
    brief : bool, optional
        A table with a line each: the name, what it computes, what it costs.
    """
    count = f"{len(DEVIATIONS)} known deviations."
    lines = [f"{count} {_BRIEF if brief else _INTRODUCTION}"]
    area = ""
    for deviation in sorted(DEVIATIONS.values(), key=_place):
        if deviation.area != area:
            area = deviation.area
            lines += ["", f"{heading} {area}", ""]
            if brief:
                lines += ["| deviation | what it computes | what it costs |", "| --- | --- | --- |"]
        lines += [_row(deviation)] if brief else [_entry(deviation), ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip()


def _place(deviation: Deviation) -> int:
    areas = [one.area for one in DEVIATIONS.values()]
    return areas.index(deviation.area)


def _row(deviation: Deviation) -> str:
    """Return a line of a table, in which bars have to be escaped."""
    number = cost(deviation.name).text.partition(": ")[0]
    cells = (deviation.name, f"`{deviation.formula}`", f"{number}, `{deviation.at}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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
    """Name functions, and areas where all of them are meant, or all but one."""
    if len(names) > len(FUNCTIONS) * 3 // 4:
        left = [name for name in FUNCTIONS if name not in names]
        return f"all but {', '.join(left)}" if left else "everything"
    words = []
    for area, members in AREAS.items():
        inside = [name for name in members if name in names]
        left = [name for name in members if name not in names]
        if len(inside) > 3 and not left:
            words.append(f"all of {area}")
        elif len(inside) > 6 and len(left) == 1:
            words.append(f"all of {area} (not `{left[0]}`)")
        else:
            words += [f"`{name}`" for name in inside]
    return ", ".join(words)
