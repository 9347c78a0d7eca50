"""The catalogue of known deviations: what implementations of this method get wrong, one by one.

Each entry is a subclass of `l0ref.oracle.plain.Plain` in which one thing is wrong, with its formula
and the sentence that is said to whom makes that mistake. What it changes and what it costs is not
written down but found by calling it: see `touched` and `cost`.

    python -m l0ref.oracle.deviations        the list, as markdown

Examples
--------
>>> DEVIATIONS["test-gate-median"].formula
'z_hat = min(1, max(0, sigmoid(log_alpha/beta) (zeta-gamma) + gamma))'
>>> print(cost("test-gate-median").text)
off by up to 0.108: `test_time`, log_alpha from -6 to 6 at the defaults
>>> touched("adam-epsilon-in-root")
('adam', 'train')
"""

# The order of these is the order of the list.
from . import law, gate, penalties, layers, counting, training, everywhere  # noqa: F401, I001
from .catalogue import DEVIATIONS, Cost, Deviation, cost, touched
from .listing import markdown

__all__ = ["DEVIATIONS", "Cost", "Deviation", "cost", "markdown", "touched"]
