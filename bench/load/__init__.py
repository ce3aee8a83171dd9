"""The load generator, and the commands that report its figures."""
