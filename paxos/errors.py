"""What can be wrong inside the core, and the check that says so."""


class InvariantError(Exception):
    """A rule of the protocol is broken: by a bug or by damaged state. The process must end, its votes cannot be
    trusted."""


class ForgottenVotesError(InvariantError):
    """Others have counted votes of this acceptor that it knows nothing of: its storage has lost some. What is left is
    not to be voted with (rule 5)."""


def require(holds: bool, rule: str) -> None:
    """Raise InvariantError unless `holds`; unlike assert also under `python -O`."""
    if not holds:
        raise InvariantError(rule)
