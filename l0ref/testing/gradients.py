r"""Check vector-Jacobian products against derivatives that come with an error estimate.

For a function y = f(x) with Jacobian J, a backward pass returns J^T dy. Whatever it is made of,

.. math:: \langle J^T dy, v\rangle = \frac{d}{dt} \langle dy, f(x + t v)\rangle \Big|_{t=0}

for every cotangent dy and direction v. The right-hand side is measured here: central differences
at h, h/2, h/4, ..., each of which is off by a series in h^2, combined so that ever more terms of
the series cancel (Richardson 1911). How much the combinations still differ says how far off they
are, and that, with what rounding does to the backward pass itself, is the tolerance: it comes with
the measurement, and nobody has to choose one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, log10
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Float64Array = NDArray[np.float64]
Names = Hashable
Arguments = Sequence[Any] | Mapping[str, Any]

_FIRST_STEP = 0.25  # of a tangent, which is as long as `_scale` says; too long a step is halved
_MOST_HALVINGS = 60
_SAFETY = 10.0  # times the estimated error of a derivative; a wrong gradient is off by far more
_ROUNDINGS = 16.0  # times what one rounding of each input does to the gradient
_TRIALS = 8  # gradients that this is estimated from
_LEAST_POWER = 1e-3  # an error estimate above this part of the derivative's size shows nothing
_MOST_NOISE = 0.1  # nor does a gradient that rounding its inputs moves by this part of its size
_COMPLEX_STEP = 1e-100


class NotSmoothError(ArithmeticError):
    """The function has no derivative to compare with: a kink, a jump, or noise.

    This is no verdict on the gradient. Choose another point, as the strategies of this package do
    with their margins, or let `check_vjp` leave such directions out with ``kinks="skip"``.
    """


class VJPCheck(NamedTuple):
    """What `check_vjp` has found right."""

    n_checks: int  # directions and coordinates compared
    n_skipped: int  # of them, left out at kinks
    worst: float  # the largest error, relative to what was allowed: at most 1
    allowed: float  # the largest error that was allowed, relative to the derivative's size


class Derivative(NamedTuple):
    """A derivative along a line, and how far off it may be."""

    value: float
    error: float
    jump: float  # derivative ahead minus derivative behind: not 0 at a kink
    size: float  # what a derivative of this function would be by its size alone


def check_vjp(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    args: Arguments,
    *,
    wrt: Sequence[Names] | None = None,
    dy: Any = None,
    directions: int = 3,
    coordinates: int = 20,
    kinks: Literal["raise", "skip"] = "raise",
    seed: int | np.random.Generator = 0,
) -> VJPCheck:
    r"""Check that vjp pulls cotangents back through f, and say where it does not.

    For each argument, ``vjp(dy, ...)`` is compared with the derivative of
    :math:`\langle dy, f\rangle` along random directions and along single coordinates, with dy drawn
    at random. Differences are taken in float64 wherever f accepts it, also for float32 arguments;
    where f accepts complex numbers and this agrees with the differences, the derivative is that of
    a complex step, exact to rounding. The tolerance is the estimated error of the derivative, plus
    what one rounding of each input does to the gradient.

    Parameters
    ----------
    f : callable
        ``f(*args)``, or ``f(**args)`` for a mapping. Returns an array, or arrays in tuples, lists
        and dicts.
    vjp : callable
        ``vjp(dy, *args)`` or ``vjp(dy, **args)``, with dy as f's result. Returns the gradients in
        the order of `wrt`: a sequence, a mapping by name, or, for one argument, an array.
    args : sequence or mapping
        The arguments, of any kind. Arrays are NumPy's.
    wrt : sequence of int or str, optional
        Which arguments to differentiate, by place or name. By default every array of floats.
    dy : optional
        The cotangent, as f's result; by default standard normal.
    directions : int, optional
        Random directions for each argument.
    coordinates : int, optional
        At most so many coordinates of each argument, chosen at random if it has more. A wrong one
        among the others is seen by the directions, and then searched for.
    kinks : {"raise", "skip"}, optional
        What to do where f has no derivative.
    seed : int or numpy.random.Generator, optional

    Returns
    -------
    VJPCheck
        How many comparisons there were, and how close they came.

    Raises
    ------
    AssertionError
        If a gradient is wrong: naming the argument and the coordinate, with both numbers. Also if
        it has another shape or dtype than its argument, is not finite, if a second call returns
        something else, or if an input was changed in place.
    NotSmoothError
        If f has a kink at this point, or differences of f do not settle.
    ValueError
        If an argument of `check_vjp` itself is not usable.

    Examples
    --------
    >>> import numpy as np
    >>> from l0ref.testing import check_vjp
    >>> x, weight = np.array([[0.5, -1.0]]), np.array([[1.0, 2.0, 0.5], [0.25, -1.0, 3.0]])
    >>> def dense(x, weight):
    ...     return x @ weight
    >>> check_vjp(dense, lambda dy, x, weight: (dy @ weight.T, x.T @ dy), [x, weight]).n_checks
    14
    >>> check_vjp(dense, lambda dy, x, weight: (dy @ weight.T, 2 * x.T @ dy), [x, weight])
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: the gradient of args[1] is wrong
      at [1, 2]: vjp gives -1.280845301, differences of f give -0.6404226504 +- ...
      6 of the 6 coordinates compared are wrong, of 6
      each is 2 times what is right
    right: args[0]
    """
    if kinks not in ("raise", "skip"):
        raise ValueError(f"kinks must be 'raise' or 'skip', got {kinks!r}")
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions}")
    rng = np.random.default_rng(seed)
    point = _Point.of(args, wrt)
    y = point.call(f)
    cotangent = _random_like(y, rng) if dy is None else dy
    _check_cotangent(cotangent, y)
    backward = _Backward(vjp, point, cotangent, rng)

    scalar = _Scalar(f, point, cotangent, rng)
    checks, skipped, worst, allowed, faults, right = 0, 0, 0.0, 0.0, [], []
    not_smooth: NotSmoothError | None = None
    for name in point.wrt:
        size = point.arrays[name].size
        found: list[_Comparison] = []
        for tangent in _tangents(point.arrays[name], directions, coordinates, rng):
            try:
                found.append(_compare(scalar, backward, name, tangent))
            except NotSmoothError as error:
                if kinks == "raise":
                    raise
                not_smooth, skipped = error, skipped + 1
        if not found and size:
            raise NotSmoothError(f"nothing of {point.title(name)} could be checked") from not_smooth
        checks += len(found)
        if any(comparison.ratio > 1 for comparison in found):
            faults.append(_fault(point, scalar, backward, name, found))
        else:
            right.append(point.title(name))
            worst = max([worst, *(comparison.ratio for comparison in found)])
            allowed = max([allowed, *(comparison.relative for comparison in found)])
    if faults:
        if right:
            faults.append(f"right: {', '.join(right)}")
        raise AssertionError("\n".join(faults))
    return VJPCheck(checks, skipped, worst, allowed)


def numerical_gradient(f: Callable[[Array], Any], x: ArrayLike) -> tuple[Array, Array]:
    r"""Differentiate a function of an array that returns one number.

    By differences in float64 with Richardson's extrapolation, coordinate by coordinate.

    Parameters
    ----------
    f : callable
    x : array of floats

    Returns
    -------
    gradient, error : arrays of float64
        Of the shape of x. The error is an estimate, a careful one.

    Raises
    ------
    NotSmoothError
        If f has a kink at x, or its differences do not settle.

    Examples
    --------
    >>> from l0ref import HardConcrete
    >>> gradient, error = numerical_gradient(lambda a: HardConcrete(a).mean().sum(), [-1.0, 0.5])
    >>> gradient.round(6)
    array([0.184958, 0.209692])
    >>> bool((error < 1e-9).all())
    True
    """
    array = np.asarray(x, np.float64)
    point = _Point.of([array], [0])
    shape = np.shape(point.call(f))
    if shape != ():
        raise ValueError(f"f must return one number, got shape {shape}")
    scalar = _Scalar(f, point, np.float64(1.0), np.random.default_rng(0))
    gradient, error = np.empty(array.shape), np.empty(array.shape)
    for index in np.ndindex(array.shape):
        tangent = _unit(array, index)
        derivative = scalar.derivative(0, tangent)
        _check_smooth(derivative, derivative.jump, point.title(0))
        step = tangent[index]
        gradient[index], error[index] = derivative.value / step, _SAFETY * derivative.error / step
    return gradient, error


# --- the point, and calls there ---


@dataclass
class _Point:
    """The arguments of f, which of them are differentiated, and how they are passed."""

    args: dict[Names, Any]
    named: bool
    wrt: tuple[Names, ...]

    @classmethod
    def of(cls, args: Arguments, wrt: Sequence[Names] | None) -> _Point:
        named = isinstance(args, Mapping)
        items: Any = args.items() if isinstance(args, Mapping) else enumerate(args)
        values: dict[Names, Any] = dict(items)
        if wrt is None:
            wrt = [name for name, value in values.items() if _is_float_array(value)]
        if not wrt:
            raise ValueError("wrt must name an argument; no argument is an array of floats")
        for name in wrt:
            if name not in values:
                raise ValueError(f"wrt must be among {list(values)}, got {name!r}")
            try:
                values[name] = np.asarray(values[name])
            except (TypeError, ValueError) as error:
                raise ValueError(f"args[{name!r}] must be an array of floats") from error
            if not _is_float_array(values[name]):
                raise ValueError(
                    f"args[{name!r}] must be an array of floats, got {values[name].dtype}"
                )
        return cls(values, named, tuple(wrt))

    @property
    def arrays(self) -> dict[Names, Array]:
        return {name: self.args[name] for name in self.wrt}

    def title(self, name: Names) -> str:
        return f"args[{name!r}]"

    def call(self, function: Callable[..., Any], *before: Any) -> Any:
        return self.call_with(function, self.args, *before)

    def call_with(
        self, function: Callable[..., Any], values: Mapping[Names, Any], *before: Any
    ) -> Any:
        """Call with copies of these arguments, and see that they are left as they were."""
        given = {name: _copied(value) for name, value in values.items()}
        first = tuple(_mapped(_copied, one) for one in before)
        if self.named:
            result = function(*first, **{str(name): value for name, value in given.items()})
        else:
            result = function(*first, *given.values())
        for name, value in given.items():
            if isinstance(value, np.ndarray) and not _same(value, values[name]):
                raise AssertionError(f"{_name_of(function)} changed {self.title(name)} in place")
        for one, original in zip(first, before, strict=True):
            for (path, changed), (_, kept) in zip(_leaves(one), _leaves(original), strict=True):
                if not _same(changed, kept):
                    raise AssertionError(f"{_name_of(function)} changed dy{path} in place")
        return result


class _Scalar:
    """The function <dy, f> of the arguments, and its derivatives."""

    def __init__(
        self, f: Callable[..., Any], point: _Point, dy: Any, rng: np.random.Generator
    ) -> None:
        self.f, self.point = f, point
        self.dy = _flat(dy)
        self.wide = dict(point.args)
        for name, value in self.wide.items():
            if _is_float_array(value):
                self.wide[name] = value.astype(np.float64)
        try:
            start = self._values(self.wide)
        except (TypeError, ValueError, RuntimeError):  # frameworks say it in each of these ways
            self.wide = dict(point.args)
            start = self._values(self.wide)
        self.start, self.eps = start
        if not np.isfinite(self.start).all():
            raise ValueError("f must be finite at args, got a result with nan or inf")
        again, _ = self._values(self.wide)
        _check_repeats([("", self.start)], [("", again)], "f", self.eps)
        self.size = float(np.abs(self.dy) @ np.abs(self.start))
        self.noise = self._noise(rng)

    def _values(self, values: Mapping[Names, Any]) -> tuple[Float64Array, float]:
        y = self.point.call_with(self.f, values)
        return _flat(y), max((float(np.finfo(leaf.dtype).eps) for _, leaf in _leaves(y)), default=0)

    def _noise(self, rng: np.random.Generator) -> float:
        """Return what one rounding of the inputs does to <dy, f>: steps are rounded like that."""
        moves = []
        for _ in range(_TRIALS):
            nudged = {name: _nudged(self.wide[name], rng) for name in self.point.wrt}
            values, _ = self._values({**self.wide, **nudged})
            moves.append(float(self.dy @ (values - self.start)))
        return float(np.sqrt(np.mean(np.square(moves))))

    def _moved(self, name: Names, tangent: Float64Array, step: float) -> Float64Array | None:
        """Return f a step away, or None where it is not defined."""
        array = self.wide[name]
        moved = (array.astype(np.float64) + step * tangent).astype(array.dtype)
        try:
            with np.errstate(all="ignore"):
                values, _ = self._values({**self.wide, name: moved})
        except (ValueError, ArithmeticError):
            return None
        return values if values.shape == self.start.shape and np.isfinite(values).all() else None

    def derivative(self, name: Names, tangent: Float64Array) -> Derivative:
        """Differentiate along a line; with an infinite error where differences do not settle."""
        straight = _Extrapolation(first_power=2)
        bent = _Extrapolation(first_power=1)
        step = _FIRST_STEP
        for _ in range(_MOST_HALVINGS):
            ahead = self._moved(name, tangent, step)
            behind = self._moved(name, tangent, -step) if ahead is not None else None
            if ahead is not None and behind is not None:
                size = float(np.abs(self.dy) @ (np.abs(ahead) + np.abs(behind)))
                rounding = (self.eps * size + self.noise) / step
                straight.add(float(self.dy @ (ahead - behind)) / (2 * step), rounding)
                bends = (ahead - self.start) + (behind - self.start)
                bent.add(float(self.dy @ bends) / step, 2 * rounding)
                if rounding >= straight.error:
                    break
            step /= 2
        significant = abs(bent.value) > _SAFETY * bent.error
        derivative = Derivative(
            straight.value,
            straight.error,
            bent.value if significant else 0.0,
            max(self.size, abs(straight.value)),
        )
        return self._refined(derivative, name, tangent)

    def _refined(self, derivative: Derivative, name: Names, tangent: Float64Array) -> Derivative:
        """Replace differences by a complex step where f takes one and both agree."""
        settled = _SAFETY * derivative.error <= _LEAST_POWER * derivative.size
        if self.eps > np.finfo(np.float64).eps or not settled:
            return derivative
        moved = self.wide[name] + 1j * _COMPLEX_STEP * tangent
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("error")  # such as a cast that drops the imaginary part
                y = self.point.call_with(self.f, {**self.wide, name: moved})
                slopes = np.concatenate([np.ravel(leaf.imag) for _, leaf in _leaves(y)])
        except Exception:  # f need not know complex numbers, and says so as it likes
            return derivative
        slopes = slopes / _COMPLEX_STEP
        value = float(self.dy @ slopes) if slopes.shape == self.dy.shape else inf
        if not abs(value - derivative.value) <= _SAFETY * derivative.error:
            return derivative  # f is not analytic in complex numbers: abs, conj, a comparison
        rounding = self.eps * (float(np.abs(self.dy) @ np.abs(slopes)) + self.size) + self.noise
        return derivative._replace(value=value, error=min(derivative.error, rounding))


class _Extrapolation:
    """Richardson's table for values at steps h, h/2, h/4, ...; keeps the entry it trusts most."""

    def __init__(self, first_power: int) -> None:
        self.first_power = first_power
        self.row: list[float] = []
        self.value, self.error = 0.0, inf

    def add(self, value: float, rounding: float) -> None:
        """Add the value at the next step, which rounding may have moved by so much."""
        row = [value]
        for k, before in enumerate(self.row):
            factor = 2.0 ** (self.first_power + 2 * k)
            row.append(row[k] + (row[k] - before) / (factor - 1))
            # The neighbours in the table, not only the closest: two may agree by chance.
            error = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - before))
            if k + 1 < len(self.row):
                error = max(error, abs(row[k + 1] - self.row[k + 1]))
                if error + 2 * rounding < self.error:
                    self.value, self.error = row[k + 1], error + 2 * rounding
        self.row = row


