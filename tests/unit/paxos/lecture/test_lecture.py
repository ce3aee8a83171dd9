"""The lecture: what it prints, and that it is the production code that plays."""

import io
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import pytest

import paxos.lecture.stage
from paxos.acceptor import Acceptor
from paxos.election import ElectionTimer
from paxos.learner import Learner
from paxos.lease import LeaderLease, LeaseGrant
from paxos.lecture.__main__ import main, render
from paxos.lecture.actors import AcceptorActor, Actor, LearnerActor, Outgoing, ProposerActor, ReplicaActor
from paxos.lecture.scenes import SCENES, crashes, duel
from paxos.lecture.scenes.agreement import ACCEPTORS
from paxos.lecture.scenes.log import elect
from paxos.lecture.scenes.scene import Scene
from paxos.lecture.sentences import label, sentence
from paxos.lecture.stage import Arrow, Flying, Stage
from paxos.lecture.text import WIDTH
from paxos.messages import (
    Accept,
    Accepted,
    AnyMessage,
    DigestRequest,
    Heartbeat,
    HeartbeatAck,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    ReadIndexReply,
    Reject,
)
from paxos.options import Options
from paxos.proposer import Phase1, Pipeline
from paxos.types import MS, ZERO, Ballot, unpack
from paxos.wire import encode
from tests.unit.paxos.lecture.golden import KEPT, LECTURE, shown

ROOT = LECTURE.parents[1]
HOW = "if that is meant: python -m tests.unit.paxos.lecture.golden"


@cache  # the duel alone is hundreds of elections
def played(name: str) -> tuple[Scene, Counter[str]]:
    """Return the scene, and the labels of the messages that were encoded for it."""
    sent: Counter[str] = Counter()

    def tap(message: AnyMessage) -> bytes:
        sent[label(message)] += 1
        return encode(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paxos.lecture.stage, "encode", tap)
        return SCENES[name](), sent


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_prints_what_is_kept(name: str) -> None:
    assert render(played(name)[0]) == (KEPT / f"{name}.txt").read_text(), HOW


def test_the_document_shows_every_scene_as_it_is() -> None:
    document = LECTURE.read_text()
    assert shown(document) == document, HOW
    assert re.findall(r"<!-- scene: ([a-z-]+) -->", document) == list(SCENES)


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_fits_a_terminal_and_says_why_at_each_arrow(name: str) -> None:
    scene, _ = played(name)
    assert max(map(len, render(scene).splitlines())) <= WIDTH
    arrows = [row for stage in scene.stages for row in stage.rows if isinstance(row, Arrow)]
    assert arrows
    assert all(arrow.why.endswith((".", ").")) for arrow in arrows)


@pytest.mark.parametrize("name", SCENES)
def test_every_arrow_went_over_the_wire(name: str) -> None:
    scene, sent = played(name)
    drawn = Counter(row.label for stage in scene.stages for row in stage.rows if isinstance(row, Arrow))
    assert drawn <= sent
    if name == "basic":
        assert drawn == sent


@pytest.mark.parametrize("name", SCENES)
def test_no_message_leaves_before_what_led_to_it(name: str) -> None:
    for stage in played(name)[0].stages:
        arrows = [(number, row) for number, row in enumerate(stage.rows) if isinstance(row, Arrow)]
        assert all(0 <= arrow.sent <= number for number, arrow in arrows)
        for _, answer in arrows:
            if answer.label.startswith(("Promise", "Accepted", "Reject", "PreVoteReply", "HeartbeatAck")):
                cause = stage.rows[answer.sent - 1]
                assert isinstance(cause, Arrow)
                assert (cause.to, cause.sender) == (answer.sender, answer.to)


@pytest.mark.parametrize(
    ("name", "owner", "method", "broken"),
    [
        ("basic", Pipeline, "accepted", lambda pipeline, sender, slot: True),
        ("previous-value", Phase1, "recovered", lambda phase1: []),
        ("ignored", Acceptor, "_reject", lambda acceptor, sender, ballot, floor=0: None),
        ("duel", ElectionTimer, "_next_delay", lambda election: election._unit),
        ("multi", Phase1, "recovered", lambda phase1: []),
        ("broadcast", Learner, "decide", lambda learner, slot: None),
        ("crashes", Phase1, "has_quorum", lambda phase1: True),
        ("lease", LeaseGrant, "refuses", lambda grant, node, now: False),
        ("lease", LeaderLease, "answer", lambda lease, sender, nonce, granted: None),
    ],
)
def test_a_scene_shows_it_when_the_production_code_is_broken(
    name: str, owner: type, method: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, broken)
    assert render(SCENES[name]()) != (KEPT / f"{name}.txt").read_text()


