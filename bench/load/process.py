"""The generator in a process of its own, so that no other work delays it: `python -m bench.load.process`."""

import gc
import sys

import msgspec

from bench.errors import BenchError
from bench.load.generator import Generator
from bench.load.options import LoadOptions
from bench.load.recording import LoadResult
from bench.programs import run_module


async def run_load(options: LoadOptions) -> LoadResult:
    """Run a load in a new process. Raises BenchError."""
    return await run_module("bench.load.process", options, LoadResult, "the load")


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
