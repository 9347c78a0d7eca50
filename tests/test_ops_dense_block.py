"""A dense layer and its rectifier as one op, against loops over fractions.

Away from the rectifier's kink the op is a sum of products of those terms that it lets pass: linear
in each number alone, so that central differences in Fractions are its derivatives without any
error. Tolerances are those of `tests/test_ops.py`.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from l0ref import ops
from tests import naive_network as naive
from tests.test_ops import FORMS, assert_close, dense_case, frozen, lists, seeds, sizes

H = Fraction(1, 2**60)
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form[0]}-{form[1]}")


@every_form
@given(st.tuples(sizes, sizes, sizes), st.sampled_from((np.float32, np.float64)), seeds)
@example((3, 3, 2), np.float64, 1)
@example((2, 3, 4), np.float32, 2)
def test_dense_relu_and_its_vjp(form: Any, shape: Any, dtype: Any, seed: int) -> None:
    arrays, cotangent = dense_case(form, shape, dtype, seed)
    on, per_example = form
    on = "inputs" if on == "none" else on
    numbers = {name: lists(a, Fraction) for name, a in arrays.items()}
    absolute = {name: lists(np.abs(a), float) for name, a in arrays.items()}
    a = naive.dense(**numbers, on=on, per_example=per_example)
    # No sum may be so near to 0 that rounding, or the difference, takes it across.
    assume(all(v == 0 or abs(v) > Fraction(1, 1000) for row in a for v in row))

    def pulled(**arguments: Any) -> Any:
        y = naive.relu(naive.dense(**arguments, on=on, per_example=per_example))
        return sum(c * v for c_row, row in zip(lists(cotangent, Fraction), y, strict=True)
                   for c, v in zip(c_row, row, strict=True))  # fmt: skip

    y, residuals = ops.dense_relu(*arrays.values(), on=on)
    got = dict(
        zip(("x", "weight", "bias", "z"), ops.dense_relu_vjp(cotangent, residuals), strict=True)
    )
    unit = np.finfo(dtype).eps * (max(np.prod(shape[:2]), np.prod(shape[::2])) + 4)
    size = naive.dense(**absolute, on=on, per_example=per_example)
    assert_close(y, naive.flat(naive.relu(a)), unit * np.ravel(size), dtype)

    def size_of(**arguments: Any) -> Any:
        y = naive.dense(**arguments, on=on, per_example=per_example)
        return float((np.abs(cotangent) * np.array(y)).sum())

    slopes = naive.gradients(pulled, numbers, H)
    bounds = naive.gradients(size_of, absolute, 1.0)
    for name, array in arrays.items():
        assert got[name].shape == array.shape, name
        # A unit that is exactly 0, behind a closed gate, is at the kink: there 0 is a convention.
        if all(v != 0 for row in a for v in row):
            assert_close(got[name], slopes[name], unit * np.array(bounds[name]), dtype)
    assert ("z" in arrays) == (got["z"] is not None)


def test_nothing_passes_at_the_kink() -> None:
    weight = frozen([[0.0, -0.0, 1.0, -1.0]], np.float64)
    y, residuals = ops.dense_relu(frozen([[1.0]], np.float64), weight, np.zeros(4))
    dx, _, dbias, _ = ops.dense_relu_vjp(np.array([[2.0, 3.0, 5.0, 7.0]]), residuals)
    np.testing.assert_array_equal(y, [[0, 0, 1, 0]])
    np.testing.assert_array_equal(dbias, [0, 0, 5, 0])
    np.testing.assert_array_equal(dx, [[5]])


@every_form
def test_without_dx(form: Any) -> None:
    arrays, cotangent = dense_case(form, (3, 2, 4), np.float64, seed=7)
    _, residuals = ops.dense_relu(*arrays.values(), on="inputs" if form[0] == "none" else form[0])
    whole = ops.dense_relu_vjp(cotangent, residuals)
    dx, *rest = ops.dense_relu_vjp(cotangent, residuals, need_dx=False)
    assert dx is None
    for a, b in zip(rest, whole[1:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(3, 2), (1, 4), (4,), (3, 1)])
def test_a_cotangent_that_would_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    arrays, _ = dense_case(("inputs", False), (3, 2, 4), np.float64, seed=8)
    _, residuals = ops.dense_relu(*arrays.values())
    with pytest.raises(ValueError, match=r"dy must have shape \(3, 4\)"):
        ops.dense_relu_vjp(np.ones(shape), residuals)


def test_errors_are_those_of_the_layer() -> None:
    with pytest.raises(ValueError, match="bias must have shape"):
        ops.dense_relu(np.ones((2, 3)), np.ones((3, 4)), np.ones(3))
    with pytest.raises(ValueError, match="on must be one of"):
        ops.dense_relu(np.ones((2, 3)), np.ones((3, 4)), np.ones(4), on="sides")
