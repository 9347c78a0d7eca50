"""Vectors of single gates: their law, their draws, their start, and what they are charged."""

# ruff: noqa: B023  (`match` calls what it is given before it returns)

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from flint import arb

from .arithmetic import Num, exact, fmap, paired
from .arithmetic import float32 as f32
from .formulas import (
    ONE,
    ZERO,
    Law,
    expected_l0,
    expected_l1,
    expected_l2,
    governed,
    group_size,
    moments,
    variables,
)
from .tape import Var, backward, constant, grad_of
from .writing import ROUNDING, Allowed, Area, Group

PAPER = "C. Louizos, M. Welling, D. P. Kingma, ICLR 2018, arXiv:1712.01312"

DEFAULT: dict[str, Any] = {"beta": f32(2 / 3), "gamma": f32(-0.1), "zeta": f32(1.1)}
LOPSIDED: dict[str, Any] = {
    "beta": Fraction(1, 2),
    "gamma": Fraction(-1, 4),
    "zeta": Fraction(3, 2),
}
WARM: dict[str, Any] = {"beta": Fraction(9, 4), "gamma": Fraction(-1), "zeta": Fraction(17, 16)}
COLD: dict[str, Any] = {"beta": f32(0.1), "gamma": Fraction(-1, 32), "zeta": Fraction(5, 4)}
LAWS: dict[str, dict[str, Any]] = {
    "default": DEFAULT,
    "lopsided": LOPSIDED,
    "warm": WARM,
    "cold": COLD,
}
"""beta, gamma and zeta: the paper's, and three with -gamma and zeta - 1 that differ."""

OUT_OF_RANGE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("beta-zero", "beta = 0", {"beta": Fraction(0)}),
    ("beta-negative", "beta < 0", {"beta": Fraction(-1, 2)}),
    ("gamma-zero", "gamma = 0 leaves no atom at 0", {"gamma": Fraction(0)}),
    ("gamma-positive", "gamma > 0", {"gamma": Fraction(1, 4)}),
    ("zeta-one", "zeta = 1 leaves no atom at 1", {"zeta": Fraction(1)}),
    ("zeta-small", "zeta < 1", {"zeta": Fraction(7, 8)}),
)


def q(text: str) -> Any:
    """Read numbers from a text: rows by semicolons; "nan" and infinities stay text."""

    def number(word: str) -> Any:
        return word if word in ("nan", "inf", "-inf") else Fraction(word)

    rows = [[number(word) for word in row.split()] for row in text.split(";")]
    return rows if len(rows) > 1 else rows[0]


