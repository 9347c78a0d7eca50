"""Batch normalisation (S. Ioffe, C. Szegedy, arXiv 1502.03167)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .conv import check_cotangent

Array = NDArray[Any]


class BatchNormResiduals(NamedTuple):
    """What `batch_norm_vjp` and `running_statistics` need of the forward pass."""

    normalised: Array  # of x's shape
    inv_std: Array  # (C,)
    weight: Array
    mean: Array  # (C,)
    var: Array  # (C,), biased: divided by count
    n_values: int  # m, how many values of x each channel's mean is taken over


class BatchNormInferenceResiduals(NamedTuple):
    """What `batch_norm_inference_vjp` needs of the forward pass."""

    normalised: Array  # of x's shape
    inv_std: Array  # (C,)
    weight: Array


def batch_norm(
    x: Array, weight: Array, bias: Array, *, eps: float = 1e-5
) -> tuple[Array, BatchNormResiduals]:
    r"""Normalise each channel by its own mean and variance over the batch, then scale and shift.

    .. math:: \mu_c = \frac1m \sum_i x_{ic}, \quad
              v_c = \frac1m \sum_i (x_{ic} - \mu_c)^2, \quad
              \hat x_{ic} = \frac{x_{ic} - \mu_c}{\sqrt{v_c + \epsilon}}, \quad
              y_{ic} = w_c \hat x_{ic} + b_c

    i runs over all axes of x but the channel's: the m = N examples, or the m = N H W pixels of
    all examples. The variance is the biased one. It is taken of x - mean, in a second pass: the
    shorter mean of x^2 less the square of the mean cancels where the mean is large.

    Parameters
    ----------
    x : array, (N, C) or (N, C, H, W)
    weight, bias : array, (C,)
    eps : float, optional
        Above 0; keeps a constant channel finite.

    Returns
    -------
    y : array, of x's shape
    residuals : BatchNormResiduals
        With the batch's ``mean`` and (biased) ``var``, and m as ``n_values``.

    Raises
    ------
    ValueError
        If the shapes do not fit, eps is not above 0, or a channel has fewer than two values: one
        value alone would always be normalised to 0.

    Examples
    --------
    >>> x = np.array([[1.0, 10.0], [3.0, 10.0]])
    >>> y, residuals = batch_norm(x, np.ones(2), np.zeros(2), eps=1e-12)
    >>> y.round(6)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> residuals.mean, residuals.var
    (array([ 2., 10.]), array([1., 0.]))
    """
    check_norm(x, eps, weight=weight, bias=bias)
    axes = _all_but_channels(x)
    n_values = math.prod(x.shape[axis] for axis in axes)
    if n_values < 2:
        raise ValueError(
            "x must have at least two values per channel in training, "
            f"got {n_values}: shape {x.shape}"
        )
    mean = x.mean(axis=axes)
    centred = x - _along_channels(mean, x)
    var = (centred**2).mean(axis=axes)
    inv_std = 1 / np.sqrt(var + eps)
    normalised = centred * _along_channels(inv_std, x)
    y = normalised * _along_channels(weight, x) + _along_channels(bias, x)
    return y, BatchNormResiduals(normalised, inv_std, weight, mean, var, n_values)


def batch_norm_vjp(dy: Array, residuals: BatchNormResiduals) -> tuple[Array, Array, Array]:
    r"""Pull dy back through `batch_norm`, whose mean and variance depend on x.

    One channel at a time, with :math:`r = 1/\sqrt{v + \epsilon}`. First, from
    :math:`y_i = w \hat x_i + b`,

    .. math:: db = \sum_i dy_i, \qquad dw = \sum_i dy_i\, \hat x_i, \qquad g_i := w\, dy_i ,

    where g is the derivative with respect to :math:`\hat x`. The value :math:`x_k` moves
    :math:`\hat x_i = (x_i - \mu)\, r` in three ways: as itself, if i = k; by the mean,
    :math:`\partial\mu/\partial x_k = 1/m`; and by the variance,

    .. math:: \frac{\partial v}{\partial x_k}
              = \frac2m \sum_i (x_i - \mu)\Big([i = k] - \frac1m\Big) = \frac2m (x_k - \mu),
              \qquad
              \frac{\partial r}{\partial x_k} = -\frac{r^3}{2} \frac{\partial v}{\partial x_k}
              = -\frac{r^2}{m}\, \hat x_k ,

    since the deviations from the mean add up to 0, and :math:`(x_k - \mu)\, r = \hat x_k`. So

    .. math:: \frac{\partial \hat x_i}{\partial x_k}
              = r \Big([i = k] - \frac1m\Big) - (x_i - \mu)\, \frac{r^2}{m}\, \hat x_k
              = r \Big([i = k] - \frac1m - \frac1m \hat x_i \hat x_k\Big) ,

    and with :math:`\overline{g} = \frac1m \sum_i g_i`,
    :math:`\overline{g \hat x} = \frac1m \sum_i g_i \hat x_i`,

    .. math:: dx_k = \sum_i g_i \frac{\partial \hat x_i}{\partial x_k}
              = r \big(g_k - \overline{g} - \hat x_k\, \overline{g \hat x}\big) .

    Parameters
    ----------
    dy : array, of x's shape
    residuals : BatchNormResiduals

    Returns
    -------
    dx : array, of x's shape
    dweight, dbias : arrays, (C,)

    Raises
    ------
    ValueError
        If dy does not have the shape of x.
    """
    normalised, inv_std, weight = residuals[:3]
    check_cotangent(dy, normalised.shape)
    axes = _all_but_channels(dy)
    dbias = dy.sum(axis=axes)
    dweight = (dy * normalised).sum(axis=axes)
    g = dy * _along_channels(weight, dy)
    mean_g = g.mean(axis=axes, keepdims=True)
    mean_gx = (g * normalised).mean(axis=axes, keepdims=True)
    dx = _along_channels(inv_std, dy) * (g - mean_g - normalised * mean_gx)
    return dx, dweight, dbias


def batch_norm_inference(
    x: Array, weight: Array, bias: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, BatchNormInferenceResiduals]:
    r"""Normalise each channel by a mean and a variance that are given, then scale and shift.

    .. math:: y_{ic} = w_c \frac{x_{ic} - \mu_c}{\sqrt{v_c + \epsilon}} + b_c

    At test time those of `running_statistics`: no example then depends on the others.

    Parameters
    ----------
    x : array, (N, C) or (N, C, H, W)
    weight, bias, mean, var : array, (C,)
        No var below 0.
    eps : float, optional
        Above 0.

    Returns
    -------
    y : array, of x's shape
    residuals : BatchNormInferenceResiduals

    Raises
    ------
    ValueError
        If the shapes do not fit, eps is not above 0, or a variance is below 0.
    """
    check_norm(x, eps, weight=weight, bias=bias, mean=mean, var=var)
    if (var < 0).any():
        raise ValueError(f"var must be at least 0, got {var.min()}")
    inv_std = 1 / np.sqrt(var + eps)
    normalised = (x - _along_channels(mean, x)) * _along_channels(inv_std, x)
    y = normalised * _along_channels(weight, x) + _along_channels(bias, x)
    return y, BatchNormInferenceResiduals(normalised, inv_std, weight)


def batch_norm_inference_vjp(
    dy: Array, residuals: BatchNormInferenceResiduals
) -> tuple[Array, Array, Array]:
    r"""Pull dy back through `batch_norm_inference`, whose mean and variance are constants.

    With :math:`\hat x = (x - \mu)\, r` and :math:`r = 1/\sqrt{v + \epsilon}`, for each channel

    .. math:: db = \sum_i dy_i, \qquad dw = \sum_i dy_i\, \hat x_i, \qquad dx_i = r\, w\, dy_i .

    Parameters
    ----------
    dy : array, of x's shape
    residuals : BatchNormInferenceResiduals

    Returns
    -------
    dx : array, of x's shape
    dweight, dbias : arrays, (C,)

    Raises
    ------
    ValueError
        If dy does not have the shape of x.
    """
    normalised, inv_std, weight = residuals
    check_cotangent(dy, normalised.shape)
    axes = _all_but_channels(dy)
    dbias = dy.sum(axis=axes)
    dweight = (dy * normalised).sum(axis=axes)
    dx = _along_channels(inv_std * weight, dy) * dy
    return dx, dweight, dbias


def running_statistics(
    running_mean: Array,
    running_var: Array,
    residuals: BatchNormResiduals,
    *,
    momentum: float = 0.1,
) -> tuple[Array, Array]:
    r"""Move the running mean and variance towards those of the batch.

    .. math:: \mu \leftarrow (1 - q)\, \mu + q\, \mu_B, \qquad
              v \leftarrow (1 - q)\, v + q\, \frac{m}{m - 1}\, v_B

    with q the momentum and m the number of values that the batch has for a channel. As in PyTorch,
    momentum is the share of the new, and the variance that is kept is the unbiased one, while
    `batch_norm` divides by the biased.

    Parameters
    ----------
    running_mean, running_var : array, (C,)
        Usually zeros and ones at first.
    residuals : BatchNormResiduals
        Of `batch_norm`.
    momentum : float, optional
        In [0, 1].

    Returns
    -------
    mean, var : arrays, (C,)
        New ones; those given are not changed.

    Raises
    ------
    ValueError
        If the shapes do not fit, or momentum is out of range.

    Examples
    --------
    >>> _, residuals = batch_norm(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1))
    >>> running_statistics(np.zeros(1), np.ones(1), residuals, momentum=0.5)
    (array([1.]), array([1.5]))
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    for name, value in (("running_mean", running_mean), ("running_var", running_var)):
        if value.shape != residuals.mean.shape:
            raise ValueError(f"{name} must have shape {residuals.mean.shape}, got {value.shape}")
    unbiased = residuals.var * (residuals.n_values / (residuals.n_values - 1))
    mean = (1 - momentum) * running_mean + momentum * residuals.mean
    var = (1 - momentum) * running_var + momentum * unbiased
    return mean, var


def _all_but_channels(x: Array) -> tuple[int, ...]:
    return tuple(axis for axis in range(x.ndim) if axis != 1)


def _along_channels(value: Array, x: Array) -> Array:
    """(C,) as (C, 1, 1) where x has pixels, so that it broadcasts along the channels of x."""
    return value.reshape(-1, *(1,) * (x.ndim - 2)) if x.ndim > 2 else value


def check_norm(x: Array, eps: float, **per_channel: Array) -> None:
    """Refuse arguments whose shapes do not fit, and an eps that is out of range."""
    if x.ndim not in (2, 4):
        raise ValueError(f"x must have shape (N, C) or (N, C, H, W), got {x.shape}")
    for name, value in per_channel.items():
        if value.shape != x.shape[1:2]:
            raise ValueError(f"{name} must have shape {x.shape[1:2]}, got {value.shape}")
    if not 0 < eps < math.inf:
        raise ValueError(f"eps must be above 0 and finite, got {eps}")
