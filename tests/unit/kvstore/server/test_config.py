"""Settings: where they come from, what is refused, and that the refusal says what to change."""

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kvstore.api.address import Address, parse_address
from kvstore.api.authority import Authority
from kvstore.server.config import ConfigError, Settings, bounds_of, voters_warnings
from kvstore.server.config_sources import load, settings_table
from paxos.options import Options
from paxos.wire import MAX_MESSAGE_BYTES

THREE = "n1=127.0.0.1:9001,n2=127.0.0.1:9002,n3=127.0.0.1:9003"
SECRET = "0123456789abcdef"


def problems(file: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(flags, file)
    return raised.value.problems


def problem(file: Path | None = None, **flags: object) -> str:
    lines = problems(file, **flags)
    assert len(lines) == 1, lines
    return lines[0]


def toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "kvstore.toml"
    file.write_text(text)
    return file


def test_defaults_are_a_lone_replica_that_contradicts_nothing() -> None:
    settings = load({}, None)
    assert settings.members == {"n1": Address("127.0.0.1", 9001)}
    assert settings.peer_bind == Address("127.0.0.1", 9001)
    assert settings.shared_secret() == b""
    assert settings.warnings() == []


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, "lease_ms = 601\nheartbeat_ms = 61\nwindow = 6\n")
    monkeypatch.setenv("KVSTORE_LEASE_MS", "602")
    monkeypatch.setenv("KVSTORE_HEARTBEAT_MS", "62")
    settings = load({"lease_ms": "603", "window": None}, file)
    assert (settings.lease_ms, settings.heartbeat_ms, settings.window, settings.stall_ms) == (603, 62, 6, 1000)


def test_each_setting_has_one_form_in_flags_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        name: {
            "node": "n2",
            "cluster": "other",
            "members": THREE,
            "bootstrap_without": "n1, n3",
            "listen": "[::1]:7001",
            "public_names": "kv.example.com,kv.internal:8443",
            "peer_listen": "0.0.0.0:7002",
            "data": "/d",
            "secret": SECRET,
            "log_level": "debug",
        }.get(name, str(field.default))
        for name, field in Settings.model_fields.items()
        if name != "secret_file"
    }
    by_flags = load(texts, None)
    for name, text in texts.items():
        monkeypatch.setenv(f"KVSTORE_{name.upper()}", text)
    assert load({}, None) == by_flags
    assert by_flags.listen == Address("::1", 7001)


def test_public_names_are_text_or_a_list(tmp_path: Path) -> None:
    names = (Authority("kv.example.com", None), Authority("kv.internal", 8443), Authority("::1", 443))
    assert load({"public_names": "KV.example.com, kv.internal:8443, [::1]:443,"}, None).public_names == names
    file = toml(tmp_path, 'public_names = ["kv.example.com", "kv.internal:8443", "[::1]:443"]\n')
    assert load({}, file).public_names == names


@pytest.mark.parametrize(
    "text",
    ["http://kv.example.com", "kv.example.com:0", "kv.example.com/ui", "*.example.com", "kv:99999", "a b", ":80"],
)
def test_a_public_name_that_could_never_match_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"public_names \(from --public-names\): .* is not a host"):
        load({"public_names": text}, None)


def test_settings_made_directly_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSTORE_WINDOW", "99")
    assert Settings().window == Options().window


def test_members_are_text_or_a_table(tmp_path: Path) -> None:
    table = '[members]\nn1 = "127.0.0.1:9001"\nn2 = "127.0.0.1:9002"\nn3 = "127.0.0.1:9003"\n'
    file = toml(tmp_path, f'secret = "{SECRET}"\n{table}')
    assert load({}, file).members == load({"members": THREE, "secret": SECRET}, None).members


def test_the_secret_of_the_nearer_place_counts_whatever_its_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from-the-secret-file\n")
    file = toml(tmp_path, f'secret_file = "{tmp_path / "secret"}"\n')
    assert load({}, file).shared_secret() == b"from-the-secret-file"
    monkeypatch.setenv("KVSTORE_SECRET", "from-the-environment")
    assert load({}, file).shared_secret() == b"from-the-environment"
    assert load({"secret_file": str(tmp_path / "secret")}, None).shared_secret() == b"from-the-secret-file"


def test_the_secret_is_never_printed() -> None:
    settings = load({"secret": SECRET}, None)
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    assert "hunter2" not in "\n".join(problems(secret="hunter2", lease_ms="x"))


