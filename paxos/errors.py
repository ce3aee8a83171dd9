"""Errors of the protocol core, and the function that checks invariants."""


class InvariantError(Exception):
    """A violation of the protocol, caused by a bug or by damaged state. The process must end: its votes cannot be
    trusted."""


class ForgottenVotesError(InvariantError):
    """A leader counted votes of this acceptor that its storage no longer has. The replica must not vote with the data
    that is left (rule 5)."""


def require(holds: bool, violation: str) -> None:
    """Raise InvariantError with the message `violation` unless `holds`. Unlike an assert statement, this also works
    under `python -O`."""
    if not holds:
        raise InvariantError(violation)
