"""The lecture: what it prints, and that it is the production code that plays."""

import io
import re
import sys
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import pytest

import paxos.lecture.stage
from paxos.lecture.__main__ import main, told
from paxos.lecture.actors import AcceptorActor, Actor, LearnerActor, ProposerActor, ReplicaActor
from paxos.lecture.scenes import SCENES, crashes, duel
from paxos.lecture.scenes.agreement import ACCEPTORS
from paxos.lecture.sentences import label, sentence
from paxos.lecture.stage import Arrow, Stage
from paxos.lecture.text import WIDTH
from paxos.messages import Accept, Accepted, Canvass, CanvassReply, Compare, Heartbeat, Prepare, Promise
from paxos.options import Options
from paxos.types import ZERO, Ballot
from paxos.wire import encode
from tests.paxos.lecture.golden import KEPT, LECTURE, shown

README = LECTURE.parents[1] / "README.md"
HOW = "if that is meant: python -m tests.paxos.lecture.golden"


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_prints_what_is_kept(name: str) -> None:
    assert told(SCENES[name]()) == (KEPT / f"{name}.txt").read_text(), HOW


def test_the_document_shows_every_scene_as_it_is() -> None:
    document = LECTURE.read_text()
    assert shown(document) == document, HOW
    assert re.findall(r"<!-- scene: ([a-z-]+) -->", document) == list(SCENES)


def test_what_the_readme_shows_is_part_of_a_scene() -> None:
    (block,) = re.findall(r"paxos.lecture previous-value.*?\n(.*?)```", README.read_text(), re.DOTALL)
    kept = (KEPT / "previous-value.txt").read_text()
    assert all(part in kept for part in block.split("  ...\n"))


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_fits_a_terminal_and_says_why_at_each_arrow(name: str) -> None:
    scene = SCENES[name]()
    assert max(map(len, told(scene).splitlines())) <= WIDTH + 14  # only a long label is longer
    arrows = [row for stage in scene.stages for row in stage.rows if isinstance(row, Arrow)]
    assert arrows
    assert all(arrow.why.endswith((".", ").")) for arrow in arrows)


def test_every_arrow_went_over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[bytes] = []

    def tap(message: Prepare) -> bytes:
        encoded.append(encode(message))
        return encoded[-1]

    monkeypatch.setattr(paxos.lecture.stage, "encode", tap)
    (stage,) = SCENES["basic"]().stages
    arrows = [row for row in stage.rows if isinstance(row, Arrow)]
    assert len(arrows) == len(encoded) == sum(stage.counts.values())


def test_no_more_than_f_crashes_are_survived() -> None:
    for f in (1, 2, 3):
        assert crashes._play(f, f, f).chosen
        assert not crashes._play(f, f + 1, 0).chosen


def test_a_duel_lasts_for_as_long_as_is_asked() -> None:
    for rounds in (0, 1, 7):
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
    scene = SCENES[name]()
    for number, stage in enumerate(scene.stages, 1):
        text = (tmp_path / ("scene.svg" if number == 1 else f"scene-{number}.svg")).read_text()
        root = ET.fromstring(text)
        lines = [each for each in root.iter("{http://www.w3.org/2000/svg}line") if "arrow" in each.attrib["class"]]
        assert len(lines) == sum(isinstance(row, Arrow) for row in stage.rows)
        assert re.findall('https?://[^"]*', text) == ["http://www.w3.org/2000/svg"]


def test_all_scenes_or_some_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ignored", "basic"]) == 0
    assert capsys.readouterr().out == told(SCENES["ignored"]()) + told(SCENES["basic"]())
    assert main([]) == 0
    assert capsys.readouterr().out == "".join(told(play()) for play in SCENES.values())
    assert main(["duel", "--rounds", "1"]) == 0
    assert "Prepare(7.p1)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"), [(["x"], "no scene 'x'"), (["--svg", "f"], "name it"), (["a", "basic"], "no scene 'a'")]
)
def test_wrong_usage_says_what_to_do(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


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
    assert "it refuses, and says why (rule 8)" in screen.getvalue()


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
    assert label(Compare(1, b"")) == "Compare"
    assert label(Canvass(1, 1)) == "Canvass: would you promise?"
    assert label(CanvassReply(1, True, ZERO, 0)) == "CanvassReply(yes)"
    assert label(CanvassReply(1, False, ZERO, 0)) == "CanvassReply(no)"
    assert sentence(replica, "n2", Compare(1, b""), []) == "n1 takes note."


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
