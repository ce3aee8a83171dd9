"""`python -m tests.torture`: whether the store keeps what it promised when things break."""

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.command import Json, Seed, check_page, run, write_json
from bench.errors import BenchError
from bench.report import print_report
from bench.scratch import scratch_directory
from kvstore.testing.cluster_directory import ClusterError
from tests.torture.counter import COUNTER
from tests.torture.faults import command as faulting
from tests.torture.faults.found import Verdict, conclude
from tests.torture.faults.plan import Fault
from tests.torture.faults.report import summary
from tests.torture.faults.run import Order, not_offered
from tests.torture.full_speed import FULL_SPEED
from tests.torture.fuzz.command import FUZZ
from tests.torture.lifecycle.command import LIFECYCLE
from tests.torture.listing import LIST
from tests.torture.watching.command import WATCH

app = typer.Typer(
    name="torture",
    help="Check the store on this machine, in real processes, while things break.",
    epilog="Exit status: 0 when all of it is as promised, 1 otherwise.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(FULL_SPEED)
app.add_typer(COUNTER)
app.add_typer(WATCH)
app.add_typer(LIST)
app.add_typer(LIFECYCLE)
app.add_typer(FUZZ)


@app.command()
def faults(
    *,
    fault: Annotated[
        list[Fault] | None, typer.Option(help="A fault to make, again for each; all that can be made by default.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=5, max=86_400, help="How long faults are made.")] = 60,
    kills: Annotated[
        int, typer.Option(min=0, help="Instead of --seconds: until so many replicas were killed with SIGKILL.")
    ] = 0,
    nodes: Annotated[int, typer.Option(min=3, max=15, help="How many replicas.")] = 3,
    clients: Annotated[int, typer.Option(min=1, max=64, help="How many clients.")] = 8,
    seed: Seed = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with all of it to FILE, too.")] = None,
) -> None:
    """Torture a cluster under clients, then check every answer: linearizable, and nothing acknowledged lost."""
    order = Order(
        faults=fault or [],
        seconds=seconds,
        kills=kills,
        nodes=nodes,
        clients=clients,
        seed=secrets.randbelow(1 << 32) if seed is None else seed,
    )
    check_page(html)
    missing = run(not_offered(order))
    with scratch_directory() as directory:
        found, calls = run(faulting.run(directory, order, missing))
        write_json(json, conclude(found))
        faulting.write_page(html, found)
        print_report(summary(found))
        if found.verdict is not Verdict.OK:
            history = (html or json or directory / "faults").with_suffix(".history.jsonl")
            faulting.write_history(history, calls, found)
            raise BenchError(f"the run is {found.verdict}, see above; what the clients saw is in {history}")


def main() -> None:
    """Entry point."""
    try:
        app()
    except (BenchError, ClusterError, OSError) as error:
        sys.stderr.write(f"torture: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
