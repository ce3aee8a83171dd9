"""The error that ends a command."""


class BenchError(Exception):
    """A failed measurement or check; the message says what to change or to do."""
