"""`kvstore member`."""

import json
import shlex
from typing import Any

import msgspec
import pytest

from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus, MemberStatus, Status
from kvstore.client import Client, NoSuchMember, Rejected, Unavailable
from kvstore.server.config_sources import load
from tests.unit.kvstore.cli.command_line import run as run_command

N1 = MemberStatus("n1", "h:1", connected=True, heard_ms_ago=0.0, incarnation="a1", chosen=50, lag=0)
N4 = MemberStatus("n4", "h:4", False, None, MemberRole.LEARNER, joining=True, becomes=MemberRole.VOTER, lag=7)
JOINING = MembersStatus("n1", 5, True, "n1", [N1, N4])
VOTES = msgspec.structs.replace(N4, role=MemberRole.VOTER, joining=False, incarnation="a4", connected=True, lag=0)
JOINED = MembersStatus("n1", 7, True, "n1", [N1, VOTES])
STATUS = Status("n1", "blue", "leader", True, "1.n1", "1.n1", "n1", 1.0, 1, 1, 1, 1, [], "0", 1)


def run(*arguments: str) -> tuple[int, str, str]:
    return run_command("member", *arguments)


class ScriptedClient:
    """Answers each method of the client with its scripted outcomes in turn; the last one repeats."""

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
def fake(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    monkeypatch.setattr("kvstore.cli.member.POLL_S", 0.001)
    client = ScriptedClient(monkeypatch)
    client.answers("status", STATUS)
    client.answers("members_at", JOINED)
    return client


def test_list_shows_the_roles_and_the_leader(fake: ScriptedClient) -> None:
    fake.answers("members_at", JOINING)
    code, out, _ = run("list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith(("n", " n"))}
    assert "leader" in lines["n1"]
    assert all(part in lines["n4"] for part in ("learner, becomes voter", "h:4", "not seen"))
    assert lines["n4"].split()[-1] == "7"
    assert "membership version 5, in force" in out


def test_list_prefers_the_report_of_the_leader(fake: ScriptedClient) -> None:
    stale = MembersStatus("n9", 4, False, None, [N1])
    follower = msgspec.structs.replace(JOINED, id="n2")
    fake.answers("members_at", stale, Unavailable("down"), follower, JOINED)
    _, out, _ = run("list", "--json", "--endpoints", "http://a:1,http://b:2,http://c:3,http://d:4")
    assert msgspec.json.decode(out.encode(), type=MembersStatus) == JOINED


def test_list_of_a_cluster_that_is_down_ends_with_3(fake: ScriptedClient) -> None:
    fake.answers("members_at", Unavailable("refused"))
    code, _, err = run("list", "--endpoints", "http://a:1")
    assert (code, err) == (3, "kvstore: refused\n")


def test_add_prints_a_command_that_serve_takes(fake: ScriptedClient) -> None:
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


def test_add_waits_until_the_new_member_votes(fake: ScriptedClient) -> None:
    fake.answers("add_member", JOINING)
    there = msgspec.structs.replace(N4, connected=True)
    steps = [[N1, each] for each in (N4, there, msgspec.structs.replace(there, lag=0))]
    seen = [msgspec.structs.replace(JOINING, members=members) for members in steps]
    fake.answers("members_at", Unavailable("down"), *seen, JOINED)
    code, _, err = run("add", "n4", "h:4", "--wait", "--endpoints", "http://a:1")
    assert (code, err.splitlines()[-1]) == (0, "n4 is a voter and has caught up")


def test_waiting_ends_at_its_limit_and_when_the_member_is_removed(fake: ScriptedClient) -> None:
    fake.answers("promote_member", JOINING)
    fake.answers("members_at", JOINING)
    code, _, err = run("promote", "n4", "--wait", "--timeout-s", "0.01", "--endpoints", "http://a:1")
    assert code == 3
    assert "n4 has not caught up within 0.01 s" in err
    fake.answers("members_at", msgspec.structs.replace(JOINED, members=[N1]))
    code, _, err = run("promote", "n4", "--wait", "--endpoints", "http://a:1")
    assert (code, "another client has removed it" in err) == (3, True)


def test_remove_and_replace_pass_on_their_arguments(fake: ScriptedClient) -> None:
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
def test_the_exit_status_tells_what_is_known(fake: ScriptedClient, error: Exception, code: int) -> None:
    fake.answers("remove_member", error)
    assert run("remove", "n4") == (code, "", f"kvstore: {error}\n")


def test_json_has_all_fields(fake: ScriptedClient) -> None:
    fake.answers("add_member", JOINING)
    _, out, _ = run("add", "n4", "h:4", "--json")
    assert json.loads(out) == msgspec.to_builtins(JOINING)
