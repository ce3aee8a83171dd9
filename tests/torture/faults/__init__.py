"""A cluster of real processes under faults drawn from a seed, with clients whose every answer is checked."""
