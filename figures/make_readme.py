"""Draw the README's pictures from a finished run: ``python figures/make_readme.py RUN [FOLDER]``.

RUN is the folder that ``l0ref train`` wrote; the pictures are those of the run itself, redrawn
here: readme_active_units.png and readme_neurons_over_training.png.
"""

import sys
from pathlib import Path

from l0ref import plotting
from l0ref.runs import HISTORY
from l0ref.storage import load_arrays

NAMES = ("input", "hidden 1", "hidden 2")
IMAGE_SHAPE = (28, 28)
PICTURES = (
    "readme_active_units.png",
    "readme_neurons_over_training.png",
)


def draw(run: Path, folder: Path) -> None:
    """Draw the pictures from a run's history."""
    history = load_arrays(run / HISTORY)
    figures = (
        plotting.active_units(history, NAMES),
        plotting.neurons_over_training(history, NAMES, IMAGE_SHAPE),
    )
    for figure, name in zip(figures, PICTURES, strict=True):
        plotting.save(figure, folder / name)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
