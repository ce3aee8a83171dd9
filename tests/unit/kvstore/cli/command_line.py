"""Runs commands in this process."""

from typer.testing import CliRunner

from kvstore import cli


def run_bytes(*arguments: str, stdin: bytes = b"", columns: int = 200) -> tuple[int, bytes, str]:
    """Run a command, and return its exit status, standard output and standard error."""
    result = CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"}).invoke(cli.app, arguments, input=stdin)
    return result.exit_code, result.stdout_bytes, result.stderr


def run(*arguments: str, stdin: bytes = b"", columns: int = 200) -> tuple[int, str, str]:
    code, out, err = run_bytes(*arguments, stdin=stdin, columns=columns)
    return code, out.decode(), err
