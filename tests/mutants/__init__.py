"""Planted bugs: in the package, for the suite to kill, and in targets, for the oracle to name.

python -m tests.mutants             all of those in the package
python -m tests.mutants NAME ...    some
"""
