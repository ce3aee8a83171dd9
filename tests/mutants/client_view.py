"""Mutants of what clients see of the past and of the state that stands for it: pages of events, history, lists, queues. The simulation has to find them by itself."""

from tests.mutants.mutant import SIMULATED, Mutant

MUTANTS = (
    Mutant(
        "page-of-events-skips-a-change-of-a-long-revision",
        (21,),
        "A page that ends inside a revision lets the next one begin a change too late.",
        "kvstore.server.http.event_pages.encode_page",
        "return EventPage(end, events.frames(), False)",
        "return EventPage(end + 1, events.frames(), False)",
        SIMULATED,
    ),
    Mutant(
        "revision-told-before-its-last-event",
        (21,),
        "The first events of a revision have its id already: a client that continues after it misses the others.",
        "kvstore.server.http.event_pages._Events.add",
        'self._encode_last(b"")',
        "self.end_revision(revision_of(change.position))",
        SIMULATED,
    ),
    Mutant(
        "entry-watched-in-part",
        (6,),
        "A watch is sent what an entry that is applied in part has changed so far.",
        "kvstore.state_machine.history.History.after",
        "if self.shown is None else self._index_after(self.shown)",
        "",
        SIMULATED,
    ),
    Mutant(
        "oldest-revision-refused",
        (26,),
        "The oldest revision that is kept is called compacted.",
        "kvstore.state_machine.reads.look_up",
        "oldest <= revision",
        "oldest < revision",
        SIMULATED,
    ),
    Mutant(
        "history-one-revision-short",
        (26,),
        "A revision less than the limit is kept.",
        "kvstore.replica.retention.Retention.compact",
        ">= first_of(limits.history_revisions)",
        "> first_of(max(0, limits.history_revisions - 2))",
        SIMULATED,
    ),
    Mutant(
        "queue-in-another-order-after-loading",
        (21, 25),
        "After a start or a snapshot, the last one that waits for a lock holds it.",
        "kvstore.state_machine.lease_index.LeaseIndex.__init__",
        "sorted(records)",
        "sorted(sorted(records, reverse=True), key=lambda row: row[0][:2])",
        SIMULATED,
    ),
    Mutant(
        "key-order-loses-keys-that-are-forgotten",
        (21,),
        "A key whose changes are compacted is left out of lists, unless it was deleted.",
        "kvstore.state_machine.state_machine.StateMachine.forget",
        "and key not in self.records",
        "",
        SIMULATED,
    ),
)
