"""`python -m tests.bench`: ours, PyTorch and JAX side by side."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from l0ref import bench
from l0ref.bench import WORKLOADS, Workload
from l0ref.storage import save_json

from .worker import CONTENDERS, LR

app = App(name="python -m tests.bench", help="Time l0ref, PyTorch and JAX side by side.")
console = Console(width=None if sys.stdout.isatty() else 150)

SETTINGS = ("OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "NUMBA_", "XLA_")
"""Settings of the environment that contenders run without: each chooses for itself, by the CPU."""

HEADINGS = {"l0ref": "l0ref", "torch": "PyTorch", "jax": "JAX", "numpy": "NumPy reference"}

SERIES: dict[str, list[tuple[int, Workload]]] = {
    "gates": [
        (size, Workload(f"draw of {size:,}", "draw", size=size))
        for size in (10**3, 10**4, 10**5, 10**6, 10**7)
    ],
    "batch, LeNet-300-100": [
        (n, Workload(f"LeNet-300-100, batch {n}", "step", model="lenet-300-100", batch_size=n))
        for n in (10, 25, 50, 100, 200, 400)
    ],
    "batch, LeNet-5": [
        (n, Workload(f"LeNet-5, batch {n}", "step", model="lenet-5", batch_size=n))
        for n in (10, 25, 50, 100, 200, 400)
    ],
    "width": [
        (n, Workload(f"784-{n}-{n}-10", "step", model="mlp", hidden=(n, n)))
        for n in (50, 100, 200, 400, 800)
    ],
}
IN_SERIES = {"draw": "eager", "mlp": "fused fold", "lenet-300-100": "fused fold",
             "lenet-5": "fused channels_last"}  # fmt: skip


class ContenderError(RuntimeError):
    """A contender could not do what it was asked for."""


class Process:
    """A worker, and the pipe to it."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        environment = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.bench.worker", name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def ask(self, what: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"ask": what, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.log.seek(0)
            raise ContenderError(f"{self.name} died: {self.log.read()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(f"{self.name}, {what}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.log.close()


@contextmanager
def processes(
    names: Sequence[str], threads: int, versions: dict[str, str] | None = None
) -> Iterator[dict[str, Process]]:
    """Start the workers; those whose library is missing are left out."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            process = Process(name, threads)
            stack.callback(process.close)
            try:
                about = process.ask("about")
            except ContenderError as error:
                if "ModuleNotFoundError" not in str(error) or name not in ("torch", "jax"):
                    raise
                console.print(f"{name} is not installed: left out")
                continue
            if versions is not None:
                versions |= about
            found[name] = process
        yield found


def measure(
    workload: Workload,
    workers: dict[str, Process],
    *,
    rounds: int,
    seconds: float,
    only_variant: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Time all contenders in turn: every variant in a few rounds, then the best of each in all."""
    fields = dataclasses.asdict(workload)
    ways: dict[str, tuple[str, str, int]] = {}
    failures = []
    for name, process in workers.items():
        for variant in process.ask("variants", workload=fields):
            if only_variant and name in only_variant and variant != only_variant[name]:
                continue
            key = f"{name} {variant}".strip()
            try:
                count = process.ask(
                    "prepare", key=key, workload=fields, variant=variant, seconds=seconds
                )
            except ContenderError as error:
                last = str(error).strip().splitlines()[-1]
                console.print(f"[red]{key}: {last}[/red]", highlight=False)
                failures.append({"contender": name, "variant": variant, "error": last})
                continue
            ways[key] = (name, variant, count)

    def timer(key: str) -> Any:
        name, _, count = ways[key]
        return lambda: workers[name].ask("time", key=key, count=count)

    several = {
        key
        for key, (name, _, _) in ways.items()
        if name in ("torch", "jax") and sum(other == name for other, _, _ in ways.values()) > 1
    }
    tried = bench.interleave({key: timer(key) for key in ways if key in several}, 3)
    best = set(ways) - several
    for name in ("torch", "jax"):
        own = [key for key in several if ways[key][0] == name]
        if own:
            best.add(min(own, key=lambda key: tried[key]["median"]))
    final = bench.interleave({key: timer(key) for key in ways if key in best}, rounds)
    for process in workers.values():
        process.ask("clear")
    results = [
        {
            "contender": name,
            "variant": variant,
            "best": key in best,
            "repetitions": count,
            "seconds": final.get(key) or tried[key],
        }
        for key, (name, variant, count) in ways.items()
    ]
    return results + failures


def best_of(results: list[dict[str, Any]], name: str, variant: str | None = None) -> Any:
    """The result of a contender's best variant, or None."""
    for result in results:
        if result["contender"] == name and result.get("best") and variant in (
            None, result["variant"]
        ):  # fmt: skip
            return result
    return None


def cell(result: Any, ours: Any = None) -> str:
    """Median, half the distance between the quartiles in percent, and how many times ours."""
    if result is None:
        return ""
    s = result["seconds"]
    spread = 50 * (s["q75"] - s["q25"]) / s["median"]
    text = f"{1e3 * s['median']:.3g} ms ±{spread:.0f}%"
    if ours is not None and result is not ours:
        text += f"\n{s['median'] / ours['seconds']['median']:.2f}x"
        if result["variant"]:
            text += f" [dim]{result['variant']}[/dim]"
    return text


def show(rows: list[dict[str, Any]], threads: int) -> None:
    """Print one table."""
    what = "thread" if threads == 1 else "threads"
    table = Table(
        title=f"{threads} {what}: median of a repetition ± half the interquartile range, "
        "and how many times ours",
        title_justify="left",
        show_lines=True,
    )
    table.add_column("workload")
    for heading in (*HEADINGS.values(), "matrix products alone", "copy"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row["threads"] != threads:
            continue
        results = row["results"]
        ours = best_of(results, "l0ref")
        cells = [cell(best_of(results, name), ours) for name in HEADINGS]
        rulers = [cell(best_of(results, "floor", v), ours) for v in ("floor", "copy")]
        table.add_row(row["workload"]["name"], *cells, *rulers)
    console.print(table)


def show_scaling(rows: list[dict[str, Any]], counts: Sequence[int]) -> None:
    """Print how much faster two thread counts are."""
    few, many = min(counts), max(counts)
    table = Table(title=f"{few} to {many} threads: how many times faster", title_justify="left")
    table.add_column("workload")
    names = ("l0ref", "torch", "jax", "floor")
    for name in names:
        table.add_column(HEADINGS.get(name, "matrix products"), justify="right")
    by = {(row["workload"]["name"], row["threads"]): row["results"] for row in rows}
    for (workload, threads), results in by.items():
        if threads != few or (workload, many) not in by:
            continue
        cells = []
        for name in names:
            a, b = best_of(results, name), best_of(by[workload, many], name)
            ratio = a and b and a["seconds"]["median"] / b["seconds"]["median"]
            cells.append(f"{ratio:.2f}x" if ratio else "")
        table.add_row(workload, *cells)
    console.print(table)


def run_workloads(
    chosen: Sequence[Workload],
    counts: Sequence[int],
    contenders: Sequence[str],
    versions: dict[str, str],
    *,
    rounds: int,
    seconds: float,
) -> list[dict[str, Any]]:
    rows = []
    for threads in counts:
        with processes(contenders, threads, versions) as workers:
            for workload in chosen:
                console.print(f"{workload.name}, {threads} thread(s)", style="dim", highlight=False)
                results = measure(workload, workers, rounds=rounds, seconds=seconds)
                rows.append({
                    "workload": dataclasses.asdict(workload),
                    "threads": threads,
                    "products": [list(p) for p in bench.products(workload)],
                    "flops": bench.flops(workload),
                    "results": results,
                })  # fmt: skip
        show(rows, threads)
    if len(counts) > 1:
        show_scaling(rows, counts)
    return rows


def run_series(
    threads: int, contenders: Sequence[str], *, rounds: int, seconds: float
) -> dict[str, Any]:
    """Ours and PyTorch over batch size, width and number of gates."""
    found: dict[str, Any] = {}
    names = [name for name in ("l0ref", "torch") if name in contenders]
    with processes(names, threads) as workers:
        for series, points in SERIES.items():
            table = Table(title=f"{series}, {threads} thread(s)", title_justify="left")
            for heading in (series.partition(",")[0], *(HEADINGS[name] for name in names)):
                table.add_column(heading, justify="right")
            found[series] = {"threads": threads, "points": []}
            for at, workload in points:
                variant = IN_SERIES[workload.model or workload.kind]
                results = measure(workload, workers, rounds=rounds, seconds=seconds,
                                  only_variant={"torch": variant})  # fmt: skip
                found[series]["points"].append({"at": at, "results": results})
                table.add_row(f"{at:,}", *(cell(best_of(results, name)) for name in names))
            console.print(table)
    return found


def run_memory(
    threads: int, contenders: Sequence[str], rows: list[dict[str, Any]], *, steps: int
) -> list[dict[str, Any]]:
    """Peak memory of LeNet-5's training, each contender in a fresh process."""
    workload = WORKLOADS["LeNet-5"]
    fields = dataclasses.asdict(workload)
    table = Table(title="Memory of LeNet-5's training, above that after imports, in MB",
                  title_justify="left")  # fmt: skip
    for heading in ("contender", "variant", "peak", "peak once warm"):
        table.add_column(heading, justify="right")
    found = []
    for name in contenders:
        if name == "floor":
            continue
        best = next((best_of(r["results"], name) for r in rows
                     if r["workload"]["name"] == workload.name), None)  # fmt: skip
        with processes([name], threads) as workers:
            if name not in workers:
                continue
            variant = best["variant"] if best else workers[name].ask("variants", workload=fields)[0]
            used = workers[name].ask("memory", workload=fields, variant=variant, steps=steps)
        found.append({"contender": name, "variant": variant, "megabytes": used})
        table.add_row(name, variant, f"{used['growth']:.0f}", f"{used['warm']:.0f}")
    console.print(table)
    return found


def listed(text: str, allowed: Sequence[str], what: str) -> list[str]:
    """Split at commas; a name may be any part of one or several that are allowed."""
    found = []
    for part in text.split(";"):
        name = part.strip()
        hits = [name] if name in allowed else [a for a in allowed if name.lower() in a.lower()]
        if not hits:
            raise ValueError(f"{what} must be of {', '.join(allowed)}; got {name!r}")
        found += [hit for hit in hits if hit not in found]
    return found


def machine(versions: dict[str, str], started: float) -> dict[str, Any]:
    return bench.machine() | versions | {
        "load": list(os.getloadavg()),
        "minutes": round((time.time() - started) / 60, 1),
    }  # fmt: skip


@app.default
def main(
    *,
    threads: str = "1,2",
    only: str | None = None,
    contenders: str | None = None,
    quick: bool = False,
    workloads: bool = True,
    series: bool = True,
    memory: bool = True,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Time every workload for every contender, in turn, and print what came out.

    Parameters
    ----------
    threads
        Numbers of threads, with commas between.
    only
        Workloads, by name or part of it, with semicolons between; then neither series nor memory.
    contenders
        Likewise: l0ref, numpy, floor, torch, jax.
    quick
        Fewer and shorter repetitions.
    workloads
        These themselves; without them, what else is asked for.
    series
        Also the cost against batch size, width and number of gates.
    memory
        Also the peak memory of LeNet-5's training.
    json_file
        Write everything there.
    """
    started = time.time()
    counts = [int(n) for n in threads.split(",")]
    names = listed(contenders, CONTENDERS, "contenders") if contenders else list(CONTENDERS)
    chosen = [WORKLOADS[n] for n in listed(only, tuple(WORKLOADS), "only")] if only else [
        *WORKLOADS.values()
    ]  # fmt: skip
    rounds, seconds = (5, 0.1) if quick else (11, 0.4)
    versions: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    if workloads:
        rows = run_workloads(chosen, counts, names, versions, rounds=rounds, seconds=seconds)
    result: dict[str, Any] = {"workloads": rows}
    if series and not only:
        few = 5 if quick else 7
        result["series"] = run_series(max(counts), names, rounds=few, seconds=seconds / 2)
    if memory and not only:
        result["memory"] = run_memory(min(counts), names, rows, steps=10 if quick else 50)
    result["machine"] = machine(versions, started)
    if json_file is not None:
        save_json(json_file, result)


@app.command
def whole_run(
    *,
    epochs: int = 20,
    lam: str = "0.1",
    lr: float = LR,
    gate_lr: float | None = None,
    threads: int = 2,
    contenders: str = "l0ref;torch;jax",
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Train LeNet-5 with gates on 10,000 digits: seconds, error and open gates, epoch by epoch.

    Contenders take turns after each epoch and start from the same weights; error and open gates
    are those of the averaged parameters under Eq. 13, by the reference for all.

    Parameters
    ----------
    epochs
        Of 100 steps.
    lam
        For all layers, or one for each of the four, with semicolons between; the objective divides
        by the number of examples.
    lr
        Learning rate of Adam.
    gate_lr
        That of the gates, if it is another.
    threads
        Number of threads.
    contenders
        With semicolons between: l0ref, numpy, torch, jax.
    json_file
        Write everything there.
    """
    started = time.time()
    names = listed(contenders, CONTENDERS, "contenders")
    workload = WORKLOADS["LeNet-5"]
    fields = dataclasses.asdict(workload)
    variants = {"torch": "fused channels_last", "jax": "NHWC halves"}
    how = {"lam": [float(part) for part in lam.split(";")], "lr": lr,
           "gate_lr": lr if gate_lr is None else gate_lr}  # fmt: skip
    versions: dict[str, str] = {}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with processes(names, threads, versions) as workers:
        found = {name: [] for name in workers}
        for name, worker in workers.items():
            worker.ask("begin", workload=fields, variant=variants.get(name, ""), **how)
        for epoch in range(epochs):
            for name, worker in workers.items():
                time.sleep(bench.PAUSE)
                row = {"seconds": worker.ask("epoch")} | worker.ask("evaluate")
                found[name].append(row)
                console.print(f"epoch {epoch + 1} {name}: {row['seconds']:.2f} s, error "
                              f"{row['test_error']:.2f} %, on "
                              f"{'-'.join(map(str, row['open']))}", highlight=False)  # fmt: skip
    table = Table(title=f"LeNet-5, {epochs} epochs of 10,000 digits, {threads} thread(s)",
                  title_justify="left")  # fmt: skip
    for heading in ("contender", "seconds", "test error", "open gates", "times ours"):
        table.add_column(heading, justify="right")
    totals = {name: sum(row["seconds"] for row in rows) for name, rows in found.items()}
    for name, rows in found.items():
        ratio = f"{totals[name] / totals['l0ref']:.2f}x" if "l0ref" in totals else ""
        table.add_row(HEADINGS[name], f"{totals[name]:.1f}", f"{rows[-1]['test_error']:.2f} %",
                      "-".join(map(str, rows[-1]["open"])), ratio)  # fmt: skip
    console.print(table)
    if json_file is not None:
        save_json(json_file, {"whole run": found, "settings": how | {"epochs": epochs},
                              "machine": machine(versions, started)})  # fmt: skip


if __name__ == "__main__":
    app()
