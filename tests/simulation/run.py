"""One simulated run from one seed, and the command that repeats it: `python -m tests.simulation.run SEED [COUNT]`."""

import sys
from random import Random

from bench.linearizability import Operation, Verdict, check
from paxos.types import MS
from tests.simulation.checkers import Safety, same_state
from tests.simulation.clients import Client
from tests.simulation.world import Cluster, Faults


def draw_faults(seed: int) -> Faults:
    """Everything from a quiet network to a hostile one."""
    rng = Random(seed * 7919 + 1)

    def sometimes(value: float) -> float:
        return value if rng.random() < 0.6 else 0.0

    return Faults(
        loss=sometimes(rng.choice((0.01, 0.05, 0.2))),
        copies=sometimes(rng.choice((0.01, 0.1))),
        delay_ms=rng.choice(((0.2, 1.0), (0.2, 20.0), (1.0, 60.0))),
        stray=sometimes(0.01),
        fsync_ms=rng.choice(((0.1, 0.5), (1.0, 20.0))),
        slow_fsync=sometimes(0.005),
        crash_every_ms=sometimes(rng.choice((500.0, 2000.0))),
        partition_every_ms=sometimes(rng.choice((500.0, 2000.0))),
        pause_every_ms=sometimes(rng.choice((700.0, 2000.0))),
        drift_ppm=rng.choice((0, 5000, 9900)),
    )


def simulate(seed: int, *, faulty_ms: int = 8000, calm_ms: int = 6000) -> dict[str, int]:
    """Run clients against faults, then without; raise AssertionError on any violation. Counts of what happened."""
    cluster = Cluster(seed, draw_faults(seed), nodes=5 if seed % 4 == 0 else 3)
    safety = Safety(cluster)
    history: list[Operation] = []
    clients = [Client(cluster, number, history, keys=3) for number in range(4)]
    cluster.world.run(faulty_ms * MS, safety.after_event)
    cluster.heal()
    before = sum(client.answered for client in clients)
    cluster.world.run((faulty_ms + calm_ms) * MS, safety.after_event)
    after = sum(client.answered for client in clients)
    assert after > before, "no progress after the faults stopped"
    for client in clients:
        client.stopped = True
    cluster.world.run((faulty_ms + calm_ms + 6000) * MS, safety.after_event)
    same_state(cluster)
    verdict, key = check(history)
    assert verdict is Verdict.LINEARIZABLE, f"history of {key!r}: {verdict}"
    return {"operations": after, "slots": len(safety.values)}


def main() -> None:
    first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for seed in range(first, first + count):
        try:
            counts = simulate(seed)
        except BaseException:
            print(f"seed {seed} fails: python -m tests.simulation.run {seed}")
            raise
        if count == 1:
            print(f"seed {seed}: {counts}")


if __name__ == "__main__":
    main()