@pytest.mark.parametrize(
    ("flags", "named", "remedy"),
    [
        ({"lease_ms": 200}, "heartbeat_ms (100)", "raise lease_ms to 300"),
        ({"lease_ms": 600, "stall_ms": 500}, "stall_ms (500)", "raise stall_ms to 600"),
        ({"node": "n4", "members": THREE, "secret": SECRET}, "'n4' is not in members", "or add it"),
        (
            {"members": "n1=a:1,n2=a:1,n3=a:2", "secret": SECRET},
            "n1 and n2 have the same address, a:1",
            "its own host or port",
        ),
        (
            {"members": "n1=localhost:1,n2=127.0.0.1:1,n3=a:2", "secret": SECRET},
            "n1 and n2 have the same address",
            "its own host or port",
        ),
        ({"bootstrap_without": "n9"}, "bootstrap_without names 'n9'", "correct the name"),
        ({"listen": "127.0.0.1:9001"}, "peer address of n1", "another port for clients"),
        ({"listen": "localhost:9001"}, "peer address of n1", "another port for clients"),
        (
            {"listen": "127.0.0.1:9002", "members": THREE, "secret": SECRET},
            "peer address of n2",
            "another port for clients",
        ),
        (
            {"listen": "127.0.0.1:7000", "peer_listen": "0.0.0.0:7000"},
            "use the same port",
            "another port for one of them",
        ),
        ({"members": THREE}, "secret_file is required with 3 members", "openssl rand"),
        ({"members": THREE, "secret": SECRET[1:]}, "secret has 15 characters", "openssl rand"),
        ({"secret": SECRET, "secret_file": "x"}, "both set", "remove one"),
        ({"secret_file": "/nowhere/secret"}, "cannot be read", "correct the path"),
        ({"max_value_bytes": MAX_MESSAGE_BYTES - 2**20}, "fit into one frame", "reduce their sum to"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_what_to_change(
    flags: dict[str, Any], named: str, remedy: str
) -> None:
    line = problem(**flags)
    assert named in line
    assert remedy in line


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"node": "N1"}, "node (from --node): 'N1' is not a name"),
        ({"node": "n" * 33}, "is not a name"),
        ({"node": "-n"}, "is not a name"),
        ({"members": "n1"}, "write name=host:port"),
        ({"members": "n1=a:1,n1=b:1"}, "two members are named 'n1'"),
        ({"members": ""}, "members (from --members): it is empty"),
        ({"members": "n1=a:1,,n3=c:1"}, "members (from --members): it is empty, or has an empty part"),
        ({"members": "n1=a:1,"}, "has an empty part"),
        ({"members": "n1=a:1;n2=b:1"}, "more than one colon"),
        ({"members": "n1=0.0.0.0:9001"}, "no address to connect to, only one to listen on"),
        ({"members": "n1=[::]:9001"}, "no address to connect to, only one to listen on"),
        ({"members": ["n1=a:1"]}, "is no table: write [members]"),
        ({"members": {"n1": 9001}}, 'write "host:port" as text'),
        ({"members": "n1=http://a:1"}, "leave http:// away"),
        ({"listen": 8001}, 'write "host:port" as text'),
        ({"listen": "::1:8001"}, "written in brackets"),
        ({"listen": "localhost"}, "write host:port"),
        ({"listen": "localhost:0"}, "write host:port"),
        ({"listen": "localhost:65536"}, "write host:port"),
        ({"listen": ":80"}, "write host:port"),
        ({"lease_ms": "soon"}, "lease_ms (from --lease-ms): 'soon' is not a whole number from 20 to 600000: write"),
        ({"window": 0}, "window (from --window): 0 is not a whole number from 1 to 4096"),
        ({"lease_ms": "1_000"}, "'1_000' is not a whole number"),
        ({"lease_ms": " 500 "}, "' 500 ' is not a whole number"),
        ({"lease_ms": "+500"}, "'+500' is not a whole number"),
        ({"lease_ms": "0500"}, "'0500' is not a whole number"),
        ({"lease_ms": "1e3"}, "'1e3' is not a whole number"),
        ({"lease_ms": 500.0}, "500.0 is not a whole number"),
        ({"window": True}, "True is not a whole number"),
        ({"lease_ms": "9" * 5000}, "(5000 characters) is not a whole number"),
        ({"log_level": "loud"}, "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_with_its_place(flags: dict[str, Any], named: str) -> None:
    assert named in problem(**flags)


def test_every_problem_has_a_line_of_its_own_and_says_where_its_value_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSTORE_LEASE_MS", "150")
    file = toml(tmp_path, "stall_ms = 100\n")
    lines = problems(file)
    assert len(lines) == 2
    assert "[lease_ms from KVSTORE_LEASE_MS]" in lines[0]
    assert f"stall_ms from {file}" in lines[1]


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = toml(tmp_path, "leese_ms = 500\n")
    assert problem(file) == f"leese_ms (from {file}) is not a setting: did you mean lease_ms?"
    assert "remove it" in problem(toml(tmp_path, "colour = 1\n"))


def test_a_file_that_is_absent_or_broken_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in problem(tmp_path / "absent.toml")
    assert "is not valid TOML" in problem(toml(tmp_path, "lease_ms = \n"))


TEXT = 'lease_ms = 600\nnode = "n1"\n'


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()])
def test_a_file_from_windows_is_taken(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "kvstore.toml"
    file.write_bytes(content)
    assert load({}, file).lease_ms == 600


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (TEXT.encode("utf-16"), "is UTF-16, as `>` of Windows PowerShell writes it"),
        (TEXT.encode("utf-16-le"), "has bytes of value 0"),
        (gzip.compress(TEXT.encode(), mtime=0), "is compressed with gzip"),
        ("lease_ms = 600\n# Größe\n".encode("latin-1"), "is not UTF-8: line 2 has the byte 0xf6"),
        (b"", "has no settings, it may be cut short"),
        (b"# lease_ms = 600\n", "has no settings"),
        (b"lease_ms = 600\nmem", "is not valid TOML"),
        (b"lease_ms = 600\nlease_ms = 601\n", "is not valid TOML"),
    ],
)
def test_a_file_in_another_form_is_refused_with_its_kind(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "kvstore.toml"
    file.write_bytes(content)
    line = problem(file)
    assert line.startswith(str(file))
    assert why in line


def test_a_directory_is_no_file_with_settings(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in problem(tmp_path)


@pytest.mark.parametrize("content", [f"{SECRET}\n", f"{SECRET}\r\n", f"\ufeff{SECRET}\n", f" {SECRET} \n\n", SECRET])
def test_a_secret_is_the_same_in_files_of_any_system(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content.encode())
    file.chmod(0o600)
    settings = load({"secret_file": str(file)}, None)
    assert settings.shared_secret() == SECRET.encode()
    assert settings.warnings() == []


def test_a_secret_in_a_variable_is_the_same_as_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """`echo` and a Kubernetes secret made from it end with a line end."""
    monkeypatch.setenv("KVSTORE_SECRET", f"{SECRET}\r\n")
    assert load({}, None).shared_secret() == SECRET.encode()
    assert "secret has several lines" in problem(secret=f"{SECRET}\n{SECRET}")
    assert SECRET not in problem(secret=f"{SECRET}\n{SECRET}")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has 0 characters"),
        (b"\r\n", "has 0 characters"),
        (SECRET[1:].encode() + b"\n", "has 15 characters"),
        (SECRET.encode("utf-16"), "is UTF-16"),
        (f"{SECRET}\n{SECRET}\n".encode(), "has several lines"),
        (b"\xfe" * 32, "is not UTF-8"),
        (gzip.compress(SECRET.encode(), mtime=0), "is compressed with gzip"),
    ],
)
def test_a_secret_in_another_form_is_refused_with_the_reason(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    line = problem(secret_file=str(file))
    assert line.startswith("secret_file")
    assert why in line


def test_a_secret_that_every_user_can_read_is_warned_about(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    (line,) = load({"secret_file": str(file)}, None).warnings()
    assert "(mode 0644): run `chmod o=" in line


@pytest.mark.parametrize("name", ["data", "secret_file"])
@pytest.mark.parametrize("path", ["", "a\0b"])
def test_an_empty_path_and_a_zero_byte_in_a_path_are_refused(name: str, path: str) -> None:
    flags: dict[str, Any] = {name: path}
    assert "is not a path" in problem(**flags)


@pytest.mark.parametrize(("voters", "tolerated"), [(2, 0), (4, 1), (6, 2)])
def test_an_even_number_of_voters_is_warned_about(voters: int, tolerated: int) -> None:
    (line,) = voters_warnings(voters)
    assert f"{voters} voters tolerate the loss of {tolerated}," in line
    assert f"use {voters - 1} or {voters + 1} members" in line
    assert voters_warnings(voters - 1) == []


def test_a_loopback_address_in_a_cluster_of_several_hosts_is_warned_about() -> None:
    settings = load({"members": "n1=localhost:1,n2=10.0.0.2:1,n3=10.0.0.3:1", "secret": SECRET}, None)
    (line,) = settings.warnings()
    assert "n1=localhost:1" in line
    assert "use the name or the IP address of its host" in line


@given(host=st.sampled_from(["h", "10.0.0.1", "::1", "fe80::1%eth0"]), port=st.integers(1, 65535))
def test_an_address_survives_being_written_and_read(host: str, port: int) -> None:
    address = Address(host, port)
    assert parse_address(str(address)) == address


def test_direct_use_raises_pydantic_s_own_error() -> None:
    with pytest.raises(ValidationError):
        Settings(lease_ms=1)


def test_each_setting_has_a_description_and_each_number_a_unit_and_bounds() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.annotation is int:
            assert bounds_of(field), name
            assert re.search(rf"\| `{name}` \| `\d+` \| \w+ \| \d+ to \d+ \|", settings_table()), name
    assert settings_table().count("\n") == 1 + len(Settings.model_fields)
