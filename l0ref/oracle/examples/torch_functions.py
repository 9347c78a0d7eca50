"""A target in PyTorch: forward functions on tensors; autograd adds the derivatives.

``l0ref check l0ref/oracle/examples/torch_functions.py``
"""

import math
import sys

import torch
from torch.nn import functional

from l0ref.oracle.adapters import from_torch


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
    return torch.sigmoid(_log_odds(log_alpha, beta, gamma, zeta))


def log_prob_active(log_alpha, *, beta, gamma, zeta):
    return functional.logsigmoid(_log_odds(log_alpha, beta, gamma, zeta))


def _logit_cdf(x, log_alpha, beta, gamma, zeta):
    require(beta, gamma, zeta)
    inside = torch.clamp(x, 0, 1)
    return beta * torch.log((inside - gamma) / (zeta - inside)) - log_alpha


def cdf(x, log_alpha, *, beta, gamma, zeta):
    value = torch.sigmoid(_logit_cdf(x, log_alpha, beta, gamma, zeta))
    return torch.where(x < 0, 0, torch.where(x >= 1, 1, value))


def sf(x, log_alpha, *, beta, gamma, zeta):
    value = torch.sigmoid(-_logit_cdf(x, log_alpha, beta, gamma, zeta))
    return torch.where(x < 0, 1, torch.where(x >= 1, 0, value))


def logpdf(x, log_alpha, *, beta, gamma, zeta):
    t = _logit_cdf(x, log_alpha, beta, gamma, zeta)
    inside = torch.clamp(x, 0, 1)
    log_slope = math.log(beta * (zeta - gamma)) - torch.log((inside - gamma) * (zeta - inside))
    value = functional.logsigmoid(t) + functional.logsigmoid(-t) + log_slope
    return torch.where((x < 0) | (x > 1), -math.inf, value)


def pdf(x, log_alpha, *, beta, gamma, zeta):
    t = _logit_cdf(x, log_alpha, beta, gamma, zeta)
    inside = torch.clamp(x, 0, 1)
    slope = beta * (zeta - gamma) / ((inside - gamma) * (zeta - inside))
    return torch.where((x < 0) | (x > 1), 0, torch.sigmoid(t) * torch.sigmoid(-t) * slope)


def sample(log_alpha, u, *, beta, gamma, zeta):
    require(beta, gamma, zeta)
    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)
    return torch.clamp(s * (zeta - gamma) + gamma, 0, 1)


def ppf(q, log_alpha, *, beta, gamma, zeta):
    return sample(log_alpha, q, beta=beta, gamma=gamma, zeta=zeta)


def test_time(log_alpha, *, beta, gamma, zeta):
    require(beta, gamma, zeta)
    return torch.clamp(torch.sigmoid(log_alpha) * (zeta - gamma) + gamma, 0, 1)


def draw(log_alpha, n, seed, **law):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand((n, *log_alpha.shape), generator=generator, dtype=log_alpha.dtype)
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
    sums = values.movedim(own, 0).flatten(1).sum(1)
    return sums + bias_values if on == "outputs" and gates_bias else sums


def group_size(weight_shape, *, on, gates_bias):
    ones = torch.ones(weight_shape, dtype=torch.int64)
    return _sum_groups(ones, 1, on, gates_bias)


def expected_l0(log_alpha, group_size, **law):
    return (group_size * prob_active(log_alpha, **law)).sum()


def expected_l2(log_alpha, weight, bias, *, on, gates_bias, **law):
    return (prob_active(log_alpha, **law) * _sum_groups(weight**2, bias**2, on, gates_bias)).sum()


def expected_l1(log_alpha, weight, bias, *, on, gates_bias, **law):
    sums = _sum_groups(weight.abs(), bias.abs(), on, gates_bias)
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
    return torch.einsum("ni,nio->no", x, weight * z) + bias  # a draw for each example


def conv2d(x, weight, bias, z, *, on, gates_bias, **geometry):
    if on == "weights" and z.ndim == 5:  # a draw for each example
        each = [
            functional.conv2d(one[None], weight * gate, bias, **geometry)
            for one, gate in zip(x, z, strict=True)
        ]
        return torch.cat(each)
    if on == "weights":
        return functional.conv2d(x, weight * z, bias, **geometry)
    gate = z[..., None, None]
    if gates_bias:
        return functional.conv2d(x, weight, bias, **geometry) * gate
    return functional.conv2d(x, weight, **geometry) * gate + bias[:, None, None]


# --- cost ---


def dense_flops(n_in, n_out, *, bias):
    return (2 * n_in - 1 + bias) * n_out


def dense_params(n_in, n_out, *, bias):
    return (n_in + bias) * n_out


