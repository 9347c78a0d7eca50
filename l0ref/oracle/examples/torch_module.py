"""A target that is a layer: a PyTorch module that draws its gates by itself, plugged in.

``l0ref check l0ref/oracle/examples/torch_module.py``
"""

import math

import torch
from torch import nn

from l0ref.oracle.adapters import from_torch_module

# --- the layer, as somebody has written it to train with ---


class GatedLinear(nn.Module):
    """A linear layer with a hard concrete gate on each of its inputs."""

    def __init__(self, n_in, n_out, *, temperature=2 / 3, limits=(-0.1, 1.1), drop_rate=0.5):
        super().__init__()
        if not (temperature > 0 and limits[0] < 0 and limits[1] > 1):
            raise ValueError(f"no gate has temperature {temperature} and limits {limits}")
        self.temperature, self.limits = temperature, limits
        self.weight = nn.Parameter(torch.randn(n_in, n_out) * math.sqrt(2 / n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))
        start = math.log((1 - drop_rate) / drop_rate)
        self.log_alpha = nn.Parameter(start + 0.01 * torch.randn(n_in))

    def gates(self):
        """Return the gates: drawn anew in training, those of Eq. 13 in evaluation."""
        low, high = self.limits
        if self.training:
            u = torch.rand_like(self.log_alpha)
            s = torch.sigmoid((torch.logit(u) + self.log_alpha) / self.temperature)
        else:
            s = torch.sigmoid(self.log_alpha)
        return torch.clamp(s * (high - low) + low, 0, 1)

    def prob_on(self):
        """Return each gate's probability not to be 0."""
        low, high = self.limits
        return torch.sigmoid(self.log_alpha - self.temperature * math.log(-low / high))

    def forward(self, x):
        return (x * self.gates()) @ self.weight + self.bias


# --- plugged into the oracle ---


def make(n, *, beta, gamma, zeta):
    return GatedLinear(n, 2, temperature=beta, limits=(gamma, zeta))


target = from_torch_module(make, "gates", prob_active="prob_on", name="GatedLinear")
