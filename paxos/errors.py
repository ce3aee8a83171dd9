"""What can be wrong inside the core, and the check that says so."""


class InvariantError(Exception):
    """A rule of the protocol is broken: by a bug or by damaged state. The process must end, its votes cannot be
    trusted."""


def require(holds: bool, rule: str) -> None:
    """Raise InvariantError unless `holds`; unlike assert also under `python -O`."""
    if not holds:
        raise InvariantError(rule)
