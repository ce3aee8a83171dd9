"""Load, faults and comparisons with other stores: how fast this one is, and what it does when things break."""
