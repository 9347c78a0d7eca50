r"""Draw the README's picture of speed, and print its table, from a benchmark's JSON.

    python -m tests.bench --threads 2 --quick --no-series --json figures/speed.json
    python -m tests.bench --threads 2 --quick --no-workloads --no-memory \
        --contenders "l0ref;torch" --json figures/speed_series.json
    python -m tests.bench --only "draw;convolution;LeNet-5" --contenders l0ref --quick \
        --json figures/speed_threads.json
    python -m tests.bench whole-run --epochs 60 --lam "6;0.3;0.08;6" --gate-lr 0.01 \
        --contenders "l0ref;torch" --json figures/speed_whole_run.json
    l0ref bench --json figures/speed_profile.json \
        --profile "LeNet-300-100; LeNet-300-100, a gate a weight; LeNet-5, 9-18-65-25 open"
    python figures/make_speed.py [FOLDER]

writes readme_speed.png to FOLDER, by default the one this file is in, and prints the tables and
sentences as Markdown. The README shows nothing else of speed than what is here.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from l0ref import plotting
from l0ref.plotting import BLUE, GREY, ORANGE

HERE = Path(__file__).parent
RULERS = {"draw": "copy", "gradient": "copy", "step": "floor", "conv": "floor"}
PANELS = (
    ("gates", "gates drawn at once", "Noise and gates"),
    ("batch, LeNet-5", "examples a step", "A step of LeNet-5"),
    ("width", "units in each of two hidden layers", "A step of 784-n-n-10"),
)


def best(results: list[dict[str, Any]], contender: str) -> dict[str, Any] | None:
    """Return what the fastest variant of a contender gave, or None where it took no part."""
    own = [r for r in results if r["contender"] == contender and r["best"]]
    return own[0] if own else None


def milliseconds(result: dict[str, Any] | None) -> float | None:
    """Median, in milliseconds."""
    return None if result is None else 1e3 * result["seconds"]["median"]


def table(benchmark: dict[str, Any], threads: int = 2) -> str:
    """Return the README's table as Markdown: milliseconds, and how many times ours."""
    lines = [
        "| milliseconds, two threads | l0ref | PyTorch | JAX | NumPy reference | ruler |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in benchmark["workloads"]:
        if row["threads"] != threads or row["workload"]["kind"] == "product":
            continue
        ours = milliseconds(best(row["results"], "l0ref"))
        assert ours is not None
        cells = [row["workload"]["name"], f"{ours:.2f}"]
        for name in ("torch", "jax", "numpy"):
            cells.append(_cell(milliseconds(best(row["results"], name)), ours))
        ruler = RULERS[row["workload"]["kind"]]
        way = [r for r in row["results"] if r["contender"] == "floor" and r["variant"] == ruler]
        length = milliseconds(way[0]) if way else None
        cells.append("" if length is None else f"{length:.2f} (ours is {ours / length:.1f}×)")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def products(benchmark: dict[str, Any], threads: int = 2) -> str:
    """Return the table of gated products, forward and back: ours, packed for BLAS, BLAS alone."""
    lines = [
        "| microseconds, two threads | our kernel | packed for BLAS | BLAS, once packed |",
        "|---|---:|---:|---:|",
    ]
    for row in benchmark["workloads"]:
        if row["threads"] == threads and row["workload"]["kind"] == "product":
            times = [milliseconds(best(row["results"], c)) for c in ("l0ref", "numpy")]
            times.append(milliseconds(next(r for r in row["results"] if r["variant"] == "floor")))
            cells = ["" if ms is None else f"{1e3 * ms:.0f}" for ms in times]
            name = row["workload"]["name"].removeprefix("product ").removeprefix("of ")
            lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _cell(theirs: float | None, ours: float) -> str:
    return "" if theirs is None else f"{theirs:.2f} ({theirs / ours:.1f}×)"


def scaling(benchmark: dict[str, Any]) -> str:
    """Return, as the README has it, how many times faster two threads are than one."""
    times: dict[str, dict[int, float]] = {}
    for row in benchmark["workloads"]:
        ours = milliseconds(best(row["results"], "l0ref"))
        if ours is not None:
            times.setdefault(row["workload"]["name"], {})[row["threads"]] = ours
    return ", ".join(f"{name} {t[1] / t[2]:.1f}×" for name, t in times.items())


def memory(benchmark: dict[str, Any]) -> str:
    """Return, as the README has it, what a training of LeNet-5 takes beyond the imports."""
    growth = {row["contender"]: row["megabytes"]["growth"] for row in benchmark["memory"]}
    return (
        f"{growth['l0ref']:.0f} MB beyond what is there after the imports, "
        f"PyTorch's {growth['torch']:.0f} MB and JAX's {growth['jax']:.0f}"
    )


PRODUCTS = {
    "affine_in_blocks", "pull_in_blocks", "multiply_gathered", "forward", "pull",
    "weights_by_row", "gradient_by_map",
}  # fmt: skip
DRAWS = {"draw_with_noise", "combine_gradients"}


def profile(benchmark: dict[str, Any]) -> str:
    """Return the table of where steps spend their time, in milliseconds."""
    steps = benchmark["steps"]
    rows: dict[str, list[float]] = {}
    for own in steps.values():
        kernels = {name: kernel["seconds"] for name, kernel in own["kernels"].items()}
        products, draws = (sum(kernels.pop(n, 0.0) for n in names) for names in (PRODUCTS, DRAWS))
        moved = kernels.pop("move_all", 0.0)
        for name, seconds in (
            ("products and convolutions, with gates, biases, rectifiers, pooling", products),
            ("draws, and the gates' gradients", draws),
            ("Adam and the average", moved),
            ("other kernels", sum(kernels.values())),
            ("in no kernel: Python, NumPy", own["elsewhere"]),
            ("**the step**", own["step"]),
            ("*its matrix products alone, by `np.matmul`*", own["floor"]),
            ("*as many operations in registers*", own["arithmetic"]),
            ("*one pass over what Adam and the average keep*", own["memory"]),
        ):
            rows.setdefault(name, []).append(seconds)
    lines = [f"| milliseconds | {' | '.join(steps)} |", "|---|" + "---:|" * len(steps)]
    for name, times in rows.items():
        lines.append("| " + " | ".join([name, *(f"{1e3 * t:.2f}" for t in times)]) + " |")
    return "\n".join(lines)


def whole_run(benchmark: dict[str, Any]) -> str:
    """Return, as the README has it, how long a run takes and what it ends with."""
    found = benchmark["whole run"]
    totals = {name: sum(row["seconds"] for row in rows) for name, rows in found.items()}
    ends = [rows[-1] for rows in found.values()]
    errors = " and ".join(f"{row['test_error']:.2f} %" for row in ends)
    opened = " and ".join("-".join(map(str, row["open"])) for row in ends)
    return (
        f"{totals['l0ref']:.1f} s, PyTorch {totals['torch']:.1f} s "
        f"({totals['torch'] / totals['l0ref']:.1f}×), with {errors} errors and {opened} gates open"
    )


@plotting.styled
def speed(benchmark: dict[str, Any]) -> Figure:
    """Draw time against the number of gates, the batch and the width."""
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    for axes, (name, label, title) in zip(figure.subplots(1, 3), PANELS, strict=True):
        points = benchmark["series"][name]["points"]
        for contender, colour, marker in (("torch", ORANGE, "s"), ("l0ref", BLUE, "o")):
            at, times = [], []
            for point in points:
                ms = milliseconds(best(point["results"], contender))
                if ms is not None:
                    at.append(point["at"])
                    times.append(ms)
            kind = {"torch": "PyTorch", "l0ref": "l0ref"}[contender]
            axes.loglog(at, times, color=colour, marker=marker, label=kind)
        line = np.array([at[0], at[-1]], dtype=float)
        axes.loglog(line, times[-1] * line / line[-1], color=GREY, linestyle=":", label="∝ n")
        axes.set(title=title, xlabel=label)
        axes.set_xticks(at, [_count(n) for n in at])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if times[-1] < 100 else (1.0,)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    figure.axes[0].set_ylabel("milliseconds")
    figure.axes[0].legend(loc="upper left")
    return figure


def _count(n: int) -> str:
    return f"$10^{len(str(n)) - 1}$" if n >= 1000 else str(n)


def commands() -> list[str]:
    """Return the commands that measure what the README shows."""
    lines = (__doc__ or "").replace("\\\n", "").splitlines()
    return [" ".join(words.split()) for words in lines if " --json figures/" in words]


def read(name: str) -> dict[str, Any]:
    """Return a benchmark's JSON."""
    found: dict[str, Any] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    plotting.save(speed(read("speed_series.json")), folder / "readme_speed.png")
    print(table(read("speed.json")))
    print()
    print(products(read("speed.json")))
    print()
    print(profile(read("speed_profile.json")))
    print()
    for sentence in (
        memory(read("speed.json")),
        whole_run(read("speed_whole_run.json")),
        scaling(read("speed_threads.json")),
    ):
        print(sentence)
