"""Comparison with other stores: the same loads on the same machine, in turn."""
