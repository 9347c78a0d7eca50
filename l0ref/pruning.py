r"""Eq. 13 made real: close the gates for good, and take out of the network what they closed.

Hard pruning (`prune`) multiplies the test-time gates into the weights: a network of the same shapes
with zeros in it. Compaction (`compact`) then removes units and feature maps, by three rules:

1. a unit that nothing reads is **dead**: its incoming weights and its bias go;
2. a unit that reads nothing is a **constant**, not nothing. It is taken through whatever comes next
   (batch norm, activation, pooling, flatten) and folded into the bias of the layer that reads it,
   and its outgoing weights go. Behind a convolution with padding a constant map makes a pattern,
   not a number, for the border sees fewer of its elements: it is folded as that pattern;
3. an input that nothing reads is not looked at.

Maps that a residual connection adds are the same maps on both its sides: they go together or not at
all. Only exact zeros and constants are removed, so the compact network's outputs equal the gated
network's to rounding.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .conditional import INPUT
from .flops import network_cost
from .layers import (
    AddPattern,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    Normalize,
    Pool,
    ReLU,
    Select,
    SparseDense,
    Tanh,
    Weighted,
)
from .network import Network
from .ops.conv import sliding_windows
from .ops.sparse import SparseWeights
from .storage import FileError, load_arrays, save_arrays

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

_PASSING = (ReLU, Tanh, Dropout, Pool, BatchNorm, Normalize)
"""Layers that turn each unit or map into one, on its own."""

SPARSE, SPARSE_SIZE = 0.25, 20_000
"""Share of weights other than 0, and number of weights, from which the sparse product is faster."""

_FORMAT = "l0ref compact network 2"


@dataclass(frozen=True, eq=False)
class CompactNetwork:
    """A small network without gates: what is left when they are gone.

    Attributes
    ----------
    network : Network
        Its layers, on the inputs that are left.
    inputs : array of int, (n_0,)
        The units or channels of the original input that are still read, in order.
    kept : list of array of int
        Which of the original units are left at each site of the gates (of all layers with weights,
        where there was no gate): of a dense layer its input units, of a convolution its output
        maps.
    names : list of str
        What tables call the sites.
    input_shape : tuple of int
        Of one example of the original input.
    """

    network: Network
    inputs: Indices
    kept: list[Indices]
    names: list[str]
    input_shape: tuple[int, ...]
    _runner: Network | None = field(default=None, repr=False)

    @property
    def architecture(self) -> list[int]:
        """Units left at each site, as the paper lists them."""
        return [len(kept) for kept in self.kept]

    @property
    def weights(self) -> list[Array]:
        """Weights of each layer that has some: (D_in, D_out), or (C_out, C_in/groups, kh, kw)."""
        return [layer.params["weight"] for _, layer in self.network.weighted]

    @property
    def biases(self) -> list[Array | None]:
        """Their biases; None for a convolution without."""
        return [layer.params.get("bias") for _, layer in self.network.weighted]

    @property
    def n_params(self) -> int:
        """Parameters left: weights, biases, batch norms, patterns."""
        return int(network_cost(self.network).params)

    @property
    def flops(self) -> int:
        """FLOPs for one example."""
        return int(network_cost(self.network).flops)

    @property
    def is_constant(self) -> bool:
        """Whether no input is read: some layer has lost every unit."""
        return len(self.inputs) == 0

    def with_backend(self, name: str) -> CompactNetwork:
        """Return the same network for inference on another backend.

        On ``"numba"``, dense layers with few weights other than 0, such as gates on single weights
        leave, are multiplied by those alone.

        Raises
        ------
        ValueError
            If there is no backend of that name.
        """
        runner = self.network.with_backend(name)
        if name == "numba":
            for i, layer in runner.weighted:
                if isinstance(layer, Dense) and _is_sparse(layer.params["weight"]):
                    sparse = SparseDense(
                        SparseWeights.of(layer.params["weight"]), layer.params["bias"]
                    )
                    sparse.ops = layer.ops
                    runner.layers[i] = sparse
        return dataclasses.replace(self, _runner=runner)

    def predict(self, x: Array, *, batch_size: int = 1000) -> Array:
        """Logits of a batch, (N, *input_shape) -> (N, K)."""
        if x.shape[1:] != self.input_shape:
            shape = ", ".join(map(str, self.input_shape))
            raise ValueError(f"x must have shape (N, {shape}), got {x.shape}")
        if len(self.inputs) < self.input_shape[0]:
            x = x[:, self.inputs]
        runner = self.network if self._runner is None else self._runner
        return runner.predict(x, batch_size=batch_size)

    # --- files ---

    def save(self, path: str | Path) -> None:
        """Save as .npz of plain arrays; no pickle.

        ``inputs``; ``weight_0``, ``bias_0``, ``weight_1``, ... of the layers that have weights;
        ``kept_0``, ... of the sites; and ``layers``, a text in JSON that lists all layers in order:
        the kind of each, its settings, which arrays are whose, and what it takes from.
        """
        arrays: dict[str, Array] = {"format": np.array(_FORMAT), "inputs": self.inputs}
        arrays |= {f"kept_{k}": kept for k, kept in enumerate(self.kept)}
        listed = []
        n_weighted = 0
        for i, layer in enumerate(self.network.layers):
            values, settings = _taken_apart(layer)
            kind = type(layer).__name__
            names = {name: f"{kind}_{i}_{name}" for name in values}
            if isinstance(layer, Weighted):
                names = {name: f"{name}_{n_weighted}" for name in values}
                n_weighted += 1
            arrays |= {names[name]: value for name, value in values.items()}
            entry: dict[str, Any] = {"kind": kind, "arrays": names} | settings
            if self.network.sources[i] != i - 1:
                entry["source"] = self.network.sources[i]
            if i in self.network.skips:
                entry["skip"] = self.network.skips[i]
            listed.append(entry)
        about = {
            "layers": listed,
            "input_shape": list(self.input_shape),
            "names": self.names,
        }
        arrays["layers"] = np.array(json.dumps(about))
        save_arrays(Path(path), arrays)

    @classmethod
    def load(cls, path: str | Path) -> CompactNetwork:
        """Load what `save` wrote.

        Raises
        ------
        FileError
            If the file is missing, damaged, or something else.
        """
        arrays = load_arrays(Path(path), ("format", "layers", "inputs"))
        if str(arrays["format"]) != _FORMAT:
            raise FileError(f"{path}: not a compact network but {str(arrays['format'])!r}")
        try:
            small = cls._rebuilt(arrays)
            small.predict(np.zeros((1, *small.input_shape)))
        except KeyError as error:
            raise FileError(f"{path}: lacks {error.args[0]}") from None
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise FileError(f"{path}: holds what does not fit together: {error}") from None
        return small

    @classmethod
    def _rebuilt(cls, arrays: dict[str, Array]) -> CompactNetwork:
        about = json.loads(str(arrays["layers"]))
        layers: list[Layer] = []
        sources: dict[int, int] = {}
        skips: dict[int, int] = {}
        for i, entry in enumerate(about["layers"]):
            rest = dict(entry)
            kind, names = rest.pop("kind"), rest.pop("arrays")
            if "source" in rest:
                sources[i] = rest.pop("source")
            if "skip" in rest:
                skips[i] = rest.pop("skip")
            if kind not in _KINDS:
                raise ValueError(f"unknown layer {kind!r}")
            values = {name: arrays[stored] for name, stored in names.items()}
            layers.append(_KINDS[kind](**values, **rest))
        if not layers:
            raise ValueError("there are no layers")
        inputs = arrays["inputs"]
        shape = tuple(int(n) for n in about["input_shape"])
        names = [str(name) for name in about["names"]]
        kept = [arrays[f"kept_{k}"] for k in range(len(names))]
        for name, index in [("inputs", inputs), *((f"kept_{k}", a) for k, a in enumerate(kept))]:
            if index.ndim != 1 or index.dtype.kind not in "iu":
                raise ValueError(f"{name} must be a list of integers, got {index.dtype} {index}")
            if (index < 0).any() or (index[1:] <= index[:-1]).any():
                raise ValueError(f"{name} must ascend from 0 or above, got {index}")
        if len(inputs) and inputs[-1] >= shape[0]:
            raise ValueError(f"inputs must be columns of {shape[0]}, got {inputs}")
        network = Network(
            layers, input_shape=(len(inputs), *shape[1:]), sources=sources, skips=skips
        )
        return cls(network, inputs, kept, names, shape)


_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Dense, Conv2d, BatchNorm, ReLU, Tanh, MaxPool2d, AvgPool2d, Flatten),
        *(Normalize, Select, AddPattern),
    )
}


def _is_sparse(weight: Array) -> bool:
    """Whether leaving out the zeros is faster than multiplying by them; see `tests/bench`."""
    n = int(np.count_nonzero(weight))
    return n <= SPARSE * weight.size and weight.size >= SPARSE_SIZE


def _taken_apart(layer: Layer) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return a layer's arrays and settings, which are the arguments that make it again."""
    arrays, settings = layer.params | layer.buffers, {}
    if isinstance(layer, Conv2d):
        settings = layer.geometry
    elif isinstance(layer, BatchNorm):
        settings = {"eps": layer.eps, "momentum": layer.momentum}
    elif isinstance(layer, Pool):
        settings = {
            "kernel_size": layer.kernel_size,
            "stride": layer.stride,
            "padding": layer.padding,
        }
    elif isinstance(layer, Normalize):
        arrays = {"mean": layer.mean, "std": layer.std}
    elif isinstance(layer, Select):
        arrays = {"index": layer.index}
    elif isinstance(layer, AddPattern):
        arrays = arrays | {"rows": layer.rows, "columns": layer.columns}
    return arrays, settings