class _Backward:
    """The gradients that vjp returns, and how far rounding moves them."""

    def __init__(
        self, vjp: Callable[..., Any], point: _Point, dy: Any, rng: np.random.Generator
    ) -> None:
        self.point = point
        self.gradients = self._checked(point.call(vjp, dy))
        again = self._checked(point.call(vjp, dy))
        _check_repeats(
            [(point.title(name), g) for name, g in self.gradients.items()],
            [(point.title(name), g) for name, g in again.items()],
            "vjp",
            max(float(np.finfo(gradient.dtype).eps) for gradient in self.gradients.values()),
        )
        self.moves: list[dict[Names, Float64Array]] = []
        for _ in range(_TRIALS):
            args = {**point.args, **{name: _nudged(a, rng) for name, a in point.arrays.items()}}
            nudged_dy = _mapped(lambda leaf: _nudged(leaf, rng), dy)
            moved = self._arrays(point.call_with(vjp, args, nudged_dy))
            self.moves.append(
                {name: _wide(moved[name]) - _wide(self.gradients[name]) for name in point.wrt}
            )

    def _arrays(self, result: Any) -> dict[Names, Array]:
        wrt = self.point.wrt
        if isinstance(result, Mapping):
            missing = [name for name in wrt if name not in result]
            if missing:
                raise AssertionError(f"vjp returned no gradient of {missing}, but {list(result)}")
            found = [result[name] for name in wrt]
        elif isinstance(result, list | tuple):
            found = list(result)
        else:
            found = [result]
        if len(found) != len(wrt):
            raise AssertionError(
                f"vjp must return {len(wrt)} gradients, of {[self.point.title(n) for n in wrt]}; "
                f"it returned {len(found)}"
            )
        return {name: np.asarray(gradient) for name, gradient in zip(wrt, found, strict=True)}

    def _checked(self, result: Any) -> dict[Names, Array]:
        gradients = self._arrays(result)
        for name, gradient in gradients.items():
            array, title = self.point.arrays[name], self.point.title(name)
            if gradient.dtype == object:
                raise AssertionError(f"the gradient of {title} is no array: {gradient}")
            if gradient.shape != array.shape:
                raise AssertionError(
                    f"the gradient of {title} has shape {gradient.shape}, "
                    f"the argument {array.shape}"
                )
            if gradient.dtype != array.dtype:
                raise AssertionError(
                    f"the gradient of {title} is of {gradient.dtype}, the argument of {array.dtype}"
                )
            bad = np.argwhere(~np.isfinite(gradient))
            if len(bad):
                index = tuple(int(i) for i in bad[0])
                raise AssertionError(
                    f"the gradient of {title} is {gradient[index]} at {list(index)}, "
                    f"and not finite in {len(bad)} of {gradient.size} places"
                )
        return gradients

    def along(self, name: Names, tangent: Float64Array, size: float) -> tuple[float, float]:
        """Return <gradient, tangent>, and how far rounding moves it, f being of that size."""
        gradient = _wide(self.gradients[name])
        moves = [float((move[name] * tangent).sum()) for move in self.moves]
        typical = float(np.sqrt(np.mean(np.square(moves))))
        # Few moves may be small by chance. And 1 - tanh(x)^2 is off by eps where it is 1e-3 itself,
        # whatever x does: backward passes round as f does, relative to the size of f.
        eps = float(np.finfo(self.gradients[name].dtype).eps)
        floor = eps * (self.size(name, tangent) + size)
        return float((gradient * tangent).sum()), _ROUNDINGS * (typical + floor)

    def size(self, name: Names, tangent: Float64Array) -> float:
        """Return how large <gradient, tangent> may be, by the size of both."""
        largest = float(np.abs(self.gradients[name]).max(initial=0.0))
        return largest * float(np.sqrt(np.square(tangent).sum()))


