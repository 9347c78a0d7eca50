"""Convolution in two dimensions, with gates on its output maps or its weights.

Also the windows it slides, which pooling slides too: `sliding_windows` and its adjoint
`add_windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]
IntOrPair = int | Sequence[int]


class Conv2dResiduals(NamedTuple):
    """What `conv2d_vjp` needs of the forward pass."""

    x: Array
    weight: Array
    z: Array | None
    on: str
    gates_bias: bool
    has_bias: bool
    ungated: Array | None  # what z multiplied, kept for gates on the outputs only
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


def conv_output_size(
    size: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    r"""Count the places along one axis where a kernel fits.

    .. math:: \Big\lfloor \frac{\text{size} + 2p - d(k-1) - 1}{s} \Big\rfloor + 1

    A kernel of k elements, d apart, spans d(k-1) + 1 of them; its first place is at the very
    start of the padded axis, each next one s further. What is left over at the end is not seen.

    Parameters
    ----------
    size : int
        Length of the axis, at least 1.
    kernel : int
        k, at least 1.
    stride : int, optional
        s, at least 1.
    padding : int, optional
        p, the zeros added at each end, at least 0.
    dilation : int, optional
        d, at least 1.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If a number is out of range, or the kernel spans more than the padded axis.

    Examples
    --------
    >>> conv_output_size(28, 5)
    24
    >>> conv_output_size(32, 3, stride=2, padding=1)
    16
    """
    _check_int("size", size, 1)
    _check_int("kernel", kernel, 1)
    _check_int("stride", stride, 1)
    _check_int("padding", padding, 0)
    _check_int("dilation", dilation, 1)
    span, padded = dilation * (kernel - 1) + 1, size + 2 * padding
    if span > padded:
        raise ValueError(
            f"kernel must span at most the padded input, {padded} (size {size}, padding "
            f"{padding}), got kernel {kernel}, which with dilation {dilation} spans {span}"
        )
    return (padded - span) // stride + 1


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    z: Array | None = None,
    *,
    on: str = "outputs",
    gates_bias: bool = True,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> tuple[Array, Conv2dResiduals]:
    r"""Gated cross-correlation, which deep learning calls a convolution.

    The kernel is not mirrored. With x continued by zeros beyond its border,

    .. math:: (x \star W)_{nohw} = \sum_{c,i,j}
              x_{n,\,c,\;s h + d i - p,\;s w + d j - p}\; W_{ocij}

    where s, p and d (stride, padding, dilation) have a value for each of the two axes. With G
    groups, the maps are cut into G blocks, and outputs of block g see inputs of block g only.

    =======  ==========  ======================  =======================================
    on       gates_bias  y                       shape of z
    =======  ==========  ======================  =======================================
    outputs  True        ((x * W) + b) z         (C_out,) or (N, C_out)
    outputs  False       (x * W) z + b           (C_out,) or (N, C_out)
    weights  either      (x * (W z)) + b         of weight, or (N, ...) before it
    =======  ==========  ======================  =======================================

    The longer shape of z is one draw of the gates for each example.

    The windows of x are laid out as columns, so that the sum is a matrix product: for each
    example and group, (C_out/G, K) @ (K, P) with K = C_in/G kh kw and P = H_out W_out.

    Parameters
    ----------
    x : array, (N, C_in, H, W)
    weight : array, (C_out, C_in/groups, kh, kw)
    bias : array, (C_out,), optional
    z : array, optional
        Gates; none means all 1.
    on : {"outputs", "weights"}, optional
    gates_bias : bool, optional
        Whether gates on the outputs multiply the bias too. Gates on weights never do.
    stride, padding, dilation : int or pair of int, optional
        A pair is (along H, along W).
    groups : int, optional
        A divisor of C_in and of C_out.

    Returns
    -------
    y : array, (N, C_out, H_out, W_out)
        With `conv_output_size` of each axis.
    residuals : Conv2dResiduals

    Raises
    ------
    ValueError
        If the shapes do not fit, or a number is out of range.

    Examples
    --------
    >>> x = np.arange(12.0).reshape(1, 1, 3, 4)
    >>> y, _ = conv2d(x, np.array([[[[1.0, 0.0], [0.0, -1.0]]]]))  # left above minus right below
    >>> y[0, 0]
    array([[-5., -5., -5.],
           [-5., -5., -5.]])
    """
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    dilation = pair("dilation", dilation, 1)
    check_conv(x, weight, bias, z, on, groups)
    out_size = output_sizes(x, weight.shape[2:], stride, padding, dilation)
    n, c_out = x.shape[0], weight.shape[0]

    gated = weight if z is None or on == "outputs" else weight * z
    columns = _columns(x, weight.shape[2:], stride, padding, dilation, groups)
    y = np.matmul(_rows(gated, groups), columns).reshape(n, c_out, *out_size)

    z_map = z[..., None, None] if z is not None and on == "outputs" else None
    b_map = None if bias is None else bias[:, None, None]
    ungated = None
    if b_map is not None and (gates_bias or z_map is None):
        y = y + b_map
    if z_map is not None:
        ungated = y
        y = ungated * z_map
        if b_map is not None and not gates_bias:
            y = y + b_map
    return y, Conv2dResiduals(
        x, weight, z, on, gates_bias, bias is not None, ungated, stride, padding, dilation, groups
    )


def conv2d_vjp(
    dy: Array, residuals: Conv2dResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array | None, Array | None]:
    r"""Pull dy back through `conv2d`.

    With gates on the outputs, :math:`y_{nop} = a_{nop} z_o`, p a place in the map, so that

    .. math:: da_{nop} = dy_{nop}\, z_o, \qquad dz_o = \sum_{n,p} dy_{nop}\, a_{nop} .

    The bias is inside a, :math:`db_o = \sum_{n,p} da_{nop}`, or, where the gates leave it alone,
    outside: :math:`db_o = \sum_{n,p} dy_{nop}`. Without such gates da = dy.

    Apart from the bias a = V X: the kernel's numbers of one map are a row of V, the window at one
    place is a column of X (for each example and group). Hence

    .. math:: dV_{ok} = \sum_n \sum_p da_{nop}\, X_{nkp}, \qquad
              dX_{nkp} = \sum_o V_{ok}\, da_{nop} .

    A number of x appears in X once for each window that it lies in: dx is the sum of dX over those.

    With gates on the weights, V = W z, and :math:`dW = dV\, z`, :math:`dz = dV\, W`. One draw an
    example keeps the n of dV until it has met W or z; else it is summed at once.

    Parameters
    ----------
    dy : array, (N, C_out, H_out, W_out)
    residuals : Conv2dResiduals
    need_dx : bool, optional
        Whether anything wants dx; nothing does in a network's first layer.

    Returns
    -------
    dx, dweight : arrays
        Of the shapes of x and weight; dx is None where it is not needed.
    dbias : array or None
        (C_out,); None where there is no bias.
    dz : array or None
        Of the shape of z; None where there is none.

    Raises
    ------
    ValueError
        If dy does not have the shape of y.
    """
    x, weight, z, on, gates_bias, has_bias, ungated, stride, padding, dilation, groups = residuals
    kernel = weight.shape[2:]
    (n, c_in), c_out = x.shape[:2], weight.shape[0]
    out_size = output_sizes(x, kernel, stride, padding, dilation)
    check_cotangent(dy, (n, c_out, *out_size))

    da, dz = dy, None
    if z is not None and on == "outputs":
        assert ungated is not None
        da = dy * z[..., None, None]
        dz = (dy * ungated).sum(axis=(2, 3) if z.ndim == 2 else (0, 2, 3))
    dbias = (da if gates_bias else dy).sum(axis=(0, 2, 3)) if has_bias else None

    gated = weight if z is None or on == "outputs" else weight * z
    columns = _columns(x, kernel, stride, padding, dilation, groups)
    da_rows = da.reshape(n, groups, c_out // groups, columns.shape[-1])
    dv = np.matmul(da_rows, columns.swapaxes(-1, -2)).reshape(n, *weight.shape)
    dx = None
    if need_dx:
        d_columns = np.matmul(_rows(gated, groups).swapaxes(-1, -2), da_rows)
        d_windows = d_columns.reshape(n, c_in, *kernel, *out_size)
        dx = add_windows(d_windows, x.shape, stride, padding, dilation)

    if z is None or on == "outputs":
        return dx, dv.sum(axis=0), dbias, dz
    if z.ndim == weight.ndim:
        dv = dv.sum(axis=0)
        return dx, dv * z, dbias, dv * weight
    return dx, (dv * z).sum(axis=0), dbias, dv * weight


def pair(name: str, value: IntOrPair, lowest: int) -> Pair:
    """Return (along H, along W) of an int, meant for both, or of two; each at least `lowest`."""
    two = value if isinstance(value, Sequence) else (value, value)
    if len(two) != 2:
        raise ValueError(f"{name} must be an int or a pair of ints, got {value!r}")
    for one in two:
        _check_int(name, one, lowest)
    return int(two[0]), int(two[1])


def output_sizes(
    x: Array, kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Pair:
    """(H_out, W_out): `conv_output_size` of the last two axes of x."""
    h_out, w_out = (
        conv_output_size(size, k, stride=s, padding=p, dilation=d)
        for size, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    return h_out, w_out


def sliding_windows(
    x: Array,
    kernel: Sequence[int],
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    fill: float = 0.0,
) -> Array:
    """Return what a kernel sees at each place: (N, C, H, W) -> (N, C, kh, kw, H_out, W_out).

    Element (n, c, i, j, h, w) is x[n, c, s h + d i - p, s w + d j - p], or `fill` in the padding.
    The result is a view, of x or of its padded copy: it repeats no number in memory, and must not
    be written to.
    """
    if any(padding):
        x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=fill)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    every = sliding_window_view(x, span, axis=(2, 3))
    (s_h, s_w), (d_h, d_w) = stride, dilation
    return every[:, :, ::s_h, ::s_w, ::d_h, ::d_w].transpose(0, 1, 4, 5, 2, 3)


def add_windows(
    d_windows: Array,
    shape: Sequence[int],
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
) -> Array:
    """Pull windows back to x, of the given shape: each number of x adds up what it was seen as.

    The adjoint of `sliding_windows`; what belongs to the padding is dropped. At one place (i, j)
    of the kernel no two windows see the same number, so that the places are added one by one.
    """
    (s_h, s_w), (p_h, p_w), (d_h, d_w) = stride, padding, dilation
    n, c, h, w = shape
    kh, kw, h_out, w_out = d_windows.shape[2:]
    padded = np.zeros((n, c, h + 2 * p_h, w + 2 * p_w), d_windows.dtype)
    for i in range(kh):
        rows = slice(d_h * i, d_h * i + s_h * (h_out - 1) + 1, s_h)
        for j in range(kw):
            cols = slice(d_w * j, d_w * j + s_w * (w_out - 1) + 1, s_w)
            padded[:, :, rows, cols] += d_windows[:, :, i, j]
    return padded[:, :, p_h : p_h + h, p_w : p_w + w]


def check_cotangent(dy: Array, shape: tuple[int, ...]) -> None:
    """Refuse a dy that does not have the shape of the op's result: it would broadcast."""
    if dy.shape != shape:
        raise ValueError(f"dy must have shape {shape}, got {dy.shape}")


