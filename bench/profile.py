"""CPU time of a request on the leader, by stage: read from `/proc` and split by samples of py-spy.

https://github.com/benfred/py-spy
"""

import asyncio
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bench.cluster import started
from bench.command import Connections, Json, Nodes, Reads, ValueBytes, figure_table, finish, run, say, scratch_directory
from bench.errors import BenchError
from bench.load.options import LoadOptions, Mix
from bench.load.process import run_load
from bench.processes import check_platform, thread_cpu_s
from bench.programs import find_program, output_of
from bench.stages import costs, read

PROFILE = typer.Typer()

SAMPLES_PER_S = 250
MAX_FUNCTIONS = 15
_GRACE_S = 60.0


class ProfileResult(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of the leader for each request, from a load without sampling, split by the samples of another load."""

    connections: int
    reads: int
    per_second: float
    sampled_per_second: float
    samples: int
    stages_us: dict[str, float]
    functions_us: dict[str, float]
    """CPU time by innermost function."""

    @property
    def cpu_us(self) -> float:
        """CPU time of all stages."""
        return sum(self.stages_us.values())


@PROFILE.command()
def profile(
    *,
    connections: Connections = 64,
    reads: Reads = 0,
    value_bytes: ValueBytes = 100,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="PUTs in each request; several in a transaction.")] = 1,
    nodes: Nodes = 3,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Length of each of two loads.")] = 10.0,
    json: Json = None,
) -> None:
    """Measure the CPU time of a request on the leader, by stage and by function."""
    check_platform()
    program = find_program("py-spy", "run `pip install --group bench` in the checkout")
    options = LoadOptions(
        mix=Mix(reads=reads, value_bytes=value_bytes, batch=batch), urls=[], connections=connections, seconds=seconds
    )
    with scratch_directory() as directory:
        result = run(measure(program, directory, options, nodes))
    finish(json, result, profile_report(result))


async def measure(program: str, directory: Path, options: LoadOptions, nodes: int) -> ProfileResult:
    """Load the leader of a new cluster twice. Raises BenchError or ClusterError."""
    async with started(directory / "cluster", nodes) as cluster:
        leader = await cluster.wait_ready()
        process = cluster.process_id(leader)
        options = msgspec.structs.replace(options, urls=[cluster.replicas[leader].url])
        await run_load(msgspec.structs.replace(options, fill=True, seconds=1.0))
        say("load without sampling")
        before = thread_cpu_s(process)
        plain = await run_load(msgspec.structs.replace(options, warm_up_s=0.0))
        after = thread_cpu_s(process)
        say("load with sampling")
        file = directory / "stacks"
        sampled, _ = await asyncio.gather(run_load(options), _sample(program, process, file, options.seconds))
        samples = read(file.read_text().splitlines())
    answers = sum(plain.statuses.values())
    cpu_us = {thread: 1e6 * (used - before.get(thread, 0.0)) / answers for thread, used in after.items()}
    return ProfileResult(
        connections=options.connections,
        reads=options.mix.reads,
        per_second=plain.per_second,
        sampled_per_second=sampled.per_second,
        samples=sum(each.stages.total() for each in samples.values()),
        stages_us=costs(cpu_us, {thread: each.stages for thread, each in samples.items()}),
        functions_us=costs(cpu_us, {thread: each.functions for thread, each in samples.items()}),
    )


async def _sample(program: str, process: int, file: Path, seconds: float) -> None:
    status, output = await output_of(
        [
            *(program, "record", "--pid", str(process), "--format", "raw", "--output", str(file), "--threads"),
            *("--full-filenames", "--nonblocking"),  # a pause at each sample would distort the load
            *("--duration", str(max(1, round(seconds))), "--rate", str(SAMPLES_PER_S)),
        ],
        seconds + _GRACE_S,
    )
    if status:
        raise BenchError(
            "py-spy could not sample the leader; run this as root, or allow it with sysctl kernel.yama.ptrace_scope=0. "
            f"Its output: {output.strip()[-500:]}"
        )


def profile_report(result: ProfileResult) -> RenderableType:
    """Return the stages, and the functions with the most CPU time."""
    stages = _cost_table("stage", result.stages_us, result.cpu_us)
    stages.add_row("[bold]all[/bold]", "", f"[bold]{result.cpu_us:.1f}[/bold]")
    functions = dict(islice(result.functions_us.items(), MAX_FUNCTIONS))
    return Group(
        f"leader, {result.connections} connections, {result.reads} % GET: {result.per_second:,.0f} requests/s, "
        f"{result.sampled_per_second:,.0f} while sampled; {result.samples:,} samples",
        stages,
        _cost_table("innermost function", functions, result.cpu_us),
        "time in C code counts for the Python function that called it",
    )


def _cost_table(name: str, costs_us: Mapping[str, float], total_us: float) -> Table:
    table = figure_table(name, " share", " µs per request")
    for each, cost_us in costs_us.items():
        table.add_row(escape(each), f"{cost_us / total_us:.1%}", f"{cost_us:.1f}")
    return table
