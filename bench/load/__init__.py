"""A load generator of our own: closed or open loop, several processes, every answer accounted for."""
