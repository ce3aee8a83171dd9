"""The command line: help, settings, exit statuses, and commands on keys."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from kvstore import __version__, cli
from kvstore.api.commands import DeleteResult, DeleteSpanResult, KeyState, NotFound, PutResult, Record, TransactResult
from kvstore.api.key_range import Span
from kvstore.api.queries import Consistency
from kvstore.api.status import MembersStatus, MemberStatus, Status
from kvstore.cli.member import member_names
from kvstore.client import (
    Client,
    ConditionFailed,
    Locked,
    LockLost,
    NoSuchLease,
    Rejected,
    Unavailable,
    UnknownOutcome,
)
from kvstore.server.config import Settings
from kvstore.server.config_sources import default_of, flag_of, unit_of
from storage.base import StorageError
from tests.unit.kvstore.cli.command_line import run_bytes as run

STATUS = Status("n1", "c", "leader", True, "3.n1", "3.n1", "n1", 400.0, 5, 5, 3, 2, [], __version__, 1)


def answer(monkeypatch: pytest.MonkeyPatch, method: str, outcome: object) -> list[tuple[Any, ...]]:
    """Have the client's `method` return or raise `outcome`; the list has the arguments of each call."""
    calls: list[tuple[Any, ...]] = []

    async def call(self: Client, *arguments: object, **named: object) -> object:
        calls.append((self.endpoints, *arguments, *({name: value} for name, value in named.items() if value)))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(Client, method, call)
    return calls


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings that `kvstore serve` passes to the server."""
    handed: list[Settings] = []
    monkeypatch.setattr("kvstore.server.process.serve", handed.append)
    return handed


def test_serve_has_a_flag_for_each_setting_with_default_unit_and_variable() -> None:
    code, out, _ = run("serve", "--help")
    text = " ".join(out.decode().replace("│", " ").split())
    assert code == 0
    for name, field in Settings.model_fields.items():
        assert f" {flag_of(name)} " in text
        assert f"KVSTORE_{name.upper()})" in text
        assert f"default {default_of(field)} {unit_of(field)}".strip() in text or "no default" in text


def test_serve_passes_on_the_settings(served: list[Settings], tmp_path: Path) -> None:
    file = tmp_path / "n1.toml"
    file.write_text("window = 3\n")
    assert run("serve", "--config", str(file), "--lease-ms", "700") == (0, b"", "")
    assert (served[0].window, served[0].lease_ms) == (3, 700)


def test_serve_rejects_wrong_settings_without_starting(served: list[Settings]) -> None:
    code, _, err = run("serve", "--lease-ms", "100", "--stall-ms", "50")
    assert code == 2
    assert [line.split(" ")[1] for line in err.splitlines()] == ["lease_ms", "stall_ms"]
    assert "Traceback" not in err
    assert not served


@pytest.mark.parametrize("error", [StorageError("the disk is gone: buy one"), OSError("the disk is gone: buy one")])
def test_a_replica_that_cannot_run_ends_with_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: Settings) -> None:
        raise error

    monkeypatch.setattr("kvstore.server.process.serve", fail)
    assert run("serve") == (1, b"", "kvstore: the disk is gone: buy one\n")


def test_get_writes_the_value_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answer(monkeypatch, "get", Record(b"\x00\xff\n\r", 1, 1, 1))
    assert run("get", "k", "--endpoints", "http://a:1, http://b:2", "--consistency", "stale") == (
        0,
        b"\x00\xff\n\r",
        "",
    )
    assert calls == [(("http://a:1", "http://b:2"), b"k", Consistency.STALE)]


def test_put_takes_its_value_from_the_argument_or_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answer(monkeypatch, "put", PutResult(4, 2))
    assert run("put", "k", "v") == (0, b"revision 4, version 2\n", "")
    assert run("put", "k", "-", stdin=b"\x00\xff")[0] == 0
    assert [call[1:] for call in calls] == [(b"k", b"v"), (b"k", b"\x00\xff")]


def test_delete_prints_the_deleted_version(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "delete", DeleteResult(9, 2, 7))
    assert run("delete", "k") == (0, b"revision 9, deleted version 2\n", "")


@pytest.mark.parametrize("command", ["get", "delete"])
def test_an_absent_key_ends_with_1(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    answer(monkeypatch, command, None)
    assert run(command, "k") == (1, b"", "kvstore: key 'k' does not exist\n")


@pytest.mark.parametrize(("error", "code"), [(Rejected("r"), 2), (Unavailable("u"), 3), (UnknownOutcome("o"), 4)])
def test_the_exit_status_tells_whether_a_write_was_done(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    answer(monkeypatch, "put", error)
    assert run("put", "k", "v") == (code, b"", f"kvstore: {error}\n")


def test_wrong_usage_ends_with_2() -> None:
    assert run("get")[0] == 2
    assert run("get", "k", "--endpoints", ",")[0] == 2
    assert run("get", "k", "--consistency", "sometimes")[0] == 2


def listing(monkeypatch: pytest.MonkeyPatch, *found: KeyState) -> list[tuple[object, ...]]:
    """Have the client list these keys; the list has the arguments of each call."""
    asked: list[tuple[object, ...]] = []

    async def keys(_: Client, *arguments: object, **__: object) -> AsyncGenerator[KeyState, None]:
        asked.append(arguments)
        for each in found:
            yield each

    monkeypatch.setattr(Client, "list", keys)
    return asked


def test_json_of_get_has_the_whole_record(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = listing(monkeypatch, KeyState(b"k", Record(b"\xff", 7, 5, 2), lease=4))
    code, out, _ = run("get", "k", "--json")
    assert code == 0
    assert json.loads(out) == {
        "key": "k", "value_base64": "/w==", "revision": 7, "create_revision": 5, "version": 2, "lease": 4
    }  # fmt: skip
    assert asked == [(Span(b"k", b"k\0"), Consistency.LINEARIZABLE)]
    listing(monkeypatch)
    assert run("get", "k", "--json") == (1, b"", "kvstore: key 'k' does not exist\n")


def test_json_of_a_write_has_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "put", PutResult(4, 2))
    assert json.loads(run("put", "k", "v", "--json")[1]) == {"key": "k", "revision": 4, "version": 2}
    assert json.loads(run("put", "k", "v", "--lease", "3", "--json")[1])["lease"] == 3
    assert json.loads(run("put", "k", "v", "--ttl", "9", "--json")[1])["lease"] == 4  # its own has its revision
    answer(monkeypatch, "delete", DeleteResult(9, 2, 7))
    assert json.loads(run("delete", "k", "--json")[1]) == {
        "key": "k", "revision": 9, "version": 2, "deleted_revision": 7
    }  # fmt: skip
    answer(monkeypatch, "delete_span", DeleteSpanResult(9, 3))
    assert json.loads(run("delete", "k", "--prefix", "--json")[1]) == {"revision": 9, "deleted": 3}


def test_put_attaches_its_key_to_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answer(monkeypatch, "put", PutResult(4, 2))
    assert run("put", "k", "v", "--lease", "3") == (0, b"revision 4, version 2, lease 3\n", "")
    assert run("put", "k", "v", "--ttl", "1.5")[0] == 0
    assert [call[3:] for call in calls] == [({"lease": 3},), ({"ttl_s": 1.5},)]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (NoSuchLease("404"), 1, "lease 7 does not exist or has expired: grant one with `kvstore lease grant`"),
        (
            ConditionFailed("412", 4),
            5,
            "key 'k' is at revision 4; read it with `kvstore get`, then repeat with",
        ),
        (ConditionFailed("412", None), 5, "key 'k' does not exist; create it with --if-absent"),
        (LockLost("412", 0), 5, "lock 'l' is no longer held with fencing token 3"),
        (Locked("other"), 5, "other"),
    ],
)
def test_a_write_that_was_not_done_says_why_and_what_helps(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, says: str
) -> None:
    answer(monkeypatch, "put", error)
    found, out, err = run("put", "k", "v", "--lease", "7", "--lock", "l", "--fence", "3")
    assert (found, out) == (code, b"")
    assert says in err


def test_a_transaction_whose_compares_fail_ends_with_5(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"compare": [{"key": "k", "exists": true}], "then": [{"delete": {"key": "k"}}]}'
    answer(monkeypatch, "txn", TransactResult(False, 4, []))
    code, out, _ = run("txn", "-", stdin=body)
    assert (code, json.loads(out)) == (5, {"succeeded": False, "revision": 4, "results": []})
    answer(monkeypatch, "txn", TransactResult(True, 5, [NotFound(5)]))
    assert run("txn", "-", stdin=body)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [["get", ""], ["put", "", "v"], ["delete", ""], ["delete", "k", "--prefix", "--if-revision", "1"],
     ["put", "k", "v", "--fence", "1"], ["get", "k", "--endpoints", "127.0.0.1:1"], ["txn", "/absent"]],
)  # fmt: skip
def test_wrong_arguments_end_with_2_before_anything_is_sent(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.startswith("kvstore: ")) == (2, b"", True)


def test_a_table_escapes_control_characters_and_keeps_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(b"\x1b[2J\nred\x07[bold]" + b"x" * 500, 1, 1, 1)
    listing(monkeypatch, KeyState(b"a b/[red]\xff", record), KeyState(b"k" * 1024, Record(b"", 2, 2, 1)))
    code, out, _ = run("list")
    text = out.decode()
    assert code == 0
    assert "a b/[red]\\xff" in text
    assert "\\x1b[2J\\nred\\x07[bold]xxx" in text
    assert max(map(len, text.splitlines())) <= 200


def test_a_closed_pipe_ends_the_command_quietly() -> None:
    """In a process of its own, because Python flushes standard output once more when it ends."""
    script = (
        "import sys\nfrom kvstore.cli.output import standard_output\nimport typer\n"
        "def write():\n with standard_output() as out:\n  while True: out.write(b'x' * 4096)\n"
        "typer.run(write)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")


def test_names_of_members_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [MemberStatus(name, "h:1", connected=True, heard_ms_ago=0.0) for name in ("n1", "n2", "m1")]
    answer(monkeypatch, "members", MembersStatus("n1", 1, True, "n1", members))
    context = typer.Context(typer.main.get_command(cli.app))
    assert member_names(context, "n") == ["n1", "n2"]
    answer(monkeypatch, "members", Unavailable("down"))
    assert member_names(context, "n") == []


def test_status_shows_each_replica_as_a_table_or_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "status", STATUS)
    code, table, _ = run("status", "--endpoints", "http://a:1,http://b:2")
    assert code == 0
    assert all(word in table.decode() for word in ("leader", "3.n1", "400 ms", "a:1", "b:2"))
    _, document, _ = run("status", "--endpoints", "http://a:1", "--json")
    assert json.loads(document) == {"http://a:1": msgspec.to_builtins(STATUS)}


@pytest.mark.parametrize(("members", "shown"), [(("n1",), "0 of 0"), (("n1", "n2"), "1 of 1"), (("n2",), "1 of 1")])
def test_status_counts_the_peers_of_a_replica(
    members: tuple[str, ...], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [MemberStatus(name=name, address="h:1", connected=True, heard_ms_ago=1.0) for name in members]
    answer(monkeypatch, "status", msgspec.structs.replace(STATUS, members=known))
    assert shown in run("status", "--endpoints", "http://a:1")[1].decode()


def test_status_shows_no_peers_of_a_replica_that_knows_no_membership(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "status", msgspec.structs.replace(STATUS, members=[]))
    assert " of " not in run("status", "--endpoints", "http://a:1")[1].decode()


def test_a_narrow_terminal_shows_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "status", STATUS)
    _, table, _ = run("status", "--endpoints", "http://a:1", columns=40)
    assert max(map(len, table.decode().splitlines())) <= 40
    assert all(word in table.decode() for word in ("leader", "endpoint", "a:1"))
    assert "lease" not in table.decode()


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    listing(monkeypatch, KeyState(b"k" * 300, Record(b"v", 1, 1, 1)))
    assert "k" * 300 in CliRunner().invoke(cli.app, ["list"]).stdout


@pytest.mark.parametrize("error", [Unavailable("refused"), Rejected("404, which is no replica's")])
def test_status_of_a_cluster_that_is_down_ends_with_3(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    answer(monkeypatch, "status", error)
    code, out, err = run("status", "--endpoints", "http://a:1")
    assert (code, "unreachable" in out.decode(), "start the replicas" in err) == (3, True, True)
    _, document, _ = run("status", "--endpoints", "http://a:1", "--json")
    assert json.loads(document) == {"http://a:1": {"error": str(error)}}


def test_the_module_lists_all_commands_and_imports_none_of_them() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "kvstore", "--help"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert all(f"│ {name}" in done.stdout for name in cli.COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "kvstore.cli" in imported
    assert not imported & {"aiohttp", "kvstore.cli.keys", "kvstore.client", "pydantic"}


def test_the_summary_of_a_command_is_the_first_sentence_of_its_help(subtests: pytest.Subtests) -> None:
    for name in cli.COMMANDS:
        with subtests.test(name):
            text = " ".join(cli.load_command(name).help.split())
            assert text.startswith(cli.COMMANDS[name].summary)


def test_a_deletion_of_more_keys_than_a_revision_may_have_goes_on_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter(
        [DeleteSpanResult(5, 100_000, more=True), DeleteSpanResult(6, 100_000, more=True), DeleteSpanResult(7, 9)]
    )

    async def delete_span(_: Client, span: Span, *, limit: int) -> DeleteSpanResult:
        assert (span, limit) == (Span(b"k", b"l"), 100_000)
        return next(results)

    monkeypatch.setattr(Client, "delete_span", delete_span)
    code, out, says = run("delete", "k", "--prefix")
    assert (code, out) == (0, b"revision 7, deleted 200,009 keys\n")
    assert "revision 5, deleted 100,000 keys so far" in says
    assert "revision 6, deleted 200,000 keys so far" in says