def prune(network: Network) -> Network:
    """Multiply the test-time gates into the weights (Eq. 13).

    Returns
    -------
    Network
        Without gates, of the original shapes, with exact zeros: theta* = theta_tilde z_hat. Its
        arrays are copies.
    """
    hard = copy.copy(network)
    hard.layers = []
    for layer in network.layers:
        other = copy.copy(layer)
        other.params = {name: array.copy() for name, array in layer.params.items()}
        other.buffers = {name: array.copy() for name, array in layer.buffers.items()}
        if isinstance(layer, Weighted) and isinstance(other, Weighted):
            weight, bias = layer.test_time_weights()
            other.params = {"weight": weight.copy()}
            if bias is not None:
                other.params["bias"] = bias.copy()
            other.gates = None
        hard.layers.append(other)
    return hard


def compact(network: Network) -> CompactNetwork:
    """Remove every unit and feature map that the test-time gates made dead or constant.

    Parameters
    ----------
    network : Network
        Of the layers of `l0ref.layers`, wired in any way.

    Returns
    -------
    CompactNetwork
        With the outputs of `network.predict`, to rounding, where all parameters are finite: a NaN
        goes with a unit that goes. A layer may have lost every unit: what follows is then a
        constant.

    Raises
    ------
    ValueError
        If the network holds a layer of another kind, or no parameters.
    """
    for layer in network.layers:
        if not isinstance(layer, (*_PASSING, Weighted, Flatten, Select, AddPattern)):
            raise ValueError(f"cannot compact a network with a {type(layer).__name__} layer")
    if not network.params:
        raise ValueError("cannot compact a network without parameters: it has none to remove")
    return _Compaction(network).result()