def test_no_more_than_f_crashes_are_survived() -> None:
    for f in (1, 2, 3):
        assert crashes._play(f, f, f).chosen
        played = crashes._play(f, f + 1, 0)
        assert not played.chosen
        assert played.later == '"v1"'


def test_an_acceptor_restarts_with_what_it_had_stored_and_waits_for_a_lease() -> None:
    stage = Stage("")
    (acceptor,) = stage.cast(AcceptorActor("a1"))
    low, high = stage.cast(ProposerActor("p1", ["a1"]), ProposerActor("p2", ["a1"]))
    stage.act(low, low.prepare(1, "x"))
    stage.run()
    acceptor.restart(stage.now)
    stage.act(high, high.prepare(2, "y"))
    stage.run()
    refusal = stage.rows[-1]
    assert isinstance(refusal, Arrow)
    assert (refusal.label, refusal.refusal) == ("Reject(2.p2: not now)", True)
    stage.wait(Options().lease_for_acceptor / MS)
    stage.act(high, high.prepare(3, "y"))
    stage.run()
    assert [unpack(value) for value in high.chosen.values()] == [[b"x"]]


def test_whatever_the_order_of_arrival_everybody_delivers_the_same() -> None:
    delivered = set()
    for seed in range(30):
        rng, stage, names = Random(seed), Stage(""), ("n1", "n2", "n3")
        replicas = stage.cast(*(ReplicaActor(name, names, Options(window=1), stage.now) for name in names))
        elect(stage, replicas[0])
        for number, replica in enumerate(replicas):
            stage.act(replica, replica.propose([f"m{number}"], stage.now))
        flying: list[Flying] = stage.departed()
        while flying:
            stage.arrive(flying.pop(rng.randrange(len(flying))))
            flying += stage.departed()
        (order,) = {tuple(replica.applied) for replica in replicas}
        assert sorted(order) == ["m0", "m1", "m2"]
        delivered.add(order)
    assert len(delivered) > 1  # the orders did differ from seed to seed


def test_a_duel_lasts_for_as_long_as_is_asked() -> None:
    for rounds in (1, 7):
        stage = duel._endless(rounds)
        assert stage.counts["Prepare"] == 3 * (rounds + 1)
        assert "Accepted" not in stage.counts


def test_every_duel_with_delays_ends_in_one_value() -> None:
    for seed in range(100):
        fight = duel._Duel(Random(seed), drawing=False)
        assert fight.play() >= 1
        chosen = {value for proposer in fight.pair for value in proposer.chosen.values()}
        assert len(chosen) == 1


@pytest.mark.parametrize("name", SCENES)
def test_a_picture_has_every_arrow_and_no_outside_address(name: str, tmp_path: Path) -> None:
    assert main([name, "--svg", str(tmp_path / "scene.svg")]) == 0
    scene, _ = played(name)
    for number, stage in enumerate(scene.stages, 1):
        text = (tmp_path / ("scene.svg" if number == 1 else f"scene-{number}.svg")).read_text()
        root = ET.fromstring(text)
        lines = [each for each in root.iter("{http://www.w3.org/2000/svg}line") if "arrow" in each.attrib["class"]]
        assert len(lines) == sum(isinstance(row, Arrow) for row in stage.rows)
        assert re.findall('https?://[^"]*', text) == ["http://www.w3.org/2000/svg"]


