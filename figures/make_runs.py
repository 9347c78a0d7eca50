r"""Collect what finished runs ended with, which the README shows.

    l0ref train --model lenet-5 --out runs/lenet-5
    for seed in 0 1 2 3; do
        l0ref train --paper --data-dir FOLDER --seed $seed --out runs/paper-$seed
    done
    l0ref train --paper --data-dir FOLDER --backend numpy --out runs/paper-numpy
    python figures/make_runs.py runs/lenet-5 runs/paper-*

on the machine that they ran on, writes runs.json beside this file, and prints a line for each run.
"""

import sys
from pathlib import Path
from typing import Any

from l0ref.bench import machine
from l0ref.storage import load_json, save_json

HERE = Path(__file__).parent


def line(result: dict[str, Any]) -> str:
    """Return, as the README has it, what is left and the error of that."""
    units = "-".join(map(str, result["architecture"]))
    return f"{units} | {result['test_error']:.2f} % |"


if __name__ == "__main__":
    runs = {Path(run).name: load_json(Path(run) / "result.json") for run in sys.argv[1:]}
    save_json(HERE / "runs.json", {"machine": machine(), "runs": runs})
    for name, result in runs.items():
        print(f"{name}: {line(result)} {result['seconds']:.0f} s")