def conv2d_flops(c_in, c_out, kernel, size, *, stride, padding, dilation, groups, bias):
    with torch.device("meta"):  # which knows shapes, and computes nothing
        layer = torch.nn.Conv2d(
            c_in, c_out, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups
        )
        _, _, height, width = layer(torch.empty(1, c_in, *size)).shape
    return (2 * layer.weight[0].numel() - 1 + bias) * c_out * height * width


def conv2d_params(c_in, c_out, kernel, *, groups, bias):
    return (c_in // groups * kernel[0] * kernel[1] + bias) * c_out


# --- networks ---


def _logits(network, x, u=None):
    """Return the logits with gates drawn from u, or those of Eq. 13."""
    law = {name: network[name] for name in ("beta", "gamma", "zeta")}
    noise = None if u is None else iter(u)
    for layer in network["layers"]:
        kind = layer["kind"]
        if kind == "relu":
            x = torch.relu(x)
        elif kind == "flatten":
            x = torch.flatten(x, 1)
        elif kind == "max_pool2d":
            x = functional.max_pool2d(x, tuple(layer["kernel_size"]))
        elif kind == "select":
            x = x[:, layer["index"]]
        elif kind == "add":
            x = x + layer["pattern"]
        else:
            x = _weighted(layer, x, noise, law)
    return x


def _weighted(layer, x, noise, law):
    weight, bias, on = layer["weight"], layer["bias"], layer["on"]
    if bias is None:
        bias = weight.new_zeros(len(weight))
    if on is None:
        gates = {"z": torch.ones_like(weight), "on": "weights", "gates_bias": False}
    else:
        log_alpha = layer["log_alpha"]
        z = test_time(log_alpha, **law) if noise is None else sample(log_alpha, next(noise), **law)
        gates = {"z": z, "on": on, "gates_bias": layer["gates_bias"]}
    if layer["kind"] == "dense":
        return dense(x, weight, bias, **gates)
    geometry = {name: tuple(layer[name]) for name in ("stride", "padding", "dilation")}
    return conv2d(x, weight, bias, **gates, **geometry, groups=layer["groups"])


def predict(network, x):
    return _logits(network, x)


def loss(network, x, labels, u, *, lam, l2, n_train):
    total = functional.cross_entropy(_logits(network, x, u), labels)
    law = {name: network[name] for name in ("beta", "gamma", "zeta")}
    for layer in network["layers"]:
        if layer.get("on") is not None:
            bias = 0 * layer["weight"].sum() if layer["bias"] is None else layer["bias"]
            total = total + penalty(
                layer["log_alpha"], layer["weight"], bias, on=layer["on"],
                gates_bias=layer["gates_bias"], lam=lam, l2=l2, n_train=n_train, **law,
            )  # fmt: skip
        elif "weight" in layer:  # always on
            total = total + l2 / (2 * n_train) * (layer["weight"] ** 2).sum()
    return total


# --- training ---


def adam(theta, grads, *, lr):
    parameter = theta.clone()
    optimizer = torch.optim.Adam([parameter], lr=lr)
    after = []
    for g in grads:
        parameter.grad = g
        optimizer.step()
        after.append(parameter.clone())
    return torch.stack(after)


def temporal_average(values, *, decay):
    total, after = torch.zeros_like(values[0]), []
    for t, value in enumerate(values, start=1):
        total = decay * total + (1 - decay) * value
        after.append(total / (1 - decay**t))
    return torch.stack(after)


def train(network, x, labels, u, *, lr, lam, l2, n_train, decay):
    layers = [dict(layer) for layer in network["layers"]]
    params = {}
    for i, layer in enumerate(layers):
        for name in ("weight", "bias", "log_alpha"):
            if layer.get(name) is not None:
                layer[name] = params[f"{i}.{name}"] = layer[name].clone().requires_grad_()
    optimizer = torch.optim.Adam(params.values(), lr=lr)
    totals = {name: torch.zeros_like(p) for name, p in params.items()}
    steps = []
    for t in range(len(x)):
        optimizer.zero_grad()
        noise = [one[t] for one in u]
        value = loss({**network, "layers": layers}, x[t], labels[t], noise, lam=lam, l2=l2,
                     n_train=n_train)  # fmt: skip
        value.backward()
        optimizer.step()
        with torch.no_grad():
            for name, p in params.items():
                totals[name] = decay * totals[name] + (1 - decay) * p
        steps.append(
            {
                "loss": value,
                "grads": {name: p.grad.clone() for name, p in params.items()},
                "params": {name: p.detach().clone() for name, p in params.items()},
                "average": {n: total / (1 - decay ** (t + 1)) for n, total in totals.items()},
            }
        )
    return steps


target = from_torch(sys.modules[__name__], name="PyTorch functions")
