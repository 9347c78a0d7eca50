"""A run as a folder: begun or resumed, finished, and reported on.

===============  ==========================================================================
run.json         where the data came from, and the settings, so that a run can be resumed
checkpoint.npz   the state of training after the latest finished epoch (or interruption)
history.npz      `l0ref.training.History.arrays`
network.npz      the compact network; plain arrays, no pickle
result.json      what is left, and what it costs
*.png            active units, neurons, input pixels, gates, cost
===============  ==========================================================================

Every file is written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .datasets import Dataset, load
from .flops import network_cost
from .network import Network
from .ops import softmax_cross_entropy
from .penalties import aic, bic
from .pruning import CompactNetwork, compact, prune
from .storage import FileError, load_json, save_arrays, save_json
from .training import Settings, Trainer, error_percent, settings_from_json

Array = NDArray[Any]

CHECKPOINT, HISTORY, NETWORK, RESULT, RUN = (
    "checkpoint.npz",
    "history.npz",
    "network.npz",
    "result.json",
    "run.json",
)


@dataclass(frozen=True)
class Source:
    """Where a run's data comes from: the arguments of `l0ref.datasets.load`."""

    data: str = "mnist-sample"
    data_dir: str | None = None
    scale: bool = False

    def load(self, *, download: bool = False) -> Dataset:
        """Load the data."""
        return load(self.data, data_dir=self.data_dir, download=download, scale=self.scale)


def begin(folder: Path, settings: Settings, source: Source, data: Dataset) -> Trainer:
    """Begin a run in a folder that has none.

    Raises
    ------
    FileError
        If the folder has a run already: nothing is overwritten.
    ValueError
        If settings and data do not fit.
    """
    if (folder / RUN).exists():
        raise FileError(f"{folder}: has a run already; resume it, or choose another folder")
    trainer = Trainer(settings, data)
    folder.mkdir(parents=True, exist_ok=True)
    _save_about(folder, settings, source)
    return trainer


def resume(folder: Path, *, epochs: int | None = None) -> Trainer:
    """Take up a run where its checkpoint left off, or from the start if it has none yet.

    Parameters
    ----------
    folder : Path
    epochs : int, optional
        Train to this many epochs in all.

    Raises
    ------
    FileError
        If the folder holds no run, or one of its files is damaged.
    """
    source, settings = _source(folder), _settings(folder)
    data = source.load()
    if (folder / CHECKPOINT).exists():
        trainer = Trainer.load(folder / CHECKPOINT, data, epochs=epochs)
    else:
        if epochs is not None:
            settings = dataclasses.replace(settings, epochs=epochs)
        trainer = Trainer(settings, data)
    if trainer.settings != settings:
        _save_about(folder, trainer.settings, source)
    return trainer


def _save_about(folder: Path, settings: Settings, source: Source) -> None:
    about = {"source": dataclasses.asdict(source), "settings": dataclasses.asdict(settings)}
    save_json(folder / RUN, about)


def _about(folder: Path, part: str) -> Any:
    about = load_json(folder / RUN)
    if not isinstance(about, dict) or part not in about:
        raise FileError(f"{folder / RUN}: is not the description of a run: lacks {part}")
    return about[part]


def _settings(folder: Path) -> Settings:
    return settings_from_json(folder / RUN, _about(folder, "settings"))


def _source(folder: Path) -> Source:
    try:
        return Source(**_about(folder, "source"))
    except TypeError as error:
        raise FileError(f"{folder / RUN}: is not the description of a run ({error})") from None