# --- comparing ---


class _Comparison(NamedTuple):
    tangent: Float64Array
    got: float
    right: float
    error: float  # of `right`
    allowed: float
    size: float

    @property
    def ratio(self) -> float:
        difference = abs(self.got - self.right)
        return difference / self.allowed if self.allowed else (inf if difference else 0.0)

    @property
    def relative(self) -> float:
        return self.allowed / self.size if self.size else 0.0


def _compare(
    scalar: _Scalar, backward: _Backward, name: Names, tangent: Float64Array
) -> _Comparison:
    derivative = scalar.derivative(name, tangent)
    got, rounding = backward.along(name, tangent, scalar.size)
    allowed = _SAFETY * derivative.error + rounding
    title = scalar.point.title(name)
    if not abs(got - derivative.value) <= allowed:
        # Steps that are no powers of two apart from the first ones: a second opinion.
        other = scalar.derivative(name, 0.7 * tangent)
        disagreement = abs(other.value / 0.7 - derivative.value)
        derivative = derivative._replace(error=max(derivative.error, disagreement))
        allowed = _SAFETY * derivative.error + rounding
    if not abs(got - derivative.value) <= allowed:
        _check_smooth(derivative, got - derivative.value, title)
    elif not _SAFETY * derivative.error <= _LEAST_POWER * max(derivative.size, abs(got)):
        _check_smooth(derivative, 0.0, title)
    elif not rounding <= _MOST_NOISE * max(derivative.size, backward.size(name, tangent)):
        raise NotSmoothError(
            f"rounding the inputs moves the gradient of {title} by {rounding / _ROUNDINGS:.2g}: "
            "f has a kink here, or is too steep to be checked in this precision"
        )
    size = max(derivative.size, abs(got))
    return _Comparison(tangent, got, derivative.value, derivative.error, allowed, size)


