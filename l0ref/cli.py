"""The command ``l0ref``: train a network and watch it prune, report, time, and check others."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from . import __version__, runs
from .storage import save_json
from .training import Settings, Trainer

app = App(
    name="l0ref",
    help="L0 regularisation with hard concrete gates: train, prune, compact, report.",
    version=__version__,
)
console = Console()
errors = Console(stderr=True)

DEFAULT_EPOCHS = 90
DEFAULT_GATE_LR = 2e-3


@app.command
def train(
    *,
    model: Literal["lenet-300-100", "mlp", "lenet-5", "wrn"] | None = None,
    hidden: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    depth: int | None = None,
    width: int | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    scale: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    lam: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    l2: float | None = None,
    gates: Literal["unit", "weight", "none"] | None = None,
    per_example: bool | None = None,
    drop_rates: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    beta: float | None = None,
    gamma: float | None = None,
    zeta: float | None = None,
    activation: Literal["relu", "tanh"] | None = None,
    dropout: float | None = None,
    augment: bool | None = None,
    optimizer: Literal["adam", "sgd"] | None = None,
    lr: float | None = None,
    gate_lr: float | None = None,
    momentum: float | None = None,
    average: float | None = None,
    statistics: int | None = None,
    clamp_log_alpha: bool | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    seed: int | None = None,
    backend: Literal["numba", "numpy"] | None = None,
    dense: bool | None = None,
    dead_below: float | None = None,
    dead_after: int | None = None,
    threads: int | None = None,
    paper: bool = False,
    out: Path | None = None,
    resume: Path | None = None,
) -> int:
    """Train a gated network, prune and compact it, and show what is left.

    Parameters
    ----------
    model
        Architecture: lenet-300-100 (default), mlp with --hidden, lenet-5, or wrn (a wide residual
        network) with --depth and --width.
    hidden
        Hidden widths of an mlp.
    depth
        Of a wrn: 6 n + 4 (28).
    width
        Of a wrn (10).
    data
        mnist-sample (default; 10,000 + 2,000 digits, in the package), mnist-sample-32 (the same as
        32x32 colour images), mnist, cifar10, cifar100, or an .npz file with X and y.
    data_dir
        Folder of the files of mnist (implied by it), cifar10 or cifar100.
    download
        Fetch mnist (implied by it), cifar10 or cifar100, checked by SHA-256.
    scale
        Map the inputs of an .npz file to [0, 1].
    epochs
        Passes over the training set: 90, or 200 with --paper. With --resume: the total to train
        to.
    batch_size
        Examples a step (100).
    lam
        lambda per parameter, divided by N, for all gated layers or one each (0.1).
    l2
        lambda_2, divided by N (0).
    gates
        A gate an input unit or feature map (default), a gate a weight, or none.
    per_example
        Draw the gates for each example rather than once a minibatch.
    drop_rates
        Initial drop rates of the gates: one for all, first layer and others, or one a layer
        (0.2 0.5 for dense networks, 0.5 for lenet-5, 0.3 for wrn).
    beta
        Temperature of the gates (2/3).
    gamma
        Lower end of the stretch (-0.1).
    zeta
        Upper end of the stretch (1.1).
    activation
        Between layers (relu).
    dropout
        Drop rate of ordinary dropout on hidden activations (0).
    augment
        Crop and flip the training images at random.
    optimizer
        adam (default) or sgd.
    lr
        Learning rate (0.001).
    gate_lr
        Learning rate of log_alpha (0.002; that of --lr with --paper).
    momentum
        Of sgd (0.9).
    average
        Decay of the temporal average of the parameters (0.999).
    statistics
        Training batches on which batch norm's statistics are gathered anew, under the test-time
        gates, before each evaluation (0: those of training are kept).
    clamp_log_alpha
        Clamp log_alpha to [log 0.01, log 100] after each step.
    dtype
        float32 (default) or float64.
    seed
        Of every draw (0).
    backend
        numba (default: fast kernels, compiled on first use) or numpy (the reference).
    dense
        Compute everything, what a minibatch's closed gates multiply by 0 too.
    dead_below
        Close a gate for good once P(z != 0) stays below this (0: never).
    dead_after
        Epochs for which it must stay there (3).
    threads
        That kernels run on (all cores). The results do not depend on it.
    paper
        The paper's settings: 200 epochs, one learning rate for weights and gates.
    out
        Folder of the run; a new one below ./runs by default.
    resume
        Folder of a stopped run, to be taken up where it stopped; only --epochs may be given with
        it.
    """
    given: dict[str, Any] = {
        name: value
        for name, value in {
            "model": model,
            "hidden": hidden,
            "depth": depth,
            "width": width,
            "epochs": epochs,
            "batch_size": batch_size,
            "lam": lam,
            "l2": l2,
            "gates": gates,
            "per_example": per_example,
            "drop_rates": drop_rates,
            "beta": beta,
            "gamma": gamma,
            "zeta": zeta,
            "activation": activation,
            "dropout": dropout,
            "augment": augment,
            "optimizer": optimizer,
            "lr": lr,
            "gate_lr": gate_lr,
            "momentum": momentum,
            "average": average,
            "statistics": statistics,
            "clamp_log_alpha": clamp_log_alpha,
            "dtype": dtype,
            "seed": seed,
            "backend": backend,
            "dense": dense,
            "dead_below": dead_below,
            "dead_after": dead_after,
        }.items()
        if value is not None
    }
    if resume is not None:
        elsewhere = {"data": data, "data_dir": data_dir, "out": out}
        flags = {"download": download, "scale": scale, "paper": paper}
        others = [name for name in given if name != "epochs"]
        others += [name for name, value in (elsewhere | flags).items() if value]
        if others:
            options = ", ".join("--" + name.replace("_", "-") for name in others)
            raise ValueError(
                f"--resume takes its settings from the run; it does not go with {options}"
            )
        folder, trainer = resume, runs.resume(resume, epochs=epochs)
        prepare_kernels(threads, trainer.settings.backend)
        console.print(
            f"Resuming {escape(str(folder))} after step {trainer.step:,} "
            f"of {trainer.total_steps:,}."
        )
    else:
        if hidden is not None and model != "mlp":
            raise ValueError("--hidden goes with --model mlp")
        if (depth is not None or width is not None) and model != "wrn":
            raise ValueError("--depth and --width go with --model wrn")
        if not paper:
            given = {"epochs": DEFAULT_EPOCHS, "gate_lr": DEFAULT_GATE_LR} | given
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        settings = Settings(**given)
        prepare_kernels(threads, settings.backend)
        full = data_dir is not None or download
        name = data or ("mnist" if full else "mnist-sample")
        source = runs.Source(
            str(Path(name).absolute()) if name.endswith(".npz") else name,
            str(data_dir.absolute()) if data_dir is not None else None,
            scale,
        )
        dataset = source.load(download=download)
        if download and data_dir is None:
            source = dataclasses.replace(source, data_dir=dataset.source)
        folder = out if out is not None else new_folder(settings, dataset.name)
        trainer = runs.begin(folder, settings, source, dataset)
        n, d = trainer.data.x_train.shape
        console.print(
            f"Training {settings.model} on {dataset.name}: {n:,} examples of {d} inputs, "
            f"{trainer.data.n_classes} classes. Run folder: {escape(str(folder))}",
            soft_wrap=True,
        )
    if not train_with_progress(folder, trainer):
        console.print(
            f"Stopped after step {trainer.step:,} of {trainer.total_steps:,}; nothing is lost. "
            f"Resume with: [bold]l0ref train --resume {escape(str(folder))}[/bold]",
            soft_wrap=True,
        )
        return 130
    result = runs.finish(folder, trainer)
    show(folder, result)
    return 0


def prepare_kernels(threads: int | None, backend: str) -> None:
    """Say when kernels are compiled, for that takes a while; set how many threads they run on."""
    if backend != "numba":
        if threads is not None:
            raise ValueError("--threads is for the kernels of --backend numba")
        return
    from . import jit  # Numba is slow to import, and `l0ref report` does without

    if threads is not None:
        jit.set_num_threads(threads)
    jit.on_compilation(
        lambda: console.print("Compiling kernels for this machine, once; it takes 10 to 20 s.")
    )


@app.command
def report(run: Path) -> int:
    """Show what is left of a trained network, or how far a run has come.

    Parameters
    ----------
    run
        Folder of the run.
    """
    if not (run / runs.RUN).exists():
        raise ValueError(f"run must be the folder of a run, got {run}: no {runs.RUN} in it")
    if runs.is_finished(run):
        show(run, runs.load_result(run))
        return 0
    trainer = runs.resume(run)
    console.print(
        f"{escape(str(run))} stopped after step {trainer.step:,} of {trainer.total_steps:,}. "
        f"Resume with: [bold]l0ref train --resume {escape(str(run))}[/bold]",
        soft_wrap=True,
    )
    return 0


@app.command
def bench(
    *,
    quick: bool = False,
    profile: str | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Time the kernels on this machine, beside the NumPy reference and bare arithmetic.

    Parameters
    ----------
    quick
        Fewer and shorter repetitions.
    profile
        Name of a step of training, such as LeNet-300-100, or several with semicolons between: show
        in which kernels their time goes.
    json_file
        Write every time there, with what the machine is.
    """
    from . import bench as benchmark

    require_folder(json_file)
    if profile is not None:
        return _profile(profile, quick, json_file)
    with console.status("compiling and loading the kernels") as line:
        result = benchmark.run(quick=quick, tell=lambda name: line.update(f"timing {name}"))
    about = result["machine"]
    meanings = dict.fromkeys(f"{row['kind']}: {row['meaning']}" for row in result["workloads"])
    table = Table(
        title=f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads",
        title_justify="left",
    )
    for heading in ("", "kernels", "reference", "products or copy"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in result["workloads"]:
        times = row["results"]
        ours = times["numba"]["median"]
        cells = [_time(times["numba"])]
        for name in ("numpy", "floor" if "floor" in times else "copy"):
            cells.append(f"{_time(times[name])} ({times[name]['median'] / ours:.2f}x)")
        table.add_row(row["name"], *cells)
    console.print(table)
    console.print(
        "Medians of a repetition, and half the distance between the quartiles; in brackets how "
        "many times the kernels' median. The reference is the same in NumPy; products are the "
        "step's matrix products alone, by numpy.matmul; a copy is that of one array of as many "
        "numbers as there are gates."
    )
    for meaning in meanings:
        console.print(f"  {meaning}", highlight=False)
    if json_file is not None:
        save_json(json_file, result)
        console.print(f"Everything is in {escape(str(json_file))}", soft_wrap=True)
    return 0


def _profile(wanted: str, quick: bool, json_file: Path | None) -> int:
    from . import bench as benchmark

    steps = [n for n, workload in benchmark.WORKLOADS.items() if workload.kind == "step"]
    names = [name.strip() for name in wanted.split(";")]
    for name in names:
        if name not in steps:
            raise ValueError(f"profile must be one of {'; '.join(steps)}, got {name!r}")
    found = {}
    for name in names:
        with console.status(f"timing {name}"):
            turns, seconds = (3, 0.05) if quick else (10, 0.2)
            workload = benchmark.WORKLOADS[name]
            found[name] = benchmark.profile(workload, turns=turns, seconds=seconds)
        _show_profile(name, found[name])
    if json_file is not None:
        save_json(json_file, {"machine": benchmark.machine(), "steps": found})
        console.print(f"Everything is in {escape(str(json_file))}", soft_wrap=True)
    return 0


def _show_profile(name: str, result: dict[str, Any]) -> None:
    table = Table(title=f"A step of {name}", title_justify="left")
    for heading in ("", "calls", "ms", "share"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = [
        (kernel, f"{own['calls']:.3g}", own["seconds"])
        for kernel, own in result["kernels"].items()
        if own["seconds"] > 0.005 * result["clocked"]
    ]
    shown = sum(seconds for *_, seconds in rows) + result["elsewhere"]
    rows.append(("kernels of less than 0.5 %", "", max(result["clocked"] - shown, 0.0)))
    rows.append(("in no kernel: Python, NumPy", "", result["elsewhere"]))
    rows.append(("the step, with a clock at each kernel", "", result["clocked"]))
    for label, calls, seconds in rows:
        share = f"{seconds / result['clocked']:.0%}"
        table.add_row(label, calls, f"{1e3 * seconds:.3f}", share)
    console.print(table)
    console.print(
        f"Without clocks it takes {1e3 * result['step']:.3f} ms; its matrix products alone, by "
        f"numpy.matmul, {1e3 * result['floor']:.3f} ms. As many operations in registers would "
        f"take {1e3 * result['arithmetic']:.3f} ms on all threads, and one pass over what Adam and "
        f"the average keep {1e3 * result['memory']:.3f} ms."
    )


@app.command
def check(
    target: str | None = None,
    *,
    functions: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    dtype: Literal["float64", "float32", "both"] = "both",
    seed: int = 0,
    quick: bool = False,
    timeout: float = 10.0,
    startup_timeout: float = 120.0,
    expect_fail: Path | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
    verbose: bool = False,
    list_functions: Annotated[bool, Parameter(name="--list", negative=())] = False,
) -> int:
    """Check another implementation: whether it is right, and if not, which mistake it makes.

    Exit status 0 if nothing failed, 1 if something did, 2 if the target could not be checked.

    Parameters
    ----------
    target
        package.module, package.module:attribute, path/file.py, path/file.py:attribute, or
        "command: node target.js". It has some of the functions that --list shows; of a module
        or file that has a `target`, that is checked.
    functions
        The only ones to check (all).
    dtype
        float64, float32 or both.
    seed
        Of the random inputs and of the target's draws.
    quick
        Fewer random inputs and draws, for less time.
    timeout
        Seconds that a call may take.
    startup_timeout
        Seconds that the target may take until it can be called, with all that it imports.
    expect_fail
        File of expected failures, one a line: phase:function, or the id of a vector. What is
        listed and passes fails the check.
    json_file
        Write the report there, with the inputs of each failure in full.
    verbose
        Show what is not implemented in the table too, and arrays in full.
    list_functions
        Show the functions that can be checked, and stop.
    """
    from .oracle import check as oracle  # it is slow to import
    from .oracle.report import PHASES, show
    from .oracle.targets import TargetError

    if list_functions:
        return show_functions()
    if target is None:
        raise ValueError("target must be given; --list shows what it can have")
    require_folder(json_file)
    expected = () if expect_fail is None else oracle.read_expected_failures(expect_fail)
    try:
        with errors.status("starting the target") as line:
            found = oracle.check(
                target,
                functions=functions and [one for name in functions for one in name.split(",")],
                dtypes=oracle.DTYPES if dtype == "both" else (dtype,),
                seed=seed,
                quick=quick,
                timeout=timeout,
                startup_timeout=startup_timeout,
                expected_failures=expected,
                tell=lambda phase, name: line.update(f"{name}: {PHASES[phase]}"),
            )
    except TargetError as error:
        raise ValueError(str(error)) from None
    show(found, console, verbose=verbose)
    if json_file is not None:
        save_json(json_file, found.to_json())
        console.print(f"Everything is in {escape(str(json_file))}", soft_wrap=True)
    return 0 if found.ok else 1


def require_folder(json_file: Path | None) -> None:
    """Refuse a file that could not be written, before the work for it is done."""
    if json_file is None:
        return
    if json_file.is_dir():
        raise ValueError(f"--json must be a file, got the folder {json_file}")
    if not json_file.absolute().parent.is_dir():
        raise ValueError(f"--json must be in a folder that exists, got {json_file}")


def show_functions() -> int:
    """Print what a target can have: signatures, and one sentence each."""
    from .oracle.interface import AREAS, FUNCTIONS

    for area, names in AREAS.items():
        console.print(f"[bold]{area}[/bold]")
        for name in names:
            function = FUNCTIONS[name]
            summary = function.doc.partition("\n\n")[0].replace("\\|", "|").replace("\n", " ")
            console.print(f"  {name}({', '.join(function.parameters)})", soft_wrap=True)
            console.print(f"      {summary}", style="dim", markup=False, soft_wrap=True)
    return 0


def _time(times: dict[str, Any]) -> str:
    spread = 50 * (times["q75"] - times["q25"]) / times["median"]
    return f"{1e3 * times['median']:.3g} ms ±{spread:.0f}%"


def new_folder(settings: Settings, data_name: str) -> Path:
    """Return the first folder below ./runs of this model, data and seed that is not there yet."""
    stem = f"{settings.model}_{data_name}_seed{settings.seed}"
    candidates = (Path("runs") / (stem if n == 1 else f"{stem}_{n}") for n in range(1, 10_000))
    return next(folder for folder in candidates if not folder.exists())


@contextlib.contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM rather than die in the middle of a step; a second Ctrl-C does."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_with_progress(folder: Path, trainer: Trainer) -> bool:
    """Train under a progress bar that shows the open gates a layer; return whether the end came."""
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with interruptions() as seen, Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=trainer.total_steps, epoch="", status="")

        def on_step(trainer: Trainer) -> None:
            per_epoch = trainer.steps_per_epoch
            if trainer.step % max(1, per_epoch // 10) == 0 or trainer.done:
                progress.update(
                    task,
                    completed=trainer.step,
                    epoch=f"{-(-trainer.step // per_epoch)}/{trainer.settings.epochs}",
                    status=status(trainer),
                )

        progress.update(task, completed=trainer.step)
        return runs.train(folder, trainer, on_step=on_step, stop=lambda: bool(seen))


def status(trainer: Trainer) -> str:
    """Open gates a layer, of the averaged parameters, and the latest test error."""
    counts = "-".join(str(int(mask.sum())) for mask in trainer.averaged().open_gates())
    error = f"  error {float(trainer.history.last('test_error')):.2f} %" if trainer.history else ""
    return (f"on {counts}" if counts else "no gates") + error


def show(folder: Path, result: dict[str, Any]) -> None:
    """Print a finished run's result as tables."""
    units = Table(title="Units left", title_justify="left")
    for heading in ("layer", "before", "after"):
        units.add_column(heading, justify="left" if heading == "layer" else "right")
    rows = zip(result["layers"], result["architecture_dense"], result["architecture"], strict=True)
    for name, before, after in rows:
        units.add_row(name, f"{before:,}", f"{after:,}")
    console.print(units)

    cost = Table(title="What it costs, and what it is worth", title_justify="left")
    for heading in ("", "gated network", "compact network", "ratio"):
        cost.add_column(heading, justify="right" if heading else "left")
    cost.add_row(
        "test error", f"{result['test_error_gated']:.2f} %", f"{result['test_error']:.2f} %", ""
    )
    for label, key in (("weights", "weights"), ("parameters", "params"), ("FLOPs", "flops")):
        before, after = result[f"{key}_dense"], result[key]
        ratio = f"{before / after:.1f}x" if after else "all gone"
        cost.add_row(label, f"{before:,}", f"{after:,}", ratio)
    dense, small = result["forward_seconds"]["dense"], result["forward_seconds"]["compact"]
    cost.add_row(
        "forward pass", f"{1e3 * dense:.2f} ms", f"{1e3 * small:.2f} ms", f"{dense / small:.1f}x"
    )
    console.print(cost)
    lost = [
        name for name, n in zip(result["layers"], result["architecture"], strict=True) if n == 0
    ]
    if result["constant"]:
        console.print(
            f"Every unit is lost in {', '.join(lost)}: the network is a constant and reads no "
            "input. A smaller --lam would keep some."
        )
    elif lost:
        console.print(
            f"Every unit is lost in {', '.join(lost)}: what comes from there is a constant."
        )
    share = 100 * result["weights"] / result["weights_dense"]
    console.print(
        f"{share:.1f} % of the weights are left after {result['seconds']:.0f} s of training. "
        f"Everything is in {escape(str(folder))}",
        soft_wrap=True,
    )


def main() -> None:
    """Run the command; a user's mistake is one line on standard error, and exit status 2."""
    try:
        status_code = app(
            sys.argv[1:], exit_on_error=False, print_error=True, result_action="return_value"
        )
    except CycloptsError:
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped", highlight=False)
        sys.exit(130)
    except (ValueError, OSError) as error:
        errors.print(
            f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(2)
    sys.exit(status_code if isinstance(status_code, int) else 0)
