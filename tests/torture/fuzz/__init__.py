"""Malformed requests: a replica must stay up, answer good requests meanwhile, and not grow in memory."""
