"""The generator in a process of its own, so that no other work delays it: `python -m bench.load.process`."""

import asyncio
import gc
import sys

import msgspec

from bench.errors import BenchError
from bench.load.generator import Generator
from bench.load.options import LoadOptions
from bench.load.recording import LoadResult


async def run_load(options: LoadOptions) -> LoadResult:
    """Run a load in a new process. Raises BenchError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load.process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C goes to the benchmark, which ends the process
    )
    try:
        output, errors = await process.communicate(msgspec.json.encode(options))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise BenchError(f"the load failed: {errors.decode(errors='replace').strip()[-500:]}")
    return msgspec.json.decode(output, type=LoadResult)


def main() -> None:
    """Read the options from standard input, run the load, write the result to standard output."""
    options = msgspec.json.decode(sys.stdin.buffer.read(), type=LoadOptions)
    try:
        generator = Generator(options)
        if options.fill:
            generator.fill()
        gc.freeze()
        gc.disable()
        result = generator.run().result(options)
    except (OSError, BenchError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
