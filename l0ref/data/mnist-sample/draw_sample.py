"""Draw the MNIST sample that ships in the package from the four files of the full set.

    python draw_sample.py FOLDER_WITH_MNIST [FOLDER_TO_WRITE]

Writes four IDX files and their SHA256SUMS, by default beside this script.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from l0ref.datasets import stratified_sample
from l0ref.idx import read_idx, write_idx

SEED = 2018  # the year of the paper; any other would do
SIZES = {"train": 10_000, "t10k": 2_000}


def draw(source: Path, target: Path, sizes: dict[str, int] = SIZES) -> None:
    """Write the sample of the MNIST files in `source`, and its manifest, to the folder `target`."""
    manifest = []
    for part, size in sizes.items():
        names = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
        images, labels = (read_idx(source / name) for name in names)
        chosen = stratified_sample(labels, size, seed=SEED)
        for name, array in zip(names, (images, labels), strict=True):
            write_idx(target / name, array[chosen])
            digest = hashlib.sha256((target / name).read_bytes()).hexdigest()
            manifest.append(f"{digest}  {name}\n")
    (target / "SHA256SUMS").write_text("".join(manifest), encoding="ascii")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the four MNIST files")
    parser.add_argument("target", type=Path, nargs="?", default=Path(__file__).parent)
    arguments = parser.parse_args()
    draw(arguments.source, arguments.target)