def test_all_scenes_or_some_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ignored", "basic"]) == 0
    assert capsys.readouterr().out == render(played("ignored")[0]) + render(played("basic")[0])
    assert main([]) == 0
    assert capsys.readouterr().out == "".join(render(played(name)[0]) for name in SCENES)
    assert main(["duel", "--rounds", "1"]) == 0
    assert "Prepare(7.p1)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x"], "no scene 'x'"),
        (["--svg", "f"], "name one SCENE"),
        (["a", "basic"], "no scene 'a'"),
        (["basic", "--rounds", "2"], "needs the scene duel"),
        (["duel", "--rounds", "0"], "at least 1"),
        (["duel", "--rounds", "1_0"], "'1_0' is not a whole number"),
        (["duel", "--rounds", "9" * 5000], "is not a whole number of at most 6 digits"),
        (["basic", "--svg", "f", "--step"], "not allowed with"),
        (["basic", "--svg", "no/such/folder/f.svg"], "No such file or directory; name another file"),
    ],
)
def test_wrong_usage_says_what_to_do(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_reader_who_leaves_early_sees_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "paxos.lecture"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as lecture:
        assert lecture.stdout is not None
        assert lecture.stderr is not None
        lecture.stdout.close()
        assert lecture.stderr.read() == b""
    assert lecture.returncode == -signal.SIGPIPE


class Terminal(io.StringIO):
    """Where somebody sits; it counts how often Enter was pressed."""

    pressed = 0

    def isatty(self) -> bool:
        return True

    def readline(self, _: int = -1) -> str:  # type: ignore[override]  # io has it so, not its stubs
        self.pressed += 1
        return "\n"


@pytest.mark.parametrize("somebody", [True, False])
def test_step_by_step_each_message_has_its_rule(somebody: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard = Terminal()
    screen = Terminal() if somebody else io.StringIO()
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["ignored", "--step"]) == 0
    (stage,) = SCENES["ignored"]().stages
    arrows = [row for row in stage.rows if isinstance(row, Arrow)]
    assert keyboard.pressed == (len(arrows) if somebody else 0)
    assert "it refuses the lower ballot and reports its promise (rule 8)" in screen.getvalue()


def test_actors_pass_over_what_is_not_for_them() -> None:
    heartbeat = Heartbeat(Ballot(1, "p1"), 1, 0)
    proposer = ProposerActor("p1", ACCEPTORS)
    for actor in (AcceptorActor("a1"), LearnerActor("l1", ACCEPTORS), proposer):
        assert actor.receive("x", heartbeat, 0) == []
    proposer.prepare(1, "v")
    assert proposer.receive("x", heartbeat, 0) == []
    assert proposer.receive("a1", Accepted(Ballot(1, "p1"), 1), 0) == []
    learner = LearnerActor("l1", ACCEPTORS)
    learner.receive("p2", Accept(Ballot(2, "p2"), 1, b"", 0), 0)
    assert learner.receive("p1", Accept(Ballot(1, "p1"), 1, b"", 0), 0) == []
    with pytest.raises(NotImplementedError):
        Actor("x").receive("y", heartbeat, 0)
    with pytest.raises(ValueError, match="not elected"):
        proposer.more(["v"], 0)


def test_what_belongs_to_a_ballot_of_before_does_not_count() -> None:
    proposer = ProposerActor("p1", ACCEPTORS)
    late = Promise(Ballot(1, "p1"), 1, (), 0)
    assert "does not count" in sentence(proposer, "a1", late, [])
    proposer.prepare(2, "v")
    assert proposer.receive("a1", late, 0) == []
    assert "does not count" in sentence(proposer, "a1", late, [])


def test_a_message_without_words_of_its_own_has_its_name() -> None:
    replica = ReplicaActor("n1", ("n1",), Options(), 0)
    assert label(DigestRequest(1, b"")) == "DigestRequest"
    assert label(PreVote(1, 1)) == "PreVote: would you promise?"
    assert label(PreVoteReply(1, True, ZERO, 0)) == "PreVoteReply(yes)"
    assert label(PreVoteReply(1, False, ZERO, 0)) == "PreVoteReply(no)"
    assert sentence(replica, "n2", DigestRequest(1, b""), []) == "n1 takes note."


@pytest.mark.parametrize("name", SCENES)
def test_what_is_said_is_what_was_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(actor: Actor, sender: str, message: AnyMessage, outgoing: Outgoing) -> str:
        said, answers = sentence(actor, sender, message, outgoing), [act.message for act in outgoing]
        refuses = any(isinstance(answer, Reject) and answer.promised > answer.ballot for answer in answers)
        assert ("it refuses" in said) == refuses, said
        assert ("stores the promise before" in said) == any(isinstance(answer, Promise) for answer in answers), said
        assert ("stores the value, then answers" in said) == any(isinstance(answer, Accepted) for answer in answers), (
            said
        )
        grants = any(isinstance(answer, HeartbeatAck) and answer.granted for answer in answers)
        assert ("grants a lease: until" in said) == grants, said
        assert ("without asking another replica" in said) == any(
            isinstance(answer, ReadIndexReply) for answer in answers
        ), said
        return said

    monkeypatch.setattr(paxos.lecture.stage, "sentence", check)
    SCENES[name]()


def test_a_stage_loses_and_delivers_what_fits_only() -> None:
    stage = Stage("")
    (proposer,) = stage.cast(ProposerActor("p1", ACCEPTORS))
    stage.cast(*map(AcceptorActor, ACCEPTORS))
    stage.act(proposer, proposer.prepare(1, "v"))
    stage.lose(Promise)
    stage.lose(to="a1")
    stage.deliver(Prepare, sender="p1", to="a2")
    assert [row.lost for row in stage.rows if isinstance(row, Arrow)] == [True, False]
    assert [flying.to for flying in stage.departed()] == ["a3", "p1"]