def train(
    folder: Path,
    trainer: Trainer,
    *,
    on_step: Callable[[Trainer], None] = lambda trainer: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train to the end, with a checkpoint after each epoch; return whether the end was reached.

    Parameters
    ----------
    folder : Path
    trainer : Trainer
    on_step : callable, optional
        Called after each optimiser step.
    stop : callable, optional
        Asked after each step; once it says yes, a checkpoint is written and training stops.
    """
    with trainer.network.backend.exclusive():
        while not trainer.done:
            started = time.perf_counter()
            trainer.advance()
            trainer.seconds += time.perf_counter() - started
            on_step(trainer)
            stopping = stop()
            if stopping or trainer.step % trainer.steps_per_epoch == 0:
                trainer.save(folder / CHECKPOINT)
            if stopping:
                return trainer.done
    return True


def finish(folder: Path, trainer: Trainer) -> dict[str, Any]:
    """Prune, compact, measure, and write everything that a finished run has; return its result."""
    network = trainer.evaluated()
    small = compact(network).with_backend(trainer.settings.backend)
    x, labels = trainer.inputs(trainer.data.x_test), trainer.data.y_test
    whole = network_cost(network)
    gated_logits, compact_logits = network.predict(x), small.predict(x)
    n_train = len(trainer.data.y_train)
    x_train = trainer.inputs(trainer.data.x_train)
    train_nll = float(softmax_cross_entropy(small.predict(x_train), trainer.data.y_train)[0])
    seconds_dense, seconds_compact = time_forward(network, small, x)
    result: dict[str, Any] = {
        "model": trainer.settings.model,
        "data": trainer.data.name,
        "seed": trainer.settings.seed,
        "epochs": trainer.settings.epochs,
        "gates": trainer.settings.gates,
        "lam": list(trainer.lam),
        "layers": small.names,
        "architecture": small.architecture,
        "architecture_dense": units_at_sites(network),
        "test_error": error_percent(compact_logits, labels),
        "test_error_gated": error_percent(gated_logits, labels),
        "max_difference": float(np.abs(gated_logits - compact_logits).max()),
        "train_nll": train_nll,
        "aic": aic(train_nll, small.n_params, n_train),
        "bic": bic(train_nll, small.n_params, n_train),
        "weights": int(sum(np.count_nonzero(w) for w in small.weights)),
        "weights_dense": int(sum(layer.params["weight"].size for _, layer in network.weighted)),
        "params": small.n_params,
        "params_dense": int(whole.params),
        "flops": small.flops,
        "flops_dense": int(whole.flops),
        "constant": small.is_constant,
        "seconds": trainer.seconds,
        "forward_seconds": {"dense": seconds_dense, "compact": seconds_compact},
    }
    save_arrays(folder / HISTORY, trainer.history.arrays())
    small.save(folder / NETWORK)
    save_pictures(folder, trainer)
    save_json(folder / RESULT, result)
    return result


def units_at_sites(network: Network) -> list[int]:
    """Units at each site: input units of a dense layer, output maps of a convolution."""
    return [
        layer.params["weight"].shape[0]  # D_in of (D_in, D_out), C_out of (C_out, C_in, kh, kw)
        for _, layer in network.sites
    ]


def time_forward(
    network: Network, small: CompactNetwork, x: Array, *, repeats: int = 15, budget: float = 10.0
) -> tuple[float, float]:
    """Median seconds to run all of x through the dense and the compact network, interleaved.

    As often as `repeats`, or until `budget` seconds are spent, but once at least.

    The dense network is the pruned one, with its zeros: the same function at the original shapes.
    """
    candidates: tuple[Network | CompactNetwork, ...] = (prune(network), small)
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(repeats):
        if sum(times[0]) + sum(times[1]) > budget:
            break
        for which, candidate in enumerate(candidates):
            started = time.perf_counter()
            candidate.predict(x)
            times[which].append(time.perf_counter() - started)
    return float(np.median(times[0])), float(np.median(times[1]))


def save_pictures(folder: Path, trainer: Trainer) -> list[Path]:
    """Draw what there is to see of a run; return the files."""
    from . import plotting  # matplotlib takes longer to import than everything else together

    network = trainer.averaged()
    if not network.gated:
        return []
    arrays = trainer.history.arrays()
    names = network.site_names
    z_hats = [gates.test_time(layer.params["log_alpha"]) for _, layer, gates in network.gated]
    figures = {
        "active_units.png": plotting.active_units(arrays, names),
        "gate_histogram.png": plotting.gate_histogram([z.ravel() for z in z_hats], names),
        "flops_over_training.png": plotting.flops_over_training(
            arrays, flops_dense=network_cost(network).flops
        ),
    }
    pixels: tuple[int, int] | None = None
    shape = trainer.data.image_shape
    if shape is not None and len(shape) == 2 and z_hats[0].shape == (shape[0] * shape[1],):
        pixels = shape[0], shape[1]
        figures["input_pixels.png"] = plotting.input_pixels(z_hats[0], pixels)
        figures["pixels_over_training.png"] = plotting.pixels_over_training(
            arrays["open_0"], pixels
        )
    if all(f"open_{k}" in arrays for k in range(len(names))):
        figures["neurons_over_training.png"] = plotting.neurons_over_training(arrays, names, pixels)
    for name, figure in figures.items():
        plotting.save(figure, folder / name)
    return [folder / name for name in figures]


def is_finished(folder: Path) -> bool:
    """Whether the run has a result, and it is that of as many epochs as the run is now to have."""
    if not (folder / RESULT).exists():
        return False
    return bool(load_result(folder)["epochs"] == _settings(folder).epochs)


def load_result(folder: Path) -> dict[str, Any]:
    """Load a finished run's result, every field of it checked to be there.

    Raises
    ------
    FileError
        If there is none, or it is damaged.
    """
    result = load_json(folder / RESULT)
    required = (
        *("model", "data", "seed", "epochs", "layers", "architecture", "architecture_dense"),
        *("test_error", "test_error_gated", "constant", "params", "params_dense", "weights"),
        *("weights_dense", "flops", "flops_dense", "seconds", "forward_seconds"),
    )
    missing = [name for name in required if not isinstance(result, dict) or name not in result]
    if missing:
        raise FileError(f"{folder / RESULT}: lacks {', '.join(missing)}")
    return dict(result)
