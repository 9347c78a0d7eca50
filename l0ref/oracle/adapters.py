"""Targets made of PyTorch or JAX code: arrays go in and out, derivatives come from autograd.

Whoever has the forward functions has the rest: from `sample` follow `sample_vjp` and
`sample_partials`, from `dense` follows `dense_vjp`, and so on through `DERIVATIVES`; so that it is
the implementation's own automatic differentiation that is checked. A derivative that the author has
written himself is taken instead. Neither library is imported before one of the functions is called.

A file that holds one of these is a target:

``target = from_torch({"sample": my_sample, "prob_active": my_probability})``
    functions on tensors, with the interface's names and arguments;
``target = from_jax(my_module)``
    the same for JAX, in 64 bits where the arrays have them;
``target = from_torch_module(make_layer, "sample_gates")``
    a layer that draws its gates itself.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .interface import FUNCTIONS
from .targets import functions_of

__all__ = ["DERIVATIVES", "Adapted", "Derivative", "from_jax", "from_torch", "from_torch_module"]

Function = Callable[..., Any]


class Derivative(NamedTuple):
    """A function that is another one's derivative.

    Attributes
    ----------
    of : str
        The forward function.
    wrt : tuple of str
        The arguments it is taken in; the result is a tuple if they are several.
    cotangent : str
        The argument that is pulled back; none for sums and for elementwise functions.
    """

    of: str
    wrt: tuple[str, ...]
    cotangent: str = ""


_PARAMETERS = ("log_alpha", "weight", "bias")

DERIVATIVES: dict[str, Derivative] = {
    "prob_active_grad": Derivative("prob_active", ("log_alpha",)),
    "test_time_grad": Derivative("test_time", ("log_alpha",)),
    "sample_vjp": Derivative("sample", ("log_alpha",), "dz"),
    "sample_partials": Derivative("sample", ("log_alpha", "beta", "gamma", "zeta")),
    "draw_vjp": Derivative("draw", ("log_alpha",), "dz"),
    "expected_l0_grad": Derivative("expected_l0", ("log_alpha",)),
    "expected_l1_grad": Derivative("expected_l1", _PARAMETERS),
    "expected_l2_grad": Derivative("expected_l2", _PARAMETERS),
    "penalty_grad": Derivative("penalty", _PARAMETERS),
    "dense_vjp": Derivative("dense", ("x", "weight", "bias", "z"), "dy"),
    "conv2d_vjp": Derivative("conv2d", ("x", "weight", "bias", "z"), "dy"),
}
"""What autograd adds to the functions that are there."""

ALIKE = 32
"""So many gates of one log_alpha are not the same by chance."""

LOSS = ("network", "x", "labels", "u", "lam", "l2", "n_train")
"""Arguments of ``loss``, which is not in the interface: from it `loss_and_grads` follows."""


class Adapted:
    """A target: what was given, behind arrays, and the derivatives that follow from it.

    Attributes
    ----------
    name : str
        What reports call it.
    """

    def __init__(self, name: str, functions: Mapping[str, Function]) -> None:
        self.name = name
        self.__dict__.update(functions)

    def __repr__(self) -> str:
        return f"<{self.name}: {', '.join(functions_of(self))}>"


def from_torch(functions: Any, *, name: str | None = None) -> Adapted:
    """Make a target of functions on PyTorch's tensors.

    Parameters
    ----------
    functions : module, object, or mapping of str to callable
        Any of the interface's functions, with its arguments: tensors for arrays, and plain numbers
        and dicts for the rest. Also ``loss(network, x, labels, u, *, lam, l2, n_train)``, the
        objective alone, of which autograd makes `loss_and_grads`.
    name : str, optional
        What reports call it.

    Returns
    -------
    Adapted

    Notes
    -----
    For `sample_partials`, beta, gamma and zeta are in turn tensors without axes.

    Examples
    --------
    >>> from_torch({"test_time": lambda log_alpha, **law: log_alpha}, name="wrong")
    <wrong: test_time, test_time_grad>
    """
    return _adapted(functions, _Torch(), name)


def from_jax(functions: Any, *, name: str | None = None) -> Adapted:
    """Make a target of functions on JAX's arrays.

    The parameters are those of `from_torch`. Calls with arrays of float64 run with 64 bits enabled,
    calls with float32 as JAX is set up.
    """
    return _adapted(functions, _Jax(), name)


def _adapted(
    functions: Any,
    framework: _Framework,
    name: str | None,
    derivatives: Mapping[str, Derivative] = DERIVATIVES,
) -> Adapted:
    own = functions_of(functions)
    made = {n: framework.on_arrays(f, FUNCTIONS[n].parameters) for n, f in own.items()}
    for derived, rule in derivatives.items():
        if rule.of in own and derived not in own:
            pulled = functools.partial(_derivative, framework, own[rule.of], rule)
            made[derived] = framework.on_arrays(pulled, FUNCTIONS[derived].parameters)
    is_mapping = isinstance(functions, Mapping)
    loss = functions.get("loss") if is_mapping else getattr(functions, "loss", None)
    if callable(loss) and "loss_and_grads" not in own:
        made["loss_and_grads"] = framework.on_arrays(
            functools.partial(_loss_and_grads, framework, loss), LOSS
        )
    if name is None:
        kind = "PyTorch" if isinstance(framework, _Torch) else "JAX"
        name = getattr(functions, "__name__", f"functions in {kind}")
    return Adapted(name, made)


# --- derivatives ---


def _derivative(framework: _Framework, forward: Function, rule: Derivative, **args: Any) -> Any:
    cotangent = args.pop(rule.cotangent) if rule.cotangent else None

    def of_inputs(values: Mapping[str, Any]) -> Any:
        y = forward(**{**args, **values})
        if not framework.is_tensor(y):
            raise NotImplementedError(f"{rule.of} gives a {type(y).__name__}: no gradient follows")
        return y

    # beta, gamma and zeta are one number for all gates: how all move with it is a push forward.
    numbers = [name for name in rule.wrt if name in ("beta", "gamma", "zeta")]
    arrays = {name: args[name] for name in rule.wrt if name not in numbers}
    grads = framework.pull(of_inputs, arrays, cotangent)[1]
    for name in numbers:
        grads[name] = framework.push(of_inputs, name, args[name], args["log_alpha"])
    several = tuple(grads[name] for name in rule.wrt)
    return several if len(several) > 1 else several[0]


def _loss_and_grads(framework: _Framework, loss: Function, **args: Any) -> Any:
    """Differentiate a loss in all parameters of its network."""
    network = args.pop("network")
    inputs = {
        f"{i}.{name}": layer[name]
        for i, layer in enumerate(network["layers"])
        for name in ("weight", "bias", "log_alpha")
        if layer.get(name) is not None
    }

    def of_inputs(values: Mapping[str, Any]) -> Any:
        layers = [dict(layer) for layer in network["layers"]]
        for path, value in values.items():
            position, name = path.split(".")
            layers[int(position)][name] = value
        return loss(network={**network, "layers": layers}, **args)

    value, grads = framework.pull(of_inputs, inputs, None, at_once=True)
    return {"loss": value, "grads": grads}


# --- the two libraries ---


class _Framework(abc.ABC):
    """What a library of tensors must be able to do."""

    @abc.abstractmethod
    def tensor(self, array: Any) -> Any:
        """Return an array as a tensor."""

    @abc.abstractmethod
    def is_tensor(self, value: Any) -> bool:
        """Whether a value is one of its tensors."""

    @abc.abstractmethod
    def array(self, tensor: Any) -> Any:
        """Return a tensor as an array of its own."""

    @abc.abstractmethod
    def pull(
        self,
        forward: Function,
        inputs: Mapping[str, Any],
        cotangent: Any,
        *,
        at_once: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """Return forward(inputs), and the cotangent (ones, if None) pulled back to each.

        `at_once` says that it is long, and better compiled as a whole, where there is a compiler.
        """

    @abc.abstractmethod
    def push(self, forward: Function, name: str, number: float, like: Any) -> Any:
        """Return the derivative of forward({name: number}) in that number, of like's dtype."""

    def context(self, args: Mapping[str, Any]) -> contextlib.AbstractContextManager[Any]:
        """Return what a call with these arrays must run in."""
        return contextlib.nullcontext()

    def on_arrays(self, function: Function, parameters: tuple[str, ...]) -> Function:
        """Return the function with arrays in place of tensors."""

        @functools.wraps(function, assigned=("__doc__", "__name__"), updated=())
        def call(*given: Any, **named: Any) -> Any:
            args = {**dict(zip(parameters, given, strict=False)), **named}
            with self.context(args):
                return self._out(function(**self._in(args)))

        return call

    def _in(self, value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return self.tensor(np.asarray(value))
        if isinstance(value, Mapping):
            return {key: self._in(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._in(part) for part in value)
        return value

    def _out(self, value: Any) -> Any:
        if self.is_tensor(value):
            return self.array(value)
        if isinstance(value, Mapping):
            return {key: self._out(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            parts = [self._out(part) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        return value


class _Torch(_Framework):
    @functools.cached_property
    def torch(self) -> Any:
        return importlib.import_module("torch")

    def tensor(self, array: Any) -> Any:
        # It shares the array's memory, so that what is changed in place is seen.
        mirrored = any(step < 0 for step in array.strides)
        return self.torch.from_numpy(array.copy() if mirrored else array)

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.torch.Tensor)

    def array(self, tensor: Any) -> Any:
        return np.array(tensor.detach().cpu().resolve_conj().resolve_neg().numpy())

    def pull(
        self,
        forward: Function,
        inputs: Mapping[str, Any],
        cotangent: Any,
        *,
        at_once: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
        y = forward(leaves)
        if cotangent is None:
            cotangent = self.torch.ones_like(y)
        grads = self.torch.autograd.grad(y, [*leaves.values()], cotangent, allow_unused=True)
        pairs = zip(leaves.items(), grads, strict=True)
        return y, {n: self.torch.zeros_like(x) if g is None else g for (n, x), g in pairs}

    def push(self, forward: Function, name: str, number: float, like: Any) -> Any:
        at = self.torch.tensor(number, dtype=like.dtype)
        one = self.torch.ones_like(at)
        return self.torch.func.jvp(lambda value: forward({name: value}), (at,), (one,))[1]


class _Jax(_Framework):
    @functools.cached_property
    def jax(self) -> Any:
        return importlib.import_module("jax")

    @functools.cached_property
    def numpy(self) -> Any:
        return importlib.import_module("jax.numpy")

    def tensor(self, array: Any) -> Any:
        return self.numpy.asarray(array)

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.jax.Array)

    def array(self, tensor: Any) -> Any:
        return np.array(tensor)

    def pull(
        self,
        forward: Function,
        inputs: Mapping[str, Any],
        cotangent: Any,
        *,
        at_once: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        for name, value in inputs.items():  # JAX would answer with an array of nothing
            if value.dtype.kind in "iub":
                raise TypeError(f"there is no derivative in {name}, an array of {value.dtype}")

        def both(values: dict[str, Any]) -> Any:
            y, pull = self.jax.vjp(forward, values)
            (grads,) = pull(self.numpy.ones_like(y) if cotangent is None else cotangent)
            return y, grads

        found: tuple[Any, dict[str, Any]]
        if at_once:  # else each operation is compiled by itself, for every new shape
            with contextlib.suppress(self.jax.errors.ConcretizationTypeError):
                found = self.jax.jit(both)(dict(inputs))
                return found
        found = both(dict(inputs))
        return found

    def push(self, forward: Function, name: str, number: float, like: Any) -> Any:
        at = self.numpy.asarray(number, like.dtype)
        one = self.numpy.ones_like(at)
        return self.jax.jvp(lambda value: forward({name: value}), (at,), (one,))[1]

    def context(self, args: Mapping[str, Any]) -> contextlib.AbstractContextManager[Any]:
        dtypes = set(_dtypes(args))
        if dtypes and np.float64 not in dtypes:
            return contextlib.nullcontext()
        enable = getattr(self.jax, "enable_x64", None)
        if enable is None:  # before JAX 0.8
            enable = importlib.import_module("jax.experimental").enable_x64
        context: contextlib.AbstractContextManager[Any] = enable(True)
        return context


def _dtypes(value: Any) -> Iterator[Any]:
    """Yield the floating dtypes of all arrays in a value."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            yield value.dtype.type
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _dtypes(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _dtypes(part)


# --- layers that draw by themselves ---


def from_torch_module(
    make: Function,
    gates: str | Function,
    *,
    parameter: str = "log_alpha",
    copies: int = 1024,
    name: str | None = None,
    **functions: str | Function,
) -> Adapted:
    """Make a target of a PyTorch module that draws its gates itself.

    Parameters
    ----------
    make : callable
        ``make(n, beta=..., gamma=..., zeta=...)`` returns a module with n gates. What it starts
        with does not matter: log_alpha is put into its parameter, and the module takes on its
        dtype.
    gates : str or callable
        The name of a method, or ``gates(module)``, that returns the gates as the layer uses them:
        drawn anew at each call in training, those of Eq. 13 after ``module.eval()``. A layer that
        only has ``forward`` can be asked for them by an input of ones and weights that add nothing,
        if its gates are on outputs; of gates on inputs a method must be given.
    parameter : str, optional
        The name of the module's parameter, with dots if it is a submodule's.
    copies : int, optional
        How many draws of all gates are taken at once, from a module with as many times the gates:
        hundreds of thousands of draws are needed. 1 where a module's gates cannot be multiplied.
    name : str, optional
        What reports call it.
    **functions : str or callable
        Other functions of the interface that take log_alpha: the name of a method, or
        ``function(module, ...)`` of the arguments besides log_alpha, beta, gamma and zeta, in the
        interface's order, such as ``prob_active="prob_on"``, or ``test_time=`` where the evaluated
        gates are another method's matter than the drawn ones.

    Returns
    -------
    Adapted
        With `draw`, `draw_vjp` (by autograd through the draw; each call starts from
        ``torch.manual_seed(seed)``), `test_time`, and what else was given, and their derivatives.
        A module with a generator of its own must seed it anew from PyTorch's in `make`, as by
        ``generator.manual_seed(int(torch.randint(2**62, ())))``.

    Raises
    ------
    ValueError
        If a name in `functions` is not that of a function of log_alpha alone.
    """
    module = _Module(make, parameter, copies)
    made: dict[str, Function] = {"draw": functools.partial(module.draw, _method(gates))}
    for function, how in {"test_time": gates, **functions}.items():
        allowed = FUNCTIONS[function].parameters if function in FUNCTIONS else ()
        if "log_alpha" not in allowed or "weight" in allowed or function.startswith("draw"):
            raise ValueError(f"{function!r} must be a function of the interface, of log_alpha")
        made[function] = functools.partial(module.evaluate, function, _method(how))
    derivatives = {n: d for n, d in DERIVATIVES.items() if n != "sample_partials"}
    target = _adapted(made, _Torch(), name or getattr(make, "__name__", "module"), derivatives)
    if "test_time_grad" not in made:
        target.__dict__["test_time_grad"] = _optional(target.__dict__["test_time_grad"])
    return target


def _method(how: str | Function) -> Function:
    if not isinstance(how, str):
        return how
    return lambda module, *rest: getattr(module, how)(*rest)


def _optional(derivative: Function) -> Function:
    """Return a derivative that is not there, rather than wrong, where nothing carries it."""

    @functools.wraps(derivative)
    def call(*given: Any, **named: Any) -> Any:
        try:
            return derivative(*given, **named)
        except RuntimeError as error:
            if "does not require grad" in str(error):
                raise NotImplementedError("the module has no gradient in evaluation") from None
            raise

    return call


class _Module:
    """A module made anew for each call, with the tensor that is differentiated for a parameter."""

    def __init__(self, make: Function, parameter: str, copies: int) -> None:
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        self.make, self.parameter, self.copies = make, parameter, copies
        self._framework = _Torch()
        self._is_multiplied = False

    def draw(
        self, gates: Function, log_alpha: Any, n: int, seed: int, **law: float
    ) -> Any:  # (n, *log_alpha.shape)
        flat = log_alpha.reshape(-1)
        if n == 0 or flat.numel() == 0:
            return flat.expand(n, -1).reshape(n, *log_alpha.shape)
        with self._own_random_state() as torch:
            if self.copies > 1 and n > 1:
                self._see_whether_gates_are_alike(gates, flat)
            at_once = min(n, self.copies)
            torch.manual_seed(seed)
            module = self._made(flat.repeat(at_once), law, training=True)
            drawn = [
                self._one_a_gate(gates(module), at_once * flat.numel())
                for _ in range(0, n, at_once)
            ]
            z = torch.cat(drawn).reshape(-1, flat.numel())[:n]
        return z.reshape(n, *log_alpha.shape)

    def _see_whether_gates_are_alike(self, gates: Function, like: Any) -> None:
        """Multiply gates no more if all that are alike are the same: they have one noise.

        Copies would make one draw of many, and hide which. By chance so many gates, each open or
        closed with a probability of a sixth, are the same once in 10^24 times.
        """
        if self._is_multiplied:
            return
        law = {"beta": 2 / 3, "gamma": -0.1, "zeta": 1.1}
        module = self._made(like.new_zeros(ALIKE), law, training=True)
        z = self._one_a_gate(gates(module), ALIKE)
        self._is_multiplied = bool((z != z[0]).any())
        if not self._is_multiplied:
            self.copies = 1

    def evaluate(self, name: str, function: Function, **args: Any) -> Any:
        log_alpha = args.pop("log_alpha")
        law = {key: args.pop(key) for key in ("beta", "gamma", "zeta")}
        others = [args[key] for key in FUNCTIONS[name].parameters if key in args]
        flat = log_alpha.reshape(-1)
        is_sum = name == "expected_l0"
        if flat.numel() == 0:
            return flat.sum() if is_sum else log_alpha
        with self._own_random_state():
            module = self._made(flat, law, training=name != "test_time")
            result = function(module, *(self._flat(other) for other in others))
        if is_sum or not self._framework.is_tensor(result):
            return result
        return self._one_a_gate(result, flat.numel()).reshape(log_alpha.shape)

    def _flat(self, value: Any) -> Any:
        return value.reshape(-1) if self._framework.is_tensor(value) else value

    @contextlib.contextmanager
    def _own_random_state(self) -> Iterator[Any]:
        torch = self._framework.torch
        with torch.random.fork_rng(devices=[]):
            yield torch

    def _made(self, log_alpha: Any, law: Mapping[str, float], *, training: bool) -> Any:
        module = self.make(log_alpha.numel(), **law)
        module = module.to(log_alpha.dtype).train(training)
        path, _, leaf = self.parameter.rpartition(".")
        owner = module.get_submodule(path)
        old = getattr(owner, leaf)
        if old.numel() != log_alpha.numel():
            raise ValueError(
                f"make must return a module with {log_alpha.numel()} gates, "
                f"its {self.parameter} has shape {tuple(old.shape)}"
            )
        delattr(owner, leaf)  # a parameter cannot be a tensor that depends on another
        setattr(owner, leaf, log_alpha.reshape(old.shape))
        return module

    def _one_a_gate(self, z: Any, n: int) -> Any:
        if z.numel() != n:
            raise ValueError(f"there must be one number a gate, {n}, got shape {tuple(z.shape)}")
        return z.reshape(-1)
