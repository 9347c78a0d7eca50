r"""The training loop, its history and its checkpoints.

A run is a function of its settings and its data. Every draw is a function of (seed, stream, layer,
step) through `l0ref.noise`, the optimiser and the average are plain arrays, and so the state of a
run at any step is a dictionary of arrays. Saved and loaded, it continues bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .concrete import BETA, GAMMA, ZETA
from .datasets import Dataset
from .gates import clamp_log_alpha
from .networks import Network, check_lam, lenet300100, mlp
from .noise import Noise, Stream
from .optimizers import SGD, Adam, Optimizer, TemporalAverage
from .storage import FileError, load_arrays, save_arrays

Array = NDArray[Any]

_FORMAT = "l0ref checkpoint 1"
OPTIMIZERS = ("adam", "sgd")
DTYPES = ("float32", "float64")


class DivergedError(ValueError):
    """The objective is no longer a number."""


@dataclass(frozen=True)
class Settings:
    r"""All that a run depends on, but for its data. The defaults are the paper's.

    Attributes
    ----------
    model : str
        ``"lenet-300-100"``, or ``"mlp"`` with `hidden`.
    hidden : tuple of int
        Hidden widths of an ``"mlp"``; input width and number of classes come from the data.
    gates : {"input", "weight", "none"}
        A gate an input unit, a gate a weight, or none.
    per_example : bool
        One draw of the gates an example rather than one a minibatch.
    lam : tuple of float
        lambda for all gated layers, or one each. The objective divides it by N: 0.1 is the paper's
        "0.1/N".
    l2 : float
        lambda_2, divided by N likewise.
    drop_rates : tuple of float
        Initial drop rates of the gates: of the input layer and of the others, or one a layer.
    beta, gamma, zeta : float
        Hyperparameters of the gates.
    clamp_log_alpha : bool
        Clamp log_alpha to [log 0.01, log 100] after each step, as the paper's own code does.
    activation : {"relu", "tanh"}
        Between layers.
    dropout : float
        Drop rate of ordinary dropout on the hidden activations.
    epochs, batch_size : int
        Passes over the training set, and examples a step; the last batch of an epoch may be
        smaller.
    optimizer : {"adam", "sgd"}
        With `lr`; `momentum` is that of SGD.
    gate_lr : float or None
        Learning rate of log_alpha; `lr` where None.
    average : float
        Decay of the temporal average that evaluation uses.
    seed : int
        Of every draw.
    dtype : {"float32", "float64"}
        Of parameters and data.
    """

    model: str = "lenet-300-100"
    hidden: tuple[int, ...] = (300, 100)
    gates: str = "input"
    per_example: bool = False
    lam: tuple[float, ...] = (0.1,)
    l2: float = 0.0
    drop_rates: tuple[float, ...] = (0.2, 0.5)
    beta: float = BETA
    gamma: float = GAMMA
    zeta: float = ZETA
    clamp_log_alpha: bool = False
    activation: str = "relu"
    dropout: float = 0.0
    epochs: int = 200
    batch_size: int = 100
    optimizer: str = "adam"
    lr: float = 1e-3
    gate_lr: float | None = None
    momentum: float = 0.9
    average: float = 0.999
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, value, least in (("epochs", self.epochs, 1), ("batch_size", self.batch_size, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, chosen, allowed in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("dtype", self.dtype, DTYPES),
            ("model", self.model, tuple(MODELS)),
        ):
            if chosen not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {chosen!r}")
        if not (self.l2 >= 0 and np.isfinite(self.l2)):
            raise ValueError(f"l2 must be at least 0 and finite, got {self.l2}")

    def network(self, d_in: int, n_classes: int) -> Network:
        """Build the network at its initial values."""
        return MODELS[self.model](
            self,
            d_in,
            n_classes,
            gates=self.gates,
            per_example=self.per_example,
            drop_rates=self.drop_rates,
            beta=self.beta,
            gamma=self.gamma,
            zeta=self.zeta,
            activation=self.activation,
            dropout=self.dropout,
            noise=Noise(self.seed),
            dtype=self.dtype,
        )

    def make_optimizer(self) -> Optimizer:
        """Build the optimiser."""
        if self.optimizer == "sgd":
            return SGD(self.lr, momentum=self.momentum, gate_lr=self.gate_lr)
        return Adam(self.lr, gate_lr=self.gate_lr)


def _lenet(settings: Settings, d_in: int, n_classes: int, **options: Any) -> Network:
    if (d_in, n_classes) != (784, 10):
        raise ValueError(
            "model lenet-300-100 takes 784 inputs and 10 classes; the data has "
            f"{d_in} and {n_classes}: use model mlp"
        )
    return lenet300100(**options)


def _mlp(settings: Settings, d_in: int, n_classes: int, **options: Any) -> Network:
    return mlp((d_in, *settings.hidden, n_classes), **options)


MODELS: dict[str, Callable[..., Network]] = {"lenet-300-100": _lenet, "mlp": _mlp}


class History:
    """What happened in each epoch; every entry is an array with one row an epoch.

    ===================  ==================  ====================================================
    loss                 (epochs,)           objective, mean over the epoch's steps
    data, l0, l2         (epochs,)           its three parts
    expected_l0          (epochs, layers)    expected parameters on, a count, averaged parameters
    active               (epochs, layers)    gates with z_hat > 0 (Eq. 13), averaged parameters
    test_error           (epochs,)           percent, Eq. 13 on the averaged parameters
    open_<layer>         (epochs, G)         which gates those are; not for a gate a weight
    ===================  ==================  ====================================================
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[Array]] = {}

    def append(self, row: dict[str, Any]) -> None:
        """Add an epoch."""
        for name, value in row.items():
            self._rows.setdefault(name, []).append(np.asarray(value))

    def __len__(self) -> int:
        return len(self._rows.get("loss", []))

    def last(self, name: str) -> Array:
        """Return the latest entry."""
        return self._rows[name][-1]

    def arrays(self) -> dict[str, Array]:
        """Stack each entry's epochs."""
        return {name: np.stack(rows) for name, rows in self._rows.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array]) -> History:
        """Take apart what `arrays` made."""
        history = cls()
        history._rows = {name: list(stacked) for name, stacked in arrays.items()}
        return history


