"""All mutants."""

from tests.mutants import client_view, commands, leading, membership, records, service, state, unseen, voting
from tests.mutants.mutant import Mutant

EVERY: tuple[Mutant, ...] = (
    *voting.MUTANTS,
    *leading.MUTANTS,
    *membership.MUTANTS,
    *service.MUTANTS,
    *state.MUTANTS,
    *records.MUTANTS,
    *commands.MUTANTS,
    *unseen.MUTANTS,
    *client_view.MUTANTS,
)
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in EVERY}
