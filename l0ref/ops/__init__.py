"""The primitives: each a forward function and its vector-Jacobian product, side by side, stateless.

``y, residuals = op(x, ...)`` and ``dx, ... = op_vjp(dy, residuals)``, where ``dx`` is the
derivative of a scalar with respect to x when ``dy`` is that with respect to y. The derivation
stands in each docstring.
"""

from .add import add, add_vjp
from .conv import conv2d, conv2d_vjp, conv_output_size
from .conv_block import conv_relu_pool, conv_relu_pool_vjp
from .cross_entropy import softmax_cross_entropy, softmax_cross_entropy_vjp
from .dense import dense, dense_vjp
from .dense_block import dense_relu, dense_relu_vjp
from .dropout import dropout, dropout_vjp
from .examples import example_matmul, example_matmul_vjp
from .flatten import flatten, flatten_vjp
from .matmul import gated_matmul, gated_matmul_vjp
from .norm import (
    batch_norm,
    batch_norm_inference,
    batch_norm_inference_vjp,
    batch_norm_vjp,
    running_statistics,
)
from .pack import pack, pack_vjp
from .pool import avg_pool2d, avg_pool2d_vjp, max_pool2d, max_pool2d_vjp
from .relu import relu, relu_vjp
from .sparse import SparseWeights, sparse_dense
from .tanh import tanh, tanh_vjp

__all__ = [
    "SparseWeights",
    "add",
    "add_vjp",
    "avg_pool2d",
    "avg_pool2d_vjp",
    "batch_norm",
    "batch_norm_inference",
    "batch_norm_inference_vjp",
    "batch_norm_vjp",
    "conv2d",
    "conv2d_vjp",
    "conv_output_size",
    "conv_relu_pool",
    "conv_relu_pool_vjp",
    "dense",
    "dense_relu",
    "dense_relu_vjp",
    "dense_vjp",
    "dropout",
    "dropout_vjp",
    "example_matmul",
    "example_matmul_vjp",
    "flatten",
    "flatten_vjp",
    "gated_matmul",
    "gated_matmul_vjp",
    "max_pool2d",
    "max_pool2d_vjp",
    "pack",
    "pack_vjp",
    "relu",
    "relu_vjp",
    "running_statistics",
    "softmax_cross_entropy",
    "softmax_cross_entropy_vjp",
    "sparse_dense",
    "tanh",
    "tanh_vjp",
]
