"""This store beside others: the same load, the same machine, in turn."""
