"""Files and addresses that a person gives to a command."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.api.commands import TransactResult
from kvstore.client import Client
from tests.unit.kvstore.cli.command_line import run

BODY = b'{"then": [{"get": {"key": "a"}}]}\n'


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    async def txn(*_: object) -> TransactResult:
        return TransactResult(True, 5, [])

    monkeypatch.setattr(Client, "txn", txn)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("content", [BODY, b"\xef\xbb\xbf" + BODY, BODY.replace(b"\n", b"\r\n"), BODY[:-1]])
def test_a_transaction_from_another_system_is_taken(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "txn.json").write_bytes(content)
    assert run("txn", str(tmp_path / "txn.json"))[0] == 0
    assert run("txn", "-", stdin=content)[0] == 0


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BODY.decode().encode("utf-16"), "standard input is UTF-16"),
        (gzip.compress(BODY, mtime=0), "standard input is compressed with gzip"),
        (BODY[:-5], "Input data was truncated"),
        (b"", "Input data was truncated"),
        ('{"then": [{"get": {"key": "ü"}}]}'.encode("latin-1"), "is not UTF-8: line 1 has the byte 0xfc"),
        (BODY + BODY, "trailing characters"),
    ],
)
def test_another_file_is_refused_with_its_kind(content: bytes, why: str) -> None:
    code, out, err = run("txn", "-", stdin=content)
    assert (code, out) == (2, "")
    assert why in err


@pytest.mark.usefixtures("store")
def test_a_directory_is_no_transaction(tmp_path: Path) -> None:
    code, _, err = run("txn", str(tmp_path))
    assert code == 2
    assert "cannot be read: Is a directory" in err


@pytest.mark.parametrize("arguments", [["put", "a", "-"], ["txn", "-"], ["import", "-"]])
def test_a_command_without_standard_input_says_so(arguments: list[str]) -> None:
    script = (
        f"import sys; sys.stdin = None; sys.argv = ['kvstore', *{arguments!r}]; from kvstore.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize(
    ("endpoints", "why"),
    [
        ("127.0.0.1:8001", "http:// or https:// must precede"),
        ("http://a:1,,http://b:1", "'' is not a base URL"),
        ("http://a:1,", "'' is not a base URL"),
        ("http://a:1;http://b:1", "leave '//b:1' away"),
        ("http://a:1/kv", "leave '/kv' away"),
        ("http://0.0.0.0:8001", "nothing connects"),
    ],
)
def test_endpoints_are_checked_where_they_are_given(
    monkeypatch: pytest.MonkeyPatch, endpoints: str, why: str, *, option: bool
) -> None:
    if not option:
        monkeypatch.setenv("KVSTORE_ENDPOINTS", endpoints)
    code, _, err = run("get", "a", *(["--endpoints", endpoints] if option else []))
    assert code == 2
    assert err.startswith("kvstore: --endpoints: ")
    assert why in err
