r"""Make the vectors anew: every expected value is computed in ball arithmetic, all digits proven.

    python -m l0ref.oracle.generate [AREA ...] [--check] [--to FOLDER]

Nothing of what the vectors check is used here. Values come from the equations, written out over
balls of Arb (`balls.arithmetic`, `balls.formulas`); gradients from a tape (`balls.tape`); the
moments from rigorous integration. A digit string is written only if every number in the ball rounds
to it; else the precision is raised. The same run gives the tolerances, from the rounding errors
that ordinary code makes on the way. Files are the same to the byte each time; nobody edits them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .balls import cases_gates as gates
from .balls import cases_networks as networks
from .balls.writing import Area, text_of

__all__ = ["MAKERS", "main", "text"]

FOLDER = Path(__file__).parent / "vectors"

MAKERS: dict[str, Callable[[], Area]] = {
    "law": gates.law,
    "gate": gates.gate,
    "initialisation": gates.initialisation,
    "penalties": gates.penalties,
    "layers": networks.layers,
    "cost": networks.cost,
    "training": networks.training,
    "networks": networks.networks,
}
"""What makes each area; the order is that of `interface.AREAS`, which has one without vectors."""


def text(area: str) -> str:
    """Return the whole text of an area's file."""
    return text_of(MAKERS[area]().written())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; or, to check, compare them and write nothing."""
    parser = argparse.ArgumentParser(prog="python -m l0ref.oracle.generate", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(MAKERS)}")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--to", type=Path, default=FOLDER, help="another folder")
    options = parser.parse_args(arguments)
    for area in options.areas:
        if area not in MAKERS:
            parser.error(f"no area {area!r}; there are {', '.join(MAKERS)}")
    different = []
    for area in options.areas or MAKERS:
        path = options.to / f"{area}.json"
        new = text(area)
        if options.check:
            if not path.exists() or path.read_text(encoding="ascii") != new:
                different.append(path.name)
        else:
            path.write_text(new, encoding="ascii", newline="\n")
    if different:
        print(f"not what is generated: {', '.join(different)}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
