"""A target in JAX: forward functions on arrays; autodiff adds the derivatives.

``l0ref check l0ref/oracle/examples/jax_functions.py``
"""

import math
import sys

import jax
import jax.numpy as jnp

from l0ref.oracle.adapters import from_jax


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
    return jax.nn.sigmoid(_log_odds(log_alpha, beta, gamma, zeta))


def log_prob_active(log_alpha, *, beta, gamma, zeta):
    return jax.nn.log_sigmoid(_log_odds(log_alpha, beta, gamma, zeta))


def _logit_cdf(x, log_alpha, beta, gamma, zeta):
    require(beta, gamma, zeta)
    inside = jnp.clip(x, 0, 1)
    return beta * jnp.log((inside - gamma) / (zeta - inside)) - log_alpha


def cdf(x, log_alpha, *, beta, gamma, zeta):
    value = jax.nn.sigmoid(_logit_cdf(x, log_alpha, beta, gamma, zeta))
    return jnp.where(x < 0, 0, jnp.where(x >= 1, 1, value))


def sf(x, log_alpha, *, beta, gamma, zeta):
    value = jax.nn.sigmoid(-_logit_cdf(x, log_alpha, beta, gamma, zeta))
    return jnp.where(x < 0, 1, jnp.where(x >= 1, 0, value))


def logpdf(x, log_alpha, *, beta, gamma, zeta):
    t = _logit_cdf(x, log_alpha, beta, gamma, zeta)
    inside = jnp.clip(x, 0, 1)
    log_slope = math.log(beta * (zeta - gamma)) - jnp.log((inside - gamma) * (zeta - inside))
    value = jax.nn.log_sigmoid(t) + jax.nn.log_sigmoid(-t) + log_slope
    return jnp.where((x < 0) | (x > 1), -jnp.inf, value)


def pdf(x, log_alpha, *, beta, gamma, zeta):
    t = _logit_cdf(x, log_alpha, beta, gamma, zeta)
    inside = jnp.clip(x, 0, 1)
    slope = beta * (zeta - gamma) / ((inside - gamma) * (zeta - inside))
    return jnp.where((x < 0) | (x > 1), 0, jax.nn.sigmoid(t) * jax.nn.sigmoid(-t) * slope)


def sample(log_alpha, u, *, beta, gamma, zeta):
    require(beta, gamma, zeta)
    s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / beta)
    return jnp.clip(s * (zeta - gamma) + gamma, 0, 1)


def ppf(q, log_alpha, *, beta, gamma, zeta):
    return sample(log_alpha, q, beta=beta, gamma=gamma, zeta=zeta)


def test_time(log_alpha, *, beta, gamma, zeta):
    require(beta, gamma, zeta)
    return jnp.clip(jax.nn.sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)


def draw(log_alpha, n, seed, **law):
    u = jax.random.uniform(jax.random.key(seed), (n, *log_alpha.shape), log_alpha.dtype)
    return sample(log_alpha, u, **law)


# --- initialisation ---


def init_log_alpha(drop_rate, normal):
    return math.log((1 - drop_rate) / drop_rate) + 0.01 * normal


def init_weight(normal):
    fan_in = len(normal) if normal.ndim == 2 else math.prod(normal.shape[1:])
    return math.sqrt(2 / fan_in) * normal


# --- penalties ---


def _sum_groups(values, bias_values, on, gates_bias):
    """Add up one value a parameter over the parameters of each gate."""
    if on == "weights":
        return values
    own = {"inputs": 0, "outputs": 1 if values.ndim == 2 else 0}[on]
    sums = values.sum(axis=tuple(axis for axis in range(values.ndim) if axis != own))
    return sums + bias_values if on == "outputs" and gates_bias else sums


def group_size(weight_shape, *, on, gates_bias):
    return _sum_groups(jnp.ones(weight_shape, int), 1, on, gates_bias)


def expected_l0(log_alpha, group_size, **law):
    return (group_size * prob_active(log_alpha, **law)).sum()


def expected_l2(log_alpha, weight, bias, *, on, gates_bias, **law):
    return (prob_active(log_alpha, **law) * _sum_groups(weight**2, bias**2, on, gates_bias)).sum()


def expected_l1(log_alpha, weight, bias, *, on, gates_bias, **law):
    sums = _sum_groups(jnp.abs(weight), jnp.abs(bias), on, gates_bias)
    return (prob_active(log_alpha, **law) * sums).sum()


