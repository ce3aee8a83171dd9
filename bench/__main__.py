"""`python -m bench`: what the store can do on this machine."""

import sys
from typing import Annotated

import typer

from bench import chart
from bench import failover as failing_over
from bench.batch import BATCH
from bench.command import Json, Plot, progress_bar, run, write_json
from bench.compare.command import COMPARE
from bench.endurance import ENDURANCE
from bench.errors import BenchError
from bench.lifecycle.command import LIFECYCLE
from bench.load.command import LOAD
from bench.profile.command import PROFILE
from bench.report import failover_charts, failover_report, print_report
from bench.scratch import scratch_directory
from kvstore.testing.cluster_directory import ClusterError

app = typer.Typer(
    name="bench",
    help="Measure the store on this machine, in real processes. Only ratios of one run on one machine mean something.",
    epilog="Exit status: 0 within the limits, 1 beyond them or not measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(LOAD)
app.add_typer(BATCH)
app.add_typer(COMPARE)
app.add_typer(ENDURANCE)
app.add_typer(PROFILE)
app.add_typer(LIFECYCLE)


@app.command()
def failover(
    kills: Annotated[int, typer.Option(min=2, help="How often the leader is killed.")] = 50,
    nodes: Annotated[int, typer.Option(min=3, max=15, help="How many replicas.")] = 3,
    clients: Annotated[int, typer.Option(min=1, max=64, help="How many clients write.")] = 4,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """Kill the leader with SIGKILL while clients write: the time without a successful write, and what was lost."""
    chart.check(plot)
    with scratch_directory() as directory, progress_bar() as bar:
        killing = bar.add_task("kills", total=kills)
        reading = bar.add_task("reading back", total=None, visible=False)
        progress = failing_over.Progress(
            killed=lambda outage_ms: bar.update(killing, advance=1, description=f"kills, last {outage_ms:.0f} ms"),
            read=lambda total: bar.update(reading, advance=1, total=total, visible=True),
        )
        found = run(failing_over.measure(directory, nodes=nodes, clients=clients, kills=kills, progress=progress))
        bar.stop()
        write_json(json, found)
        if plot is not None:
            chart.write(plot, failover_charts(found))
        print_report(failover_report(found))
        if found.lost:
            raise BenchError(
                f"{len(found.lost)} acknowledged writes are lost: this must never happen, please report it"
            )
    raise typer.Exit(not found.within_limits)


def main() -> None:
    """Entry point."""
    try:
        app()
    except (BenchError, ClusterError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
