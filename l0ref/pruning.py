r"""Eq. 13 made real: close the gates for good, and take out of the network what they closed.

Hard pruning multiplies the test-time gates into the weights: a dense network with zeros in it.
Compaction then removes units, by three rules applied until none applies:

1. a unit none of whose outgoing weights is left is **dead**: its incoming weights and its bias go;
2. a hidden unit none of whose incoming weights is left is a **constant**, f(bias), not nothing: it
is folded into
   the next layer's bias, and its outgoing weights go;
3. an input none of whose outgoing weights is left is not read.

Only exact zeros and constants are removed, so the compact network's outputs equal the gated
network's to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .flops import stack_flops, stack_params
from .layers import Dense, Dropout, Layer, ReLU, Tanh
from .networks import Network
from .storage import FileError, load_arrays, save_arrays

Array = NDArray[Any]

_ACTIVATIONS: dict[str, Any] = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh}
_FORMAT = "l0ref compact network 1"


@dataclass(frozen=True, eq=False)
class CompactNetwork:
    """A small dense network in plain arrays: what is left when the gates are gone.

    Attributes
    ----------
    inputs : array of int, (n_0,)
        The columns of the original input that are still read, in order.
    weights : list of array, (n_l, n_{l+1})
    biases : list of array, (n_{l+1},)
    activation : {"relu", "tanh"}
        Between layers; there is none after the last.
    kept : list of array of int
        For each layer, which of its original input units are left (kept[0] is `inputs`).
    d_in : int
        Width of the original input.
    """

    inputs: NDArray[np.int64]
    weights: list[Array]
    biases: list[Array]
    activation: str
    kept: list[NDArray[np.int64]]
    d_in: int

    @property
    def architecture(self) -> list[int]:
        """Units left: input units of each layer, as the paper lists them."""
        return [w.shape[0] for w in self.weights]

    @property
    def n_params(self) -> int:
        """Weights and biases left."""
        return stack_params(self._shapes)

    @property
    def flops(self) -> int:
        """FLOPs for one example."""
        return stack_flops(self._shapes)

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        return [(w.shape[0], w.shape[1]) for w in self.weights]

    def predict(self, x: Array) -> Array:
        """Logits of a batch, (N, d_in) -> (N, K)."""
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise ValueError(f"x must have shape (N, {self.d_in}), got {x.shape}")
        f = _ACTIVATIONS[self.activation]
        h = x[:, self.inputs]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = f(h @ weight + bias)
        return np.asarray(h @ self.weights[-1] + self.biases[-1])

    def save(self, path: str | Path) -> None:
        """Save as .npz of plain arrays: inputs, weight_0, bias_0, weight_1, ...; no pickle."""
        arrays: dict[str, Array] = {
            "format": np.array(_FORMAT),
            "activation": np.array(self.activation),
            "d_in": np.array(self.d_in),
            "inputs": self.inputs,
        }
        for i, (weight, bias, kept) in enumerate(
            zip(self.weights, self.biases, self.kept, strict=True)
        ):
            arrays |= {f"weight_{i}": weight, f"bias_{i}": bias, f"kept_{i}": kept}
        save_arrays(Path(path), arrays)

    @classmethod
    def load(cls, path: str | Path) -> CompactNetwork:
        """Load what `save` wrote.

        Raises
        ------
        FileError
            If the file is missing, damaged, or something else.
        """
        arrays = load_arrays(Path(path), ("format", "activation", "d_in", "inputs", "weight_0"))
        if str(arrays["format"]) != _FORMAT:
            raise FileError(f"{path}: not a compact network but {str(arrays['format'])!r}")
        n = sum(name.startswith("weight_") for name in arrays)
        missing = [
            f"{kind}_{i}"
            for kind in ("weight", "bias", "kept")
            for i in range(n)
            if f"{kind}_{i}" not in arrays
        ]
        if missing:
            raise FileError(f"{path}: lacks {', '.join(missing)}")
        activation = str(arrays["activation"])
        if activation not in _ACTIVATIONS:
            raise FileError(f"{path}: unknown activation {activation!r}")
        d_in = arrays["d_in"]
        if d_in.ndim or d_in.dtype.kind not in "iu":
            raise FileError(f"{path}: d_in is not an integer")
        small = cls(
            arrays["inputs"],
            [arrays[f"weight_{i}"] for i in range(n)],
            [arrays[f"bias_{i}"] for i in range(n)],
            activation,
            [arrays[f"kept_{i}"] for i in range(n)],
            int(d_in),
        )
        if not small._fits():
            raise FileError(f"{path}: holds arrays that do not fit each other")
        return small

    def _fits(self) -> bool:
        """Whether widths agree from layer to layer, and the inputs are columns of the original."""
        widths = [len(kept) if kept.ndim == 1 else -1 for kept in self.kept]
        outputs = [len(bias) if bias.ndim == 1 else -1 for bias in self.biases]
        return (
            [w.shape for w in self.weights] == list(zip(widths, outputs, strict=True))
            and outputs[:-1] == widths[1:]
            and all(kept.dtype.kind in "iu" for kept in [self.inputs, *self.kept])
            and np.array_equal(self.inputs, self.kept[0])
            and bool(((self.inputs >= 0) & (self.inputs < self.d_in)).all())
        )


def prune(network: Network) -> tuple[list[Array], list[Array], str]:
    """Multiply the test-time gates into the weights (Eq. 13).

    Returns
    -------
    weights, biases : lists of array
        theta* = theta_tilde z_hat for each dense layer, of the original shapes, with exact zeros.
    activation : str
        Between layers.

    Raises
    ------
    ValueError
        If the network is not a stack of dense layers with one kind of activation between them.
    """
    names: dict[type[Layer], str] = {ReLU: "relu", Tanh: "tanh"}
    weights, biases, order = [], [], []
    for layer in network.layers:
        if isinstance(layer, Dense):
            weight, bias = layer.test_time_weights()
            weights.append(weight.copy())
            biases.append(bias.copy())
            order.append("dense")
        elif type(layer) in names:
            order.append(names[type(layer)])
        elif not isinstance(layer, Dropout):
            raise ValueError(f"network must be a dense stack, got a {type(layer).__name__} layer")
    between = order[1::2]
    if order[::2] != ["dense"] * len(weights) or len(set(between)) > 1 or len(order) % 2 == 0:
        raise ValueError(
            "network must be dense layers with one kind of activation between each two, "
            f"got {', '.join(order)}"
        )
    return weights, biases, between[0] if between else "relu"


def compact(network: Network) -> CompactNetwork:
    """Remove every unit that the test-time gates made dead or constant.

    Parameters
    ----------
    network : Network
        A stack of dense layers, ReLU or tanh between them.

    Returns
    -------
    CompactNetwork
        With the outputs of `network.predict`, to rounding. A layer may have lost every unit: what
        follows is then a constant.
    """
    weights, biases, activation = prune(network)
    f = _ACTIVATIONS[activation]
    kept = [np.arange(w.shape[0]) for w in weights]
    d_in = weights[0].shape[0]

    # Constants go forward, layer by layer: a fold changes only the next layer's bias and rows.
    for i in range(len(weights) - 1):
        fixed = ~weights[i].any(axis=0)
        if fixed.any():
            biases[i + 1] = biases[i + 1] + f(biases[i][fixed]) @ weights[i + 1][fixed]
            weights[i + 1][fixed] = 0
    # Dead units go backward: a removal empties only columns, hence rows, of the layer before.
    for i in reversed(range(len(weights))):
        read = weights[i].any(axis=1)
        weights[i], kept[i] = weights[i][read], kept[i][read]
        if i > 0:
            weights[i - 1], biases[i - 1] = weights[i - 1][:, read], biases[i - 1][read]
    return CompactNetwork(kept[0], weights, biases, activation, kept, d_in)
