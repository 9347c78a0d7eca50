"""The primitives: each a forward function and its vector-Jacobian product, side by side, stateless.

``y, residuals = op(x, ...)`` and ``dx, ... = op_vjp(dy, residuals)``, where ``dx`` is the
derivative of a scalar with respect to x when ``dy`` is that with respect to y. The derivation
stands in each docstring.
"""

from .cross_entropy import softmax_cross_entropy, softmax_cross_entropy_vjp
from .dense import dense, dense_vjp
from .dropout import dropout, dropout_vjp
from .relu import relu, relu_vjp
from .tanh import tanh, tanh_vjp

__all__ = [
    "dense",
    "dense_vjp",
    "dropout",
    "dropout_vjp",
    "relu",
    "relu_vjp",
    "softmax_cross_entropy",
    "softmax_cross_entropy_vjp",
    "tanh",
    "tanh_vjp",
]
