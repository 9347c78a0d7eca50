r"""What the author of a library imports to property-test code for L0 hard concrete gates.

=============================  =====================================================================
`check_vjp`                    a backward pass, against derivatives with an error estimate
`numerical_gradient`           those derivatives
`check_unbiased`               a Monte Carlo estimator's mean, with a stated rate of false alarms
`assert_matches_reference`     a result, against the reference, within rounding
`inputs_of`                    Hypothesis: inputs of each function that the reference has
`hyperparameters`, `gates`,    Hypothesis: parameters, noise, layers and whole networks, extremes
`dense_layers`, `problems` ... included, kinks avoided where asked (`l0ref.testing.strategies`)
=============================  =====================================================================

It needs Hypothesis, and works in any test runner. A library in PyTorch is tested like this:

.. code-block:: python

    import numpy as np
    import torch
    from hypothesis import given, settings

    from l0ref import HardConcrete
    from l0ref.testing import (
        assert_matches_reference,
        check_unbiased,
        check_vjp,
        gates,
        inputs_of,
        numerical_gradient,
    )


    def sample(log_alpha, u, beta, gamma, zeta):  # what is tested: yours
        s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_alpha) / beta)
        return (s * (zeta - gamma) + gamma).clamp(0, 1)


    def arrays(log_alpha, u, **hyper):  # the same for NumPy arrays
        return sample(torch.tensor(log_alpha), torch.tensor(u), **hyper).numpy()


    def backward(dz, log_alpha, u, **hyper):
        leaf = torch.tensor(log_alpha, requires_grad=True)
        z = sample(leaf, torch.tensor(u), **hyper)
        return torch.autograd.grad(z, leaf, torch.tensor(dz))[0].numpy()


    @settings(deadline=None)  # the first call of a framework is slow
    @given(inputs_of("sample", np.float32))
    def test_draws(inputs):
        assert_matches_reference("sample", arrays, **inputs)


    @settings(deadline=None)
    @given(gates(dtype=np.float32, where="off kinks"))
    def test_gradient(case):
        arguments = {"log_alpha": case.log_alpha, "u": case.u, **case.hyperparameters}
        check_vjp(arrays, backward, arguments, wrt=["log_alpha"])


    def test_the_gradient_of_the_mean():
        log_alpha, hyper = np.array([-1.0, 0.5, 2.0]), {"beta": 0.5, "gamma": -0.2, "zeta": 1.3}

        def draw(n, rng):  # n estimates of the gradient of E[sum(z)]
            many = np.tile(log_alpha, (n, 1))
            return backward(np.ones((n, 3)), many, rng.uniform(size=(n, 3)), **hyper)

        def expectation(log_alpha):
            return HardConcrete(log_alpha, **hyper).mean().sum()

        gradient, error = numerical_gradient(expectation, log_alpha)
        steepest = (hyper["zeta"] - hyper["gamma"]) / (4 * hyper["beta"])
        check_unbiased(draw, gradient, error=error, bounds=(0, steepest))

and one in JAX like this:

.. code-block:: python

    import jax
    import jax.numpy as jnp
    import numpy as np
    from hypothesis import given, settings

    from l0ref.testing import assert_matches_reference, check_vjp, dense_layers, inputs_of


    def dense(x, weight, bias, z):  # what is tested: yours
        return jnp.dot(x * z, weight, precision="highest") + bias


    def backward(dy, x, weight, bias, z):
        return jax.vjp(dense, x, weight, bias, z)[1](dy)


    def options(inputs):
        return inputs["on"] == "inputs"


    @settings(max_examples=8, deadline=None)  # JAX compiles for each shape
    @given(inputs_of("dense_vjp", np.float32).filter(options))
    def test_against_the_reference(inputs):
        arrays = [inputs[name] for name in ("dy", "x", "weight", "bias", "z")]
        assert_matches_reference("dense_vjp", backward(*arrays), **inputs)


    @settings(max_examples=8, deadline=None)
    @given(dense_layers(np.float32, on="inputs"))
    def test_gradient(layer):
        check_vjp(dense, backward, layer.arrays)
"""

from .gradients import NotSmoothError, VJPCheck, check_vjp, numerical_gradient
from .reference import assert_matches_reference, inputs_of
from .statistics import ApproximateWarning, UnbiasedCheck, check_unbiased
from .strategies import (
    Gates,
    Layer,
    Problem,
    betas,
    conv2d_layers,
    dense_layers,
    dtypes,
    gammas,
    gates,
    hyperparameters,
    log_alpha_arrays,
    log_alphas,
    noise,
    noise_arrays,
    problems,
    zetas,
)

__all__ = [
    "ApproximateWarning",
    "Gates",
    "Layer",
    "NotSmoothError",
    "Problem",
    "UnbiasedCheck",
    "VJPCheck",
    "assert_matches_reference",
    "betas",
    "check_unbiased",
    "check_vjp",
    "conv2d_layers",
    "dense_layers",
    "dtypes",
    "gammas",
    "gates",
    "hyperparameters",
    "inputs_of",
    "log_alpha_arrays",
    "log_alphas",
    "noise",
    "noise_arrays",
    "numerical_gradient",
    "problems",
    "zetas",
]
