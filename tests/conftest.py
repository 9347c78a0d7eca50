"""Hypothesis profiles: the same few examples on every run, or many random ones.

`pytest --hypothesis-profile=long` looks for what `ci`, the default, has not met yet. Failures that
it finds belong beside their test as an `@example`.
"""

from hypothesis import HealthCheck, settings

# They have no tests or examples, and import what only `pip install ".[peers]"` brings.
collect_ignore_glob = ["peers/models_*.py"]

# The examples of a test are few and slow (loops over mpmath numbers): their time says nothing.
settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("ci"), derandomize=False, max_examples=2000)
settings.load_profile("ci")
