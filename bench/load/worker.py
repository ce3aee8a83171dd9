"""One process of the generator: `python -m bench.load.worker`, with its order on standard input."""

import gc
import itertools
import sys
from pathlib import Path

import msgspec

from bench.load.generator import Generator
from bench.load.order import Message, Order, Progress, Ready, draw
from bench.load.past import Past
from bench.load.wire import Requests


def main() -> None:
    """Read an order, connect, fill, wait for the start, run. Whatever fails is told on standard error."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    past = Past(Requests(order.mix, order.worker, ""), order.mix.prefix) if order.history else None
    try:
        generator = Generator(order, past, lambda answered: say(Progress(answered)))
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
    result = recording.result()
    if past is not None and order.history is not None:
        encoder = msgspec.json.Encoder()
        with Path(order.history).open("wb") as file:
            file.writelines(encoder.encode(call) + b"\n" for call in past.calls)
    say(result)


def say(message: Message) -> None:
    """A line to the process that gave the order."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
