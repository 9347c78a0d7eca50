"""Optimisers that move a dictionary of arrays in place, and the temporal average of the arrays."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Params = dict[str, Array]


class Optimizer(Protocol):
    """What training needs of an optimiser."""

    def step(self, params: Params, grads: Params) -> None:
        """Move `params` in place, along `grads` of the same names and shapes."""

    def state(self) -> Params:
        """Return everything that a resumed run needs, as arrays."""

    def load_state(self, state: Params) -> None:
        """Take up where `state` left off."""


def _learning_rates(lr: float, gate_lr: float | None) -> tuple[float, float]:
    gate_lr = lr if gate_lr is None else gate_lr
    for name, value in (("lr", lr), ("gate_lr", gate_lr)):
        if not (value > 0 and np.isfinite(value)):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    return lr, gate_lr


def is_gate(name: str) -> bool:
    """Whether a parameter of this name has the gates' learning rate."""
    return name.split(".")[-1] == "log_alpha"


def _check_names(params: Params, grads: Params) -> None:
    if params.keys() != grads.keys():
        odd = sorted(params.keys() ^ grads.keys())
        raise ValueError(f"params and grads must have the same names, got {odd} in one only")


class SGD:
    r"""Stochastic gradient descent with momentum: :math:`v \leftarrow \mu v + g`, then minus lr v.

    Parameters
    ----------
    lr : float
        Learning rate, > 0.
    momentum : float, optional
        mu, in [0, 1).
    gate_lr : float, optional
        Learning rate of log_alpha; `lr` by default.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    def __init__(self, lr: float = 0.1, *, momentum: float = 0.0, gate_lr: float | None = None):
        self.lr, self.gate_lr = _learning_rates(lr, gate_lr)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self._velocity: Params = {}

    def step(self, params: Params, grads: Params) -> None:
        """Move `params` in place."""
        _check_names(params, grads)
        for name, theta in params.items():
            lr = self.gate_lr if is_gate(name) else self.lr
            velocity = self._velocity.setdefault(name, np.zeros_like(theta))
            velocity *= self.momentum
            velocity += grads[name]
            np.subtract(theta, lr * velocity, out=theta)

    def state(self) -> Params:
        """Return the velocities."""
        return {f"velocity/{name}": v.copy() for name, v in self._velocity.items()}

    def load_state(self, state: Params) -> None:
        """Take up the velocities."""
        self._velocity = {name.removeprefix("velocity/"): v.copy() for name, v in state.items()}


class Adam:
    r"""Adam (D. P. Kingma, J. Ba, ICLR 2015), with its default hyperparameters.

    .. math:: m \leftarrow b_1 m + (1-b_1) g, \quad v \leftarrow b_2 v + (1-b_2) g^2, \quad
              \theta \leftarrow \theta - \mathrm{lr}\,
              \frac{m/(1-b_1^t)}{\sqrt{v/(1-b_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float, optional
        Learning rate, > 0.
    beta1, beta2 : float, optional
        Decay of the two moments, in [0, 1). Not the gates' beta.
    eps : float, optional
        Added to the root of the debiased second moment.
    gate_lr : float, optional
        Learning rate of log_alpha; `lr` by default.

    Attributes
    ----------
    t : int
        Steps taken.
    m, v : dict of str to array
        The two moments of each parameter, not yet debiased.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        gate_lr: float | None = None,
    ):
        self.lr, self.gate_lr = _learning_rates(lr, gate_lr)
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.t = 0
        self.m: Params = {}
        self.v: Params = {}

    def step(self, params: Params, grads: Params) -> None:
        """Move `params` in place."""
        _check_names(params, grads)
        self.t += 1
        rescale, eps = self.scales()
        for name, theta in params.items():
            if name not in self.m:
                self.m[name], self.v[name] = np.zeros_like(theta), np.zeros_like(theta)
            g, m, v = grads[name], self.m[name], self.v[name]
            scratch = (1 - self.beta1) * g
            m *= self.beta1
            m += scratch
            np.multiply(g, g, out=scratch)
            scratch *= 1 - self.beta2
            v *= self.beta2
            v += scratch
            np.sqrt(v, out=scratch)
            scratch += eps
            np.divide(m, scratch, out=scratch)
            scratch *= rescale * (self.gate_lr if is_gate(name) else self.lr)
            np.subtract(theta, scratch, out=theta)

    def scales(self) -> tuple[float, float]:
        r"""Return what multiplies lr and what is added to sqrt(v), at step t.

        With :math:`d_1 = 1-b_1^t` and :math:`d_2 = 1-b_2^t`, :math:`\frac{m/d_1}{\sqrt{v/d_2} +
        \epsilon} = \frac{\sqrt{d_2}}{d_1} \frac{m}{\sqrt v + \epsilon\sqrt{d_2}}`: the debiasing
        becomes two numbers, and the arrays are passed over fewer times.
        """
        root = float(np.sqrt(1 - self.beta2**self.t))
        return root / (1 - self.beta1**self.t), self.eps * root

    def state(self) -> Params:
        """Return the moments and the step count."""
        return (
            {"t": np.asarray(self.t)}
            | {f"m/{name}": m.copy() for name, m in self.m.items()}
            | {f"v/{name}": v.copy() for name, v in self.v.items()}
        )

    def load_state(self, state: Params) -> None:
        """Take up the moments and the step count."""
        self.t = int(state["t"])
        self.m = {n.removeprefix("m/"): a.copy() for n, a in state.items() if n.startswith("m/")}
        self.v = {n.removeprefix("v/"): a.copy() for n, a in state.items() if n.startswith("v/")}


class TemporalAverage:
    r"""Exponential average of the parameters, right from the first step.

    .. math:: \bar\theta_t = \frac{1-d}{1-d^t} \sum_{i=1}^{t} d^{\,t-i}\, \theta_i,
              \quad\text{that is}\quad
              \bar\theta_t = (1 - w_t)\,\bar\theta_{t-1} + w_t\,\theta_t, \quad
              w_t = \frac{1-d}{1-d^t} .

    The weights sum to 1 at every t: after one step the average is theta_1. An average that starts
    at 0 and is divided by 1 - d^t is this same number; one that starts at the first parameters
    needs no division; to do both is wrong for the first few 1/(1-d) steps.

    Parameters
    ----------
    decay : float, optional
        d, in [0, 1); 0 keeps the latest parameters.

    Raises
    ------
    ValueError
        If decay is out of range.

    Examples
    --------
    >>> average = TemporalAverage(decay=0.9)
    >>> average.update({"theta": np.array([3.0])})
    >>> average.params["theta"]
    array([3.])
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.t = 0
        self.params: Params = {}

    def update(self, params: Params) -> None:
        """Take in the parameters of one more step."""
        self.t += 1
        weight = self.weight()
        for name, theta in params.items():
            if name not in self.params:
                self.params[name] = theta.copy()
            else:
                average = self.params[name]
                average *= 1 - weight
                average += weight * theta

    def weight(self) -> float:
        """w_t, the newest parameters' share."""
        return (1 - self.decay) / (1 - self.decay**self.t)

    def state(self) -> Params:
        """Return the average and the step count."""
        return {"t": np.asarray(self.t)} | {
            f"average/{n}": a.copy() for n, a in self.params.items()
        }

    def load_state(self, state: Params) -> None:
        """Take up the average and the step count."""
        self.t = int(state["t"])
        self.params = {n.removeprefix("average/"): a.copy() for n, a in state.items() if n != "t"}


def all_finite(values: Array) -> bool:
    """Whether there is no NaN and no infinity among them.

    Examples
    --------
    >>> all_finite(np.array([1.0, -2.0])), all_finite(np.array([1.0, np.nan]))
    (True, False)
    """
    return bool(np.isfinite(values).all())


def step_and_average(
    optimizer: Optimizer,
    average: TemporalAverage,
    params: Params,
    grads: Params,
    buffers: Params,
) -> None:
    """Move the parameters one step, and take them and the buffers into the average.

    Parameters
    ----------
    optimizer, average
        Both move on by a step, in place.
    params : dict of str to array
        Moved in place.
    grads : dict of str to array
        Of the same names and shapes.
    buffers : dict of str to array
        What the optimiser does not move, but the average takes in.
    """
    optimizer.step(params, grads)
    average.update(params | buffers)
