"""The mutants that the simulator and the explorer cannot see in principle, with the reason."""

from tests.mutants.mutant import Mutant

FILES = "Most simulated disks are `storage/memory.py`. Those with SQLite have one file and no storage thread."
LINKS = "The simulated network has no sockets, secrets or handshakes: it names the sender of each message truthfully."
PROCESS = "The simulated clients call the node: no process, event loop, HTTP, watch or client library."
BACKUP = "Backups are made and restored by commands on files."
BOUND = "Only memory, or the rate of work, is without bound: every answer is right."
DAMAGE = "No simulated disk or page is damaged, so that the digests always agree."
GUARD = "A check of the storage, which no sound caller ever fails: see `storage.hard_state.misuse`."
HARMLESS = "Every answer, and every message, is right without it."
RELEASE = "The simulated replicas all run this release, and so does their log."

_FOLDERS = {
    "storage/base.py": "",
    "storage/hard_state.py": "",
    "storage/": FILES,
    "kvstore/peers/": LINKS,
    "kvstore/server/http/event_pages.py": "",
    "kvstore/server/": PROCESS,
    "kvstore/client/": PROCESS,
    "kvstore/cli/": PROCESS,
    "kvstore/backup/": BACKUP,
}
"""The reason for all mutants of a folder; the first entry that fits a path counts."""
NAMES = {
    # The state is looked up between two looks at the clock, and the read is right as of the first one.
    "clock-read-once": HARMLESS,
    # The next page is asked for once the one before is counted, so that the last page is never counted before others.
    "pages-counted-in-any-order": HARMLESS,
    # Chance in delays and clock rates ends duels, too, and of two ballots of one round one is always the higher.
    "no-randomness": HARMLESS,
    "digest-not-compared": DAMAGE,
    "cut-beyond-what-is-applied": GUARD,
    "anybody-speaks-for-a-ballot": LINKS,
    "start-of-a-peer-forgotten": LINKS,
    "command-renamed-in-the-log": RELEASE,
    "history-bounded-by-age-alone": BOUND,
    "hold-for-the-silent": BOUND,
    "hold-without-bound": BOUND,
    "asks-before-it-has-stored": BOUND,
    "log-bounded-by-slots-alone": BOUND,
    "pages-without-a-pause": BOUND,
    "state-in-one-page": BOUND,
    "waiting-for-the-disk-without-bound": BOUND,
}
"""The reason for single mutants."""


def blindness(mutant: Mutant) -> str:
    """Return the reason why neither the simulator nor the explorer can see `mutant`, empty if one of them could."""
    folder = next((reason for folder, reason in _FOLDERS.items() if mutant.path.startswith(folder)), "")
    return NAMES.get(mutant.name, folder)
