"""A target in plain NumPy: the formulas, a line or two each, forward and derivative.

``l0ref check l0ref/oracle/examples/numpy_functions.py``

Each function has a name and arguments of `l0ref.oracle.interface`; what is not here is reported as
not implemented. Nothing of l0ref is used.
"""

import math

import numpy as np


def sigmoid(t):
    """Without overflow, and accurate in both tails."""
    small = np.exp(-np.abs(t))
    return np.where(t >= 0, 1 / (1 + small), small / (1 + small))


def log_sigmoid(t):
    return np.minimum(t, 0) - np.log1p(np.exp(-np.abs(t)))


def clip(s_bar):
    return np.clip(s_bar, 0, 1)


def require(beta, gamma, zeta):
    """Refuse hyperparameters with which there is no hard concrete gate."""
    if not (beta > 0 and gamma < 0 and zeta > 1):
        raise ValueError(
            f"beta > 0, gamma < 0 and zeta > 1 are needed, got {beta}, {gamma}, {zeta}"
        )


# --- the law of one gate ---


def _log_odds(log_alpha, beta, gamma, zeta):
    require(beta, gamma, zeta)
    return log_alpha - beta * math.log(-gamma / zeta)  # Eq. 12


def prob_active(log_alpha, *, beta, gamma, zeta):
    return sigmoid(_log_odds(log_alpha, beta, gamma, zeta))


def log_prob_active(log_alpha, *, beta, gamma, zeta):
    return log_sigmoid(_log_odds(log_alpha, beta, gamma, zeta))


def prob_active_grad(log_alpha, *, beta, gamma, zeta):
    t = _log_odds(log_alpha, beta, gamma, zeta)
    return sigmoid(t) * sigmoid(-t)


def _logit_cdf(x, log_alpha, beta, gamma, zeta):
    require(beta, gamma, zeta)
    inside = clip(x)
    return beta * (np.log(inside - gamma) - np.log(zeta - inside)) - log_alpha


def cdf(x, log_alpha, *, beta, gamma, zeta):
    value = sigmoid(_logit_cdf(x, log_alpha, beta, gamma, zeta))
    return np.where(x < 0, 0 * value, np.where(x >= 1, 0 * value + 1, value))


def sf(x, log_alpha, *, beta, gamma, zeta):
    value = sigmoid(-_logit_cdf(x, log_alpha, beta, gamma, zeta))
    return np.where(x < 0, 0 * value + 1, np.where(x >= 1, 0 * value, value))


def logpdf(x, log_alpha, *, beta, gamma, zeta):
    t = _logit_cdf(x, log_alpha, beta, gamma, zeta)
    inside = clip(x)
    log_slope = math.log(beta * (zeta - gamma)) - np.log(inside - gamma) - np.log(zeta - inside)
    value = log_sigmoid(t) + log_sigmoid(-t) + log_slope
    return np.where((x < 0) | (x > 1), -np.inf, value).astype(value.dtype)


def pdf(x, log_alpha, *, beta, gamma, zeta):
    t = _logit_cdf(x, log_alpha, beta, gamma, zeta)
    inside = clip(x)
    slope = beta * (zeta - gamma) / ((inside - gamma) * (zeta - inside))
    value = sigmoid(t) * sigmoid(-t) * slope
    return np.where((x < 0) | (x > 1), 0 * value, value)


def _concrete(log_alpha, u, beta, gamma, zeta):
    require(beta, gamma, zeta)
    return sigmoid((np.log(u) - np.log1p(-u) + log_alpha) / beta)  # Eq. 10


def sample(log_alpha, u, *, beta, gamma, zeta):
    return clip(_concrete(log_alpha, u, beta, gamma, zeta) * (zeta - gamma) + gamma)  # Eq. 11


def ppf(q, log_alpha, *, beta, gamma, zeta):
    return sample(log_alpha, q, beta=beta, gamma=gamma, zeta=zeta)


def sample_partials(log_alpha, u, *, beta, gamma, zeta):
    s = _concrete(log_alpha, u, beta, gamma, zeta)
    s_bar = s * (zeta - gamma) + gamma
    inside = np.where(np.isnan(s), s, (s_bar > 0) & (s_bar < 1)).astype(s.dtype)
    slope = inside * (zeta - gamma) * s * (1 - s) / beta
    t = (np.log(u) - np.log1p(-u) + log_alpha) / beta
    d_beta = -slope * np.where(inside == 0, 0, t).astype(s.dtype)  # t may be infinite there
    return slope, d_beta, inside * (1 - s), inside * s


