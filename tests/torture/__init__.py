"""Long runs of real processes that check correctness while replicas fail: `python -m tests.torture` lists them.

They use the load generator and the cluster helpers of `bench`. `tests/cluster` runs some of them in short.
"""
