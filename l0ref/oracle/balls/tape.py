"""Reverse-mode differentiation over balls: a tape of operations, read backwards.

No derivative of a layer, of a gate or of a loss is written down anywhere in the generator: only
those of the dozen operations below are. So what the vectors say about gradients does not share its
derivation with any implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flint import arb

from .arithmetic import Num, UnprovenError

__all__ = [
    "FAR",
    "NEAR",
    "KinkError",
    "Var",
    "backward",
    "constant",
    "grad_of",
    "greatest",
    "greatest_value",
    "total",
    "value_of",
]

Pull = Callable[[Num], Num]

NEAR = 2.0**-12
FAR = 16 * 2.0**-23
"""What is no nearer to a kink than NEAR, plus FAR times its likely error in epsilons, is on the
right side of it in float32 too: that is twice what is allowed there."""


class Var:
    """A number on the tape: its value, what it was made of, and how a cotangent goes back there."""

    __slots__ = ("grad", "order", "parents", "value")
    _count = 0
    order: int

    def __init__(self, value: Num, parents: Sequence[tuple[Var, Pull]] = ()) -> None:
        self.value = value
        self.parents = tuple((p, pull) for p, pull in parents if p.order >= 0)
        self.grad = Num(arb(0))
        Var._count += 1
        self.order = Var._count  # parents come before children

    def __add__(self, other: Var) -> Var:
        return Var(self.value + other.value, ((self, _same), (other, _same)))

    def __sub__(self, other: Var) -> Var:
        return Var(self.value - other.value, ((self, _same), (other, lambda g: -g)))

    def __mul__(self, other: Var) -> Var:
        a, b = self.value, other.value
        return Var(a * b, ((self, lambda g: g * b), (other, lambda g: g * a)))

    def __truediv__(self, other: Var) -> Var:
        a, b = self.value, other.value
        return Var(a / b, ((self, lambda g: g / b), (other, lambda g: -(g * a / (b * b)))))

    def exp(self) -> Var:
        """e^x."""
        y = self.value.exp()
        return Var(y, ((self, lambda g: g * y),))

    def log(self) -> Var:
        """Natural logarithm."""
        x = self.value
        return Var(x.log(), ((self, lambda g: g / x),))

    def log1p(self) -> Var:
        """log(1 + x)."""
        x = self.value
        return Var(x.log1p(), ((self, lambda g: g / (_ONE + x)),))

    def sigmoid(self) -> Var:
        """1 / (1 + e^-x)."""
        y = self.value.sigmoid()
        slope = y * (_ONE - y)
        return Var(y, ((self, lambda g: g * slope),))

    def square(self) -> Var:
        """x^2."""
        x = self.value
        return Var(x * x, ((self, lambda g: g * (x + x)),))

    def abs(self, *, at_zero: Num | None = None) -> Var:
        """|x|, with this slope at 0 itself; without one, 0 is refused."""
        if at_zero is not None and self.value.is_zero():
            return self.scaled(at_zero)
        sign = _sign(self.value)
        return Var(self.value * sign, ((self, lambda g: g * sign),))

    def scaled(self, factor: Num) -> Var:
        """Return this, whose cotangent is multiplied by a factor on its way back."""
        return Var(self.value, ((self, lambda g: g * factor),))

    def relu(self, *, at_zero: Num, values_only: bool = False) -> Var:
        """max(0, x) with this slope at 0 itself; x near 0 is refused, unless no slope is wanted."""
        if self.value.is_zero():
            return self.scaled(at_zero)
        if _sign(self.value, 0.0 if values_only else None) is _ONE:
            return Var(self.value, ((self, _same),))
        return constant(_ZERO)

    def clip(self, *, at_kink: Num | None = None, values_only: bool = False) -> Var:
        """min(1, max(0, x)) with this slope at 0 and 1 themselves.

        x near them is refused, unless no slope is wanted.
        """
        below, above = self.value, _ONE - self.value
        if at_kink is not None and (below.is_zero() or above.is_zero()):
            return self.scaled(at_kink)
        margin = 0.0 if values_only else None
        if _sign(below, margin) is not _ONE:
            return constant(_ZERO)
        if _sign(above, margin) is not _ONE:
            return constant(_ONE)
        return Var(self.value, ((self, _same),))


_ZERO, _ONE = Num(arb(0)), Num(arb(1))
_MINUS_ONE = Num(arb(-1))


def _same(g: Num) -> Num:
    return g


class KinkError(ValueError):
    """A value lies too near to where a derivative jumps."""


def _sign(value: Num, margin: float | None = None) -> Num:
    if margin is None:
        margin = NEAR + FAR * value.err
    if value.size < margin:
        raise KinkError(f"{value.v} is nearer than {margin} to a kink")
    if value.v > 0:
        return _ONE
    if value.v < 0:
        return _MINUS_ONE
    raise UnprovenError(f"the sign of {value.v}")


def constant(value: Num) -> Var:
    """Return a number that nothing is pulled back to."""
    var = Var(value)
    var.order = -1
    return var


def greatest(terms: Sequence[Var], *, at_tie: tuple[Num, Num] | None = None) -> Var:
    """Return the greatest, refusing what is near a tie unless it is said what goes back to the two.

    A tie of zeros is no matter: nothing is pulled through those, which come from a ReLU that lets
    nothing back, or from a closed gate.
    """
    best = terms[0]
    for term in terms[1:]:
        difference = term.value - best.value
        if at_tie is not None and difference.is_zero():
            first, second = at_tie
            best = best.scaled(first) + (term - constant(term.value)).scaled(second)
        elif best.value.is_zero() and term.value.is_zero():
            continue
        elif _sign(difference) is _ONE:
            best = term
    return best


def greatest_value(terms: Sequence[Var]) -> Var:
    """Return the greatest, as a number to which nothing goes back: ties do not matter."""
    best = terms[0].value
    for term in terms[1:]:
        best = Num(best.v.max(term.value.v), max(best.err, term.value.err))
    return constant(best)


def total(terms: Iterable[Var]) -> Var:
    """Return the sum, added up from left to right."""
    terms = list(terms)
    if not terms:
        return constant(_ZERO)
    sum_ = terms[0]
    for term in terms[1:]:
        sum_ = sum_ + term
    return sum_


def backward(outputs: Sequence[tuple[Var, Num]]) -> None:
    """Set `grad` of all that the outputs depend on, given a cotangent for each output.

    It must be called once for a tape.
    """
    reached: dict[int, Var] = {}
    stack = [var for var, _ in outputs if var.order >= 0]
    while stack:
        var = stack.pop()
        if var.order not in reached:
            reached[var.order] = var
            stack.extend(parent for parent, _ in var.parents)
    for var, cotangent in outputs:
        var.grad = var.grad + cotangent
    for order in sorted(reached, reverse=True):
        var = reached[order]
        for parent, pull in var.parents:
            parent.grad = parent.grad + pull(var.grad)


def value_of(nested: Any) -> Any:
    """Return the values at the leaves of nested lists of `Var`."""
    if isinstance(nested, list):
        return [value_of(part) for part in nested]
    return nested.value


def grad_of(nested: Any) -> Any:
    """Return the gradients at the leaves of nested lists of `Var`."""
    if isinstance(nested, list):
        return [grad_of(part) for part in nested]
    return nested.grad