def sample_vjp(log_alpha, u, dz, *, beta, gamma, zeta):
    return dz * sample_partials(log_alpha, u, beta=beta, gamma=gamma, zeta=zeta)[0]


def test_time(log_alpha, *, beta, gamma, zeta):
    require(beta, gamma, zeta)
    return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)  # Eq. 13: no beta


def test_time_grad(log_alpha, *, beta, gamma, zeta):
    require(beta, gamma, zeta)
    s, rest = sigmoid(log_alpha), sigmoid(-log_alpha)
    s_bar = s * (zeta - gamma) + gamma
    return (zeta - gamma) * s * rest * ((s_bar > 0) & (s_bar < 1))


def _noise(n, seed, shape):
    k = np.random.default_rng(seed).integers(2**52, size=(n, *shape))
    return (k + 0.5) / 2**52  # never 0, never 1


def draw(log_alpha, n, seed, **law):
    u = _noise(n, seed, log_alpha.shape)
    return sample(log_alpha, u, **law).astype(log_alpha.dtype)


def draw_vjp(log_alpha, n, seed, dz, **law):
    u = _noise(n, seed, log_alpha.shape)
    return sample_vjp(log_alpha, u, dz, **law).sum(axis=0).astype(log_alpha.dtype)


# --- initialisation ---


def init_log_alpha(drop_rate, normal):
    return math.log((1 - drop_rate) / drop_rate) + 0.01 * normal


def init_weight(normal):
    fan_in = len(normal) if normal.ndim == 2 else math.prod(normal.shape[1:])
    return math.sqrt(2 / fan_in) * normal


# --- penalties ---


def _other_axes(weight_shape, on):
    """Return the axes of the weights that share a gate."""
    if on == "weights":
        return ()
    own = {"inputs": 0, "outputs": 1 if len(weight_shape) == 2 else 0}[on]
    return tuple(axis for axis in range(len(weight_shape)) if axis != own)


def group_size(weight_shape, *, on, gates_bias):
    others = _other_axes(weight_shape, on)
    ones = np.ones(weight_shape, np.int64).sum(axis=others)
    return ones + 1 if on == "outputs" and gates_bias else ones


def expected_l0(log_alpha, group_size, **law):
    return (group_size * prob_active(log_alpha, **law)).sum()


def expected_l0_grad(log_alpha, group_size, **law):
    return (group_size * prob_active_grad(log_alpha, **law)).astype(log_alpha.dtype)


def _group_sums(values, bias_values, on, gates_bias):
    sums = values.sum(axis=_other_axes(values.shape, on))
    return sums + bias_values if on == "outputs" and gates_bias else sums


def _over_groups(norm, log_alpha, weight, bias, on, gates_bias, law):
    return (
        prob_active(log_alpha, **law) * _group_sums(norm(weight), norm(bias), on, gates_bias)
    ).sum()


def _over_groups_grad(norm, slope, log_alpha, weight, bias, on, gates_bias, law):
    sums = _group_sums(norm(weight), norm(bias), on, gates_bias)
    active = prob_active(log_alpha, **law)
    spread = np.expand_dims(active, _other_axes(weight.shape, on))
    own_bias = active if on == "outputs" and gates_bias else 0 * bias
    return prob_active_grad(log_alpha, **law) * sums, spread * slope(weight), own_bias * slope(bias)


def expected_l2(log_alpha, weight, bias, *, on, gates_bias, **law):
    return _over_groups(np.square, log_alpha, weight, bias, on, gates_bias, law)


def expected_l2_grad(log_alpha, weight, bias, *, on, gates_bias, **law):
    def slope(a):
        return 2 * a

    return _over_groups_grad(np.square, slope, log_alpha, weight, bias, on, gates_bias, law)


def expected_l1(log_alpha, weight, bias, *, on, gates_bias, **law):
    return _over_groups(np.abs, log_alpha, weight, bias, on, gates_bias, law)


def expected_l1_grad(log_alpha, weight, bias, *, on, gates_bias, **law):
    return _over_groups_grad(np.abs, np.sign, log_alpha, weight, bias, on, gates_bias, law)


