"""Mutants of promises, votes, quorums and what is learnt: `paxos/` without leases and leaders."""

from tests.mutants.mutant import RUNNING, UNIT, Mutant

MUTANTS = (
    Mutant(
        "round-reused",
        (2, 7),
        "A candidate that holds the highest promise itself prepares its old ballot again.",
        "paxos.role.RoleState._continue_attempt",
        "self.highest_round += 1",
        "self.highest_round += self._acceptor.promised.node != self._context.node",
    ),
    Mutant(
        "round-below-those-heard-of",
        (2,),
        "A candidate does not number its ballot above the promises that it was told.",
        "paxos.role.RoleState.answered",
        (
            "self.highest_round = max(self.highest_round, message.promised.round)\n"
            "self._learner.note_chosen(sender, message.chosen)"
        ),
        "self._learner.note_chosen(sender, message.chosen)",
        RUNNING,
    ),
    Mutant(
        "ballots-compared-by-round",
        (7, 8),
        "An acceptor promises to two nodes in one round.",
        "paxos.acceptor.Acceptor.prepare",
        "< self.promised or (ballot > self.promised",
        ".round < self.promised.round or (ballot.round > self.promised.round",
    ),
    Mutant(
        "promises-below-its-promise",
        (8,),
        "An acceptor answers a lower ballot with a Promise.",
        "paxos.acceptor.Acceptor.prepare",
        "ballot < self.promised or",
        "",
    ),
    Mutant(
        "accepts-below-its-promise",
        (8,),
        "An acceptor accepts under a ballot lower than its promise.",
        "paxos.acceptor.Acceptor.accept",
        ("if ballot < self.promised:\n    self._reject(sender, ballot)\n    return False"),
        "",
    ),
    Mutant(
        "accept-raises-no-promise",
        (8,),
        "An acceptor that accepts a higher ballot goes on to answer lower ones.",
        "paxos.acceptor.Acceptor.accept",
        ("if ballot > self.promised:\n    self._promise(ballot)"),
        "",
    ),
    Mutant(
        "learning-raises-no-promise",
        (8,),
        "A value that was learnt can be replaced by an older leader's.",
        "paxos.acceptor.Acceptor.adopt",
        ("if pvalue.ballot > self.promised:\n    self._promise(pvalue.ballot)"),
        "",
    ),
    Mutant(
        "promise-never-recorded",
        (1, 8),
        "A promise is kept in memory and never stored.",
        "paxos.outbox.Outbox.promise",
        "self._write.promise = ballot",
        "pass",
    ),
    Mutant(
        "accepted-values-not-told",
        (10,),
        "A Promise hides what the acceptor has accepted.",
        "paxos.acceptor.Acceptor.prepare",
        "self.log.page(from_slot)",
        "(), 0",
    ),
    Mutant(
        "rest-of-promise-not-told",
        (9, 10),
        "A Promise whose values do not fit one page says that nothing follows.",
        "paxos.log.Log.page",
        ", slot",
        ", 0",
    ),
    Mutant(
        "pages-counted-in-any-order",
        (9,),
        "A copy of a promise's last page counts as the whole promise.",
        "paxos.proposer.Phase1.add_promise",
        "self.awaiting.get(sender) != message.from_slot",
        "sender not in self.awaiting",
        UNIT,
    ),
    Mutant(
        "cut-taken-for-empty",
        (11,),
        "An acceptor answers for slots that it no longer has at hand as if nothing had been accepted there.",
        "paxos.acceptor.Acceptor.prepare",
        (
            "elif from_slot < self.log.floor:\n"
            "    self._reject(sender, ballot, self.log.floor)\n"
            "else:\n"
            "    if ballot > self.promised:\n"
            "        self._promise(ballot)\n"
            "    accepted, next_slot = self.log.page(from_slot)"
        ),
        (
            "else:\n"
            "    if ballot > self.promised:\n"
            "        self._promise(ballot)\n"
            "    accepted, next_slot = self.log.page(max(from_slot, self.log.floor))"
        ),
    ),
    Mutant(
        "quorum-one-short",
        (9,),
        "A voter less than a majority is enough.",
        "paxos.quorum.is_quorum",
        "> len(voters)",
        ">= len(voters) - 1",
    ),
    Mutant(
        "half-is-a-majority",
        (9,),
        "Half of an even number of voters is enough.",
        "paxos.quorum.is_quorum",
        "> len",
        ">= len",
    ),
    Mutant(
        "anybody-counts",
        (9,),
        "Whoever does not vote counts towards a majority.",
        "paxos.quorum.is_quorum",
        "sum(voter in senders for voter in voters",
        "len(set(senders)",
        RUNNING,
    ),
    Mutant(
        "votes-counted-by-number",
        (9,),
        "Each answer is one more vote, a copy of it, too.",
        "paxos.proposer.Pipeline.accepted",
        "(sender",
        "(self._configurations.at(slot).voters[len(proposal.accepted)]",
    ),
    Mutant(
        "votes-of-any-ballot",
        (9, 20),
        "A leader counts a vote that was given under an earlier ballot of its own.",
        "paxos.leader.Leader.accepted",
        "if message.ballot != self.ballot or not self._configurations.is_voter(sender):",
        "if not self._configurations.is_voter(sender):",
    ),
    Mutant(
        "promises-of-any-ballot",
        (9, 20),
        "A candidate counts a promise to an earlier ballot of its own.",
        "paxos.candidate.Candidate.promised",
        "message.ballot != phase1.ballot or",
        "",
    ),
    Mutant(
        "answers-to-any-question",
        (9, 13),
        "A candidate counts answers to an earlier candidacy's question.",
        "paxos.candidate.Candidate.pre_vote_reply",
        "message.nonce == self._nonce and",
        "",
        RUNNING,
    ),
    Mutant(
        "anybody-speaks-for-a-ballot",
        (9,),
        "A message that speaks for a ballot is taken from others than its owner.",
        "paxos.replica.Replica.receive",
        "if ballot.node == sender:",
        "if True:",
        UNIT,  # replicas do not lie
    ),
    Mutant(
        "lowest-ballot-adopted",
        (10,),
        "A new leader proposes the value of the lowest ballot again.",
        "paxos.proposer.Phase1.add_promise",
        "ballot >",
        "ballot <",
    ),
    Mutant(
        "first-value-adopted",
        (10,),
        "A new leader proposes the value again that it heard of first.",
        "paxos.proposer.Phase1.add_promise",
        "or pvalue.ballot > best.ballot",
        "",
    ),
    Mutant(
        "gaps-closed-up",
        (10,),
        "Recovered values move down into the slots that nobody had a value for.",
        "paxos.proposer.Phase1.recovered",
        "if slot in self._highest else NOOP for slot in slots",
        "for slot in slots if slot in self._highest",
    ),
    Mutant(
        "prepares-above-what-it-accepted",
        (10,),
        "A candidate asks only for slots that its own acceptor has no value for.",
        "paxos.candidate.Candidate.prepare",
        "from_slot = self._acceptor.log.chosen + 1",
        "from_slot = self._acceptor.log.last + 1",
    ),
    Mutant(
        "chosen-under-any-ballot",
        (12,),
        "A value accepted under an old ballot is taken for the one that a new leader calls chosen.",
        "paxos.learner.Learner._advance",
        "(slot <= upto and held.ballot == ballot)",
        "slot <= upto",
    ),
    Mutant(
        "gap-learnt-as-no-op",
        (12,),
        "A slot that was missed is passed over as if a no-op had been chosen there.",
        "paxos.learner.Learner._advance",
        "held = self._log.get(slot)",
        (
            "held = self._log.get(slot)\n"
            "if held is None and slot <= upto:\n"
            '    held = PValue(slot, ballot, b"")\n'
            "    self._log.put(held)"
        ),
    ),
    Mutant(
        "accepted-served-as-chosen",
        (12,),
        "Whoever fetches is sent what was accepted, chosen or not.",
        "paxos.replica.Replica.receive",
        "self.chosen)",
        "self._log.last)",
    ),
    Mutant(
        "prepares-without-asking",
        (13,),
        "A candidate does not ask first whether a majority would promise.",
        "paxos.candidate.Candidate.may_prepare",
        "and is_quorum_of_each(self._willing, self._deciding)",
        "",
        RUNNING,
    ),
    Mutant(
        "willing-under-a-grant",
        (13, 16),
        "An acceptor encourages a candidate although it has granted a lease to another.",
        "paxos.acceptor.Acceptor.pre_vote",
        "not self.grant.refuses(sender, now) and",
        "",
        RUNNING,
    ),
    Mutant(
        "high-promise-deposes",
        (13,),
        "A leader steps down because one voter came back with a higher promise.",
        "paxos.role.RoleState._preempted",
        "leader.lease_holds(now)",
        "False",
        RUNNING,
    ),
    Mutant(
        "wait-never-grows",
        (14,),
        "Candidates that fail try again as soon as the first time.",
        "paxos.election.ElectionTimer._next_delay",
        "min(self._unit << self._failures, self._longest)",
        "self._unit",
        RUNNING,
    ),
    Mutant(
        "no-randomness",
        (14,),
        "All candidates wait for the same time.",
        "paxos.election.ElectionTimer._jitter",
        "_rng.randint(self._unit // 8, self._unit)",
        "_unit",
        UNIT,
    ),
    Mutant(
        "fetches-without-waiting",
        (26,),
        "A replica that lags asks again with every step.",
        "paxos.learner.Learner.fetch",
        "_fetching is None or self._fetching[0] <= self.chosen",
        "_known_chosen",
        RUNNING,
    ),
)
