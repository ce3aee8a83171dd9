"""All mutants."""

from tests.mutants import commands, leading, membership, records, service, state, voting
from tests.mutants.mutant import Mutant

EVERY: tuple[Mutant, ...] = (
    *voting.MUTANTS,
    *leading.MUTANTS,
    *membership.MUTANTS,
    *service.MUTANTS,
    *state.MUTANTS,
    *records.MUTANTS,
    *commands.MUTANTS,
)
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in EVERY}
