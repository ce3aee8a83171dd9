"""Numbers on the command line and in the variables of the environment that stand for options."""

import pytest

from tests.unit.kvstore.cli.command_line import run

COMMANDS = {
    "--revision of get": ["get", "a", "--revision"],
    "--revision of list": ["list", "--revision"],
    "--revision of export": ["export", "-", "--revision"],
    "--limit": ["list", "--limit"],
    "--if-revision of put": ["put", "a", "b", "--if-revision"],
    "--if-revision of delete": ["delete", "a", "--if-revision"],
    "--lease": ["put", "a", "b", "--lease"],
    "--fence": ["put", "a", "b", "--lock", "l", "--fence"],
    "--ttl of put": ["put", "a", "b", "--ttl"],
    "--ttl of lock": ["lock", "l", "--ttl"],
    "--wait": ["lock", "l", "--wait"],
    "lease to show": ["lease", "show"],
    "lease to renew": ["lease", "keepalive"],
    "lease to revoke": ["lease", "revoke"],
    "TTL of a lease": ["lease", "grant"],
    "--timeout-s of add": ["member", "add", "n4", "a:1", "--timeout-s"],
    "--timeout-s of replace": ["member", "replace", "n4", "--timeout-s"],
    "--timeout-s of promote": ["member", "promote", "n4", "--timeout-s"],
    "--from-revision": ["watch", "--from-revision"],
    "--from-line": ["import", "-", "--from-line"],
    "--nodes of cluster": ["cluster", "--nodes"],
    "--port": ["cluster", "--port"],
    "--peer-port": ["cluster", "--peer-port"],
    "--nodes of restore": ["restore", "x.db", "--nodes"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_number_has_one_spelling(arguments: list[str], subtests: pytest.Subtests) -> None:
    for spelling in ("1_0", " 5", "5 ", "+5", "05", "٣", "1e1", "0x5", "nan", "inf", "5.", "", "9" * 5000):
        with subtests.test(spelling[:20]):
            code, _, error = run(*arguments, spelling)
            assert code == 2
            assert "is not a " in error
            assert " to " in error  # the bounds


def test_a_number_in_the_environment_has_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVSTORE_LOCK", "l")
    monkeypatch.setenv("KVSTORE_FENCE", "1_0")
    code, _, error = run("put", "a", "b")
    assert code == 2
    assert "'1_0' is not a whole number from 1 to" in error
