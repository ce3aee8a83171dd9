"""Output to a pipe that nobody reads, that somebody reads again, and whose reader has ended."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import pytest
from rich.console import Console

from kvstore.server.output import MAX_QUEUE_BYTES, NonblockingOutput

PATIENCE_S = 300
FILLER = b"#"
PROGRAM = """
import os, sys
from kvstore.server.output import install
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"#" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
install("stderr")
sys.stderr.write("before the failure\\n")
raise SystemExit("the reason of the end")
"""


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe that takes no further byte."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, FILLER * 4096)
    os.set_blocking(writer, True)
    try:
        yield reader, writer
    finally:
        for descriptor in (reader, writer):
            with suppress(OSError):
                os.close(descriptor)


def read_until(reader: int, end: bytes) -> str:
    """Read until the text ends with `end`; the bytes that filled the pipe are left out."""
    found = b""
    while not found.endswith(end):
        found += os.read(reader, 65536)
    return found.lstrip(FILLER).decode()


def test_a_full_pipe_does_not_block_and_the_text_comes_when_it_is_read() -> None:
    with full_pipe() as (reader, writer):
        output = NonblockingOutput(writer, "utf-8")
        for number in range(100):
            output.write(f"line {number}\n")
        assert not output.drain(0.01)
        assert output.dropped_lines == 0
        assert read_until(reader, b"line 99\n").splitlines() == [f"line {number}" for number in range(100)]
        assert output.drain(PATIENCE_S)


def test_the_oldest_lines_are_dropped_and_their_number_is_reported() -> None:
    with full_pipe() as (reader, writer):
        output = NonblockingOutput(writer, "utf-8")
        line = "x" * 1023 + "\n"
        written = 2 * MAX_QUEUE_BYTES // len(line)
        for _ in range(written):
            output.write(line)
        output.write("the reason of the end\n")
        assert output.dropped_lines >= written - MAX_QUEUE_BYTES // len(line)
        found = read_until(reader, b"the reason of the end\n").splitlines(keepends=True)
        gaps = [text for text in found if "are missing here" in text]
        assert sum(int(text.split()[1]) for text in gaps) == output.dropped_lines
        assert found.count(line) == written - output.dropped_lines


def test_a_reader_that_has_ended_and_a_full_disk_cost_only_the_lines() -> None:
    with full_pipe() as (reader, writer):
        output = NonblockingOutput(writer, "utf-8")
        os.close(reader)
        output.write("one\ntwo\n")
        assert output.drain(PATIENCE_S)
        assert output.dropped_lines == 2
    with Path("/dev/full").open("wb") as disk:
        output = NonblockingOutput(disk.fileno(), "utf-8")
        output.write("three\n")
        assert output.drain(PATIENCE_S)
        assert output.dropped_lines == 1


def test_a_pipe_that_another_program_made_non_blocking_is_waited_for() -> None:
    with full_pipe() as (reader, writer):
        os.set_blocking(writer, False)
        output = NonblockingOutput(writer, "utf-8")
        output.write("a line\n")
        assert not output.drain(0.01)
        assert read_until(reader, b"a line\n") == "a line\n"
        assert output.dropped_lines == 0


def test_the_output_is_a_text_stream_for_libraries() -> None:
    reader, writer = os.pipe()
    output = NonblockingOutput(writer, "ascii")
    Console(file=cast("IO[str]", output), width=80).print("[bold]caf\u00e9[/bold]")
    assert read_until(reader, b"\n") == "caf\\xe9\n"
    assert (output.fileno(), output.isatty(), output.encoding, output.writable()) == (writer, False, "ascii", True)
    assert os.read(reader, 0) == b""


@pytest.mark.parametrize("is_read", [True, False])
def test_a_program_ends_whether_its_pipe_is_read_or_not(*, is_read: bool) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=writer) as process:
        os.close(writer)
        found: list[str] = []
        if is_read:
            reading = threading.Thread(target=lambda: found.append(read_until(reader, b"the reason of the end\n")))
            reading.start()
            reading.join(PATIENCE_S)
        assert process.wait(PATIENCE_S) == 1
    os.close(reader)
    assert found == (["before the failure\nthe reason of the end\n"] if is_read else [])


def test_a_program_without_the_descriptor_gets_one_that_discards() -> None:
    program = "import sys, kvstore.server.output as o; o.install('stderr'); sys.stderr.write('lost'); print('done')"
    shell = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program], stdout=subprocess.PIPE, check=True
    )
    assert shell.stdout == b"done\n"