def _check_smooth(derivative: Derivative, difference: float, title: str) -> None:
    """Raise if the derivative jumps, by enough to explain the difference, or is not known."""
    value, error, jump, size = derivative
    if not _SAFETY * error <= _LEAST_POWER * max(size, abs(value + difference)):
        raise NotSmoothError(
            f"differences of f along {title} do not settle: {value:.6g} +- {error:.2g}; "
            "f jumps here, has a kink close by, or is noisy"
        )
    if jump and abs(jump) >= 0.01 * abs(difference):
        raise NotSmoothError(
            f"f has a kink here: along {title} its derivative is {value - jump / 2:.6g} behind the "
            f"point and {value + jump / 2:.6g} ahead of it; the gradient is a convention"
        )


def _fault(
    point: _Point, scalar: _Scalar, backward: _Backward, name: Names, found: list[_Comparison]
) -> str:
    """Say what is wrong with a gradient, and where."""
    array = point.arrays[name]
    single = [one for one in found if np.count_nonzero(one.tangent) == 1]
    wrong = [one for one in single if one.ratio > 1]
    lines = [f"the gradient of {point.title(name)} is wrong"]
    if not wrong:
        worst = max(found, key=lambda one: one.ratio)
        worst = _searched(scalar, backward, name, worst)
        if np.count_nonzero(worst.tangent) > 1:
            lines.append(
                f"  along a random direction: vjp gives {worst.got:.10g}, differences of f give "
                f"{worst.right:.10g} +- {worst.error:.1g} (allowed {worst.allowed:.1g})"
            )
            return "\n".join(lines)
        wrong = [worst]
    one = max(wrong, key=lambda one: abs(one.got - one.right))
    index = tuple(int(i) for i in np.argwhere(one.tangent)[0])
    step = one.tangent[index]
    lines.append(
        f"  at {list(index)}: vjp gives {one.got / step:.10g}, differences of f give "
        f"{one.right / step:.10g} +- {one.error / abs(step):.1g} "
        f"(allowed {one.allowed / abs(step):.1g})"
    )
    if single:
        lines.append(
            f"  {len(wrong)} of the {len(single)} coordinates compared are wrong, of {array.size}"
        )
    lines += _factor(wrong)
    return "\n".join(lines)


