"""Mutants of the service: `kvstore/`."""

from tests.mutants.mutant import UNIT, Mutant

STEP = "        if self._answers:\n            ready.messages += self._answers\n"


def _at_once(kind: str) -> str:
    """A patch of Node.step: messages of this kind leave before what they rest on is durable."""
    return (
        "        if ready.write is not None:\n"
        "            ready.messages += [\n"
        "                vote for vote in ready.write.votes\n"
        f'                if vote.to != self.id and type(vote.message).__name__ == "{kind}"\n'
        "            ]\n"
    ) + STEP


MUTANTS = (
    Mutant(
        "promise-before-durable",
        (1,),
        "A Promise leaves before it is durable.",
        "kvstore/node.py",
        STEP,
        _at_once("Promise"),
    ),
    Mutant(
        "accepted-before-durable",
        (1,),
        "An Accepted leaves before what it accepts is durable.",
        "kvstore/node.py",
        STEP,
        _at_once("Accepted"),
    ),
    Mutant(
        "prepare-before-durable",
        (2,),
        "A Prepare leaves before its round is durable.",
        "kvstore/node.py",
        STEP,
        _at_once("Prepare"),
    ),
    Mutant(
        "promise-lowered-on-restart",
        (1, 8),
        "A restart remembers only the promises under which something was accepted.",
        "kvstore/node.py",
        "            promised=recovered.promised,\n",
        '            promised=max((pvalue.ballot for pvalue in tail), default=Ballot(0, "")),\n',
    ),
    Mutant(
        "storage-failure-ignored",
        (4,),
        "A replica whose storage failed goes on.",
        "kvstore/runtime.py",
        "            self.ended.set_exception(error)\n",
        "            pass\n",
        UNIT,
    ),
    Mutant(
        "short-log-used",
        (5,),
        "A log that ends below what was chosen is used.",
        "kvstore/node.py",
        "        if self.applied != chosen:\n",
        "        if self.applied > chosen:\n",
    ),
    Mutant(
        "applied-without-the-change",
        (6,),
        "A restart moves the applied index over what was chosen without applying it.",
        "kvstore/node.py",
        "                self._apply(pvalue.slot, pvalue.value)\n            tail",
        "                self.applied = pvalue.slot\n            tail",
    ),
    Mutant(
        "applied-over-a-gap",
        (12, 5),
        "A slot is applied although the one before it is missing.",
        "kvstore/node.py",
        "        if slot != self.applied + 1:\n",
        "        if slot <= self.applied:\n",
    ),
    Mutant(
        "read-before-applied",
        (18,),
        "A read under the lease does not wait for what is chosen and not yet applied.",
        "kvstore/node.py",
        "self.replica.lease_holds(self._clock()) and self.applied == self.replica.chosen",
        "self.replica.lease_holds(self._clock())",
    ),
    Mutant(
        "clock-read-once",
        (18,),
        "A read under the lease does not look at the clock again after it has looked at the state.",
        "kvstore/node.py",
        "            if self._may_read():  # rule 18",
        "            if True:  # rule 18",
    ),
    Mutant(
        "index-of-an-earlier-life",
        (18, 20),
        "An index that was asked for before a restart answers a read that came after it.",
        "kvstore/node.py",
        "self._tokens = self._boot << 32",
        "self._tokens = 0",
    ),
    Mutant(
        "late-reads-join-the-question",
        (18,),
        "An index answers reads, too, that came after it was asked for.",
        "kvstore/queries.py",
        "        answered, self._asked = self._asked, deque()\n        return answered",
        "        answered = self._asked + self._queued\n"
        "        self._asked, self._queued = deque(), deque()\n        return answered",
    ),
    Mutant(
        "wall-clock",
        (18,),
        "Leases go by a clock that can be set.",
        "kvstore/runtime.py",
        '_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)',
        "_CLOCK = time.CLOCK_REALTIME",
        UNIT,
    ),
    Mutant(
        "nothing-repeated-to-a-new-leader",
        (20,),
        "What the old leader was asked for is not put to the new one when it is known.",
        "kvstore/node.py",
        "for payload in self._submissions.all_sent():",
        "for payload in ():",
    ),
    Mutant(
        "order-of-a-set",
        (21,),
        "The commands of a bundle are applied in the order of a set.",
        "kvstore/state_machine.py",
        "for command in bundle.commands]",
        "for command in set(bundle.commands)]",
    ),
    Mutant(
        "clock-in-the-state",
        (21,),
        "The revision of a change depends on the moment at which a replica applies it.",
        "kvstore/state_machine.py",
        "        self.revision = revision = self.revision + 1\n",
        '        self.revision = revision = self.revision + 1 + __import__("time").perf_counter_ns() // 1000 % 2\n',
    ),
    Mutant(
        "repeated-bundle-applied-again",
        (22,),
        "A bundle that was ordered twice is applied twice.",
        "kvstore/state_machine.py",
        "        if sequence < self._settled or sequence in self._applied:\n            return False\n",
        "",
    ),
    Mutant(
        "settled-forgotten",
        (22,),
        "A copy of a bundle whose origin never repeats it any more is applied again.",
        "kvstore/state_machine.py",
        "if sequence < self._settled or sequence in self._applied:",
        "if sequence in self._applied:",
    ),
    Mutant(
        "settled-too-much",
        (22,),
        "The oldest bundle that its origin still repeats counts as applied.",
        "kvstore/state_machine.py",
        "while self._settled < settled_below:",
        "while self._settled <= settled_below:",
    ),
    Mutant(
        "settled-while-under-way",
        (22,),
        "An origin says of bundles that are under way that it never repeats them.",
        "kvstore/submissions.py",
        "settled_below = next(iter(self._sent), self._sequence)",
        "settled_below = self._sequence",
    ),
    Mutant(
        "earlier-life-applied-again",
        (22,),
        "A bundle of an earlier life of its origin is applied after one of a later life.",
        "kvstore/state_machine.py",
        "if bundle.boot < origin.boot or not origin",
        "if not origin",
    ),
    Mutant(
        "result-of-an-earlier-life",
        (22, 20),
        "A request is answered with the result of one that an earlier life of the replica was asked for.",
        "kvstore/node.py",
        "bundle.origin == self.id and bundle.boot == self._boot:",
        'bundle.origin == self.id and hasattr(self, "_submissions"):',
    ),
    Mutant(
        "time-out-called-failed",
        (23,),
        "A command that is on its way is said to have failed when nobody waits for it any more.",
        "kvstore/submissions.py",
        "Refused(Reason.TIMEOUT, Outcome.UNKNOWN)",
        "Refused(Reason.TIMEOUT, Outcome.FAILED)",
    ),
    Mutant(
        "queue-without-bound",
        (26,),
        "Frames to a peer that does not read wait without bound.",
        "kvstore/frames.py",
        "while self.waiting_bytes > self.max_bytes:",
        "while not self.max_bytes:",
        UNIT,
    ),
    Mutant(
        "proof-not-checked",
        (9, 28),
        "Whoever knows a member's name is taken for it.",
        "kvstore/handshake.py",
        '        if not hmac.compare_digest(proof, _prove(self._local, "dialer", hello, challenge)):\n'
        "            raise _wrong_secret(self._local.node, hello.node)\n",
        "",
        UNIT,
    ),
    Mutant(
        "other-incarnation-admitted",
        (28,),
        "A peer with other data than before votes on in the name of the one it replaced.",
        "kvstore/handshake.py",
        "    if known != incarnation:\n",
        "    if known < 0:\n",
        UNIT,
    ),
    Mutant(
        "other-terms-admitted",
        (9, 15),
        "Replicas with different members or lease lengths take part in one cluster.",
        "kvstore/handshake.py",
        "        if hello.terms != local.terms:\n",
        "        if len(hello.terms) < 0:\n",
        UNIT,
    ),
)
