"""`python -m tests.false_alarms`: check what is right, over and over, each time with another seed.

The reference, its fast backend, and the worked examples in PyTorch and JAX: whatever fails there is
a mistake of the check, or of them. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from l0ref import oracle
from l0ref.oracle.check import check
from l0ref.oracle.report import Status
from l0ref.storage import save_json

_FOLDER = Path(oracle.__file__).parent / "examples"
TARGETS = {
    "reference": "l0ref.oracle.reference:reference",
    "numba": "l0ref.oracle.reference:numba",
    "torch": f"{_FOLDER / 'torch_functions.py'}:target",
    "jax": f"{_FOLDER / 'jax_functions.py'}:target",
}
RIGHT = (Status.PASSED, Status.ACCEPTABLE, Status.NOT_IMPLEMENTED)

app = App(name="python -m tests.false_alarms", help="Check what is right, over and over.")


def once(target: str, seed: int, quick: bool) -> dict[str, Any]:
    """Check a target, in both dtypes; return what a false alarm would be known by."""
    start = time.perf_counter()
    found = check(TARGETS[target], seed=seed, quick=quick, timeout=120)
    return {
        "target": target,
        "seed": seed,
        "quick": quick,
        "seconds": time.perf_counter() - start,
        "checks": sum(outcome.n_checks for outcome in found.outcomes),
        "alarms": [
            f"{outcome.phase}:{outcome.function}: {outcome.message}"
            for outcome in found.outcomes
            if outcome.status not in RIGHT
        ],
    }


def table(runs: Sequence[dict[str, Any]]) -> Table:
    made = Table("target", "whole", "quick", "checks", "false alarms")
    for target in TARGETS:
        own = [run for run in runs if run["target"] == target]
        if own:
            quick = sum(run["quick"] for run in own)
            alarms = sum(bool(run["alarms"]) for run in own)
            checks = sum(run["checks"] for run in own)
            made.add_row(target, str(len(own) - quick), str(quick), f"{checks:,}", str(alarms))
    return made


@app.default
def main(
    *,
    runs: int = 50,
    first: int = 0,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = tuple(TARGETS),
    quick: bool = False,
    at_once: int = 2,
    file: Path | None = None,
) -> int:
    """Check every target with many seeds; return 0 if nothing fails.

    Parameters
    ----------
    runs
        Seeds for each target.
    first
        The first of them.
    only
        The targets to check.
    quick
        As `l0ref check --quick`.
    at_once
        Checks side by side.
    file
        JSON file of the results so far, which are not computed again.
    """
    console = Console(markup=False)
    done = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else []
    known = {(run["target"], run["seed"], run["quick"]) for run in done}
    todo = [
        (target, seed, quick)
        for seed in range(first, first + runs)
        for target in only
        if (target, seed, quick) not in known
    ]
    # Processes of their own, started anew: none has the threads of the other's libraries.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as cache, ProcessPoolExecutor(at_once, context) as pool:
        # JAX compiles for every new shape, most of its time; all runs meet much the same shapes.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        for future in as_completed([pool.submit(once, *job) for job in todo]):
            run = future.result()
            done.append(run)
            what = "; ".join(run["alarms"]) or "passed"
            console.print(f"{run['target']}, seed {run['seed']}, {run['seconds']:.0f} s: {what}")
            if file:
                save_json(file, done)
    console.print(table(done))
    return 1 if any(run["alarms"] for run in done) else 0


if __name__ == "__main__":
    sys.exit(app())
