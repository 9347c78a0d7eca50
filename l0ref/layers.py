r"""Layers: parameters and gates, and the pair of ops that uses them.

Every layer has ``forward(x, u) -> (y, residuals)`` and ``backward(dy, residuals) -> (dx, grads)``.
Which ops those are is its backend's matter: the reference's, or their fast twins.
``u`` is the layer's noise, of shape ``noise_shape(x.shape)``; None stands for test time, where
gates are those of Eq. 13 and dropout does nothing. Layers never draw noise themselves, and a
forward pass changes nothing in them.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .backends import NUMPY, Backend
from .gates import Gates
from .noise import Uniforms
from .ops.conv import conv_output_size, pair
from .ops.norm import BatchNormResiduals
from .ops.pool import PoolResiduals
from .ops.sparse import SparseWeights

Array = NDArray[Any]
Draws = Array | Uniforms
Pair = tuple[int, int]


class Layer(abc.ABC):
    """One stage of a network.

    Attributes
    ----------
    params : dict of str to array
        Trainable arrays by name; optimisers move them in place.
    buffers : dict of str to array
        Arrays that training keeps without a gradient: running statistics.
    ops : Backend
        Where the layer finds its ops.
    """

    params: dict[str, Array]
    buffers: dict[str, Array]
    ops: Backend = NUMPY

    def __init__(self) -> None:
        self.params = {}
        self.buffers = {}

    @abc.abstractmethod
    def forward(self, x: Array, u: Any, *, training: bool = False) -> tuple[Array, Any]:
        """Return y, and what `backward` will need.

        Parameters
        ----------
        x : array
        u : array or None
            Noise; None at test time, and for a layer that takes none.
        training : bool, optional
            Whether this is a training pass: only batch norm asks, all others go by u.
        """

    @abc.abstractmethod
    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Any, dict[str, Array]]:
        """Return dx, and a gradient for every entry of `params`.

        Without `need_dx`, dx may be None: nothing before the layer has parameters.
        """

    def noise_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of u for a batch of shape `x_shape`; None for a layer without noise."""
        return None

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y for a batch of shape `x_shape`."""
        return x_shape

    def updated_buffers(self, residuals: Any) -> dict[str, Array]:
        """Return the buffers as a training pass with these residuals leaves them."""
        return {}


class GatedResiduals(NamedTuple):
    """What `Weighted.backward` needs, and the gates that were drawn."""

    op: Any
    z: Array | None
    slope: Array | None  # dz / dlog_alpha


class Weighted(Layer):
    """What `Dense` and `Conv2d` share: weights, perhaps a bias, and gates with or without noise.

    Attributes
    ----------
    gates : Gates or None
    per_example : bool
        One draw of the gates for each example rather than one for the minibatch.
    """

    gates: Gates | None
    op: ClassVar[str]  # its name
    _own_axis: ClassVar[dict[str, int]]  # the axis of the weights that the op can gate by itself
    output_axis: ClassVar[int]

    def __init__(
        self,
        weight: Array,
        bias: Array | None,
        gates: Gates | None,
        log_alpha: Array | None,
        *,
        per_example: bool,
    ) -> None:
        super().__init__()
        if (gates is None) != (log_alpha is None):
            raise ValueError("gates and log_alpha must be given together")
        n_out = weight.shape[self.output_axis]
        self.params = {"weight": weight}
        if bias is not None:
            if bias.shape != (n_out,):
                raise ValueError(f"bias must have shape {(n_out,)}, got {bias.shape}")
            self.params["bias"] = bias
        self.gates = gates
        self.per_example = per_example
        if gates is not None and log_alpha is not None:
            if gates.weight_shape != weight.shape:
                raise ValueError(f"gates are for a weight {gates.weight_shape}, got {weight.shape}")
            if gates.shape != log_alpha.shape:
                raise ValueError(f"log_alpha must have shape {gates.shape}, got {log_alpha.shape}")
            if gates.gates_bias and (bias is None or gates.axis != self.output_axis):
                raise ValueError(
                    "gates that take the bias with them must lie on the outputs of a layer that "
                    f"has one, got gates on axis {gates.axis}, "
                    f"bias {None if bias is None else bias.shape}"
                )
            self.params["log_alpha"] = log_alpha

    @abc.abstractmethod
    def apply_op(
        self, x: Array, z: Array | None, on: str, gates_bias: bool, op: str | None = None
    ) -> tuple[Array, Any]:
        """Apply the op; or another of the same arguments, which does more at once."""

    def pull_op(
        self, dy: Array, residuals: Any, need_dx: bool, op: str | None = None
    ) -> tuple[Array | None, Array, Array | None, Array | None]:
        """Apply its VJP."""
        vjp = getattr(self.ops, f"{op or self.op}_vjp")
        gradients: tuple[Array | None, Array, Array | None, Array | None]
        gradients = vjp(dy, residuals, need_dx=need_dx)
        return gradients

    def noise_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape of the gates' u."""
        if self.gates is None:
            return None
        return self.gates.noise_shape(x_shape[0] if self.per_example else None)

    @property
    def spread(self) -> bool:
        """Whether the op takes the gates spread over the weights, for it knows no such gates."""
        gates = self.gates
        if gates is None or gates.shape == gates.weight_shape:
            return False
        return gates.labels is not None or self._own_axis.get(gates.on) != gates.axis

    def draw(self, x_shape: tuple[int, ...], u: Draws | None) -> tuple[Any, Any]:
        """Return the gates drawn from u, or those of Eq. 13, and dz/dlog_alpha where drawn."""
        gates = self.gates
        if gates is None:
            return None, None
        if u is None:
            return gates.test_time(self.params["log_alpha"]), None
        shape = self.noise_shape(x_shape)
        if u.shape != shape:
            raise ValueError(f"u must have shape {shape}, got {u.shape}")
        return self.ops.sample_and_slope(self.params["log_alpha"], u, **gates.hyperparameters)

    def apply(self, x: Array, z: Array | None, op: str | None = None) -> tuple[Array, Any]:
        """Apply the op with these gates."""
        gates = self.gates
        if gates is None or z is None:
            return self.apply_op(x, None, "weights", True, op)
        if self.spread:
            lead = z.shape[: z.ndim - 1]
            over_weights = np.broadcast_to(gates.expand(z), lead + gates.weight_shape)
            return self.apply_op(x, over_weights, "weights", True, op)
        return self.apply_op(x, z, gates.on, gates.gates_bias, op)

    def pull(
        self, dy: Array, residuals: Any, *, need_dx: bool = True, op: str | None = None
    ) -> tuple[Any, dict[str, Array], Array | None]:
        """Pull dy back through `apply`: dx, the gradients of weight and bias, and dz."""
        dx, dweight, dbias, dz = self.pull_op(dy, residuals, need_dx, op)
        if dz is not None and self.gates is not None and self.spread:
            contract = self.gates.contract
            per_draw = dz.ndim == len(self.gates.weight_shape)
            dz = contract(dz) if per_draw else np.array([contract(d) for d in dz])
        grads = {"weight": dweight}
        if dbias is not None:
            grads["bias"] = dbias
        return dx, grads, dz

    def forward(
        self, x: Array, u: Draws | None, *, training: bool = False
    ) -> tuple[Array, GatedResiduals]:
        """Apply the op with gates drawn from u, or with those of Eq. 13."""
        z, slope = self.draw(x.shape, u)
        y, residuals = self.apply(x, z)
        return y, GatedResiduals(residuals, z, slope)

    def backward(
        self, dy: Array, residuals: GatedResiduals, *, need_dx: bool = True
    ) -> tuple[Any, dict[str, Array]]:
        """Pull dy back through the op, and dz through the draw."""
        dx, grads, dz = self.pull(dy, residuals.op, need_dx=need_dx)
        if self.gates is not None:
            if residuals.slope is None:
                raise ValueError("backward needs a forward pass with noise, not one at test time")
            assert dz is not None
            grads["log_alpha"] = self.gates.draw_vjp(dz, residuals.slope)
        return dx, grads

    def test_time_weights(self) -> tuple[Array, Array | None]:
        """Weight and bias with the gates of Eq. 13 multiplied in: theta* of Eq. 13."""
        weight, bias, gates = self.params["weight"], self.params.get("bias"), self.gates
        if gates is None:
            return weight, bias
        z_hat = gates.test_time(self.params["log_alpha"])
        if bias is not None and gates.gates_bias:
            bias = bias * z_hat
        return weight * gates.expand(z_hat), bias


