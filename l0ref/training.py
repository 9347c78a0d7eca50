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

from .augment import crop_and_flip, draw_crop_and_flip
from .backends import BACKENDS, Backend
from .concrete import BETA, GAMMA, ZETA
from .datasets import Dataset
from .flops import expected_cost, hard_cost, network_cost
from .gates import close_for_good
from .network import Network, check_lam
from .networks import MLP, LeNet5, LeNet300100, WideResNet
from .noise import Noise, Stream
from .optimizers import SGD, Adam, Optimizer, TemporalAverage
from .steps import Stepped, train_step
from .storage import FileError, load_arrays, save_arrays

Array = NDArray[Any]

_FORMAT = "l0ref checkpoint 3"
_DRAWN_BYTES = 2**21  # of masks to keep before they are costed: many at once, and still in cache
OPTIMIZERS = ("adam", "sgd")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    r"""All that a run depends on, but for its data. The defaults are the paper's.

    Attributes
    ----------
    model : str
        ``"lenet-300-100"``, ``"mlp"`` with `hidden`, ``"lenet-5"``, or ``"wrn"`` with `depth` and
        `width`; see `l0ref.networks`.
    hidden : tuple of int
        Hidden widths of an ``"mlp"``; input width and number of classes come from the data.
    depth, width : int
        Of a ``"wrn"``.
    gates : {"unit", "weight", "none"}
        A gate a unit or feature map, a gate a weight, or none.
    per_example : bool
        One draw of the gates an example rather than one a minibatch.
    lam : tuple of float
        lambda for all gated layers, or one each. The objective divides it by N: 0.1 is the paper's
        "0.1/N".
    l2 : float
        lambda_2, divided by N likewise.
    drop_rates : tuple of float or None
        Initial drop rates of the gates: one for all, of the first gated layer and of the others, or
        one each. None is the paper's: 0.2 for the inputs of a dense network and 0.5 else, 0.3 for a
        wide residual network.
    beta, gamma, zeta : float
        Hyperparameters of the gates.
    clamp_log_alpha : bool
        Clamp log_alpha to [log 0.01, log 100] after each step, as the paper's own code does.
    activation : {"relu", "tanh"}
        Between layers; a ``"wrn"`` has ReLU.
    dropout : float
        Drop rate of ordinary dropout on the hidden activations.
    augment : bool
        Crop each training image at random after padding it with black, and flip half of them.
    epochs, batch_size : int
        Passes over the training set, and examples a step; the last batch of an epoch may be
        smaller.
    optimizer : {"adam", "sgd"}
        With `lr`; `momentum` is that of SGD.
    gate_lr : float or None
        Learning rate of log_alpha; `lr` where None.
    average : float
        Decay of the temporal average that evaluation uses.
    statistics : int
        Batches of training examples on which batch norm's running statistics are gathered anew
        before each evaluation, under the gates of Eq. 13; 0 keeps those of training, which were
        gathered under gates that were drawn.
    seed : int
        Of every draw.
    dtype : {"float32", "float64"}
        Of parameters and data.
    backend : {"numba", "numpy"}
        Who computes: the fast twins, or the reference. The draws are the same to the bit, the rest
        to rounding.
    dense : bool
        Compute what this minibatch's closed gates multiply by 0, too; see `l0ref.conditional`. A
        NaN among the parameters is then met at once, and not when its gate is next open.
    dead_below : float
        Close a gate for good once P(z != 0) has been below this at the end of `dead_after` epochs
        in a row; 0 closes none. It saves their cost for the rest of the run, and changes the
        result: a gate that would have come back cannot.
    dead_after : int
        Epochs, at least 1.
    """

    model: str = "lenet-300-100"
    hidden: tuple[int, ...] = (300, 100)
    depth: int = 28
    width: int = 10
    gates: str = "unit"
    per_example: bool = False
    lam: tuple[float, ...] = (0.1,)
    l2: float = 0.0
    drop_rates: tuple[float, ...] | None = None
    beta: float = BETA
    gamma: float = GAMMA
    zeta: float = ZETA
    clamp_log_alpha: bool = False
    activation: str = "relu"
    dropout: float = 0.0
    augment: bool = False
    epochs: int = 200
    batch_size: int = 100
    optimizer: str = "adam"
    lr: float = 1e-3
    gate_lr: float | None = None
    momentum: float = 0.9
    average: float = 0.999
    statistics: int = 0
    seed: int = 0
    dtype: str = "float32"
    backend: str = "numba"
    dense: bool = False
    dead_below: float = 0.0
    dead_after: int = 3

    def __post_init__(self) -> None:
        for name, value, least in (("epochs", self.epochs, 1), ("batch_size", self.batch_size, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, chosen, allowed in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("dtype", self.dtype, DTYPES),
            ("model", self.model, tuple(MODELS)),
            ("backend", self.backend, BACKENDS),
        ):
            if chosen not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {chosen!r}")
        if not 0 <= self.dead_below < 1:
            raise ValueError(f"dead_below must be in [0, 1), got {self.dead_below}")
        if self.dead_after < 1:
            raise ValueError(f"dead_after must be at least 1, got {self.dead_after}")
        if self.dead_below and self.clamp_log_alpha:
            raise ValueError("clamp_log_alpha would open again what dead_below closes for good")
        if self.statistics < 0:
            raise ValueError(f"statistics must be at least 0, got {self.statistics}")
        if not (self.l2 >= 0 and np.isfinite(self.l2)):
            raise ValueError(f"l2 must be at least 0 and finite, got {self.l2}")

    def network(self, data: Dataset) -> Network:
        """Build the network for the data, at its initial values.

        Raises
        ------
        ValueError
            If the model takes no such data, or a setting is out of range.
        """
        options: dict[str, Any] = {
            "gates": self.gates,
            "per_example": self.per_example,
            "beta": self.beta,
            "gamma": self.gamma,
            "zeta": self.zeta,
            "dropout": self.dropout,
            "noise": Noise(self.seed),
            "dtype": self.dtype,
        }
        if self.drop_rates is not None:
            options["drop_rates"] = self.drop_rates
        return MODELS[self.model](self, data, options)

    def make_optimizer(self) -> Optimizer:
        """Build the optimiser."""
        if self.optimizer == "sgd":
            return SGD(self.lr, momentum=self.momentum, gate_lr=self.gate_lr)
        return Adam(self.lr, gate_lr=self.gate_lr)


def _lenet300100(settings: Settings, data: Dataset, options: dict[str, Any]) -> Network:
    d_in = data.x_train.shape[1]
    if (d_in, data.n_classes) != (784, 10):
        raise ValueError(
            "model lenet-300-100 takes 784 inputs and 10 classes; the data has "
            f"{d_in} and {data.n_classes}: use model mlp"
        )
    return LeNet300100(activation=settings.activation, **options)


def _mlp(settings: Settings, data: Dataset, options: dict[str, Any]) -> Network:
    widths = (data.x_train.shape[1], *settings.hidden, data.n_classes)
    return MLP(widths, activation=settings.activation, **options)


def _lenet5(settings: Settings, data: Dataset, options: dict[str, Any]) -> Network:
    images = _images(settings, data)
    return LeNet5(data.n_classes, activation=settings.activation, **images, **options)


def _wide_resnet(settings: Settings, data: Dataset, options: dict[str, Any]) -> Network:
    images = _images(settings, data)
    if settings.activation != "relu":
        raise ValueError(f"activation of model wrn must be relu, got {settings.activation!r}")
    return WideResNet(settings.depth, settings.width, data.n_classes, **images, **options)


def _images(settings: Settings, data: Dataset) -> dict[str, Any]:
    maps = _maps(f"model {settings.model}", data)
    return {"image_shape": maps, "normalisation": data.normalisation}


def _maps(what: str, data: Dataset) -> tuple[int, int, int]:
    """(C, H, W) of the data's images; `what` is the setting that needs them."""
    shape = data.image_shape
    if shape is None or len(shape) not in (2, 3):
        raise ValueError(
            f"{what} takes images; the data {data.name} has examples of shape "
            f"{shape or data.x_train.shape[1:]}"
        )
    return (1, shape[0], shape[1]) if len(shape) == 2 else (shape[0], shape[1], shape[2])


MODELS: dict[str, Callable[[Settings, Dataset, dict[str, Any]], Network]] = {
    "lenet-300-100": _lenet300100,
    "mlp": _mlp,
    "lenet-5": _lenet5,
    "wrn": _wide_resnet,
}


class History:
    """What happened in each epoch; every entry is an array with one row an epoch.

    ===================  ==================  ====================================================
    loss                 (epochs,)           objective, mean over the epoch's steps
    data, l0, l2         (epochs,)           its three parts
    expected_l0          (epochs, layers)    expected parameters on, a count, averaged parameters
    active               (epochs, layers)    gates with z_hat > 0 (Eq. 13), averaged parameters
    test_error           (epochs,)           percent, Eq. 13 on the averaged parameters
    expected_flops       (epochs,)           expected FLOPs an example, averaged parameters
    sampled_flops        (epochs,)           FLOPs of the networks drawn, mean over the steps
    flops                (epochs,)           FLOPs with those gates of Eq. 13, averaged parameters
    open_<layer>         (epochs, G)         which gates those are; not for a gate a weight
    dead                 (epochs, layers)    gates closed for good so far; with `dead_below` only
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
        self.network = settings.network(data).with_backend(settings.backend)
        self.lam = check_lam(settings.lam, len(self.network.gated))
        self.optimizer = settings.make_optimizer()
        self.average = TemporalAverage(settings.average)
        self.history = History()
        self.step = 0
        self.seconds = 0.0
        self._low: dict[int, Array] = {}  # epochs in a row that a gate's P(z != 0) has been low
        self._sums = np.zeros(5)  # of losses and drawn FLOPs over the current epoch's steps
        self._n_drawn = 0  # steps whose masks are kept, and whose FLOPs are not in the sums yet
        self._drawn = self._room_for_masks()
        self._take_step = step_function(self.network.backend)
        self._maps = _maps("augment", data) if settings.augment else None
        self._augmented(data.x_train[:1])  # images too small to pad are refused here and now
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
        """Return the network at the averaged parameters, which is the one to evaluate.

        Running statistics are averaged too, with the same weights: they belong to the parameters
        of their own step.
        """
        if not self.average.t:
            return self.network.with_params(self.network.params)
        arrays, buffers = self.average.params, self.network.buffers
        return self.network.with_params(
            {name: a for name, a in arrays.items() if name not in buffers},
            {name: arrays[name] for name in buffers},
        )

    def evaluated(self) -> Network:
        """Return the averaged network, with the running statistics that `Settings` asks for."""
        network = self.averaged()
        if not (self.settings.statistics and network.buffers):
            return network
        # The order of the first epoch: the same examples whenever a run is resumed, of all classes.
        order = self.noise.permutation(len(self.data.y_train), epoch=0)
        size = self.settings.batch_size
        starts = range(0, min(self.settings.statistics * size, len(order)), size)
        return network.with_statistics(
            self.inputs(self.data.x_train[order[start : start + size]]) for start in starts
        )

    def inputs(self, rows: Array) -> Array:
        """Turn rows of the data into what the network takes: its shape and dtype."""
        shape = (len(rows), *self.network.input_shape)
        return rows.reshape(shape).astype(self.settings.dtype, copy=False)

    def _augmented(self, rows: Array) -> Array:
        if self._maps is None:
            return rows
        generator = self.noise.generator(Stream.AUGMENT, step=self.step)
        offsets, flips = draw_crop_and_flip(generator, len(rows))
        images = crop_and_flip(rows.reshape(len(rows), *self._maps), offsets, flips)
        return images.reshape(len(rows), -1)

    def _room_for_masks(self) -> dict[int, NDArray[np.bool_]]:
        """Room for as many steps as there are bytes to spend, but no less than one."""
        gated = self.network.gated
        a_step = sum(layer.params["log_alpha"].size for _, layer, _ in gated)
        steps = min(max(_DRAWN_BYTES // max(a_step, 1), 1), self.steps_per_epoch)
        return {i: np.empty((steps, *gates.shape), dtype=np.bool_) for i, _, gates in gated}

    def _keep_drawn(self, gates: dict[int, Array]) -> None:
        """Keep which gates were drawn open: the first example's, if each has its own draw.

        Counting the FLOPs of one network takes as long as that of hundreds at once.
        """
        if any(self._n_drawn == len(masks) for masks in self._drawn.values()):
            self._count_drawn()
        for i, masks in self._drawn.items():
            z = gates[i]
            np.not_equal(z[0] if z.ndim == masks.ndim else z, 0, out=masks[self._n_drawn])
        self._n_drawn += 1

    def _count_drawn(self) -> None:
        """Add the FLOPs of the networks that are kept to the sums.

        Counts, and their sum, are whole numbers and exact: it does not matter when this is done.
        """
        masks = [masks[: self._n_drawn] for masks in self._drawn.values()]
        flops = network_cost(self.network, masks).flops
        self._sums[4] += np.broadcast_to(flops, self._n_drawn).sum()  # one for all without gates
        self._n_drawn = 0

    def _batch(self) -> NDArray[np.int64]:
        epoch, position = divmod(self.step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.noise.permutation(len(self.data.y_train), epoch=epoch)
        start = position * self.settings.batch_size
        return self._order[1][start : start + self.settings.batch_size]

    def advance(self) -> None:
        """Take one optimiser step; at the end of an epoch, add to the history."""
        with self.network.backend.exclusive():
            self._advance()

    def _advance(self) -> None:
        rows = self._batch()
        x = self.inputs(self._augmented(self.data.x_train.take(rows, axis=0)))
        u = {
            i: self.noise.draws(self._stream(i), shape, layer=i, step=self.step)
            for i, shape in self.network.noise_shapes(x.shape).items()
        }
        settings, network = self.settings, self.network
        loss, gates = self._take_step(
            network,
            self.optimizer,
            self.average,
            x,
            self.data.y_train[rows],
            u,
            lam=self.lam,
            l2=settings.l2,
            n_train=len(self.data.y_train),
            dense=settings.dense,
            clamp=settings.clamp_log_alpha,
        )
        self.step += 1
        for k, part in enumerate(loss):  # of four numbers, faster than as an array
            self._sums[k] += part
        self._keep_drawn(gates)
        if self.step % self.steps_per_epoch == 0:
            self._end_epoch()

    def _stream(self, layer: int) -> Stream:
        return Stream.GATES if self.network.layers[layer].params else Stream.DROPOUT

    def _end_epoch(self) -> None:
        network = self.evaluated()
        self._count_drawn()
        loss, data, l0, l2, sampled = self._sums / self.steps_per_epoch
        open_gates = network.open_gates()
        row: dict[str, Any] = {"loss": loss, "data": data, "l0": l0, "l2": l2}
        row["expected_l0"] = network.expected_l0()
        row["active"] = [int(mask.sum()) for mask in open_gates]
        row["test_error"] = self.test_error(network)
        row["expected_flops"] = expected_cost(network).flops
        row["sampled_flops"] = sampled
        row["flops"] = hard_cost(network).flops
        for i, mask in enumerate(open_gates):
            if mask.ndim == 1:
                row[f"open_{i}"] = mask
        if self.settings.dead_below:
            row["dead"] = self._close_for_good()
        self.history.append(row)
        self._sums = np.zeros_like(self._sums)

    def _close_for_good(self) -> list[int]:
        """Close the gates whose time has come; return how many are closed so, for each layer."""
        for i, layer, gates in self.network.gated:
            log_alpha = layer.params["log_alpha"]
            low = gates.law(log_alpha).prob_active() < self.settings.dead_below
            self._low[i] = np.where(low, self._low.get(i, 0) + 1, 0)
            close_for_good(log_alpha, self._low[i] >= self.settings.dead_after)
        return [int((self._low[i] >= self.settings.dead_after).sum()) for i in self._low]

    def test_error(self, network: Network) -> float:
        """Percentage of the test examples that a network with these inputs gets wrong."""
        logits = network.predict(self.inputs(self.data.x_test))
        return error_percent(logits, self.data.y_test)

    # --- checkpoints ---

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        self._count_drawn()
        arrays: dict[str, Array] = {"sums": self._sums}
        for group, values in (
            ("params", self.network.params),
            ("buffers", self.network.buffers),
            ("optimizer", self.optimizer.state()),
            ("average", self.average.state()),
            ("history", self.history.arrays()),
            ("low", {str(i): epochs for i, epochs in self._low.items()}),
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
            group: {} for group in ("params", "buffers", "optimizer", "average", "history", "low")
        }
        for name, value in arrays.items():
            group, _, inner = name.partition(":")
            if inner and group in groups:
                groups[group][inner] = value
        try:
            trainer.network = trainer.network.with_params(groups["params"], groups["buffers"])
            trainer.optimizer.load_state(groups["optimizer"])
            trainer.average.load_state(groups["average"])
        except (KeyError, ValueError) as error:
            raise FileError(f"{path}: does not fit its own settings ({error})") from None
        trainer.history = History.from_arrays(groups["history"])
        trainer._low = {int(i): epochs for i, epochs in groups["low"].items()}
        trainer._sums = arrays["sums"]
        return trainer


def step_function(backend: Backend) -> Callable[..., Stepped]:
    """Return what takes a step on a backend: `l0ref.steps.train_step`, or the same faster."""
    if not backend.fuses:
        return train_step
    from . import programs  # which imports Numba

    return programs.train_step


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
