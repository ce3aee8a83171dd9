"""The error that ends a command."""


class BenchError(Exception):
    """A condition that prevents a measurement; the message names what to change."""
