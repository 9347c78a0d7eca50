r"""Twin of `l0ref.penalties.gate_gradient`: the draw's VJP and the penalty's gradient in one pass.

With c = beta log(-gamma/zeta) and w = exp(-\|log_alpha\|) exp(+-c), the ratio of the smaller of
P(z != 0) and P(z = 0) to the larger (to within the factor exp(c)),

.. math:: P = \frac{w}{1+w} \text{ or } \frac{1}{1+w}, \quad P(1-P) = \frac{w}{(1+w)^2} :

one exponential, no difference, and so both tails.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import penalties
from ..concrete import BETA, GAMMA, ZETA, FloatArray
from ._compile import elementwise, in_vectors, inline, parallel, rounded, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from ._sums import add_up, inner
from .elementary import exp

GATES = 1024
"""Gates that one turn of a shared loop takes; the count is added up turn by turn, in order."""

GREATEST_SHIFT = 30.0
"""Of |beta log(-gamma/zeta)|: up to here no w overflows, nor its square, in float32."""


@inline
def _activity(a, grow, shrink):  # type: ignore[no-untyped-def]
    """P and P (1 - P) of one log_alpha."""
    number = type(a)
    one, off = number(1), a < number(0)
    w = exp(a if off else -a) * (grow if off else shrink)
    larger = one / (one + w)
    smaller = w * larger
    return smaller if off else larger, smaller * larger


@elementwise
def _combine(i, log_alpha, dz, slope, lam, size, grow, shrink, active, gradient):  # type: ignore[no-untyped-def]
    active[i], each = _activity(log_alpha[i], grow, shrink)
    gradient[i] = dz[i] * slope[i] + rounded(lam, size * each)


@elementwise
def _find_activity(i, log_alpha, grow, shrink, active, slope):  # type: ignore[no-untyped-def]
    active[i], slope[i] = _activity(log_alpha[i], grow, shrink)


@inline
def _combine_some(turn, dz, slope, log_alpha, group_size, common, law, gradient, counts):  # type: ignore[no-untyped-def]
    number = log_alpha.dtype.type
    lam, grow, shrink = law[0], law[1], law[2]
    start = turn * GATES
    stop = min(log_alpha.size, start + GATES)
    out, here, sizes = gradient[start:stop], log_alpha[start:stop], group_size[start:stop]
    active = np.empty(stop - start, log_alpha.dtype)
    first, through = dz[0, start:stop], slope[0, start:stop]
    if dz.shape[0] == 1 and not sizes.size:  # as mostly: one loop does it all
        args = (here, first, through, lam, number(common), grow, shrink, active, out)
        in_vectors(_combine, here.size, args)
        counts[turn] = common * add_up(active)
        return
    in_vectors(_find_activity, here.size, (here, grow, shrink, active, out))
    if sizes.size:
        counts[turn] = inner(active, sizes)
        for i in range(here.size):
            out[i] = lam * (number(sizes[i]) * out[i])
    else:
        counts[turn] = common * add_up(active)
        for i in range(here.size):
            out[i] = lam * (number(common) * out[i])
    if dz.shape[0] == 1:
        for i in range(here.size):
            out[i] += first[i] * through[i]
    else:
        sums = active  # of the same length, and no more needed
        for i in range(here.size):
            sums[i] = first[i] * through[i]
        for example in range(1, dz.shape[0]):
            row, row_slope = dz[example, start:stop], slope[example, start:stop]
            for i in range(here.size):
                sums[i] += row[i] * row_slope[i]
        for i in range(here.size):
            out[i] += sums[i]


@parallel
def combine_gradients(many, dz, slope, log_alpha, group_size, common, law, gradient, counts):  # type: ignore[no-untyped-def]
    """Add up what comes through the draw and what the penalty adds; count what is expected on."""
    args = (dz, slope, log_alpha, group_size, common, law, gradient, counts)
    share_out(many, _combine_some, counts.size, args)


@functools.lru_cache(maxsize=256)
def checked_law(
    lam: float, beta: float, gamma: float, zeta: float, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return lam, exp(-c) and exp(c) in the dtype: not to be written to."""
    if not (all(map(math.isfinite, (lam, beta, gamma, zeta))) and beta > 0 > gamma and zeta > 1):
        raise NotForKernel
    shift = beta * math.log(-gamma / zeta)
    if abs(shift) > GREATEST_SHIFT:
        raise NotForKernel
    return np.array([lam, math.exp(-shift), math.exp(shift)], dtype=dtype)


@twin(penalties.gate_gradient)
def gate_gradient(
    dz: Any,
    slope: Any,
    log_alpha: Any,
    group_size: Any = 1,
    *,
    lam: float,
    beta: Any = BETA,
    gamma: Any = GAMMA,
    zeta: Any = ZETA,
) -> tuple[FloatArray, float]:
    """Derivative of data loss and penalty in log_alpha, and the expected count."""
    check_arrays(dz, slope, log_alpha)
    shape = log_alpha.shape
    if type(group_size) is not np.ndarray or group_size.dtype != np.int64:
        raise NotForKernel
    if (
        shape != group_size.shape
        or dz.shape != slope.shape
        or shape not in (dz.shape, dz.shape[1:])
    ):
        raise NotForKernel
    if not (shape and all(isinstance(value, (float, int)) for value in (lam, beta, gamma, zeta))):
        raise NotForKernel
    law = checked_law(lam, beta, gamma, zeta, log_alpha.dtype)
    size = log_alpha.size
    gradient = np.empty(shape, dtype=log_alpha.dtype)
    counts = np.empty(-(-size // GATES))
    # One size for all gates, as they mostly have, is one number and not an array to be read.
    common = 0 if any(group_size.strides) else group_size.item(0)
    sizes = np.empty(0, np.int64) if common else packed(group_size).reshape(-1)
    combine_gradients.sized(
        4 * dz.size, packed(dz).reshape(-1, size), packed(slope).reshape(-1, size),
        packed(log_alpha).reshape(-1), sizes, common, law, gradient.reshape(-1), counts,
    )  # fmt: skip
    return gradient, float(counts[0] if counts.size == 1 else counts.sum())