def penalty(log_alpha, weight, bias, *, on, gates_bias, lam, l2, n_train, **law):
    sizes = group_size(weight.shape, on=on, gates_bias=gates_bias)
    squares = expected_l2(log_alpha, weight, bias, on=on, gates_bias=gates_bias, **law)
    return lam / n_train * expected_l0(log_alpha, sizes, **law) + l2 / (2 * n_train) * squares


# --- layers ---


def dense(x, weight, bias, z, *, on, gates_bias):
    if on == "inputs":
        return (x * z) @ weight + bias
    if on == "outputs":
        return (x @ weight + bias) * z if gates_bias else (x @ weight) * z + bias
    if z.ndim == 2:
        return x @ (weight * z) + bias
    return jnp.einsum("ni,nio->no", x, weight * z) + bias  # a draw for each example


def _correlate(x, weight, *, stride, padding, dilation, groups):
    # The convolution could pad by itself; but of some that are larger than what they put out, with
    # a stride and padding, XLA for CPUs (JAX 0.10.2) cannot compile the gradient, and aborts.
    return jax.lax.conv_general_dilated(
        jnp.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding))),
        weight,
        window_strides=tuple(stride),
        padding="VALID",
        rhs_dilation=tuple(dilation),
        feature_group_count=groups,
    )


def conv2d(x, weight, bias, z, *, on, gates_bias, **geometry):
    shift = bias[:, None, None]
    if on == "weights" and z.ndim == 5:  # a draw for each example
        each = [
            _correlate(one[None], weight * gate, **geometry) for one, gate in zip(x, z, strict=True)
        ]
        return jnp.concatenate(each) + shift
    if on == "weights":
        return _correlate(x, weight * z, **geometry) + shift
    a, gate = _correlate(x, weight, **geometry), z[..., None, None]
    return (a + shift) * gate if gates_bias else a * gate + shift


# --- networks and training ---


def _logits(network, x, u=None):
    """Return the logits with gates drawn from u, or those of Eq. 13."""
    law = {name: network[name] for name in ("beta", "gamma", "zeta")}
    noise = None if u is None else iter(u)
    for layer in network["layers"]:
        kind = layer["kind"]
        if kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "max_pool2d":
            window = (1, 1, *layer["kernel_size"])
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        elif kind == "select":
            x = x[:, jnp.asarray(layer["index"], int)]
        elif kind == "add":
            x = x + layer["pattern"]
        else:
            x = _weighted(layer, x, noise, law)
    return x


def _weighted(layer, x, noise, law):
    weight, bias, on = layer["weight"], layer["bias"], layer["on"]
    if bias is None:
        bias = jnp.zeros(len(weight), weight.dtype)
    if on is None:
        gates = {"z": jnp.ones_like(weight), "on": "weights", "gates_bias": False}
    else:
        log_alpha = layer["log_alpha"]
        z = test_time(log_alpha, **law) if noise is None else sample(log_alpha, next(noise), **law)
        gates = {"z": z, "on": on, "gates_bias": layer["gates_bias"]}
    if layer["kind"] == "dense":
        return dense(x, weight, bias, **gates)
    geometry = {name: layer[name] for name in ("stride", "padding", "dilation", "groups")}
    return conv2d(x, weight, bias, **gates, **geometry)


def predict(network, x):
    return _logits(network, x)


def loss(network, x, labels, u, *, lam, l2, n_train):
    log_p = jax.nn.log_softmax(_logits(network, x, u))
    total = -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()
    law = {name: network[name] for name in ("beta", "gamma", "zeta")}
    for layer in network["layers"]:
        if layer.get("on") is not None:
            bias = jnp.zeros(()) if layer["bias"] is None else layer["bias"]
            total = total + penalty(
                layer["log_alpha"], layer["weight"], bias, on=layer["on"],
                gates_bias=layer["gates_bias"], lam=lam, l2=l2, n_train=n_train, **law,
            )  # fmt: skip
        elif "weight" in layer:  # always on
            total = total + l2 / (2 * n_train) * (layer["weight"] ** 2).sum()
    return total


def adam(theta, grads, *, lr):
    m, v, after = jnp.zeros_like(theta), jnp.zeros_like(theta), []
    for t, g in enumerate(grads, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        theta = theta - lr * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        after.append(theta)
    return jnp.stack(after)


def temporal_average(values, *, decay):
    total, after = jnp.zeros_like(values[0]), []
    for t, value in enumerate(values, start=1):
        total = decay * total + (1 - decay) * value
        after.append(total / (1 - decay**t))
    return jnp.stack(after)


target = from_jax(sys.modules[__name__], name="JAX functions")
