r"""Networks: layers and how they are wired, the objective (Eq. 9) and its gradient."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import ops
from .backends import Backend, load
from .conditional import INPUT, Pass, Plan
from .gates import Gates
from .layers import BatchNorm, Dense, Layer, Weighted
from .noise import Uniforms
from .penalties import expected_l0, expected_l0_grad, expected_l2, expected_l2_grad

Array = NDArray[Any]


_KnownShapes = tuple[list[Layer], list[tuple[int, ...]], list[tuple[int, ...]]]
"""Of layers: the shapes of their inputs and of their outputs."""


class Loss(NamedTuple):
    """The objective and its parts: total = data + l0 + l2, each as it enters the sum."""

    total: float
    data: float
    l0: float
    l2: float


class Evaluation(NamedTuple):
    """The objective on a minibatch, its gradient, and what else the pass leaves behind.

    `buffers` are the running statistics after the pass, `gates` the z that were drawn, by the
    position of their layer.
    """

    loss: Loss
    grads: dict[str, Array]
    buffers: dict[str, Array]
    gates: dict[int, Array]


class Network:
    r"""Layers, wired into a graph that ends in logits, and their objective.

    .. math:: \frac1n\sum_{i} L_i + \frac1N \sum_l \lambda_l \sum_{g\in l} |g| P(z_g\ne 0)
              + \frac{\lambda_2}{2N} \sum_l \sum_{g \in l} P(z_g\ne 0) \sum_{j\in g}\tilde\theta_j^2

    over n examples of a minibatch and N of the training set. The weights of a layer without gates
    are always on: they enter the L2 sum with P = 1. Biases that no gate switches off, and the
    parameters of batch norm, enter neither sum.

    Layer i takes the output of layer i - 1, or of `sources[i]`; to its own output is added that of
    `skips[i]`, which makes a residual connection. ``INPUT`` (-1) stands for the network's input.

    Parameters
    ----------
    layers : sequence of Layer
        In an order in which each comes after those that it takes from; the last gives the logits.
    input_shape : tuple of int, optional
        Shape of one example, such as (784,) or (1, 28, 28). It can be left out where the first
        layer has weights of shape (D_in, D_out).
    sources : mapping of int to int, optional
        Layer i takes the output of layer sources[i]; i - 1 by default.
    skips : mapping of int to int, optional
        The output of layer skips[i] is added to that of layer i.
    names : mapping of int to str, optional
        What tables and pictures call the gates of layer i.

    Attributes
    ----------
    params, buffers : dict of str to array
        Every trainable array, and every running statistic, named ``"<layer>.<name>"``; the layers'
        own arrays, not copies.

    Raises
    ------
    ValueError
        If there is no layer, one takes from another that does not come before it, or nothing takes
        from a layer.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        input_shape: tuple[int, ...] | None = None,
        sources: Mapping[int, int] | None = None,
        skips: Mapping[int, int] | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.layers = list(layers)
        if not self.layers:
            raise ValueError("layers must hold at least one, got none")
        self.sources = [(sources or {}).get(i, i - 1) for i in range(len(self.layers))]
        self.skips = dict(skips or {})
        self.names = dict(names or {})
        self._input_shape = None if input_shape is None else tuple(input_shape)
        taken = {len(self.layers) - 1, *self.sources, *self.skips.values()}
        self._shapes: dict[tuple[int, ...], _KnownShapes] = {}
        self._plan: tuple[Any, Plan] | None = None
        edges = [*enumerate(self.sources), *self.skips.items(), *(sources or {}).items()]
        for i, source in edges:
            if not INPUT <= source < i < len(self.layers):
                raise ValueError(
                    f"layer {i} of {len(self.layers)} must take from one before it, got {source}"
                )
        for i in range(len(self.layers)):
            if i not in taken:
                raise ValueError(f"the output of layer {i} must go somewhere: no layer takes it")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        if self._input_shape is not None:
            return self._input_shape
        first = next(layer for layer in self.layers if isinstance(layer, Weighted))
        weight = first.params["weight"]
        if weight.ndim != 2:
            raise ValueError("input_shape must be given to a network that begins with feature maps")
        return weight.shape[:1]

    @property
    def params(self) -> dict[str, Array]:  # noqa: D102
        return {
            f"{i}.{name}": value
            for i, layer in enumerate(self.layers)
            for name, value in layer.params.items()
        }

    @property
    def buffers(self) -> dict[str, Array]:  # noqa: D102
        return {
            f"{i}.{name}": value
            for i, layer in enumerate(self.layers)
            for name, value in layer.buffers.items()
        }

    def with_params(
        self, params: Mapping[str, Array], buffers: Mapping[str, Array] | None = None
    ) -> Network:
        """Return the same network over other arrays, which it shares and does not copy.

        Parameters
        ----------
        params : mapping of str to array
            Of the names and shapes of `params`.
        buffers : mapping of str to array, optional
            Of those of `buffers`; this network's own by default.
        """
        buffers = self.buffers if buffers is None else buffers
        for what, own, given in (
            ("params", self.params, params),
            ("buffers", self.buffers, buffers),
        ):
            if own.keys() != given.keys():
                raise ValueError(f"{what} must have the names {sorted(own)}, got {sorted(given)}")
            for name, value in own.items():
                if given[name].shape != value.shape:
                    raise ValueError(
                        f"{what}[{name!r}] must have shape {value.shape}, got {given[name].shape}"
                    )
        other = copy.copy(self)
        other._shapes = {}
        other.layers = [copy.copy(layer) for layer in self.layers]
        for i, layer in enumerate(other.layers):
            layer.params = {name: params[f"{i}.{name}"] for name in layer.params}
            layer.buffers = {name: buffers[f"{i}.{name}"] for name in layer.buffers}
        return other

    @property
    def backend(self) -> Backend:
        """Where its layers find their ops."""
        return self.layers[0].ops

    def with_backend(self, name: str) -> Network:
        """Return the same network, over the same arrays, on another backend.

        Raises
        ------
        ValueError
            If there is no backend of that name.
        """
        backend = load(name)
        other = copy.copy(self)
        other._shapes = {}
        other.layers = [copy.copy(layer) for layer in self.layers]
        for layer in other.layers:
            layer.ops = backend
        return other

    @property
    def weighted(self) -> list[tuple[int, Weighted]]:
        """The layers that have weights, in order: position, layer."""
        return [(i, layer) for i, layer in enumerate(self.layers) if isinstance(layer, Weighted)]

    @property
    def gated(self) -> list[tuple[int, Weighted, Gates]]:
        """The layers that have gates, in order: position, layer, gates."""
        return list(self.plan.gated)

    @property
    def plan(self) -> Plan:
        """What is known of a pass before it; made when first asked for, or when layers change."""
        known = self._plan
        gating = [
            (getattr(layer, "gates", None), getattr(layer, "per_example", None))
            for layer in self.layers
        ]
        of = self.layers, gating, self.sources, self.skips
        if known is None or known[0] != of:
            copies = list(self.layers), gating, list(self.sources), dict(self.skips)
            known = copies, Plan.of(self.layers, self.sources, self.skips)
            self._plan = known
        return known[1]

    @property
    def sites(self) -> list[tuple[int, Weighted]]:
        """Where units are counted: the gated layers, or where there is none, all with weights."""
        return [(i, layer) for i, layer, _ in self.gated] or self.weighted

    @property
    def site_names(self) -> list[str]:
        """What tables and pictures call them."""
        return [self.names.get(i, f"layer {i}") for i, _ in self.sites]

    # --- forward and backward ---

    def shapes(self, x_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shape of each layer's input, for a batch of shape `x_shape`; last, that of the logits."""
        inputs, outputs = self._known_shapes(x_shape)
        return [*inputs, outputs[-1]]

    def output_shapes(self, x_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shape of each layer's output, for a batch of shape `x_shape`."""
        return list(self._known_shapes(x_shape)[1])

    def _known_shapes(
        self, x_shape: tuple[int, ...]
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Shapes of the layers' inputs and outputs: asked for at every step, mostly the same."""
        known = self._shapes.get(x_shape)
        if known is None or known[0] != self.layers:
            inputs: list[tuple[int, ...]] = []
            outputs: list[tuple[int, ...]] = []
            for source, layer in zip(self.sources, self.layers, strict=True):
                inputs.append(x_shape if source == INPUT else outputs[source])
                outputs.append(layer.output_shape(inputs[-1]))
            known = self._shapes[x_shape] = list(self.layers), inputs, outputs
        return known[1:]

    def noise_shapes(self, x_shape: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """Shape of u for each layer that takes noise, by position, for a batch of that shape."""
        shapes = zip(self.layers, self.shapes(x_shape), strict=False)
        wanted = {i: layer.noise_shape(shape) for i, (layer, shape) in enumerate(shapes)}
        return {i: shape for i, shape in wanted.items() if shape is not None}

    def forward(
        self,
        x: Array,
        noise: Mapping[int, Array | Uniforms] | None = None,
        *,
        training: bool | None = None,
    ) -> tuple[Array, list[Any]]:
        """Return logits (N, K) and the residuals of every layer.

        Parameters
        ----------
        x : array, (N, *input_shape)
        noise : dict of int to array, optional
            u for each layer of `noise_shapes`; None for test time.
        training : bool, optional
            Whether batch norm takes the batch's statistics; with noise, by default.
        """
        training = noise is not None if training is None else training
        if noise is not None:
            self._check_noise(x, noise)
        needed_later = {*self.skips.values(), *self.sources}
        values: dict[int, Array] = {INPUT: x}
        residuals = []
        for i, layer in enumerate(self.layers):
            u = None if noise is None else noise.get(i)
            y, r = layer.forward(values[self.sources[i]], u, training=training)
            if i in self.skips:
                y, _ = ops.add(y, values[self.skips[i]])
            if i in needed_later:
                values[i] = y
            residuals.append(r)
        return y, residuals

    def _check_input(self, x: Array) -> None:
        known, first = self._input_shape, self.layers[0]
        if known is None and isinstance(first, Dense):
            known = first.params["weight"].shape[:1]
        if known is not None and x.shape[1:] != known:
            wanted = ", ".join(["N", *map(str, known)])
            raise ValueError(f"x must have shape ({wanted}), got {x.shape}")

    def _check_noise(self, x: Array, noise: Mapping[int, Any]) -> None:
        layers = zip(self.layers, self.shapes(x.shape), strict=False)
        missing = [
            i
            for i, (layer, shape) in enumerate(layers)
            if i not in noise and layer.noise_shape(shape) is not None
        ]
        if missing:
            raise ValueError(f"noise must have u for every layer that takes it; lacks {missing}")

    def backward(self, dlogits: Array, residuals: list[Any]) -> tuple[Array, dict[str, Array]]:
        """Pull dlogits back: the derivative in x, and one for every parameter.

        What several layers take has the sum of their derivatives.
        """
        grads: dict[str, Array] = {}
        last = len(self.layers) - 1
        cotangents: dict[int, Array] = {last: dlogits}

        def arrive(at: int, dy: Array) -> None:
            cotangents[at] = cotangents[at] + dy if at in cotangents else dy

        for i in reversed(range(len(self.layers))):
            dy = cotangents.pop(i)
            if i in self.skips:
                arrive(self.skips[i], dy)
            dx, own = self.layers[i].backward(dy, residuals[i])
            arrive(self.sources[i], dx)
            grads |= {f"{i}.{name}": g for name, g in own.items()}
        return cotangents[INPUT], {name: grads[name] for name in self.params}

    def predict(self, x: Array, *, batch_size: int = 1000) -> Array:
        """Logits at test time (Eq. 13), of everything: closed gates multiply by 0.

        They are those of `forward`; but where the backend can, layers in a row are run as one.
        """
        self._check_input(x)
        # One that was written anew is called.
        forwards: list[Any] = [(type(self), Network)]
        forwards += [(type(layer), Weighted) for _, layer in self.weighted]
        by_forward = any(own.forward is not base.forward for own, base in forwards)

        def logits(x: Array) -> Array:
            return self.forward(x)[0] if by_forward else Pass(self, x, None, dense=True).logits

        starts = range(0, max(len(x), 1), batch_size)
        with self.backend.exclusive():
            return np.concatenate([logits(x[i : i + batch_size]) for i in starts])

    # --- the objective ---

    def penalties(
        self, *, lam: Sequence[float], l2: float, n_train: int
    ) -> tuple[float, float, dict[str, Array]]:
        """Return the L0 and L2 terms of the objective, and their gradient.

        Parameters
        ----------
        lam : sequence of float
            lambda for each gated layer, per parameter; "0.1/N" is 0.1 here, for the division by N
            is done here.
        l2 : float
            lambda_2, likewise.
        n_train : int
            N, the number of training examples.
        """
        lams = self._check_penalties(lam, l2, n_train)
        l0_term, l2_term = 0.0, 0.0
        grads: dict[str, Array] = {}
        for (i, layer, gates), scale in zip(self.gated, lams, strict=True):
            log_alpha = layer.params["log_alpha"]
            l0_term += scale * expected_l0(log_alpha, gates.group_size, **gates.hyperparameters)
            grads[f"{i}.log_alpha"] = scale * expected_l0_grad(
                log_alpha, gates.group_size, **gates.hyperparameters
            )
        if l2 > 0:
            l2_term, l2_grads = self._l2(l2 / (2 * n_train))
            for name, g in l2_grads.items():
                grads[name] = grads[name] + g if name in grads else g
        return l0_term, l2_term, grads

    def _check_penalties(self, lam: Sequence[float], l2: float, n_train: int) -> list[float]:
        """Return lambda/N for each gated layer."""
        lams = check_lam(lam, len(self.gated))
        if not (l2 >= 0 and np.isfinite(l2)):
            raise ValueError(f"l2 must be at least 0 and finite, got {l2}")
        if n_train < 1:
            raise ValueError(f"n_train must be at least 1, got {n_train}")
        return [value / n_train for value in lams]

    def _l2(self, half: float) -> tuple[float, dict[str, Array]]:
        """Return half times the sum of squares under the gates, and its gradient."""
        term = 0.0
        grads: dict[str, Array] = {}
        for i, layer in self.weighted:
            weight, gates = layer.params["weight"], layer.gates
            if gates is None:  # always on: P = 1
                term += half * float(np.sum(np.square(weight), dtype=np.float64))
                grads[f"{i}.weight"] = 2 * half * weight
                continue
            bias = layer.params["bias"] if gates.gates_bias else None
            arguments = (weight, layer.params["log_alpha"], gates, bias)
            term += half * expected_l2(*arguments)
            d = expected_l2_grad(*arguments)
            grads[f"{i}.weight"] = half * d.weight
            grads[f"{i}.log_alpha"] = half * d.log_alpha
            if d.bias is not None:
                grads[f"{i}.bias"] = half * d.bias
        return term, grads

    def evaluate(
        self,
        x: Array,
        labels: ArrayLike,
        noise: Mapping[int, Array | Uniforms],
        *,
        lam: Sequence[float],
        l2: float = 0.0,
        n_train: int,
        dense: bool = False,
    ) -> Evaluation:
        """Evaluate the objective on a minibatch, one draw of the gates, and its gradient.

        Nothing in the network changes: the running statistics after this pass are returned, and
        `set_buffers` takes them.

        Parameters
        ----------
        x : array, (N, *input_shape)
        labels : array_like of int, (N,)
        noise : mapping of int to array
            u for each layer of `noise_shapes(x.shape)`.
        lam, l2, n_train
            See `penalties`.
        dense : bool, optional
            Compute everything, what this minibatch's closed gates multiply by 0 too; see
            `l0ref.conditional`. The numbers are the same to rounding; but what is left out is not
            looked at, and a NaN there is not met.
        """
        with self.backend.exclusive():
            return self._evaluate(x, labels, noise, lam, l2, n_train, dense)

    def _evaluate(
        self,
        x: Array,
        labels: ArrayLike,
        noise: Mapping[int, Array | Uniforms],
        lam: Sequence[float],
        l2: float,
        n_train: int,
        dense: bool,
    ) -> Evaluation:
        lams = self._check_penalties(lam, l2, n_train)
        self._check_input(x)
        self._check_noise(x, noise)
        drawn = Pass(self, x, noise, dense=dense)
        data, ce = self.backend.softmax_cross_entropy(drawn.logits, labels)
        own, dgates = drawn.backward(self.backend.softmax_cross_entropy_vjp(1.0, ce))
        loss, l0_term, l2_term = float(data), 0.0, 0.0
        for (i, layer, gates), scale in zip(self.gated, lams, strict=True):
            own[f"{i}.log_alpha"], l0 = self.backend.gate_gradient(
                dgates[i],
                drawn.slopes[i],
                layer.params["log_alpha"],
                gates.group_size,
                lam=scale,
                **gates.hyperparameters,
            )
            l0_term += scale * l0
        if l2 > 0:
            l2_term, l2_grads = self._l2(l2 / (2 * n_train))
            for name, g in l2_grads.items():
                own[name] = own[name] + g
        grads = {name: own[name] for name in self.params}
        buffers = {
            f"{i}.{name}": value
            for i, layer in enumerate(self.layers)
            if layer.buffers
            for name, value in layer.updated_buffers(drawn.residuals[i]).items()
        }
        total = Loss(loss + l0_term + l2_term, loss, l0_term, l2_term)
        return Evaluation(total, grads, buffers, drawn.gates)

    def loss_and_grads(
        self, x: Array, labels: ArrayLike, noise: Mapping[int, Array | Uniforms], **options: Any
    ) -> tuple[Loss, dict[str, Array]]:
        """Return the first two of `evaluate`, which has the parameters."""
        loss, grads, _, _ = self.evaluate(x, labels, noise, **options)
        return loss, grads

    def with_statistics(self, batches: Iterable[Array]) -> Network:
        """Return the network with running statistics gathered anew, under the gates of Eq. 13.

        Those that training gathers are of networks that were drawn. The mean and variance behind a
        gate that is often drawn open but is closed at test time, or the other way round, are not
        those of the network that is evaluated, and as long as many gates are undecided its outputs
        can be far off. Here each batch has the same weight. Parameters are shared, not copied.

        Parameters
        ----------
        batches : iterable of array, (N, *input_shape)
            Training examples.
        """
        buffers = self.buffers
        for k, x in enumerate(batches, start=1):
            _, residuals = self.forward(x, training=True)
            for i, (layer, r) in enumerate(zip(self.layers, residuals, strict=True)):
                if isinstance(layer, BatchNorm):
                    names = [f"{i}.running_mean", f"{i}.running_var"]
                    mean, var = (buffers[name] for name in names)
                    new = ops.running_statistics(mean, var, r, momentum=1 / k)
                    buffers |= dict(zip(names, new, strict=True))
        return self.with_params(self.params, buffers)

    def set_buffers(self, buffers: Mapping[str, Array]) -> None:
        """Take over running statistics, in place: all of `buffers`, or some."""
        own = self.buffers
        for name, value in buffers.items():
            if name not in own:
                raise ValueError(f"buffers must have names of {sorted(own)}, got {name!r}")
            if value.shape != own[name].shape:
                raise ValueError(
                    f"buffers[{name!r}] must have shape {own[name].shape}, got {value.shape}"
                )
        for name, value in buffers.items():
            own[name][...] = value

    # --- what is left ---

    def expected_l0(self) -> list[float]:
        """Expected number of parameters on, for each gated layer: a count."""
        return [
            expected_l0(layer.params["log_alpha"], gates.group_size, **gates.hyperparameters)
            for _, layer, gates in self.gated
        ]

    def open_gates(self) -> list[NDArray[np.bool_]]:
        """Which gates are on at test time, for each gated layer, of gates.shape.

        On is z_hat != 0: a NaN is a gate gone wrong, not a closed one.
        """
        return [gates.test_time(layer.params["log_alpha"]) != 0 for _, layer, gates in self.gated]


def check_lam(lam: Sequence[float], n_layers: int) -> list[float]:
    """Return one lambda a gated layer from one for all or one each; raise where it does not fit."""
    values = [float(v) for v in lam]
    if len(values) not in (1, n_layers):
        raise ValueError(
            f"lam must have 1 value or one a gated layer ({n_layers}), got {len(values)}"
        )
    for value in values:
        if not (value >= 0 and np.isfinite(value)):
            raise ValueError(f"lam must be at least 0 and finite, got {value}")
    return values * n_layers if len(values) == 1 else values