class Trainer:
    """A run in progress.

    Parameters
    ----------
    settings : Settings
    data : Dataset

    Attributes
    ----------
    network : Network
        At the current parameters.
    step : int
        Optimiser steps taken.
    history : History
    seconds : float
        Time spent in steps so far, kept by whoever drives the run and saved with it.

    Raises
    ------
    ValueError
        If settings and data do not fit.
    """

    def __init__(self, settings: Settings, data: Dataset) -> None:
        self.settings = settings
        self.data = data
        self.noise = Noise(settings.seed)
        self.network = settings.network(data.x_train.shape[1], data.n_classes)
        self.lam = check_lam(settings.lam, len(self.network.gated))
        self.optimizer = settings.make_optimizer()
        self.average = TemporalAverage(settings.average)
        self.history = History()
        self.step = 0
        self.seconds = 0.0
        self._sums = np.zeros(4)  # of the four losses over the current epoch's steps
        self._x_train = data.x_train.astype(settings.dtype, copy=False)
        self._x_test = data.x_test.astype(settings.dtype, copy=False)
        self._fingerprint = data.fingerprint()
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the training set."""
        return -(-len(self.data.y_train) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps in the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def done(self) -> bool:
        """Whether every epoch is over."""
        return self.step >= self.total_steps

    def averaged(self) -> Network:
        """Return the network at the averaged parameters, which is the one to evaluate."""
        return self.network.with_params(
            self.average.params if self.average.t else self.network.params
        )

    def _batch(self) -> NDArray[np.int64]:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.noise.permutation(len(self.data.y_train), epoch=epoch)
        start = position * self.settings.batch_size
        return self._order[1][start : start + self.settings.batch_size]

    def advance(self) -> None:
        """Take one optimiser step; at the end of an epoch, add to the history."""
        rows = self._batch()
        x = self._x_train[rows]
        u = {
            i: self.noise.uniform(self._stream(i), shape, layer=i, step=self.step)
            for i, shape in self.network.noise_shapes(x.shape).items()
        }
        params = self.network.params
        loss, grads = self.network.loss_and_grads(
            x,
            self.data.y_train[rows],
            u,
            lam=self.lam,
            l2=self.settings.l2,
            n_train=len(self.data.y_train),
        )
        if not np.isfinite(loss.total):
            raise DivergedError(
                f"the loss is {loss.total} at step {self.step}: nothing was changed by this step; "
                "a lower learning rate may help"
            )
        self.optimizer.step(params, grads)
        if self.settings.clamp_log_alpha:
            for _, layer, _ in self.network.gated:
                clamp_log_alpha(layer.params["log_alpha"])
        self.average.update(params)
        self.step += 1
        self._sums += loss
        if self.step % self.steps_per_epoch == 0:
            self._end_epoch()

    def _stream(self, layer: int) -> Stream:
        return Stream.GATES if self.network.layers[layer].params else Stream.DROPOUT

    def _end_epoch(self) -> None:
        network = self.averaged()
        loss, data, l0, l2 = self._sums / self.steps_per_epoch
        open_gates = network.open_gates()
        row: dict[str, Any] = {"loss": loss, "data": data, "l0": l0, "l2": l2}
        row["expected_l0"] = network.expected_l0()
        row["active"] = [int(mask.sum()) for mask in open_gates]
        row["test_error"] = error_percent(network.predict(self._x_test), self.data.y_test)
        for i, mask in enumerate(open_gates):
            if mask.ndim == 1:
                row[f"open_{i}"] = mask
        self.history.append(row)
        self._sums = np.zeros(4)

    # --- checkpoints ---

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        arrays: dict[str, Array] = {"sums": self._sums}
        for group, values in (
            ("params", self.network.params),
            ("optimizer", self.optimizer.state()),
            ("average", self.average.state()),
            ("history", self.history.arrays()),
        ):
            arrays |= {f"{group}:{name}": value for name, value in values.items()}
        about = {
            "format": _FORMAT,
            "settings": dataclasses.asdict(self.settings),
            "data": self._fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "shapes": _shapes(arrays),
        }
        arrays["about"] = np.array(json.dumps(about))
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path, data: Dataset, *, epochs: int | None = None) -> Trainer:
        """Take up a run from its checkpoint.

        Parameters
        ----------
        path : Path
        data : Dataset
            The data that the run began with.
        epochs : int, optional
            Train to this many epochs in all rather than to the number that the run began with.

        Raises
        ------
        FileError
            If the file is missing, damaged, something else, or of a run on other data.
        ValueError
            If the run is past `epochs` already.
        """
        arrays = load_arrays(path, ("about", "sums"))
        about = read_about(path, arrays)
        if about["data"] != data.fingerprint():
            raise FileError(f"{path}: is of a run on other data than {data.name}")
        del arrays["about"]
        # A lost moment of the optimiser would else be zeros, and the run another without a word.
        if about["shapes"] != _shapes(arrays):
            raise FileError(f"{path}: does not hold the arrays that it says it does")
        settings = settings_from_json(path, about["settings"])
        if epochs is not None:
            settings = dataclasses.replace(settings, epochs=epochs)
        try:
            trainer = cls(settings, data)
            trainer.step, trainer.seconds = int(about["step"]), float(about["seconds"])
        except (TypeError, ValueError) as error:
            raise FileError(f"{path}: its settings are not valid ({error})") from None
        if trainer.step > trainer.total_steps:
            begun = -(-trainer.step // trainer.steps_per_epoch)
            raise ValueError(f"epochs must be at least the {begun} already begun, got {epochs}")
        groups: dict[str, dict[str, Array]] = {
            group: {} for group in ("params", "optimizer", "average", "history")
        }
        for name, value in arrays.items():
            group, _, inner = name.partition(":")
            if inner and group in groups:
                groups[group][inner] = value
        try:
            trainer.network = trainer.network.with_params(groups["params"])
            trainer.optimizer.load_state(groups["optimizer"])
            trainer.average.load_state(groups["average"])
        except (KeyError, ValueError) as error:
            raise FileError(f"{path}: does not fit its own settings ({error})") from None
        trainer.history = History.from_arrays(groups["history"])
        trainer._sums = arrays["sums"]
        return trainer


def _shapes(arrays: dict[str, Array]) -> dict[str, list[int]]:
    return {name: list(a.shape) for name, a in arrays.items()}


def read_about(path: Path, arrays: dict[str, Array]) -> dict[str, Any]:
    """Return the description inside a checkpoint's arrays; `FileError` where it is none."""
    try:
        about = json.loads(str(arrays["about"]))
        if about["format"] != _FORMAT:
            raise FileError(f"{path}: not a checkpoint but {about['format']!r}")
        return {name: about[name] for name in ("settings", "data", "step", "seconds", "shapes")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise FileError(f"{path}: not a checkpoint ({error!r})") from None


def settings_from_json(path: Path, values: Any) -> Settings:
    """Rebuild settings from JSON, where tuples are lists."""
    try:
        given: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Settings(**given)
    except (AttributeError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its settings are not valid ({error})") from None


def error_percent(logits: Array, labels: NDArray[np.int64]) -> float:
    """Percentage of examples whose largest logit is not the label's; NaN counts as wrong."""
    wrong = (logits.argmax(axis=1) != labels) | np.isnan(logits).any(axis=1)
    return float(100.0 * np.mean(wrong))
