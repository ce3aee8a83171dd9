"""The load generator, and the commands that show its figures."""
