"""Torture of real processes: faults drawn from a seed, clients over HTTP, and a check of all that they were told."""