def penalty(log_alpha, weight, bias, *, on, gates_bias, lam, l2, n_train, **law):
    sizes = group_size(weight.shape, on=on, gates_bias=gates_bias)
    squares = expected_l2(log_alpha, weight, bias, on=on, gates_bias=gates_bias, **law)
    return lam / n_train * expected_l0(log_alpha, sizes, **law) + l2 / (2 * n_train) * squares


def penalty_grad(log_alpha, weight, bias, *, on, gates_bias, lam, l2, n_train, **law):
    sizes = group_size(weight.shape, on=on, gates_bias=gates_bias)
    squares = expected_l2_grad(log_alpha, weight, bias, on=on, gates_bias=gates_bias, **law)
    d_log_alpha, d_weight, d_bias = (l2 / (2 * n_train) * d for d in squares)
    d_log_alpha += lam / n_train * expected_l0_grad(log_alpha, sizes, **law)
    return d_log_alpha, d_weight, d_bias


# --- layers ---


def dense(x, weight, bias, z, *, on, gates_bias):
    if on == "inputs":
        return (x * z) @ weight + bias
    if on == "outputs":
        return (x @ weight + bias) * z if gates_bias else (x @ weight) * z + bias
    if z.ndim == 2:
        return x @ (weight * z) + bias
    return np.einsum("ni,io,nio->no", x, weight, z) + bias  # a draw for each example


def dense_vjp(dy, x, weight, bias, z, *, on, gates_bias):
    if on == "inputs":
        dxz = dy @ weight.T
        dz = dxz * x
        return dxz * z, (x * z).T @ dy, dy.sum(0), dz if z.ndim == 2 else dz.sum(0)
    if on == "outputs":
        da = dy * z
        dz = dy * (x @ weight + bias * gates_bias)
        dbias = (da if gates_bias else dy).sum(0)
        return da @ weight.T, x.T @ da, dbias, dz if z.ndim == 2 else dz.sum(0)
    each = z if z.ndim == 3 else z[None]
    dx = np.matmul(each * weight, dy[:, :, None])[:, :, 0]
    dv = x[:, :, None] * dy[:, None, :]
    dz = dv * weight
    return dx, (dv * each).sum(0), dy.sum(0), dz if z.ndim == 3 else dz.sum(0)