class _Compaction:
    """One compaction: constants go forward, needs go backward, then what is left is built.

    Units and maps are counted along axis 1. Nodes are numbered as the layers are; INPUT is a node
    too.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        # One example of constants is no work for kernels, which might have to be compiled for it.
        self.hard = prune(network).with_backend("numpy")
        self.layers = self.hard.layers
        inputs = network.shapes((1, *network.input_shape))[:-1]
        self.shapes = {INPUT: network.input_shape}
        for i, layer in enumerate(self.layers):
            self.shapes[i] = layer.output_shape(inputs[i])[1:]
        self.folded: dict[int, Array] = {}
        self._fold_constants()
        self._find_needs()

    # --- forward: what is constant ---

    def _fold_constants(self) -> None:
        """Find each node's constant units, and fold them into the bias of the layers that read.

        `folded[i]` is what layer i's weights make of the constants, plus its bias; the weights that
        read them become 0.
        """
        dtype = next(iter(self.hard.params.values())).dtype
        constant: dict[int, Mask] = {INPUT: np.zeros(self.shapes[INPUT][0], bool)}
        # The constants themselves, and 0 for the units that are none.
        value: dict[int, Array] = {INPUT: np.zeros(self.shapes[INPUT], dtype)}
        for i, layer in enumerate(self.layers):
            source = self.network.sources[i]
            known, x = constant[source], value[source]
            if isinstance(layer, Weighted):
                known, y = self._fold_into(i, layer, known, x)
            elif isinstance(layer, Flatten):
                known, y = np.repeat(known, int(np.prod(x.shape[1:]))), x.reshape(-1)
            elif isinstance(layer, Select):
                known, y = known[layer.index], x[layer.index]
            else:
                y = layer.forward(x[None], None)[0][0]
                if isinstance(layer, BatchNorm):
                    known = known | (layer.params["weight"] == 0)
            if i in self.network.skips:
                skip = self.network.skips[i]
                known, y = known & constant[skip], y + value[skip]
            constant[i] = known
            value[i] = np.where(known.reshape(-1, *[1] * (y.ndim - 1)), y, 0).astype(dtype)

    def _fold_into(self, i: int, layer: Weighted, known: Mask, x: Array) -> tuple[Mask, Array]:
        weight, bias = layer.params["weight"], layer.params.get("bias")
        shape = self.shapes[i]
        start = np.zeros(shape[0], weight.dtype) if bias is None else bias
        folded = start.reshape(-1, *[1] * (len(shape) - 1))
        if known.any():
            reads = _over_inputs(layer, known)
            if x.any():  # not for nothing: a constant 0 must leave the bias as it is, to the bit
                folded = folded + _sums(layer, np.where(reads, weight, 0), x)
            layer.params["weight"] = weight = np.where(reads, 0, weight).astype(weight.dtype)
        self.folded[i] = folded
        others = tuple(axis for axis in range(weight.ndim) if axis != layer.output_axis)
        constant = np.logical_not(weight.any(axis=others))
        return np.asarray(constant), np.broadcast_to(folded, shape)

    # --- backward: what is needed ---

    def _find_needs(self) -> None:
        """Find the units that must be there, as one mask for all nodes that share their units.

        The masks only grow, so that passes over the layers come to an end.
        """
        group = {i: i for i in self.shapes}

        def root(i: int) -> int:
            while group[i] != i:
                i = group[i]
            return i

        for i, layer in enumerate(self.layers):
            if isinstance(layer, (*_PASSING, AddPattern)):
                group[root(i)] = root(self.network.sources[i])
            if i in self.network.skips:
                group[root(i)] = root(self.network.skips[i])
        self.group = {i: root(i) for i in self.shapes}
        self.needed = {g: np.zeros(self.shapes[g][0], bool) for g in set(self.group.values())}
        self._mask(len(self.layers) - 1)[:] = True
        before = -1
        while (now := sum(int(mask.sum()) for mask in self.needed.values())) != before:
            before = now
            for i in reversed(range(len(self.layers))):
                self._need_what_is_read(i, self.layers[i])

    def _mask(self, node: int) -> Mask:
        return self.needed[self.group[node]]

    def _need_what_is_read(self, i: int, layer: Layer) -> None:
        mine, source = self._mask(i), self._mask(self.network.sources[i])
        if isinstance(layer, Dense):
            source |= layer.params["weight"][:, mine].any(axis=1)
        elif isinstance(layer, Conv2d):
            weight = layer.params["weight"]
            each = len(weight) // layer.groups
            by_group = weight.any(axis=(2, 3)).reshape(layer.groups, each, weight.shape[1])
            used = by_group & mine.reshape(layer.groups, -1)[:, :, None]
            source |= used.any(axis=1).ravel()
            if layer.groups > 1:
                _even_out(source.reshape(layer.groups, -1), mine.reshape(layer.groups, -1))
        elif isinstance(layer, Flatten):
            each = len(mine) // max(len(source), 1)
            source |= mine.reshape(len(source), each).any(axis=1)
        elif isinstance(layer, Select):
            source[layer.index[mine]] = True

    # --- what is left ---

    def result(self) -> CompactNetwork:
        """Build the compact network."""
        layers: list[Layer] = []
        sources: dict[int, int] = {}
        skips: dict[int, int] = {}
        new = {INPUT: INPUT}  # where each node's output is found
        for i, layer in enumerate(self.layers):
            source = self.network.sources[i]
            made = self._small(i, layer)
            if isinstance(layer, Dropout):  # which does nothing at test time
                made = [] if i not in self.network.skips else [_everything(self._mask(i))]
            new[i] = new[source]
            for one in made:
                sources[len(layers)] = new[i]
                new[i] = len(layers)
                layers.append(one)
            if i in self.network.skips:
                skips[new[i]] = new[self.network.skips[i]]
        inputs = np.flatnonzero(self._mask(INPUT))
        shape = self.network.input_shape
        kept = [
            np.flatnonzero(self._mask(self.network.sources[i] if isinstance(layer, Dense) else i))
            for i, layer in self.network.sites
        ]
        small = Network(layers, input_shape=(len(inputs), *shape[1:]), sources=sources, skips=skips)
        return CompactNetwork(small, inputs, kept, self.network.site_names, shape)

    def _small(self, i: int, layer: Layer) -> list[Layer]:
        """Return what stands for a layer in the compact network."""
        mine, source = self._mask(i), self._mask(self.network.sources[i])
        if isinstance(layer, Dense):
            weight = layer.params["weight"][source][:, mine]
            return [Dense(weight, self.folded[i][mine].astype(weight.dtype))]
        if isinstance(layer, Conv2d):
            return self._small_conv(i, layer, source, mine)
        if isinstance(layer, BatchNorm):
            arrays = {name: a[mine] for name, a in (layer.params | layer.buffers).items()}
            return [BatchNorm(**arrays, eps=layer.eps, momentum=layer.momentum)]
        if isinstance(layer, Normalize):
            return [Normalize(layer.mean[mine], layer.std[mine])]
        if isinstance(layer, AddPattern):
            return [AddPattern(layer.params["table"][mine], layer.rows, layer.columns)]
        if isinstance(layer, Flatten):
            there = np.repeat(source, len(mine) // max(len(source), 1))
            left = np.flatnonzero(mine[there])
            return [Flatten()] + ([] if len(left) == there.sum() else [Select(left)])
        if isinstance(layer, Select):
            place = np.cumsum(source) - 1
            return [Select(place[layer.index[mine]])]
        return [layer]

    def _small_conv(self, i: int, layer: Conv2d, source: Mask, mine: Mask) -> list[Layer]:
        weight, n_groups = layer.params["weight"], layer.groups
        by_group = weight.reshape(n_groups, len(weight) // n_groups, *weight.shape[1:])
        parts = [
            block[outs][:, ins]
            for block, outs, ins in zip(
                by_group, mine.reshape(n_groups, -1), source.reshape(n_groups, -1), strict=True
            )
            if outs.any() or ins.any()
        ]
        # Parts without inputs (or without outputs) are one convolution that reads (writes) nothing.
        whole = bool(parts) and min(parts[0].shape[:2]) > 0
        small = (
            np.concatenate(parts)
            if whole
            else np.zeros((int(mine.sum()), int(source.sum()), *weight.shape[2:]), weight.dtype)
        )
        folded = self.folded[i][mine].astype(weight.dtype)
        flat = folded.reshape(len(folded), int(np.prod(folded.shape[1:])))
        even = np.array_equal(flat, np.broadcast_to(flat[:, :1], flat.shape), equal_nan=True)
        bias = flat[:, 0].copy() if even else None
        if bias is not None and "bias" not in layer.params and not bias.any():
            bias = None
        geometry = layer.geometry | {"groups": len(parts) if whole else 1}
        conv = Conv2d(small, bias, **geometry)
        return [conv] if even else [conv, AddPattern.of(folded)]


def _sums(layer: Weighted, weight: Array, x: Array) -> Array:
    """Return what a layer with these weights, and no bias, makes of one example, in float64.

    A convolution is added up tap by tap, so that equal windows make equal sums, to the bit. A
    matrix product may round each place differently, and an even pattern would not be seen as such.
    """
    weight = weight.astype(np.float64)
    if not isinstance(layer, Conv2d):
        return np.asarray(x @ weight)
    kernel = weight.shape[2:]
    windows = sliding_windows(x[None], kernel, layer.stride, layer.padding, layer.dilation)
    size = windows.shape[4:]
    per_group = weight.shape[1]
    windows = windows.reshape(layer.groups, 1, per_group, *kernel, *size)
    weight = weight.reshape(layer.groups, len(weight) // layer.groups, *weight.shape[1:], 1, 1)
    total = np.zeros((*weight.shape[:2], *size))
    for c, i, j in np.ndindex(per_group, *kernel):
        total += weight[:, :, c, i, j] * windows[:, :, c, i, j]
    return total.reshape(-1, *size)


def _over_inputs(layer: Weighted, values: Mask) -> Mask:
    """Spread one value an input unit or map over the weights that read it."""
    if isinstance(layer, Conv2d):
        weight = layer.params["weight"]
        by_group = values.reshape(layer.groups, 1, -1)
        over = np.broadcast_to(
            by_group, (layer.groups, len(weight) // layer.groups, weight.shape[1])
        )
        return over.reshape(*weight.shape[:2], 1, 1)
    return values[:, None]


def _even_out(ins: Mask, outs: Mask) -> None:
    """Keep as many maps in each group of a convolution that is left, **in place**.

    A grouped convolution takes groups of one size. Where they have lost unequal numbers of maps,
    some that could go must stay.
    """
    left = ins.any(axis=1) | outs.any(axis=1)
    for masks in (ins, outs):
        size = int(masks.sum(axis=1).max(initial=0))
        for g in np.flatnonzero(left):
            spare = np.flatnonzero(~masks[g])
            masks[g, spare[: size - int(masks[g].sum())]] = True


def _everything(mask: Mask) -> Select:
    return Select(np.arange(int(mask.sum())))
