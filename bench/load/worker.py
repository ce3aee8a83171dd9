"""One process of the generator: `python -m bench.load.worker`, with its order on standard input."""

import gc
import itertools
import sys

import msgspec

from bench.load.generator import Generator
from bench.load.order import Message, Order, Progress, Ready, draw


def main() -> None:
    """Read an order, connect, fill, wait for the start, run. Whatever fails is told on standard error."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    try:
        generator = Generator(order, tell=lambda answered: say(Progress(answered)))
        if order.fill:
            generator.fill()
        operations = draw(order.mix, order.worker)
        gc.freeze()
        gc.disable()  # what is written down meanwhile is kept to the end: there is nothing to collect
        say(Ready())
        start_ns = int(sys.stdin.buffer.readline())
        recording = generator.run(itertools.cycle(operations), start_ns)
    except OSError as error:
        sys.exit(f"{error}: are all replicas up, and are these the right endpoints?")
    say(recording.result())


def say(message: Message) -> None:
    """A line to the process that gave the order."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
