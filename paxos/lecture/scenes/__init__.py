"""The scenes of the lecture by name, in the order of the lecture."""

from collections.abc import Callable

from paxos.lecture.scenes import agreement, crashes, duel, leases, log
from paxos.lecture.scenes.scene import Scene

SCENES: dict[str, Callable[[], Scene]] = {
    "basic": agreement.basic,
    "previous-value": agreement.previous_value,
    "ignored": agreement.ignored,
    "duel": duel.duel,
    "multi": log.multi,
    "broadcast": log.broadcast,
    "crashes": crashes.crashes,
    "lease": leases.lease,
}
