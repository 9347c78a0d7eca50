"""Scalar twins of the ops on maps: equations and loops, on nested lists (N, C, H, W).

Nothing here imports the package. Numbers may be of any type, as in `naive_network`; those of
`conv2d` may even be arrays, each a row of independent cases, which is how `gradients_at_once`
moves every number of its arguments in two passes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests.naive_network import convert, flat, places

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Shapes of a convolution, and how its kernel walks."""

    n: int
    groups: int
    c_in: int  # of one group
    c_out: int
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    spare: Pair  # what x is longer than the least that the kernel needs

    @property
    def size(self) -> Pair:
        """Of x's maps."""
        along = zip(self.kernel, self.padding, self.dilation, self.spare, strict=True)
        height, width = (max(1, d * (k - 1) + 1 - 2 * p) + spare for k, p, d, spare in along)
        return height, width

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.n, self.groups * self.c_in, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.groups * self.c_out, self.c_in, *self.kernel)

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}


def walk(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> list[list[int]]:
    """Return, for each place of the kernel along one axis, the indices of x that it covers.

    An index below 0 or from `size` on lies in the padding.
    """
    covered, start = [], -padding
    while start + dilation * (kernel - 1) < size + padding:  # the last element still fits
        covered.append([start + dilation * i for i in range(kernel)])
        start += stride
    return covered


def windows(
    image: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> list[list[list[tuple[int, int, Any]]]]:
    """Return for each place (h, w) the elements (i, j, x) that lie inside the image, in order."""
    height, width = len(image), len(image[0])
    down = walk(height, kernel[0], stride[0], padding[0], dilation[0])
    across = walk(width, kernel[1], stride[1], padding[1], dilation[1])
    return [
        [
            [
                (i, j, image[row][column])
                for i, row in enumerate(rows)
                for j, column in enumerate(columns)
                if 0 <= row < height and 0 <= column < width
            ]
            for columns in across
        ]
        for rows in down
    ]


def conv2d(
    x: Any, weight: Any, bias: Any = None, z: Any = None, *, on: str = "outputs",
    per_example: bool = False, gates_bias: bool = True, stride: Pair = (1, 1),
    padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1,
) -> Any:  # fmt: skip
    """y_nohw = sum_cij x W_ocij gate + b_o, the gate looked up at the single weight."""
    kernel = len(weight[0][0]), len(weight[0][0][0])
    c_in, c_out = len(x[0]), len(weight)

    def gate(n: int, *place: int) -> Any:
        """Of weight (o, c, i, j), or, given o alone, of a whole map."""
        if z is None:
            return 1
        found = z[n] if per_example else z
        for index in place if on == "weights" else place[:1]:
            found = found[index]
        return found

    y = []
    for n in range(len(x)):
        seen = [windows(image, kernel, stride, padding, dilation) for image in x[n]]
        maps = []
        for o in range(c_out):
            group = o // (c_out // groups)
            offset = 0
            if bias is not None:
                offset = bias[o] * (gate(n, o) if on == "outputs" and gates_bias else 1)
            image = [[offset for _ in row] for row in seen[0]]
            for c in range(c_in // groups):
                for h, row in enumerate(seen[group * (c_in // groups) + c]):
                    for w, window in enumerate(row):
                        for i, j, value in window:
                            term = value * weight[o][c][i][j] * gate(n, o, c, i, j)
                            image[h][w] = image[h][w] + term
            maps.append(image)
        y.append(maps)
    return y


def max_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Return the greatest element of each window, those of the padding left out."""
    return _each_window(lambda w: max(v for _, _, v in w), x, kernel, stride, padding)


def avg_pool2d(x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
    """Return the mean over each window, its padding counted as zeros."""
    count = kernel[0] * kernel[1]
    return _each_window(lambda w: sum(v for _, _, v in w) / count, x, kernel, stride, padding)


def _each_window(f: Callable[[Any], Any], x: Any, *geometry: Pair) -> Any:
    return [
        [[[f(w) for w in row] for row in windows(image, *geometry)] for image in maps] for maps in x
    ]


def batch_norm(
    x: Any, weight: Any, bias: Any, eps: Any, m: Any, mean: Any = None, var: Any = None
) -> Any:
    """w (x - mean) / sqrt(var + eps) + b, with the mean and variance of x unless they are given.

    x is (N, C) or (N, C, H, W); a channel is everything with the same second index.
    """
    y: list[list[Any]] = [[None] * len(example) for example in x]
    for c in range(len(weight)):
        if mean is None:
            mu, v, _ = moments(x, c)
        else:
            mu, v = mean[c], var[c]
        root = m.sqrt(v + eps)
        for n, example in enumerate(x):
            y[n][c] = convert(
                example[c], lambda a, c=c, mu=mu, root=root: weight[c] * (a - mu) / root + bias[c]
            )
    return y


def moments(x: Any, c: int) -> tuple[Any, Any, int]:
    """Mean and biased variance of channel c, and how many values they are taken over."""
    values = [value for example in x for value in flat(example[c])]
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values), len(values)


def dot(a: Any, b: Any) -> Any:
    """Sum of the products of two nestings of one form."""
    return sum(p * q for p, q in zip(flat(a), flat(b), strict=True))


def gradients_at_once(f: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, list[Any]]:
    """Central differences of f in each number of each argument, with h = 1, as flat lists.

    Exact where f is linear in each number alone and the numbers are ints (of less than 64 bits).
    Number k of them all becomes an array: itself everywhere, and h more in case k.
    """
    count = sum(len(places(value)) for value in arguments.values())
    ends = []
    for h in (1, -1):
        moves = iter(h * np.eye(count, dtype=np.int64))
        ends.append(f(**{
            name: convert(value, lambda v, moves=moves: v + next(moves))
            for name, value in arguments.items()
        }))  # fmt: skip
    slopes = np.broadcast_to((ends[0] - ends[1]) / 2, count)  # f may depend on none of them
    found = iter(slopes.tolist())
    return {name: [next(found) for _ in places(value)] for name, value in arguments.items()}