class Dice:
    """Inputs by chance, the same for ever: multiples of 1/32."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def number(self, low: float, high: float, *, steps: int = 32) -> Fraction:
        """Return one between low and high, other than 0."""
        while True:
            n = self._random.randrange(int(low * steps), int(high * steps) + 1)
            if n:
                return Fraction(n, steps)

    def array(self, low: float, high: float, *shape: int, steps: int = 32) -> Any:
        """Return nested lists."""
        if not shape:
            return self.number(low, high, steps=steps)
        return [self.array(low, high, *shape[1:], steps=steps) for _ in range(shape[0])]

    def noise(self, *shape: int) -> Any:
        """Return u in (0, 1): multiples of 1/64, neither near 0 nor near 1, and not 1/2."""
        if not shape:
            while True:
                u = Fraction(self._random.randrange(3, 62), 64)
                if u != Fraction(1, 2):
                    return u
        return [self.noise(*shape[1:]) for _ in range(shape[0])]

    def labels(self, classes: int, n: int) -> list[int]:
        """Return class numbers."""
        return [self._random.randrange(classes) for _ in range(n)]


def _elementwise(function: Callable[..., Any], *arrays: Any) -> Any:
    """Apply; NaN in is NaN out."""

    def one(*values: Any) -> Any:
        return "nan" if "nan" in values else function(*values)

    return paired(one, *arrays)


def _refusals(group: Group, names: tuple[str, ...], **inputs: Any) -> None:
    for name, why, wrong in OUT_OF_RANGE:
        if next(iter(wrong)) in names:
            group.refuse(name, f"{why}.", ["parameters"], **(DEFAULT | inputs | wrong))


# --- the law ---

_LOG_ALPHAS: tuple[tuple[str, str, list[str], str], ...] = (
    ("typical", "Gates as they are in training.", [], "0.5 -3.25 2.75; -1.0625 0.15625 1.875"),
    ("closed", "Gates that are nearly always closed.", ["tail"], "-5.5 -9 -12.25 -16.5"),
    ("open", "Gates that are nearly always open.", ["tail"], "4.5 6.75 9.5 13.125 16.5"),
    ("extreme", "Far beyond any clamp.", ["extreme"], "-40 -27.5 -19.75 22.25 40"),
)


def law() -> Area:
    """P(z != 0), the distribution and its moments."""
    area = Area("law", "The law of one gate", PAPER)
    _prob_active(area)
    _distribution(area)
    _quantiles(area)
    _moments(area)
    return area


def _prob_active(area: Area) -> None:
    def active(law_: Any, la: Any) -> Any:
        return {"inf": 1, "-inf": 0}.get(la) if isinstance(la, str) else _p(law_, la).sigmoid()

    def log_active(law_: Any, la: Any) -> Any:
        return {"inf": 0, "-inf": la}.get(la) if isinstance(la, str) else _p(law_, la).log_sigmoid()

    def slope(law_: Any, la: Any) -> Any:
        if isinstance(la, str):
            return 0
        p = _p(law_, la).sigmoid()
        return p * (ONE - p)

    def _p(law_: Any, la: Any) -> Num:
        return Law.of(**law_).logit_active(Var(exact(la))).value

    flags = {
        "prob_active": ["beta-dropped", "gamma-zeta-swapped", "shift-sign"],
        "log_prob_active": ["beta-dropped", "log-of-clamped"],
        "prob_active_grad": ["beta-dropped", "clamped-gradient", "gradient-without-1-p"],
    }
    equations = {
        "prob_active": "Eq. 12: sigmoid(log_alpha - beta log(-gamma/zeta))",
        "log_prob_active": "Eq. 12, its logarithm",
        "prob_active_grad": "Eq. 12, its derivative P (1 - P)",
    }
    for name, function in (
        ("prob_active", active),
        ("log_prob_active", log_active),
        ("prob_active_grad", slope),
    ):
        for law_name, law_ in LAWS.items():
            group = area.group(
                f"{name.replace('_', '-')}-{law_name}", name, f"{name}, {law_name}", equations[name]
            )
            group.shared = dict(law_)
            for id_, comment, more, text in _LOG_ALPHAS:
                las = q(text)
                group.match(
                    id_,
                    comment,
                    [*flags[name], *more],
                    lambda: _elementwise(lambda la: function(law_, la), las),
                    log_alpha=las,
                )
        group = area.group(
            f"{name.replace('_', '-')}-edges", name, f"{name} at the edges", equations[name]
        )
        for id_, comment, more, text in (
            ("nan", "NaN in is NaN out.", ["nan"], "0.5 nan -1.25"),
            ("infinite", "Infinite log_alpha are legal.", ["infinite"], "inf -inf 0.75"),
            ("one-gate", "An array of a single gate.", [], "-2.40625"),
            ("zero", "log_alpha = 0, where P is not 1/2.", [], "0 0.25 0"),
        ):
            las = q(text)
            group.match(
                id_,
                comment,
                [*flags[name], *more],
                lambda: _elementwise(lambda la: function(DEFAULT, la), las),
                log_alpha=las,
                **DEFAULT,
            )
        if name == "prob_active":
            _refusals(group, ("beta", "gamma", "zeta"), log_alpha=q("0.5 -1.25"))
    group = area.group(
        "log-prob-active-underflow",
        "log_prob_active",
        "log P where P itself is 0 in floating point",
        "Eq. 12, its logarithm",
        **DEFAULT,
    )
    las = q("-120 -300 -800")
    group.match(
        "underflow",
        "P is below the least float32, or the least float64; its logarithm is an ordinary number.",
        ["log-of-clamped", "extreme"],
        lambda: _elementwise(lambda la: log_active(DEFAULT, la), las),
        log_alpha=las,
    )


_POINTS: tuple[tuple[str, str, list[str], str, str], ...] = (
    (
        "typical",
        "Points inside, gates as they are in training.",
        [],
        "0.125 0.8125 0.4375; 0.6875 0.03125 0.9375",
        "0.5 -1.25 2.75; -3.0625 1.15625 0.875",
    ),
    (
        "tails",
        "Gates that hardly ever, or nearly always, fall below x.",
        ["tail"],
        "0.25 0.75 0.0625 0.90625 0.375",
        "-12.5 -9.25 14.75 11.5 17.25",
    ),
    (
        "extreme",
        "Far beyond any clamp.",
        ["extreme"],
        "0.25 0.75 0.0625 0.90625",
        "-40 -25.5 40 27.75",
    ),
    (
        "near-the-ends",
        "Next to 0 and 1: the stretched law is smooth there.",
        [],
        "0.0000152587890625 0.99993896484375 0.99609375 0.001953125",
        "0.5 -0.75 1.5 -2.25",
    ),
)


_DENSITY = ROUNDING + ", and 8 epsilons of beta/(zeta-gamma) / (s (1-s)), for 1-Q by subtraction"


def _distribution(area: Area) -> None:
    def logit_sf(law_: Any, x: Any, la: Any) -> Num:
        return Law.of(**law_).logit_sf(Var(exact(x)), Var(exact(la))).value

    def sf(law_: Any, x: Any, la: Any) -> Any:
        if x < 0 or x >= 1:
            return int(x < 0)
        return int(la == "inf") if isinstance(la, str) else logit_sf(law_, x, la).sigmoid()

    def cdf(law_: Any, x: Any, la: Any) -> Any:
        if x < 0 or x >= 1:
            return int(x >= 1)
        return int(la == "-inf") if isinstance(la, str) else (-logit_sf(law_, x, la)).sigmoid()

    def logpdf(law_: Any, x: Any, la: Any) -> Any:
        return Law.of(**law_).log_density(Var(exact(x)), Var(exact(la)))

    def pdf(law_: Any, x: Any, la: Any) -> Any:
        own, density = Law.of(**law_), logpdf(law_, x, la).exp()
        s = own.unstretched(Var(exact(x))).value
        slope = own.beta.value / ((own.zeta - own.gamma).value * s * (ONE - s))
        # Q (1-Q) may come of a subtraction: an epsilon of 1, times what multiplies it
        return Num(density.v, density.err + slope.size)

    flags = {
        "cdf": ["upper-tail", "unstretched", "beta-dropped"],
        "sf": ["upper-tail", "one-minus-cdf", "unstretched"],
        "pdf": ["jacobian", "unstretched"],
        "logpdf": ["jacobian", "unstretched"],
    }
    source = "Eq. 22-24 of the paper's appendix: the binary concrete law, stretched"
    for name, function in (("cdf", cdf), ("sf", sf), ("pdf", pdf), ("logpdf", logpdf)):
        for law_name, law_ in LAWS.items():
            group = area.group(f"{name}-{law_name}", name, f"{name}, {law_name}", source, **law_)
            for id_, comment, more, xs, las in _POINTS:
                if (id_, law_name) in (("extreme", "warm"), ("extreme", "cold")):
                    continue
                x, la = q(xs), q(las)
                group.match(
                    id_,
                    comment,
                    [*flags[name], *more],
                    lambda: _elementwise(lambda a, b: function(law_, a, b), x, la),
                    reason=_DENSITY if name == "pdf" else ROUNDING,
                    x=x,
                    log_alpha=la,
                )
    for name, function in (("cdf", cdf), ("sf", sf)):
        group = area.group(f"{name}-edges", name, f"{name} at the edges", source)
        for id_, comment, more, xs, las in (
            (
                "atoms",
                "At 0 the atom is counted, at 1 all is.",
                ["atom"],
                "0 1 0 1",
                "0.5 -1.25 -3.5 3",
            ),
            ("outside", "Outside [0, 1].", ["atom"], "-0.0625 1.25 -2.5", "1.5 -2.75 -0.25"),
            ("nan", "NaN in is NaN out.", ["nan"], "0.25 nan 0.75", "nan 0.5 -1.25"),
            (
                "infinite",
                "Infinite log_alpha are legal.",
                ["infinite"],
                "0.25 0.625 0.5",
                "inf -inf 1",
            ),
        ):
            x, la = q(xs), q(las)
            group.match(
                id_,
                comment,
                [*flags[name], *more],
                lambda: _elementwise(lambda a, b: function(DEFAULT, a, b), x, la),
                x=x,
                log_alpha=la,
                **DEFAULT,
            )
    for name, function in (("pdf", pdf), ("logpdf", logpdf)):
        group = area.group(f"{name}-edges", name, f"{name} at the atoms", source)
        logarithm, reason = name == "logpdf", ROUNDING if name == "logpdf" else _DENSITY

        def mass(x: Fraction, la: Fraction) -> Num:
            t = logit_sf(DEFAULT, x, la)
            t = -t if x == 0 else t
            return t.log_sigmoid() if logarithm else t.sigmoid()

        x, la = q("0 1 0 1"), q("0.5 -1.25 -2.75 1.75")
        group.match(
            "atoms",
            "At 0 and 1 the law has a mass, and its stretched parent a density.",
            ["atom", "convention"],
            lambda: _elementwise(lambda a, b: function(DEFAULT, a, b), x, la),
            others=[
                ("the mass of the atom", lambda: _elementwise(mass, x, la)),
                (
                    "infinite, as a density for Lebesgue measure would be",
                    lambda: ["inf" for _ in x],
                ),
            ],
            reason=reason,
            x=x,
            log_alpha=la,
            **DEFAULT,
        )
        x, la = q("0.25 nan 0.75"), q("nan 0.5 -1.25")
        group.match(
            "nan",
            "NaN in is NaN out.",
            ["nan"],
            lambda: _elementwise(lambda a, b: function(DEFAULT, a, b), x, la),
            reason=reason,
            x=x,
            log_alpha=la,
            **DEFAULT,
        )


_DRAWS: tuple[tuple[str, str, list[str], dict[str, tuple[str, str]]], ...] = (
    (
        "typical",
        "Draws that are clipped at either end, and draws that are not.",
        ["beta-dropped", "noise-sign"],
        {
            "default": (
                "0.5 -1.5 3.5; 0.25 -0.75 -3.25",
                "0.296875 0.65625 0.8125; 0.4375 0.71875 0.25",
            ),
            "lopsided": (
                "0.5 -1.5 2.5; 0.25 -0.75 -3.25",
                "0.296875 0.65625 0.8125; 0.4375 0.71875 0.25",
            ),
            "warm": (
                "2.5 -1.5 3.5; 1.25 -0.75 9.25",
                "0.296875 0.65625 0.8125; 0.4375 0.96875 0.25",
            ),
            "cold": (
                "0.5 -0.75 3.5; 0.125 -1.75 -3.25",
                "0.375 0.671875 0.8125; 0.46875 0.84375 0.25",
            ),
        },
    ),
    (
        "noise-in-the-tails",
        "Noise next to 0 and 1, where a clamp of it shows.",
        ["noise-clamped", "extreme"],
        {
            "default": (
                "17.25 -16.5 11.375 -9.5625",
                "0.0000000298023223876953125 0.999999940395355224609375 "
                "0.000011444091796875 0.9999237060546875",
            ),
            "lopsided": (
                "17.25 -16.5 11.25 -9.5625",
                "0.0000000298023223876953125 0.999999940395355224609375 "
                "0.000011444091796875 0.9999237060546875",
            ),
        },
    ),
    (
        "extreme",
        "Gates that no ordinary u can open or close.",
        ["extreme"],
        {
            "default": ("-40 40 -22.5 25.75", "0.984375 0.015625 0.875 0.296875"),
            "cold": ("-40 40 -22.5 25.75", "0.984375 0.015625 0.875 0.296875"),
        },
    ),
)


def _quantiles(area: Area) -> None:
    source = "Eq. 10-11, read as the quantile at q = u"

    def ppf(law_: Any, p: Any, la: Any) -> Any:
        if isinstance(la, str):
            return int(la == "inf")
        return Law.of(**law_).sample(Var(exact(la)), exact(p)).value

    flags = ["upper-tail", "beta-dropped"]
    for law_name, law_ in LAWS.items():
        group = area.group(f"ppf-{law_name}", "ppf", f"Quantiles, {law_name}", source, **law_)
        for id_, comment, more, texts in _DRAWS:
            if law_name in texts:
                la, p = (q(text) for text in texts[law_name])
                group.match(
                    id_,
                    comment.replace("Noise", "Probabilities").replace("of it", "of them"),
                    [*flags, *(flag for flag in more if "noise" not in flag)],
                    lambda: _elementwise(lambda a, b: ppf(law_, a, b), p, la),
                    q=p,
                    log_alpha=la,
                )
    group = area.group("ppf-edges", "ppf", "Quantiles at the edges", source)
    for id_, comment, more, ps, las in (
        ("nan", "NaN in is NaN out.", ["nan"], "0.25 0.375 nan", "nan 0.5 -1.25"),
        (
            "infinite",
            "Infinite log_alpha are legal.",
            ["infinite"],
            "0.25 0.625 0.375",
            "inf -inf 0.5",
        ),
    ):
        p, la = q(ps), q(las)
        group.match(
            id_,
            comment,
            [*flags, *more],
            lambda: _elementwise(lambda a, b: ppf(DEFAULT, a, b), p, la),
            q=p,
            log_alpha=la,
            **DEFAULT,
        )


_QUADRATURE = (
    "there is no closed form: 1e-9 of the value for a quadrature in float64, 2e-5 in float32, and "
    "1e-12 or 1e-6 for what is taken from 1"
)


def _quadrature(value: Num) -> Allowed:
    return Allowed(1e-9 * value.size + 1e-12, 2e-5 * value.size + 1e-6)


def _moments(area: Area) -> None:
    for which, name in enumerate(("mean", "var")):
        flag = "mean-is-no-test-gate" if name == "mean" else "variance"
        source = "E[z] and Var[z] of Eq. 10-11, by integration"
        for law_name, law_ in LAWS.items():
            group = area.group(f"{name}-{law_name}", name, f"{name}, {law_name}", source, **law_)
            for id_, comment, more, text in (
                (
                    "typical",
                    "Gates as they are in training.",
                    [],
                    "0.5 -3.25 2.75; -1.0625 0.15625 1.875",
                ),
                (
                    "tails",
                    "Nearly always closed, nearly always open.",
                    ["tail"],
                    "-7.5 -4.25 5.5 8.75",
                ),
            ):
                las = q(text)
                group.match(
                    id_,
                    comment,
                    [flag, "beta-dropped", *more],
                    lambda: fmap(lambda la: moments(la, **law_)[which], las),
                    tolerance=_quadrature,
                    reason=_QUADRATURE,
                    log_alpha=las,
                )
        group = area.group(f"{name}-edges", name, f"{name} at the edges", source)
        for id_, comment, more, text in (
            ("nan", "NaN in is NaN out.", ["nan"], "nan 0.5"),
            ("infinite", "Infinite log_alpha are legal.", ["infinite"], "inf -inf 0.5"),
        ):
            las = q(text)

            def one(la: Any) -> Any:
                if isinstance(la, str):
                    return int(la == "inf" and which == 0)
                return moments(la, **DEFAULT)[which]

            group.match(
                id_,
                comment,
                [flag, *more],
                lambda: _elementwise(one, las),
                tolerance=_quadrature,
                reason=_QUADRATURE,
                log_alpha=las,
                **DEFAULT,
            )


# --- draws and the test gate ---

_COTANGENT = q("0.84375 -1.40625 0.53125; -0.28125 1.71875 0.96875")
_MIRRORED = "the noise enters with the other sign: u and 1-u have one law"


def gate() -> Area:
    """Draws and their derivatives; the gate at test time."""
    area = Area("gate", "Draws, and the gate at test time", PAPER)
    _draws(area)
    _edges_of_draws(area)
    _test_gate(area)
    return area


def _partials(law_: Any, la: Any, u: Any) -> tuple[Num, Num, Num, Num]:
    point, own = Var(exact(la)), Law.of(**law_)
    z = own.sample(point, exact(u))
    backward([(z, ONE)])
    return point.grad, own.beta.grad, own.gamma.grad, own.zeta.grad


def _draws(area: Area) -> None:
    def sample(law_: Any, la: Any, u: Any) -> Any:
        return _elementwise(
            lambda a, b: Law.of(**law_).sample(Var(exact(a)), exact(b)).value, la, u
        )

    def vjp(law_: Any, la: Any, u: Any, dz: Any) -> Any:
        return _elementwise(lambda a, b, c: _partials(law_, a, b)[0] * exact(c), la, u, dz)

    def partials(law_: Any, la: Any, u: Any) -> Any:
        return tuple(_elementwise(lambda a, b: _partials(law_, a, b)[k], la, u) for k in range(4))

    for law_name, law_ in LAWS.items():
        groups = [
            area.group(
                f"{name.replace('_', '-')}-{law_name}", name, f"{name}, {law_name}", source, **law_
            )
            for name, source in (
                ("sample", "Eq. 10-11"),
                ("sample_vjp", "Eq. 10-11, differentiated; 0 where z is clipped"),
                ("sample_partials", "Eq. 10-11, differentiated; 0 where z is clipped"),
            )
        ]
        for id_, comment, more, texts in _DRAWS:
            if law_name not in texts:
                continue
            la, u = (q(text) for text in texts[law_name])
            mirror = fmap(lambda value: 1 - value, u)
            dz = _COTANGENT if isinstance(la[0], list) else q("0.84375 -1.40625 0.53125 -0.28125")
            groups[0].match(
                id_,
                comment,
                [*more, "stretch-dropped"],
                lambda: sample(law_, la, u),
                others=[(_MIRRORED, lambda: sample(law_, la, mirror))],
                log_alpha=la,
                u=u,
            )
            groups[1].match(
                id_,
                comment,
                [*more, "clip-leaks", "cotangent-ignored"],
                lambda: vjp(law_, la, u, dz),
                others=[(_MIRRORED, lambda: vjp(law_, la, mirror, dz))],
                log_alpha=la,
                u=u,
                dz=dz,
            )
            groups[2].match(
                id_,
                comment,
                [*more, "clip-leaks"],
                lambda: partials(law_, la, u),
                others=[(_MIRRORED, lambda: partials(law_, la, mirror))],
                log_alpha=la,
                u=u,
            )


def _edges_of_draws(area: Area) -> None:
    las, u, dz = q("inf -inf inf"), q("0.296875 0.71875 0.53125"), q("0.84375 -1.40625 0.53125")
    comment = "Infinite log_alpha are legal: gates of 1 and 0, which nothing moves."
    group = area.group("sample-edges", "sample", "sample at the edges", "Eq. 10-11")
    group.match("infinite", comment, ["infinite"], lambda: [1, 0, 1], log_alpha=las, u=u, **DEFAULT)
    group.match(
        "nan",
        "NaN in is NaN out: min(1, max(0, NaN)) closes the gate in silence.",
        ["nan"],
        lambda: ["nan", "nan"],
        log_alpha=q("nan nan"),
        u=q("0.296875 0.71875"),
        **DEFAULT,
    )
    barely = q("-0.7291259765625 -2.5361328125 -1.7237548828125 1.9774169921875 -3.40875244140625")
    noise = q("0.296875 0.71875 0.53125 0.40625 0.859375")
    mirror = fmap(lambda value: 1 - value, noise)

    def barely_open(u: Any) -> Any:
        def one(la: Any, u: Any) -> Any:
            return Law.of(**DEFAULT).sample(Var(exact(la)), exact(u), values_only=True).value

        return _elementwise(one, [barely, barely], u)

    group.match(
        "barely",
        "Gates of 1e-3, 1e-4 and 7e-7, and 1e-4 below 1, and one that is just closed; mirrored "
        "in the second row.",
        [],
        lambda: barely_open([noise, mirror]),
        others=[(_MIRRORED, lambda: barely_open([mirror, noise]))],
        log_alpha=[barely, barely],
        u=[noise, mirror],
        **DEFAULT,
    )
    _refusals(group, ("beta", "gamma", "zeta"), log_alpha=q("0.5 -1.25"), u=q("0.25 0.75"))
    group = area.group(
        "sample-vjp-edges",
        "sample_vjp",
        "sample_vjp at the edges",
        "Eq. 10-11, differentiated",
        **DEFAULT,
    )
    group.match("infinite", comment, ["infinite"], lambda: [0, 0, 0], log_alpha=las, u=u, dz=dz)

    # s = 1/2 exactly, and s_bar is 0 or 1 exactly: at log_alpha = 0 and u = 1/2.
    for id_, ends in (
        ("kink-at-0", {"gamma": Fraction(-2), "zeta": Fraction(2)}),
        ("kink-at-1", {"gamma": Fraction(-1), "zeta": Fraction(3)}),
    ):
        law_ = {"beta": Fraction(1, 2)} | ends
        slope = (law_["zeta"] - law_["gamma"]) / 4 / law_["beta"]
        dz = q("0.84375 -1.40625")
        group = area.group(
            f"sample-vjp-{id_}", "sample_vjp", "s_bar exactly at an end", "a convention", **law_
        )
        group.match(
            "kink",
            "The draw lies exactly on the end: any number between 0 and the inner slope is honest.",
            ["kink", "convention"],
            lambda: [0, 0],
            others=[
                ("the slope inside", lambda: [exact(d * slope) for d in dz]),
                ("half of the slope inside", lambda: [exact(d * slope / 2) for d in dz]),
            ],
            log_alpha=q("0 0"),
            u=q("0.5 0.5"),
            dz=dz,
        )


def _test_gate(area: Area) -> None:
    def value(law_: Any, la: Any) -> Any:
        if isinstance(la, str):
            return int(la == "inf")
        return Law.of(**law_).test_time(Var(exact(la)), values_only=True).value

    def slope(law_: Any, la: Any) -> Any:
        if isinstance(la, str):
            return 0
        point = Var(exact(la))
        backward([(Law.of(**law_).test_time(point), ONE)])
        return point.grad

    flags = ["beta-in-test-gate", "test-gate-is-no-median", "test-gate-is-no-mean"]
    for name, function in (("test_time", value), ("test_time_grad", slope)):
        more = ["clip-leaks"] if name == "test_time_grad" else ["stretch-dropped"]
        for law_name, law_ in LAWS.items():
            group = area.group(
                f"{name.replace('_', '-')}-{law_name}",
                name,
                f"{name}, {law_name}",
                "Eq. 13: min(1, max(0, sigmoid(log_alpha) (zeta-gamma) + gamma))",
                **law_,
            )
            for id_, comment, own, text in (
                ("typical", "Open, closed and between.", [], "0.5 -4.5 2.125; -1.0625 0.1875 5.5"),
                ("between", "Gates between 0 and 1.", [], "0.25 -0.5 0.78125"),
                (
                    "extreme",
                    "Gates that are surely open or closed.",
                    ["extreme"],
                    "-40 40 -9.5 11.25",
                ),
            ):
                las = q(text)
                group.match(
                    id_,
                    comment,
                    [*flags, *more, *own],
                    lambda: _elementwise(lambda la: function(law_, la), las),
                    log_alpha=las,
                )
        group = area.group(
            f"{name.replace('_', '-')}-edges", name, f"{name} at the edges", "Eq. 13"
        )
        for id_, comment, own, text in (
            ("nan", "NaN in is NaN out.", ["nan"], "nan 0.5" if name == "test_time" else ""),
            ("infinite", "Infinite log_alpha are legal.", ["infinite"], "inf -inf 0.75"),
            ("zero", "log_alpha = 0: the middle.", [], "0 -0.25 0"),
            (
                "barely",
                "Gates of 1e-3, 1e-4 and 6e-7, and 1e-4 below 1, and one that is just closed.",
                [],
                "-2.38671875 -2.396728515625 -2.39788818359375 2.396728515625 -2.39794921875"
                if name == "test_time"
                else "",
            ),
        ):
            if not text:
                continue
            las = q(text)
            group.match(
                id_,
                comment,
                own,
                lambda: _elementwise(lambda la: function(DEFAULT, la), las),
                log_alpha=las,
                **DEFAULT,
            )
        if name == "test_time":
            _refusals(group, ("gamma", "zeta"), log_alpha=q("0.5 -1.25"))
    for id_, ends in (
        ("kink-at-0", {"gamma": Fraction(-2), "zeta": Fraction(2)}),
        ("kink-at-1", {"gamma": Fraction(-1), "zeta": Fraction(3)}),
    ):
        group = area.group(
            f"test-time-grad-{id_}",
            "test_time_grad",
            "s_bar exactly at an end",
            "a convention",
            beta=DEFAULT["beta"],
            **ends,
        )
        group.match(
            "kink",
            "The gate lies exactly on the end: any number between 0 and the inner slope is honest.",
            ["kink", "convention"],
            lambda: [0, 0],
            others=[
                ("the slope inside", lambda: [1, 1]),
                ("half of the slope inside", lambda: [exact(Fraction(1, 2))] * 2),
            ],
            log_alpha=q("0 0"),
        )


# --- initialisation ---


def initialisation() -> Area:
    """Initial log_alpha and weights."""
    area = Area("initialisation", "How training starts", PAPER)
    normal = q("0.8125 -1.34375 0.28125; -0.09375 2.03125 -0.71875")
    group = area.group(
        "init-log-alpha",
        "init_log_alpha",
        "Initial log_alpha from a drop rate",
        "section 4 of the paper: N(log((1-p)/p), 0.01^2), p the drop rate",
    )
    for id_, rate in (
        ("drop-0.2", f32(0.2)),
        ("drop-0.3", f32(0.3)),
        ("drop-0.875", Fraction(7, 8)),
        ("drop-0.5", Fraction(1, 2)),
        ("drop-0.001", f32(0.001)),
    ):
        group.match(
            id_,
            f"Gates that are dropped with probability {id_[5:]}.",
            ["keep-for-drop", "init-noise"],
            lambda: fmap(
                lambda n: (
                    ((ONE - exact(rate)) / exact(rate)).log() + exact(Fraction(1, 100)) * exact(n)
                ),
                normal,
            ),
            drop_rate=rate,
            normal=normal,
        )
    for id_, refused in (("0", "0"), ("1", "1"), ("negative", "-0.25"), ("1.5", "1.5")):
        group.refuse(
            f"drop-{id_}",
            "log((1-p)/p) is no number there.",
            ["parameters"],
            drop_rate=Fraction(refused),
            normal=normal,
        )
    group = area.group(
        "init-weight",
        "init_weight",
        "He's initialisation on the true fan",
        "K. He et al., ICCV 2015: standard deviation sqrt(2 / fan_in)",
    )
    dice = Dice("init")
    for id_, comment, shape, fan in (
        ("dense", "(D_in, D_out): the fan is D_in.", (3, 5), 3),
        ("dense-tall", "More inputs than outputs.", (5, 2), 5),
        ("conv2d", "(C_out, C_in, kh, kw): the fan is C_in kh kw.", (4, 2, 3, 1), 6),
        ("conv2d-one-map", "One map in, many out: what LeNet-5 starts with.", (5, 1, 2, 3), 6),
    ):
        noise = dice.array(-2, 2, *shape)
        group.match(
            id_,
            comment,
            ["fan-in"],
            lambda: fmap(lambda n: (exact(2) / exact(fan)).sqrt() * exact(n), noise),
            normal=noise,
        )
    return area


# --- penalties ---

_SHAPES: tuple[tuple[str, tuple[int, ...], str, bool], ...] = (
    ("dense-inputs", (3, 5), "inputs", False),
    ("dense-outputs-bias", (3, 5), "outputs", True),
    ("dense-outputs", (4, 2), "outputs", False),
    ("dense-weights", (2, 3), "weights", False),
    ("conv2d-outputs-bias", (3, 2, 2, 1), "outputs", True),
    ("conv2d-outputs", (2, 3, 1, 3), "outputs", False),
    ("conv2d-weights", (2, 1, 3, 2), "weights", False),
)


def gate_shape(weight_shape: tuple[int, ...], on: str) -> tuple[int, ...]:
    """Return the shape of one draw."""
    if on == "weights":
        return weight_shape
    is_conv = len(weight_shape) == 4
    return (weight_shape[0 if (on == "outputs") == is_conv else 1],)


def penalties() -> Area:
    """Group sizes, and the expected norms with their gradients."""
    area = Area("penalties", "What gates are charged", PAPER)
    _group_sizes(area)
    _l0(area)
    for name in ("expected_l2", "expected_l1", "penalty"):
        _norm(area, name)
    return area


def _group_sizes(area: Area) -> None:
    group = area.group(
        "group-size",
        "group_size",
        "Parameters that each gate governs",
        "Eq. 15: |g|; a bias counts where the gate switches it off",
    )
    more: tuple[tuple[str, tuple[int, ...], str, bool], ...] = (
        ("dense-outputs-300", (7, 300), "outputs", True),
        ("lenet-conv", (4, 20, 5, 5), "outputs", True),
        ("lenet-conv-no-bias", (4, 20, 5, 5), "outputs", False),
        ("dense-inputs-bias-flag", (4, 3), "inputs", True),
        ("beyond-16-bits", (40_000, 3), "outputs", True),
    )
    for id_, shape, on, both in (*_SHAPES, *more):
        group.match(
            id_,
            f"A weight of shape {shape}, gates on {on}, gates_bias {both}.",
            ["bias-not-counted" if both else "ungated-bias-counted", "group-size"],
            lambda: group_size(shape, on=on, gates_bias=both),
            weight_shape=shape,
            on=on,
            gates_bias=both,
        )


def _l0(area: Area) -> None:
    def terms(law_: Any, las: Any, sizes: Any, gradient: bool) -> Any:
        gates, own = variables(las), Law.of(**law_)
        p = paired(lambda la, n: own.prob_active(la) * constant(exact(n)), gates, sizes)
        sum_ = p[0]
        for term in p[1:]:
            sum_ = sum_ + term
        backward([(sum_, ONE)])
        return grad_of(gates) if gradient else sum_.value

    for gradient in (False, True):
        name = "expected_l0_grad" if gradient else "expected_l0"
        for law_name, law_ in LAWS.items():
            group = area.group(
                f"{name.replace('_', '-')}-{law_name}",
                name,
                f"{name}, {law_name}",
                "Eq. 12 and 15: the sum of |g| P(z_g != 0), a count",
                **law_,
            )
            for id_, comment, more, las, sizes in (
                (
                    "typical",
                    "Gates as they are in training.",
                    [],
                    "0.5 -3.25 2.75 -1.0625",
                    [300, 7, 26, 1],
                ),
                (
                    "closed",
                    "What is left of closed gates.",
                    ["tail"],
                    "-9.5 -13.25 -7",
                    [100, 501, 12],
                ),
                (
                    "open",
                    "What is left of the gradient at open gates.",
                    ["tail"],
                    "6.5 9.25 4.75",
                    [25, 3, 81],
                ),
                ("extreme", "Far beyond any clamp.", ["extreme"], "-40 -22.5 -30", [3, 17, 500]),
            ):
                values = q(las)
                group.match(
                    id_,
                    comment,
                    ["mean-for-sum", "group-size", "beta-dropped", *more]
                    + (["clamped-gradient"] if gradient else []),
                    lambda: terms(law_, values, sizes, gradient),
                    log_alpha=values,
                    group_size=sizes,
                )


def _norm(area: Area, name: str) -> None:
    source = {
        "expected_l2": "Eq. 14 and 15: the sum of P(z_g != 0) times squares, without 1/2",
        "expected_l1": "as Eq. 14, of absolute values",
        "penalty": "lam/N sum |g| P + l2/(2N) sum P theta^2, Eq. 9 and 14",
    }[name]
    flags = {
        "expected_l2": ["half", "gate-for-probability"],
        "expected_l1": ["gate-for-probability"],
        "penalty": ["half", "n-train", "mean-for-sum"],
    }[name]

    def value(case: Any, law_: Any, strength: Any, at_zero: Any = None) -> Any:
        la, weight, bias, on, both = case
        theta = variables({"log_alpha": la, "weight": weight, "bias": bias})
        gates = governed(*theta.values(), on=on, gates_bias=both, law=Law.of(**law_))
        if name == "expected_l2":
            result = expected_l2(gates)
        elif name == "expected_l1":
            result = expected_l1(gates, at_zero=at_zero)
        else:
            n = strength["n_train"]
            result = constant(exact(strength["lam"]) / exact(n)) * expected_l0(gates)
            if strength["l2"]:
                half = constant(exact(strength["l2"]) / exact(2 * n))
                result = result + half * expected_l2(gates)
        return theta, result

    def gradient(*case: Any) -> Any:
        theta, result = value(*case)
        backward([(result, ONE)])
        return tuple(grad_of(part) for part in theta.values())

    group = area.group(name.replace("_", "-"), name, name, source)
    slopes = area.group(
        f"{name.replace('_', '-')}-grad", f"{name}_grad", f"Gradient of {name}", source
    )
    dice = Dice(name)
    laws = list(LAWS.items())
    strengths = ((f32(0.1), Fraction(0), 60000), (Fraction(3, 4), Fraction(5, 2), 700))
    for k, (id_, shape, on, both) in enumerate((*_SHAPES, *_SHAPES)):
        law_name, law_ = laws[k % len(laws)]
        n_out = shape[1] if len(shape) == 2 else shape[0]
        weight, bias = dice.array(-1.75, 1.75, *shape), dice.array(-1.5, 1.5, n_out)
        la = dice.array(-4, 4, *gate_shape(shape, on))
        case = (la, weight, bias, on, both)
        inputs: dict[str, Any] = {"log_alpha": la, "weight": weight, "bias": bias}
        inputs |= {"on": on, "gates_bias": both} | law_
        strength: dict[str, Any] = {}
        if name == "penalty":
            strength = dict(zip(("lam", "l2", "n_train"), strengths[k % 2], strict=True))
            inputs |= strength
        elif k >= len(_SHAPES):
            break
        test_id = f"{id_}-{law_name}" + ("-l2" if strength.get("l2") else "")
        own = [*flags, "bias-not-counted" if both else "ungated-bias-counted"]
        comment = f"A weight of shape {shape}, gates on {on}, gates_bias {both}."
        group.match(
            test_id,
            comment,
            own,
            lambda: value(case, law_, strength)[1].value,
            **inputs,
        )
        slopes.match(
            test_id,
            comment,
            own,
            lambda: gradient(case, law_, strength),
            **inputs,
        )
    if name == "expected_l1":
        case = (
            q("0.5 -1.25"),
            [q("0 1.25 -0.5"), q("-0.75 0 0.25")],
            q("0.5 1 -1"),
            "inputs",
            False,
        )
        slopes.match(
            "kink",
            "Two weights are exactly 0, where the absolute value has no derivative.",
            ["kink", "convention"],
            lambda: gradient(case, DEFAULT, None, ZERO),
            others=[
                ("the slope from above", lambda: gradient(case, DEFAULT, None, ONE)),
                ("the slope from below", lambda: gradient(case, DEFAULT, None, Num(arb(-1)))),
            ],
            **dict(zip(("log_alpha", "weight", "bias", "on", "gates_bias"), case, strict=True)),
            **DEFAULT,
        )
    dice = Dice(name + " refused")
    inputs = {
        "log_alpha": dice.array(-2, 2, 4),
        "weight": dice.array(-1, 1, 3, 5),
        "bias": dice.array(-1, 1, 5),
        "on": "inputs",
        "gates_bias": False,
    } | DEFAULT
    if name == "penalty":
        inputs |= {"lam": f32(0.1), "l2": Fraction(0), "n_train": 100}
    comment = "Four gates for a weight with three inputs."
    group.refuse("shape", comment, ["shapes"], **inputs)
    slopes.refuse("shape", comment, ["shapes"], **inputs)
