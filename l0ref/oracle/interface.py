r"""What an implementation can be held against: the functions, one by one, arrays in and arrays out.

A **target** is any object that has some of these functions: a module, a class instance, a process
that speaks JSON lines. It needs none of them in particular. What it lacks is reported as *not
implemented*, never as passed. Each function is called with the names below, arrays as NumPy arrays
of one floating dtype (float64 or float32; what comes of log_alpha of integers is told, and fails
only if it is wrong and no integer), and everything else as plain Python numbers, strings,
tuples and dicts. Results have the dtype and shape stated here; a scalar may be a number or a
zero-dimensional array. Inputs must not be changed.

`Target` below is documentation that runs: `FUNCTIONS`, the protocol between processes, the vectors
and the tables are read off its signatures. Nobody has to inherit from it.

Conventions
-----------
* beta, gamma, zeta: the temperature and the ends of the stretch, beta > 0, gamma < 0, zeta > 1.
* log_alpha: one number a gate. Formulas that take it alone are elementwise over any shape.
* u: noise in (0, 1). log u - log(1-u) enters with +. With - the law is the same, and that is
  accepted, but all functions that take u must have the same sign.
* Equation numbers are those of Louizos, Welling & Kingma (2018), arXiv:1712.01312.
* Weights of a dense layer are (D_in, D_out), so that y = x @ weight + bias. Weights of a
  convolution are (C_out, C_in/groups, kh, kw); images are (N, C, H, W); the kernel is not mirrored.
* `on` says what the gates multiply: "inputs" (a gate for each input of a dense layer),
  "outputs" (for each output unit of a dense layer or each map of a convolution), "weights".
* `gates_bias` says whether gates on outputs switch the bias off with the unit. Gates on inputs and
  weights leave it alone.
* A network is a dict of plain data, see `Network`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict

from numpy.typing import NDArray

Array = NDArray[Any]
Scalar = Any
"""A number, or an array without axes."""

Pair = tuple[int, int]


class LayerData(TypedDict, total=False):
    """A layer of a `Network`.

    ``kind`` is one of

    ==============  ===========================================================================
    ``dense``       ``weight`` (D_in, D_out), ``bias`` (D_out,), and the gates
    ``conv2d``      ``weight`` (C_out, C_in/groups, kh, kw), ``bias`` (C_out,) or None, the
                    gates, ``stride``, ``padding``, ``dilation`` (pairs), ``groups``
    ``relu``        nothing else
    ``max_pool2d``  ``kernel_size`` (pair); as far apart as they are large, no padding, floored
    ``flatten``     (N, C, H, W) to (N, C*H*W)
    ``select``      ``index``, a list of ints: these units or maps of the input (only in the
                    result of `compact`)
    ``add``         ``pattern``, an array of one example's shape, added to each (only in the
                    result of `compact`)
    ==============  ===========================================================================

    The gates are ``on`` (None for a layer without any), ``log_alpha`` and ``gates_bias``.
    """

    kind: str
    weight: Array
    bias: Array | None
    on: str | None
    log_alpha: Array | None
    gates_bias: bool
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    kernel_size: Pair
    index: list[int]
    pattern: Array


class Network(TypedDict):
    """A network as plain data; its last layer gives the logits.

    Parameters are named ``"<position>.<name>"``: ``"0.weight"``, ``"0.log_alpha"``, ``"2.bias"``.
    """

    input_shape: tuple[int, ...]
    layers: list[LayerData]
    beta: float
    gamma: float
    zeta: float


class Target(Protocol):
    """All that can be checked."""

    # --- the law of one gate ---

    def prob_active(self, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""P(z != 0), Eq. 12: sigmoid(log_alpha - beta log(-gamma/zeta)).

        To its own relative accuracy, as `sf`, however small it is: 0.5 (1 + tanh(t/2)) loses that.
        """

    def log_prob_active(self, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""log P(z != 0), finite where P itself is too small for a float."""

    def prob_active_grad(
        self, log_alpha: Array, *, beta: float, gamma: float, zeta: float
    ) -> Array:
        r"""dP(z != 0)/dlog_alpha = P (1 - P)."""

    def cdf(self, x: Array, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""P(z <= x) of the hard concrete gate: 0 below 0, its atom at 0, 1 from 1 on.

        x and log_alpha have one shape.
        """

    def sf(self, x: Array, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""P(z > x), to its own relative accuracy: not 1 - cdf."""

    def pdf(self, x: Array, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""Density of z at 0 < x < 1, which is that of the stretched concrete s_bar.

        It is Q (1-Q) times a factor, Q = P(z <= x). 1-Q may come of a subtraction, so that a tail
        need be right only to eps times that factor, beta/(zeta-gamma) / (s (1-s)) with
        s = (x-gamma)/(zeta-gamma).

        Outside (0, 1) honest conventions differ: 0, or the density of s_bar, which goes on there.
        Nothing is checked there but the atoms, where the mass and infinity pass as well.
        """

    def logpdf(
        self, x: Array, log_alpha: Array, *, beta: float, gamma: float, zeta: float
    ) -> Array:
        r"""Log density at 0 < x < 1.

        Outside (0, 1) honest conventions differ, and nothing is checked but the atoms: the log of
        the mass, the log density of s_bar, and infinity pass.
        """

    def ppf(self, q: Array, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""Return the quantile of z at probability q in (0, 1): exact zeros and ones included."""

    def sample(
        self, log_alpha: Array, u: Array, *, beta: float, gamma: float, zeta: float
    ) -> Array:
        r"""Draw z from noise u in (0, 1), Eq. 10-11; log u - log(1-u) enters with +."""

    def sample_vjp(
        self, log_alpha: Array, u: Array, dz: Array, *, beta: float, gamma: float, zeta: float
    ) -> Array:
        r"""dz * dz/dlog_alpha of `sample`; 0 where z is clipped."""

    def sample_partials(
        self, log_alpha: Array, u: Array, *, beta: float, gamma: float, zeta: float
    ) -> tuple[Array, Array, Array, Array]:
        r"""dz/dlog_alpha, dz/dbeta, dz/dgamma, dz/dzeta of `sample`, elementwise."""

    def test_time(self, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""Return the gate of Eq. 13; beta is given, and does not enter."""

    def test_time_grad(self, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""Return the derivative of Eq. 13 in log_alpha; 0 where it is clipped."""

    def mean(self, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""E[z]."""

    def var(self, log_alpha: Array, *, beta: float, gamma: float, zeta: float) -> Array:
        r"""Var[z]."""

    # --- implementations that only draw ---

    def draw(
        self, log_alpha: Array, n: int, seed: int, *, beta: float, gamma: float, zeta: float
    ) -> Array:
        r"""Draw n times the gates by itself: (n, *log_alpha.shape).

        One seed, one result: any whole number from 0 to 2^31 - 1, and all of its bits count.
        """

    def draw_vjp(
        self,
        log_alpha: Array,
        n: int,
        seed: int,
        dz: Array,
        *,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> Array:
        r"""Gradient of sum(dz * draw(log_alpha, n, seed)) in log_alpha, through the same draws."""

    # --- initialisation ---

    def init_log_alpha(self, drop_rate: float, normal: Array) -> Array:
        r"""Initial log_alpha for a drop rate p: log((1-p)/p) + 0.01 * normal (standard noise)."""

    def init_weight(self, normal: Array) -> Array:
        r"""He's initialisation from standard noise of a weight's shape: sqrt(2/fan_in) * normal."""

    # --- penalties ---

    def group_size(
        self, weight_shape: tuple[int, ...], *, on: str, gates_bias: bool
    ) -> NDArray[Any]:
        r"""Return \|g\|, the parameters that each gate governs, integers in the gates' shape."""

    def expected_l0(
        self, log_alpha: Array, group_size: Array, *, beta: float, gamma: float, zeta: float
    ) -> Scalar:
        r"""Sum of \|g\| P(z_g != 0), a count (Eq. 12, 15); group_size has log_alpha's shape."""

    def expected_l0_grad(
        self, log_alpha: Array, group_size: Array, *, beta: float, gamma: float, zeta: float
    ) -> Array:
        r"""Return the derivative of `expected_l0` in log_alpha."""

    def expected_l2(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> Scalar:
        r"""Sum over gates of P(z_g != 0) times its parameters' squares (Eq. 14, 15); no 1/2.

        The bias enters where the gates switch it off, and only there.
        """

    def expected_l2_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> tuple[Array, Array, Array]:
        r"""Return its derivatives in log_alpha, weight and bias (zeros where it does not enter)."""

    def expected_l1(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> Scalar:
        r"""Sum over gates of P(z_g != 0) times its parameters' absolute values."""

    def expected_l1_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> tuple[Array, Array, Array]:
        r"""Return its derivatives in log_alpha, weight and bias; sign(0) = 0 by convention."""

    def penalty(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        lam: float,
        l2: float,
        n_train: int,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> Scalar:
        r"""lam/N times the expected L0 plus l2/(2N) times the expected L2, N = n_train."""

    def penalty_grad(
        self,
        log_alpha: Array,
        weight: Array,
        bias: Array,
        *,
        on: str,
        gates_bias: bool,
        lam: float,
        l2: float,
        n_train: int,
        beta: float,
        gamma: float,
        zeta: float,
    ) -> tuple[Array, Array, Array]:
        r"""Return its derivatives in log_alpha, weight and bias."""

    # --- layers ---

    def dense(
        self, x: Array, weight: Array, bias: Array, z: Array, *, on: str, gates_bias: bool
    ) -> Array:
        r"""Gated affine map: (x z) W + b, x (W z) + b, or (x W + b) z by `on`.

        Without gates_bias, gates on outputs give (x W) z + b. z has the gates' shape, or with a
        leading N one draw for each example.
        """

    def dense_vjp(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        bias: Array,
        z: Array,
        *,
        on: str,
        gates_bias: bool,
    ) -> tuple[Array, Array, Array, Array]:
        r"""Pull dy back to dx, dweight, dbias and dz, each of the shape of its own."""

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array,
        z: Array,
        *,
        on: str,
        gates_bias: bool,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Array:
        r"""Gated convolution; zeros beyond the border, floored output sizes."""

    def conv2d_vjp(
        self,
        dy: Array,
        x: Array,
        weight: Array,
        bias: Array,
        z: Array,
        *,
        on: str,
        gates_bias: bool,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> tuple[Array, Array, Array, Array]:
        r"""Pull dy back to dx, dweight, dbias and dz, each of the shape of its own."""

    # --- cost, for one example ---

    def dense_flops(self, n_in: int, n_out: int, *, bias: bool) -> Scalar:
        r"""(2 n_in - 1 + bias) n_out: multiplications and additions are one FLOP each."""

    def dense_params(self, n_in: int, n_out: int, *, bias: bool) -> Scalar:
        r"""Weights and biases."""

    def conv2d_flops(
        self,
        c_in: int,
        c_out: int,
        kernel: Pair,
        size: Pair,
        *,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        bias: bool,
    ) -> Scalar:
        r"""(2 k - 1 + bias) C_out H_out W_out with k = C_in/groups kh kw.

        size is (H, W) of the input; the output's is floored.
        """

    def conv2d_params(
        self, c_in: int, c_out: int, kernel: Pair, *, groups: int, bias: bool
    ) -> Scalar:
        r"""Weights and biases."""

    def expected_cost(self, network: Network) -> Mapping[str, Scalar]:
        r"""Expected ``flops`` and ``params`` of the drawn network, the gates being independent.

        A weight costs only if what it reads and what it writes are both on.
        """

    def hard_cost(self, network: Network) -> Mapping[str, Scalar]:
        r"""``flops`` and ``params`` with the gates that Eq. 13 leaves open."""

    # --- training ---

    def adam(self, theta: Array, grads: Array, *, lr: float) -> Array:
        r"""Parameters after each of T steps of Adam (0.9, 0.999, 1e-8): grads, result (T, *shape).

        The bias corrections are those of Kingma & Ba (2015), epsilon outside the root.
        """

    def temporal_average(self, values: Array, *, decay: float) -> Array:
        r"""Average after each of T updates, (T, *shape): weights proportional to decay^(t-i).

        That is an exponential average that starts at 0 and is divided by 1 - decay^t. (One that
        starts at the first parameters and is not divided is the other honest convention.)
        """

    def predict(self, network: Network, x: Array) -> Array:
        r"""Logits at test time: every gate is that of Eq. 13."""

    def loss_and_grads(
        self,
        network: Network,
        x: Array,
        labels: NDArray[Any],
        u: Sequence[Array],
        *,
        lam: float,
        l2: float,
        n_train: int,
    ) -> Mapping[str, Any]:
        r"""``loss`` and ``grads`` (by parameter's name) of Eq. 9 on one minibatch and draw.

        Mean cross-entropy, plus lam/N times the expected L0 of all gates, plus l2/(2N) times the
        expected L2 of all weights (P = 1 where a layer has no gates) and of biases that gates
        switch off. u has the noise of each gated layer, in order, in the gates' shape.
        """

    def train(
        self,
        network: Network,
        x: Array,
        labels: NDArray[Any],
        u: Sequence[Array],
        *,
        lr: float,
        lam: float,
        l2: float,
        n_train: int,
        decay: float,
    ) -> Sequence[Mapping[str, Any]]:
        r"""Train for T steps of Adam: for each ``loss``, ``grads``, ``params`` and ``average``.

        x is (T, N, *input_shape), labels (T, N), u[layer] (T, *gates). ``loss`` and ``grads`` are
        those before the step, ``params`` and ``average`` (see `temporal_average`) those after it.
        """

    def compact(self, network: Network) -> Network:
        r"""Return a network without gates that computes `predict`, closed units taken out.

        These must go: units and maps whose own gate (``on="outputs"``) is 0; inputs whose gate
        (``on="inputs"``) is 0; and the units and maps before them that no other input reads. What
        a closed unit still hands on, such as a bias that is not gated, goes into the bias of the
        layer that reads it; or, where a border makes a pattern of it, into an ``"add"`` layer.

        The outputs of the last layer with weights are the logits, and stay. These may go or stay:
        maps on either side of a convolution with several groups; and what single weights of 0 cut
        off, such as those that gates on weights close, or what only units that go have read.
        """


class Function(NamedTuple):
    """One of the functions of `Target`."""

    name: str
    area: str
    parameters: tuple[str, ...]
    doc: str


AREAS: dict[str, tuple[str, ...]] = {
    "law": (
        "prob_active",
        "log_prob_active",
        "prob_active_grad",
        "cdf",
        "sf",
        "pdf",
        "logpdf",
        "ppf",
        "mean",
        "var",
    ),
    "gate": ("sample", "sample_vjp", "sample_partials", "test_time", "test_time_grad"),
    "sampler": ("draw", "draw_vjp"),
    "initialisation": ("init_log_alpha", "init_weight"),
    "penalties": (
        "group_size",
        "expected_l0",
        "expected_l0_grad",
        "expected_l2",
        "expected_l2_grad",
        "expected_l1",
        "expected_l1_grad",
        "penalty",
        "penalty_grad",
    ),
    "layers": ("dense", "dense_vjp", "conv2d", "conv2d_vjp"),
    "cost": (
        "dense_flops",
        "dense_params",
        "conv2d_flops",
        "conv2d_params",
        "expected_cost",
        "hard_cost",
    ),
    "training": ("adam", "temporal_average", "loss_and_grads", "train"),
    "networks": ("predict", "compact"),
}


def _functions() -> dict[str, Function]:
    found = {}
    for area, names in AREAS.items():
        for name in names:
            function = getattr(Target, name)
            parameters = tuple(inspect.signature(function).parameters)[1:]
            found[name] = Function(name, area, parameters, inspect.getdoc(function) or "")
    return found


FUNCTIONS: dict[str, Function] = _functions()
"""Every function of `Target` by name, in the order in which they are checked."""
