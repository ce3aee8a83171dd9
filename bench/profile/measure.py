"""Samples the leader under load, with py-spy: https://github.com/benfred/py-spy"""

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.child import finished
from bench.errors import BenchError
from bench.load.run import Ask
from bench.load.run import run as run_load
from bench.processes import thread_cpu_s
from bench.profile.stages import costs, read
from kvstore.testing.process_cluster import ProcessCluster

SAMPLES_PER_SECOND = 250
_GRACE_S = 60.0


class Profiled(msgspec.Struct, frozen=True, kw_only=True):
    """CPU microseconds of the leader for a request, by stage and by innermost function. What its threads used comes
    from a load without sampling, the samples from a second one."""

    connections: int
    reads: int
    per_second: float
    sampled_per_second: float
    samples: int
    stages_us: dict[str, float]
    functions_us: dict[str, float]

    @property
    def cpu_us(self) -> float:
        """Of all stages."""
        return sum(self.stages_us.values())


def find_py_spy() -> str:
    """The program. Raises BenchError when it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise BenchError("the leader is sampled by py-spy: pip install --group bench")
    return program


async def measure(program: str, directory: Path, ask: Ask, nodes: int, say: Callable[[str], None]) -> Profiled:
    """Load the leader of a new cluster twice. Raises BenchError or ClusterError."""
    cluster = ProcessCluster(nodes, directory / "cluster")
    cluster.prepare()
    try:
        cluster.start()
        leader = await cluster.wait_ready()
        process = cluster.process_id(leader)
        ask = msgspec.structs.replace(ask, urls=[cluster.replicas[leader].url])
        warm_up = msgspec.structs.replace(ask, fill=True, seconds=1.0)
        await run_load(warm_up)
        say("load without sampling")
        plain = msgspec.structs.replace(ask, warm_up_s=0.0)
        before = thread_cpu_s(process)
        found = await run_load(plain)
        after = thread_cpu_s(process)
        say("load with sampling")
        file = directory / "stacks"
        sampled, _ = await asyncio.gather(run_load(ask), _sample(program, process, file, ask.seconds))
    finally:
        await cluster.stop()
    answers = sum(found.statuses.values())
    cpu_us = {thread: 1e6 * (used - before.get(thread, 0.0)) / answers for thread, used in after.items()}
    samples = read(file.read_text().splitlines())
    return Profiled(
        connections=ask.connections,
        reads=ask.mix.reads,
        per_second=found.per_second,
        sampled_per_second=sampled.per_second,
        samples=sum(each.stages.total() for each in samples.values()),
        stages_us=costs(cpu_us, {thread: each.stages for thread, each in samples.items()}),
        functions_us=costs(cpu_us, {thread: each.functions for thread, each in samples.items()}),
    )


async def _sample(program: str, process: int, file: Path, seconds: float) -> None:
    status, output = await finished(
        [
            *(program, "record", "--pid", str(process), "--format", "raw", "--output", str(file), "--threads"),
            *("--full-filenames", "--nonblocking"),  # a pause for each sample would be seen in what is measured
            *("--duration", str(max(1, round(seconds))), "--rate", str(SAMPLES_PER_SECOND)),
        ],
        seconds + _GRACE_S,
    )
    if status:
        raise BenchError(
            "py-spy could not sample the leader; run this as root, or allow it: sysctl kernel.yama.ptrace_scope=0. It "
            f"said: {output.strip()[-500:]}"
        )
