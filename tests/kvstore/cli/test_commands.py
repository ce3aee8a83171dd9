"""The command line: its flags are the settings, its exit statuses tell what a script may do next."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from kvstore import __version__, cli
from kvstore.client import Client, Rejected, Unavailable, UnknownOutcome
from kvstore.commands import DeleteResult, PutResult, Record
from kvstore.config import Settings, default_of, flag_of, unit_of
from kvstore.requests import Consistency, Status
from storage.base import StorageError

STATUS = Status("n1", "c", "leader", True, "3.n1", "3.n1", "n1", 400.0, 5, 5, 3, 2, [], __version__, 1)


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(cli.app, arguments, input=stdin)
    return result.exit_code, result.stdout_bytes, result.stderr


def answer(monkeypatch: pytest.MonkeyPatch, method: str, outcome: object) -> list[tuple[Any, ...]]:
    """Have the client's `method` give or raise `outcome`; what it was called with is in the list."""
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
    """What `kvstore serve` hands to the server."""
    handed: list[Settings] = []
    monkeypatch.setattr("kvstore.process.serve", handed.append)
    return handed


def test_serve_has_a_flag_for_each_setting_with_default_unit_and_variable() -> None:
    code, out, _ = run("serve", "--help")
    text = " ".join(out.decode().replace("│", " ").split())
    assert code == 0
    for name, field in Settings.model_fields.items():
        assert f" {flag_of(name)} " in text
        assert f"KVSTORE_{name.upper()})" in text
        assert f"default {default_of(field)} {unit_of(field)}".strip() in text or "no default" in text


def test_serve_hands_the_settings_over(served: list[Settings], tmp_path: Path) -> None:
    file = tmp_path / "n1.toml"
    file.write_text("window = 3\n")
    assert run("serve", "--config", str(file), "--lease-ms", "700") == (0, b"", "")
    assert (served[0].window, served[0].lease_ms) == (3, 700)


def test_serve_refuses_bad_settings_without_starting(served: list[Settings]) -> None:
    code, _, err = run("serve", "--lease-ms", "100", "--stall-ms", "50")
    assert code == 2
    assert [line.split(" ")[1] for line in err.splitlines()] == ["lease_ms", "stall_ms"]
    assert "Traceback" not in err
    assert not served


def test_serve_warns_of_an_even_number_of_voters(served: list[Settings]) -> None:
    code, _, err = run("serve", "--members", "n1=a:1,n2=b:1", "--secret", "0123456789abcdef")
    assert code == 0
    assert err.startswith("kvstore: warning: 2 voters")
    assert served


@pytest.mark.parametrize("error", [StorageError("the disk is gone: buy one"), OSError("the disk is gone: buy one")])
def test_a_replica_that_cannot_run_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: Settings) -> None:
        raise error

    monkeypatch.setattr("kvstore.process.serve", fail)
    assert run("serve") == (1, b"", "kvstore: the disk is gone: buy one\n")


def test_get_writes_the_bytes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_delete_says_what_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "delete", DeleteResult(9, 2, 7))
    assert run("delete", "k") == (0, b"revision 9, deleted version 2\n", "")


@pytest.mark.parametrize("command", ["get", "delete"])
def test_an_absent_key_ends_with_1(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    answer(monkeypatch, command, None)
    assert run(command, "k") == (1, b"", "kvstore: 'k' is absent\n")


@pytest.mark.parametrize(("error", "code"), [(Rejected("r"), 2), (Unavailable("u"), 3), (UnknownOutcome("o"), 4)])
def test_the_exit_status_tells_what_is_known(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    answer(monkeypatch, "put", error)
    assert run("put", "k", "v") == (code, b"", f"kvstore: {error}\n")


def test_wrong_usage_ends_with_2() -> None:
    assert run("get")[0] == 2
    assert run("get", "k", "--endpoints", ",")[0] == 2
    assert run("get", "k", "--consistency", "sometimes")[0] == 2


def test_status_shows_each_replica_as_a_table_or_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "status", STATUS)
    code, table, _ = run("status", "--endpoints", "http://a:1,http://b:2")
    assert code == 0
    assert all(word in table.decode() for word in ("leader", "3.n1", "400 ms", "a:1", "b:2"))
    _, document, _ = run("status", "--endpoints", "http://a:1", "--json")
    assert json.loads(document) == {"http://a:1": msgspec.to_builtins(STATUS)}


def test_status_of_a_cluster_that_is_down_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "status", Unavailable("refused"))
    code, out, _ = run("status", "--endpoints", "http://a:1")
    assert (code, "no answer" in out.decode()) == (3, True)


def test_the_module_is_the_command() -> None:
    help_text = subprocess.run([sys.executable, "-m", "kvstore", "--help"], capture_output=True, check=True).stdout
    assert b"Exit status" in help_text