def _windows(x, kernel, stride, padding, dilation):
    """Return views of the padded input, one for each element of the kernel: i, j, (N, C, H, W)."""
    (ph, pw), (sh, sw), (dh, dw) = padding, stride, dilation
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    height = (padded.shape[2] - dh * (kernel[0] - 1) - 1) // sh + 1
    width = (padded.shape[3] - dw * (kernel[1] - 1) - 1) // sw + 1
    views = [
        (i, j, padded[:, :, i * dh :, j * dw :][:, :, ::sh, ::sw][:, :, :height, :width])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return padded, views


def _correlate(x, weight, stride, padding, dilation, groups):
    """Correlate with weights that are shared, or, with one more axis in front, each example's."""
    each = weight if weight.ndim == 5 else weight[None]
    n, c_out = len(x), each.shape[1]
    each = each.reshape(len(each), groups, c_out // groups, *each.shape[2:])
    total = 0
    for i, j, view in _windows(x, weight.shape[-2:], stride, padding, dilation)[1]:
        grouped = view.reshape(n, groups, -1, *view.shape[2:])
        tap = np.broadcast_to(each[..., i, j], (n, *each.shape[1:4]))
        total = total + np.einsum("ngchw,ngoc->ngohw", grouped, tap)
    return total.reshape(n, c_out, *total.shape[3:])


def _correlate_vjp(dy, x, weight, stride, padding, dilation, groups):
    """Return dx, and the weights' derivative for each example."""
    each = weight if weight.ndim == 5 else weight[None]
    n, c_out = len(x), each.shape[1]
    each = each.reshape(len(each), groups, c_out // groups, *each.shape[2:])
    each = np.broadcast_to(each, (n, *each.shape[1:]))
    grouped_dy = dy.reshape(n, groups, c_out // groups, *dy.shape[2:])
    dweight = np.zeros(each.shape, x.dtype)
    dpadded, places = _windows(np.zeros_like(x), weight.shape[-2:], stride, padding, dilation)
    for (i, j, view), (_, _, place) in zip(
        _windows(x, weight.shape[-2:], stride, padding, dilation)[1], places, strict=True
    ):
        grouped = view.reshape(n, groups, -1, *view.shape[2:])
        dweight[..., i, j] = np.einsum("ngohw,ngchw->ngoc", grouped_dy, grouped)
        dview = np.einsum("ngohw,ngoc->ngchw", grouped_dy, each[..., i, j])
        np.add(place, dview.reshape(place.shape), out=place)  # a view of dpadded
    (ph, pw), (h, w) = padding, x.shape[2:]
    dweight = dweight.reshape(n, c_out, *weight.shape[-3:])
    return dpadded[:, :, ph : ph + h, pw : pw + w], dweight


def conv2d(x, weight, bias, z, *, on, gates_bias, stride, padding, dilation, groups):
    geometry = (stride, padding, dilation, groups)
    shift = bias[:, None, None]
    if on == "weights":
        return _correlate(x, weight * z, *geometry) + shift
    a, gate = _correlate(x, weight, *geometry), z[..., None, None]
    return (a + shift) * gate if gates_bias else a * gate + shift


def conv2d_vjp(dy, x, weight, bias, z, *, on, gates_bias, stride, padding, dilation, groups):
    geometry = (stride, padding, dilation, groups)
    if on == "weights":
        dx, dv = _correlate_vjp(dy, x, weight * z, *geometry)
        dz = dv * weight
        dbias = dy.sum((0, 2, 3))
        return dx, (dv * z).sum(0), dbias, dz if z.ndim == 5 else dz.sum(0)
    da = dy * z[..., None, None]
    ungated = _correlate(x, weight, *geometry) + bias[:, None, None] * gates_bias
    dx, dv = _correlate_vjp(da, x, weight, *geometry)
    dz = (dy * ungated).sum((2, 3))
    dbias = (da if gates_bias else dy).sum((0, 2, 3))
    return dx, dv.sum(0), dbias, dz if z.ndim == 2 else dz.sum(0)


# --- cost ---


def dense_flops(n_in, n_out, *, bias):
    return (2 * n_in - 1 + bias) * n_out


def dense_params(n_in, n_out, *, bias):
    return (n_in + bias) * n_out


def conv2d_flops(c_in, c_out, kernel, size, *, stride, padding, dilation, groups, bias):
    if c_in % groups or c_out % groups:
        raise ValueError(f"groups must divide {c_in} and {c_out}, got {groups}")
    places = 1
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        places *= (n + 2 * p - d * (k - 1) - 1) // s + 1
    return (2 * (c_in // groups) * kernel[0] * kernel[1] - 1 + bias) * c_out * places


def conv2d_params(c_in, c_out, kernel, *, groups, bias):
    return (c_in // groups * kernel[0] * kernel[1] + bias) * c_out


# --- training ---


def adam(theta, grads, *, lr):
    m, v, after = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(grads, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        theta = theta - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        after.append(theta)
    return np.array(after)


def temporal_average(values, *, decay):
    total, after = np.zeros_like(values[0]), []
    for t, value in enumerate(values, start=1):
        total = decay * total + (1 - decay) * value
        after.append(total / (1 - decay**t))
    return np.array(after)


def predict(network, x):
    law = {name: network[name] for name in ("beta", "gamma", "zeta")}
    for layer in network["layers"]:
        kind = layer["kind"]
        if kind == "relu":
            x = np.maximum(x, 0)
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "max_pool2d":
            kernel = layer["kernel_size"]
            views = _windows(x, kernel, kernel, (0, 0), (1, 1))[1]
            x = np.max([view for _, _, view in views], axis=0)
        elif kind == "select":
            x = x[:, layer["index"]]
        elif kind == "add":
            x = x + layer["pattern"]
        elif kind == "dense":
            x = dense(x, layer["weight"], layer["bias"], **_test_gates(layer, law))
        else:
            geometry = {name: layer[name] for name in ("stride", "padding", "dilation", "groups")}
            bias = layer["bias"]
            bias = np.zeros(len(layer["weight"]), x.dtype) if bias is None else bias
            x = conv2d(x, layer["weight"], bias, **_test_gates(layer, law), **geometry)
    return x


def _test_gates(layer, law):
    """Return the gates of Eq. 13; gates of 1 for a layer without any."""
    if layer["on"] is None:
        return {"z": np.ones_like(layer["weight"]), "on": "weights", "gates_bias": False}
    z = test_time(layer["log_alpha"], **law)
    return {"z": z, "on": layer["on"], "gates_bias": layer["gates_bias"]}
