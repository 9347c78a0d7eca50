"""What a network costs: floating-point operations for one example, and parameters."""

from __future__ import annotations

from collections.abc import Iterable


def dense_flops(n_in: int, n_out: int) -> int:
    """FLOPs of a dense layer with its bias, one example: 2 n_in n_out.

    Each output takes n_in multiplications, n_in - 1 additions, and the addition of its bias.

    Examples
    --------
    >>> dense_flops(784, 300)
    470400
    """
    return 2 * n_in * n_out


def dense_params(n_in: int, n_out: int) -> int:
    """Weights and biases of a dense layer."""
    return (n_in + 1) * n_out


def stack_flops(shapes: Iterable[tuple[int, int]]) -> int:
    """FLOPs of a stack of dense layers of the given (n_in, n_out); activations are not counted.

    Examples
    --------
    >>> stack_flops([(784, 300), (300, 100), (100, 10)])
    532400
    """
    return sum(dense_flops(*shape) for shape in shapes)


def stack_params(shapes: Iterable[tuple[int, int]]) -> int:
    """Weights and biases of a stack of dense layers.

    Examples
    --------
    >>> stack_params([(784, 300), (300, 100), (100, 10)])
    266610
    """
    return sum(dense_params(*shape) for shape in shapes)
