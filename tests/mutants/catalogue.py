"""All mutants."""

from tests.mutants import leading, records, service, voting
from tests.mutants.mutant import Mutant

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for mutant in (*voting.MUTANTS, *leading.MUTANTS, *service.MUTANTS, *records.MUTANTS)
}