def _columns(
    x: Array, kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """Every window as a column: (N, G, K, P)."""
    windows = sliding_windows(x, kernel, stride, padding, dilation)
    n, c_in, kh, kw, h_out, w_out = windows.shape
    return windows.reshape(n, groups, c_in // groups * kh * kw, h_out * w_out)


def _rows(weight: Array, groups: int) -> Array:
    """Every map's kernel as a row: (C_out, ...) -> (G, C_out/G, K), after an N where there is one.

    The order along K is that of `_columns`: input map, row, column.
    """
    *each, c_out, c_in, kh, kw = weight.shape
    return weight.reshape(*each, groups, c_out // groups, c_in * kh * kw)


def _check_int(name: str, value: Any, lowest: int) -> None:
    if type(value) is int and value >= lowest:
        return  # at once: a step asks a hundred times
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < lowest:
        raise ValueError(f"{name} must be an integer of at least {lowest}, got {value!r}")


def check_conv(
    x: Array, weight: Array, bias: Array | None, z: Array | None, on: str, groups: int
) -> None:
    """Refuse arguments of `conv2d` whose shapes do not fit each other."""
    if x.ndim != 4:
        raise ValueError(f"x must have shape (N, C_in, H, W), got {x.shape}")
    if weight.ndim != 4:
        raise ValueError(f"weight must have shape (C_out, C_in/groups, kh, kw), got {weight.shape}")
    _check_int("groups", groups, 1)
    (n, c_in), c_out = x.shape[:2], weight.shape[0]
    if c_in % groups or c_out % groups:
        raise ValueError(f"groups must divide C_in and C_out, {c_in} and {c_out}, got {groups}")
    if weight.shape[1] != c_in // groups:
        raise ValueError(
            f"weight must have shape (C_out, {c_in // groups}, kh, kw) for x of shape {x.shape} "
            f"and {groups} groups, got {weight.shape}"
        )
    if bias is not None and bias.shape != (c_out,):
        raise ValueError(f"bias must have shape {(c_out,)}, got {bias.shape}")
    one_draw = {"outputs": (c_out,), "weights": weight.shape}
    if on not in one_draw:
        raise ValueError(f"on must be one of {sorted(one_draw)}, got {on!r}")
    if z is not None and z.shape not in (one_draw[on], (n, *one_draw[on])):
        raise ValueError(
            f"z must have shape {one_draw[on]} or {(n, *one_draw[on])} for gates on {on}, "
            f"got {z.shape}"
        )
