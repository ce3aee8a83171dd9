"""`kvstore member`: what it shows, how it says to start a replica, and when it stops waiting."""

import json
import shlex
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from kvstore import cli
from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus, MemberStatus, Status
from kvstore.client import Client, NoSuchMember, Rejected, Unavailable
from kvstore.server.config_sources import load

N1 = MemberStatus("n1", "h:1", connected=True, heard_ms_ago=0.0, incarnation="a1", chosen=50, lag=0)
N4 = MemberStatus("n4", "h:4", False, None, MemberRole.LEARNER, joining=True, becomes=MemberRole.VOTER, lag=7)
JOINING = MembersStatus("n1", 5, True, "n1", [N1, N4])
VOTES = msgspec.structs.replace(N4, role=MemberRole.VOTER, joining=False, incarnation="a4", connected=True, lag=0)
JOINED = MembersStatus("n1", 7, True, "n1", [N1, VOTES])
STATUS = Status("n1", "blue", "leader", True, "1.n1", "1.n1", "n1", 1.0, 1, 1, 1, 1, [], "0", 1)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.app, ["member", *arguments])
    return result.exit_code, result.stdout, result.stderr


class Fake:
    """The client's calls, each answered with what is scripted for it, the last answer for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._monkeypatch = monkeypatch

    def answers(self, method: str, *outcomes: object) -> None:
        left = iter(outcomes)
        last = outcomes[-1]

        async def call(_: Client, *arguments: object, **options: object) -> object:
            self.calls.append((method, arguments, options))
            outcome = next(left, last)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self._monkeypatch.setattr(Client, method, call)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr("kvstore.cli.members.LOOK_S", 0.001)
    client = Fake(monkeypatch)
    client.answers("status", STATUS)
    client.answers("members_at", JOINED)
    return client


def test_list_shows_who_is_what_and_who_leads(fake: Fake) -> None:
    fake.answers("members_at", JOINING)
    code, out, _ = run("list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith(("n", " n"))}
    assert "leads" in lines["n1"]
    assert all(part in lines["n4"] for part in ("learner, becomes voter", "h:4", "not seen"))
    assert lines["n4"].split()[-1] == "7"
    assert "version 5, in force" in out


def test_list_shows_the_leaders_view_where_there_is_one(fake: Fake) -> None:
    stale = MembersStatus("n9", 4, False, None, [N1])
    follower = msgspec.structs.replace(JOINED, id="n2")
    fake.answers("members_at", stale, Unavailable("down"), follower, JOINED)
    _, out, _ = run("list", "--json", "--endpoints", "http://a:1,http://b:2,http://c:3,http://d:4")
    assert msgspec.json.decode(out.encode(), type=MembersStatus) == JOINED


def test_list_of_a_cluster_that_is_down_ends_with_3(fake: Fake) -> None:
    fake.answers("members_at", Unavailable("refused"))
    code, _, err = run("list", "--endpoints", "http://a:1")
    assert (code, err) == (3, "kvstore: refused\n")


def test_add_says_how_to_start_the_new_one_in_words_that_serve_takes(fake: Fake) -> None:
    fake.answers("add_member", JOINING)
    code, out, _ = run("add", "n4", "h:4", "--role", "voter")
    assert code == 0
    assert fake.calls[0] == ("add_member", ("n4", "h:4", MemberRole.VOTER), {})
    line = next(line for line in out.splitlines() if line.strip().startswith("kvstore serve"))
    words = shlex.split(line)[2:]
    flags = dict(zip([word.removeprefix("--").replace("-", "_") for word in words[::2]], words[1::2], strict=True))
    flags.pop("secret_file")
    settings = load(flags | {"listen": "h:9", "data": "d", "secret": "0123456789abcdef"}, None)
    assert (settings.node, settings.cluster, settings.join) == ("n4", "blue", True)
    assert {name: str(at) for name, at in settings.members.items()} == {"n1": "h:1", "n4": "h:4"}


def test_add_waits_until_the_new_one_votes(fake: Fake) -> None:
    fake.answers("add_member", JOINING)
    there = msgspec.structs.replace(N4, connected=True)
    steps = [[N1, each] for each in (N4, there, msgspec.structs.replace(there, lag=0))]
    seen = [msgspec.structs.replace(JOINING, members=members) for members in steps]
    fake.answers("members_at", Unavailable("down"), *seen, JOINED)
    code, _, err = run("add", "n4", "h:4", "--wait", "--endpoints", "http://a:1")
    assert (code, err.splitlines()[-1]) == (0, "n4 is a voter, and has caught up")


def test_whoever_waits_is_told_when_it_takes_too_long_or_never_comes(fake: Fake) -> None:
    fake.answers("promote_member", JOINING)
    fake.answers("members_at", JOINING)
    code, _, err = run("promote", "n4", "--wait", "--timeout-s", "0.01", "--endpoints", "http://a:1")
    assert code == 3
    assert "n4 has not caught up within 0.01 s" in err
    fake.answers("members_at", msgspec.structs.replace(JOINED, members=[N1]))
    code, _, err = run("promote", "n4", "--wait", "--endpoints", "http://a:1")
    assert (code, "somebody has removed it" in err) == (3, True)


def test_remove_and_replace_hand_over_what_was_asked(fake: Fake) -> None:
    fake.answers("remove_member", JOINED)
    fake.answers("replace_member", JOINED)
    assert run("remove", "n4", "--force")[0] == 0
    assert run("replace", "n4", "h:5", "--wait", "--json")[0] == 0
    assert run("replace", "n4")[0] == 0
    assert [call for call in fake.calls if call[0] != "members_at"] == [
        ("remove_member", ("n4",), {"force": True}),
        ("replace_member", ("n4", "h:5"), {"force": False}),
        ("replace_member", ("n4", None), {"force": False}),
    ]


@pytest.mark.parametrize(("error", "code"), [(NoSuchMember("a"), 1), (Rejected("r"), 2), (Unavailable("u"), 3)])
def test_the_exit_status_tells_what_is_known(fake: Fake, error: Exception, code: int) -> None:
    fake.answers("remove_member", error)
    assert run("remove", "n4") == (code, "", f"kvstore: {error}\n")


def test_json_is_all_that_is_known(fake: Fake) -> None:
    fake.answers("add_member", JOINING)
    _, out, _ = run("add", "n4", "h:4", "--json")
    assert json.loads(out) == msgspec.to_builtins(JOINING)
