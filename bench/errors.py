"""What ends a measurement early."""


class BenchError(Exception):
    """Nothing could be measured, or what was measured must not be used. The message says what to do."""
