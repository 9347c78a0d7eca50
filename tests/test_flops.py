"""The cost of dense stacks, against every operation of a forward pass counted as it happens."""

from functools import reduce
from operator import add

import pytest

from l0ref.flops import dense_flops, dense_params, stack_flops, stack_params


class Counted:
    """A number that does nothing but count what is done with it."""

    operations = 0

    def __add__(self, other: "Counted") -> "Counted":
        Counted.operations += 1
        return self

    __mul__ = __add__


def count(shapes: list[tuple[int, int]]) -> tuple[int, int]:
    """Run a forward pass of one example; return operations and parameters."""
    Counted.operations = params = 0
    x = [Counted() for _ in range(shapes[0][0])]
    for n_in, n_out in shapes:
        weight = [[Counted() for _ in range(n_out)] for _ in range(n_in)]
        bias = [Counted() for _ in range(n_out)]
        params += sum(map(len, weight)) + len(bias)
        products = [[x[i] * weight[i][o] for i in range(n_in)] for o in range(n_out)]
        x = [reduce(add, terms) + b for terms, b in zip(products, bias, strict=True)]
    return Counted.operations, params


@pytest.mark.parametrize(
    "shapes", [[(1, 1)], [(3, 2)], [(2, 5)], [(7, 1), (1, 4)], [(9, 5), (5, 6), (6, 2)]]
)
def test_against_a_count(shapes: list[tuple[int, int]]) -> None:
    assert (stack_flops(shapes), stack_params(shapes)) == count(shapes)
    assert (dense_flops(*shapes[0]), dense_params(*shapes[0])) == count(shapes[:1])


def test_lenet_by_hand() -> None:
    """784-300-100-10, and the paper's 266-88-33 units of it."""
    whole, pruned = [(784, 300), (300, 100), (100, 10)], [(266, 88), (88, 33), (33, 10)]
    assert stack_flops(whole) == 470_400 + 60_000 + 2_000
    assert stack_params(whole) == 235_500 + 30_100 + 1_010
    assert stack_flops(pruned) == 46_816 + 5_808 + 660
    assert stack_params(pruned) == 23_496 + 2_937 + 340


def test_a_stack_that_lost_every_unit_costs_nothing_and_keeps_its_biases() -> None:
    shapes = [(0, 0), (0, 3)]
    assert stack_flops(iter(shapes)) == 0
    assert stack_params(iter(shapes)) == 3
    assert stack_flops([]) == stack_params([]) == 0
