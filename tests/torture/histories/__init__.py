"""Histories of watches, reads of the past, leases and locks, recorded under faults and compared with each other."""