class Dense(Weighted):
    """Dense layer, y = x @ weight + bias, with or without gates.

    Parameters
    ----------
    weight : array, (D_in, D_out)
    bias : array, (D_out,)
    gates : Gates, optional
        Which weights the gates own; see `l0ref.gates`.
    log_alpha : array, of gates.shape
        Required with gates.
    per_example : bool, optional
        One draw of the gates for each example rather than one for the minibatch.

    Raises
    ------
    ValueError
        If the shapes do not fit, or only one of gates and log_alpha is given.
    """

    op: ClassVar = "dense"
    _own_axis: ClassVar = {"inputs": 0, "outputs": 1}
    output_axis: ClassVar = 1

    def __init__(
        self,
        weight: Array,
        bias: Array,
        gates: Gates | None = None,
        log_alpha: Array | None = None,
        *,
        per_example: bool = False,
    ) -> None:
        super().__init__(weight, bias, gates, log_alpha, per_example=per_example)

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, D_out)."""
        return (x_shape[0], self.params["weight"].shape[1])

    def apply_op(
        self, x: Array, z: Array | None, on: str, gates_bias: bool, op: str | None = None
    ) -> tuple[Array, Any]:
        """`l0ref.ops.dense`, or `dense_relu`, with these weights."""
        weight, bias = self.params["weight"], self.params["bias"]
        y, residuals = getattr(self.ops, op or self.op)(
            x, weight, bias, z, on=on, gates_bias=gates_bias
        )
        return y, residuals


class SparseDense(Layer):
    """Dense layer for inference alone, most of whose weights are 0 and are left out.

    Parameters
    ----------
    weights : SparseWeights
    bias : array, (D_out,)
    """

    def __init__(self, weights: SparseWeights, bias: Array) -> None:
        super().__init__()
        self.weights, self.bias = weights, bias

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, D_out)."""
        return (x_shape[0], len(self.bias))

    def forward(self, x: Array, u: Draws | None, *, training: bool = False) -> tuple[Array, None]:
        """Apply; to what is not finite with the zeros, which make NaN of it, as everywhere."""
        if not np.isfinite(x).all():
            return self.ops.dense(x, self.weights.whole(), self.bias)[0], None
        return self.ops.sparse_dense(x, self.weights, self.bias), None

    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Refuse: there is no derivative here."""
        raise TypeError("a SparseDense layer is for inference; train a Dense one")


class Conv2d(Weighted):
    """Convolution, as deep learning calls cross-correlation, with or without gates.

    Parameters
    ----------
    weight : array, (C_out, C_in/groups, kh, kw)
    bias : array, (C_out,), optional
        None for a layer that batch norm follows.
    gates : Gates, optional
        The paper's are on the output maps: ``per_output(weight.shape, axis=0, ...)``.
    log_alpha : array, of gates.shape
        Required with gates.
    stride, padding, dilation : int or pair of int, optional
    groups : int, optional
    per_example : bool, optional
        One draw of the gates for each example rather than one for the minibatch.

    Raises
    ------
    ValueError
        If the shapes do not fit, or only one of gates and log_alpha is given.
    """

    op: ClassVar = "conv2d"
    _own_axis: ClassVar = {"outputs": 0}
    output_axis: ClassVar = 0

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        gates: Gates | None = None,
        log_alpha: Array | None = None,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        per_example: bool = False,
    ) -> None:
        if weight.ndim != 4:
            raise ValueError(
                f"weight must have shape (C_out, C_in/groups, kh, kw), got {weight.shape}"
            )
        super().__init__(weight, bias, gates, log_alpha, per_example=per_example)
        self.stride, self.padding = pair("stride", stride, 1), pair("padding", padding, 0)
        self.dilation = pair("dilation", dilation, 1)
        if groups < 1 or weight.shape[0] % groups:
            raise ValueError(f"groups must divide C_out, {weight.shape[0]}, got {groups}")
        self.groups = groups

    @property
    def geometry(self) -> dict[str, Any]:
        """stride, padding, dilation and groups, as keyword arguments."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, C_out, H_out, W_out)."""
        weight = self.params["weight"]
        sizes = (
            conv_output_size(size, kernel, stride=s, padding=p, dilation=d)
            for size, kernel, s, p, d in zip(
                x_shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        return (x_shape[0], weight.shape[0], *sizes)

    def apply_op(
        self, x: Array, z: Array | None, on: str, gates_bias: bool, op: str | None = None
    ) -> tuple[Array, Any]:
        """`l0ref.ops.conv2d`, with these weights."""
        weight, bias = self.params["weight"], self.params.get("bias")
        # Gates on the weights leave the bias alone; without a bias there is none to take along.
        own = gates_bias and bias is not None
        y, residuals = getattr(self.ops, op or self.op)(
            x, weight, bias, z, on=on, gates_bias=own, **self.geometry
        )
        return y, residuals


class BatchNorm(Layer):
    """Batch normalisation of each unit or feature map (S. Ioffe, C. Szegedy, 2015).

    In training by the minibatch's mean and variance, at test time by their running averages.

    Parameters
    ----------
    weight, bias : array, (C,)
        Scale and shift.
    running_mean, running_var : array, (C,)
        Start at 0 and 1.
    eps : float, optional
        Added to the variance.
    momentum : float, optional
        Share of the newest minibatch in the running statistics.
    """

    def __init__(
        self,
        weight: Array,
        bias: Array,
        running_mean: Array,
        running_var: Array,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.params = {"weight": weight, "bias": bias}
        self.buffers = {"running_mean": running_mean, "running_var": running_var}
        for name, value in (self.params | self.buffers).items():
            if value.ndim != 1 or value.shape != weight.shape:
                raise ValueError(f"{name} must have shape {weight.shape[:1]}, got {value.shape}")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Array, u: Array | None, *, training: bool = False) -> tuple[Array, Any]:
        """Normalise by the batch's statistics in training, by the running ones at test time."""
        weight, bias = self.params["weight"], self.params["bias"]
        if training:
            return self.ops.batch_norm(x, weight, bias, eps=self.eps)
        mean, var = self.buffers["running_mean"], self.buffers["running_var"]
        return self.ops.batch_norm_inference(x, weight, bias, mean, var, eps=self.eps)

    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Pull dy back, through the batch's statistics too where those were used."""
        training = isinstance(residuals, BatchNormResiduals)
        vjp = self.ops.batch_norm_vjp if training else self.ops.batch_norm_inference_vjp
        dx, dweight, dbias = vjp(dy, residuals)
        return dx, {"weight": dweight, "bias": dbias}

    def updated_buffers(self, residuals: Any) -> dict[str, Array]:
        """Move the running statistics towards the batch's."""
        mean, var = self.buffers["running_mean"], self.buffers["running_var"]
        mean, var = self.ops.running_statistics(mean, var, residuals, momentum=self.momentum)
        return {"running_mean": mean, "running_var": var}


class Elementwise(Layer):
    """A parameter-free function of each element."""

    _op: ClassVar[str]

    def forward(self, x: Array, u: Array | None, *, training: bool = False) -> tuple[Array, Array]:
        """Apply the function."""
        y, residuals = getattr(self.ops, self._op)(x)
        return y, residuals

    def backward(
        self, dy: Array, residuals: Array, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Pull dy back."""
        return getattr(self.ops, f"{self._op}_vjp")(dy, residuals), {}


class ReLU(Elementwise):
    """max(x, 0)."""

    _op = "relu"


class Tanh(Elementwise):
    """Hyperbolic tangent."""

    _op = "tanh"


class Dropout(Layer):
    """Dropout of each activation with probability `rate`; nothing at test time.

    Parameters
    ----------
    rate : float
        Drop rate, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate

    def noise_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """One u an activation."""
        return x_shape

    def forward(
        self, x: Array, u: Array | None, *, training: bool = False
    ) -> tuple[Array, Array | None]:
        """Drop where u < rate; pass x on at test time."""
        return (x, None) if u is None else self.ops.dropout(x, u, self.rate)

    def backward(
        self, dy: Array, residuals: Array | None, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Meet the same factors."""
        return (dy if residuals is None else self.ops.dropout_vjp(dy, residuals)), {}


class Pool(Layer):
    """What the two poolings share: a window that slides over each map.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        `kernel_size` by default.
    padding : int or pair of int, optional
        At most half of the window.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("stride", stride, 1)
        self.padding = pair("padding", padding, 0)

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, C, H_out, W_out)."""
        sizes = (
            conv_output_size(size, kernel, stride=s, padding=p)
            for size, kernel, s, p in zip(
                x_shape[2:], self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        return (*x_shape[:2], *sizes)


class MaxPool2d(Pool):
    """The largest element of each window; of equal ones the first."""

    def forward(
        self, x: Array, u: Array | None, *, training: bool = False
    ) -> tuple[Array, PoolResiduals]:
        """Pool."""
        return self.ops.max_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding)

    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Send each dy to the element that was the largest."""
        return self.ops.max_pool2d_vjp(dy, residuals), {}


class AvgPool2d(Pool):
    """The mean of each window; padding counts as zeros."""

    def forward(
        self, x: Array, u: Array | None, *, training: bool = False
    ) -> tuple[Array, PoolResiduals]:
        """Pool."""
        return self.ops.avg_pool2d(x, self.kernel_size, stride=self.stride, padding=self.padding)

    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Spread each dy evenly over its window."""
        return self.ops.avg_pool2d_vjp(dy, residuals), {}


class Flatten(Layer):
    """(N, C, H, W) -> (N, C H W): unit j comes from map j // (H W)."""

    def forward(self, x: Array, u: Array | None, *, training: bool = False) -> tuple[Array, Any]:
        """Flatten."""
        return self.ops.flatten(x)

    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Restore the shape."""
        return self.ops.flatten_vjp(dy, residuals), {}

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, C H W)."""
        return (x_shape[0], int(np.prod(x_shape[1:])))


class Normalize(Layer):
    """Subtract a fixed mean from each input channel and divide by a fixed standard deviation.

    Preprocessing, kept in the network so that whoever has the network needs nothing else.

    Parameters
    ----------
    mean, std : array_like, (C,)
        In the units of x; std > 0.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike) -> None:
        super().__init__()
        self.mean, self.std = np.asarray(mean), np.asarray(std)
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape:
            raise ValueError(
                f"mean and std must have shape (C,), got {self.mean.shape} and {self.std.shape}"
            )
        if not ((self.std > 0) & np.isfinite(self.std) & np.isfinite(self.mean)).all():
            raise ValueError(f"std must be positive and all finite, got {self.mean}, {self.std}")

    def _over(self, values: Array, x: Array) -> Array:
        if x.dtype.kind != "f":  # whole numbers would make whole numbers of mean and std
            raise ValueError(f"x must be floating point, got {x.dtype}")
        if x.shape[1:2] != values.shape:
            raise ValueError(f"x must have {len(values)} channels, got shape {x.shape}")
        return values.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 2))

    def forward(self, x: Array, u: Array | None, *, training: bool = False) -> tuple[Array, None]:
        """Normalise."""
        return (x - self._over(self.mean, x)) / self._over(self.std, x), None

    def backward(
        self, dy: Array, residuals: None, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Divide by the standard deviation."""
        return dy / self._over(self.std, dy), {}


class Select(Layer):
    """Some of the units or maps, in the order of `index`: what compaction leaves of them.

    Parameters
    ----------
    index : array of int
        Positions along axis 1, each at most once.
    """

    def __init__(self, index: NDArray[np.integer]) -> None:
        super().__init__()
        self.index = np.asarray(index)
        if self.index.ndim != 1 or self.index.dtype.kind not in "iu":
            raise ValueError(f"index must be a list of integers, got {self.index.dtype} {index}")
        if len(np.unique(self.index)) != len(self.index) or (self.index < 0).any():
            raise ValueError(f"index must hold distinct positions from 0, got {index}")

    def forward(self, x: Array, u: Array | None, *, training: bool = False) -> tuple[Array, Any]:
        """Select."""
        return x[:, self.index], x.shape

    def backward(
        self, dy: Array, residuals: Any, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Put dy back in its places, and 0 elsewhere."""
        dx = np.zeros(residuals, dy.dtype)
        dx[:, self.index] = dy
        return dx, {}

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, len(index), ...)."""
        return (x_shape[0], len(self.index), *x_shape[2:])


class AddPattern(Layer):
    """Add a fixed pattern to each map: what constant maps come to behind a padded convolution.

    A padded border sees fewer of a constant map's elements than the middle does, so the sum differs
    from place to place; but rows (and columns) equally far from a border are alike, and each
    different one is kept once.

    Parameters
    ----------
    table : array, (C, R, S)
        The pattern's different rows and columns.
    rows : array of int, (H,)
        Which row of the table each row of the map is.
    columns : array of int, (W,)
        Which column of the table each column of the map is.
    """

    def __init__(
        self, table: Array, rows: NDArray[np.integer], columns: NDArray[np.integer]
    ) -> None:
        super().__init__()
        self.params = {"table": table}
        self.rows, self.columns = np.asarray(rows), np.asarray(columns)
        for name, places, n in zip(
            ("rows", "columns"), (self.rows, self.columns), table.shape[1:], strict=True
        ):
            if places.ndim != 1 or places.dtype.kind not in "iu":
                raise ValueError(f"{name} must be a list of integers, got {places.dtype} {places}")
            if not ((places >= 0) & (places < n)).all():
                raise ValueError(f"{name} must be in 0 .. {n - 1}, the table's, got {places}")

    @classmethod
    def of(cls, pattern: Array) -> AddPattern:
        """Make one of the pattern itself, (C, H, W)."""
        c, h, w = pattern.shape
        _, first_rows, rows = np.unique(
            pattern.transpose(1, 0, 2).reshape(h, c * w), axis=0, return_index=True,
            return_inverse=True,
        )  # fmt: skip
        _, first_columns, columns = np.unique(
            pattern.transpose(2, 0, 1).reshape(w, c * h), axis=0, return_index=True,
            return_inverse=True,
        )  # fmt: skip
        table = pattern[:, first_rows][:, :, first_columns]
        return cls(table, rows.ravel(), columns.ravel())

    @property
    def pattern(self) -> Array:
        """(C, H, W)."""
        return self.params["table"][:, self.rows][:, :, self.columns]

    def forward(self, x: Array, u: Array | None, *, training: bool = False) -> tuple[Array, None]:
        """Add."""
        pattern = self.pattern
        if x.shape[1:] != pattern.shape:
            raise ValueError(f"x must have shape (N, {pattern.shape}), got {x.shape}")
        return x + pattern, None

    def backward(
        self, dy: Array, residuals: None, *, need_dx: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """Add up dy over the examples and over the places that share an entry of the table."""
        total = dy.sum(axis=0)
        dtable = np.zeros_like(self.params["table"])
        for r, row in enumerate(self.rows):
            for c, column in enumerate(self.columns):
                dtable[:, row, column] += total[:, r, c]
        return dy, {"table": dtable}
