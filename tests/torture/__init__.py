"""Long runs of real processes that check correctness while replicas fail: `python -m tests.torture` lists them.

The runs use the load generator and the cluster functions of `bench`. `tests/cluster` has short forms of some runs.
"""
