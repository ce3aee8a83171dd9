"""Latency of PUTs and memory of the leader while watchers catch up, read slowly, or do not read at all."""
