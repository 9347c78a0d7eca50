"""One step of training: a minibatch, a draw of the gates, and what moves by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .gates import clamp_log_alpha
from .network import Loss, Network
from .noise import Uniforms
from .optimizers import Optimizer, TemporalAverage

Array = NDArray[Any]


class DivergedError(ValueError):
    """The objective is no longer a number."""


class Stepped(NamedTuple):
    """What came of a step: the objective before it, and z of each gated layer, by position.

    The room of the gates may be used again by the network's next step.
    """

    loss: Loss
    gates: dict[int, Array]


def train_step(
    network: Network,
    optimizer: Optimizer,
    average: TemporalAverage,
    x: Array,
    labels: ArrayLike,
    noise: Mapping[int, Array | Uniforms],
    *,
    lam: Sequence[float],
    l2: float = 0.0,
    n_train: int,
    dense: bool = False,
    clamp: bool = False,
) -> Stepped:
    """Evaluate the objective on a minibatch, and move the parameters and their average by it.

    Parameters
    ----------
    network : Network
        Its parameters and running statistics are moved in place.
    optimizer, average
        Both move on by a step, in place.
    x, labels, noise, lam, l2, n_train, dense
        See `Network.evaluate`.
    clamp : bool, optional
        Clamp log_alpha after the step, as the paper's own code does: see `clamp_log_alpha`.

    Raises
    ------
    DivergedError
        If the loss or a gradient is not finite. Nothing has changed then.
    """
    backend = network.backend
    loss, grads, buffers, gates = network.evaluate(
        x, labels, noise, lam=lam, l2=l2, n_train=n_train, dense=dense
    )
    odd = [] if np.isfinite(loss.total) else [f"the loss is {loss.total}"]
    odd += [
        f"the gradient of {name} is not finite"
        for name, g in grads.items()
        if not backend.all_finite(g)
    ]
    if odd:
        raise DivergedError(
            f"{odd[0]} at step {average.t}: nothing was changed by this step; "
            "a lower learning rate may help"
        )
    network.set_buffers(buffers)
    params = network.params
    if clamp:
        optimizer.step(params, grads)
        for _, layer, _ in network.gated:
            clamp_log_alpha(layer.params["log_alpha"])
        average.update(params | network.buffers)
    else:
        backend.step_and_average(optimizer, average, params, grads, network.buffers)
    return Stepped(loss, gates)