def _factor(wrong: list[_Comparison]) -> list[str]:
    """Say by what factor gradients are wrong, if it is one for all, to the digits that are known.

    Only of wrong ones: what is right is 1 times what is right, whatever is wrong elsewhere.
    """
    known = [one for one in wrong if one.right]
    if len(wrong) < 2 or len(known) < len(wrong):
        return []
    ratios = np.array([one.got / one.right for one in known])
    rooms = np.array([one.allowed / abs(one.right) for one in known])
    factor = float(ratios[np.argmin(rooms)])
    if not (np.abs(ratios - factor) <= np.maximum(rooms, 1e-3 * abs(factor - 1))).all():
        return []
    # as many digits as show three of the difference from 1
    digits = 6 if factor == 1 else max(6, 3 - floor(log10(abs(factor - 1))))
    return [f"  each is {factor:.{min(digits, 16)}g} times what is right"]


def _searched(scalar: _Scalar, backward: _Backward, name: Names, wrong: _Comparison) -> _Comparison:
    """Halve a direction, keeping the half that is more wrong, until one coordinate is left.

    Both sides are linear in the direction, so one half at least has half the error.
    """
    while np.count_nonzero(wrong.tangent) > 1:
        places = np.flatnonzero(wrong.tangent)
        halves = []
        for part in (places[: len(places) // 2], places[len(places) // 2 :]):
            tangent = np.zeros(wrong.tangent.shape)
            tangent.flat[part] = wrong.tangent.flat[part]
            try:
                halves.append(_compare(scalar, backward, name, tangent))
            except NotSmoothError:
                continue
        halves = [half for half in halves if half.ratio > 1]
        if not halves:
            break
        wrong = max(halves, key=lambda half: abs(half.got - half.right))
    return wrong


def _tangents(
    array: Array, directions: int, coordinates: int, rng: np.random.Generator
) -> Iterator[Float64Array]:
    if not array.size:
        return
    if array.size > 1:
        for _ in range(directions):
            yield _scale(array) * rng.normal(size=array.shape)
    places = rng.permutation(array.size)[:coordinates]
    for place in np.sort(places):
        yield _unit(array, np.unravel_index(int(place), array.shape))


def _unit(array: Array, index: tuple[Any, ...]) -> Float64Array:
    tangent = np.zeros(array.shape)
    tangent[index] = _scale(array)
    return tangent


def _scale(array: Array) -> float:
    """Return how far one goes in an array: as far as its elements are from 0, and at least 1."""
    return max(1.0, float(np.sqrt(np.mean(np.square(_wide(array))))))


# --- arrays, and trees of them ---


def _is_float_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)


def _wide(array: Array) -> Float64Array:
    return np.asarray(array, np.float64)


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind in "fc")


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "the function")


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    if isinstance(tree, Mapping):
        for key, branch in tree.items():
            yield from _leaves(branch, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for i, branch in enumerate(tree):
            yield from _leaves(branch, f"{path}[{i}]")
    else:
        yield path, np.asarray(tree)


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _mapped(function, branch) for key, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return [_mapped(function, branch) for branch in tree]
    return function(np.asarray(tree))


def _flat(tree: Any) -> Float64Array:
    leaves = list(_leaves(tree))
    for path, leaf in leaves:
        if not np.issubdtype(leaf.dtype, np.floating):
            raise ValueError(f"f must return arrays of floats, got {leaf.dtype} at y{path}")
    return np.concatenate([np.ravel(_wide(leaf)) for _, leaf in leaves] or [np.zeros(0)])


def _random_like(y: Any, rng: np.random.Generator) -> Any:
    return _mapped(lambda leaf: np.asarray(rng.normal(size=leaf.shape)).astype(leaf.dtype), y)


def _check_cotangent(dy: Any, y: Any) -> None:
    shapes = [[(path, leaf.shape) for path, leaf in _leaves(tree)] for tree in (dy, y)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"dy must have the shapes of f's result, {shapes[1]}, got {shapes[0]}")


def _check_repeats(
    first: list[tuple[str, Array]], second: list[tuple[str, Array]], who: str, eps: float
) -> None:
    """See that two calls agree but for the order of sums, which threads may change."""
    for (title, a), (_, b) in zip(first, second, strict=True):
        if not a.size:
            continue
        size = float(np.abs(a).max(initial=0.0))
        difference = float(np.abs(_wide(a) - _wide(b)).max(initial=0.0))
        if difference > np.sqrt(eps) * size:
            raise AssertionError(
                f"a second call of {who} with the same arguments returned something else"
                f"{' for ' + title if title else ''}, off by {difference:.3g}: does it draw noise, "
                "or add to what an earlier call left behind?"
            )


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    """Move a random half of the elements to the next number towards 0, which stays in (0, 1)."""
    moved = np.where(rng.random(array.shape) < 0.5, np.nextafter(array, array.dtype.type(0)), array)
    return np.asarray(moved, array.dtype)
