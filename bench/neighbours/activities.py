"""The activities beside which the writer is measured."""

from typing import NamedTuple

from bench.neighbours import requests
from bench.neighbours.requests import Activity


class Neighbours(NamedTuple):
    """Clients that all repeat one activity. `etcd` is the same activity on etcd, None if etcd has no such call."""

    title: str
    clients: int
    kvstore: Activity
    etcd: Activity | None


WRITER = "writer"
ALONE = "alone"
ACTIVITIES = {
    WRITER: Neighbours("the steady writer itself", 1, requests.put, requests.etcd_put),
    "large": Neighbours("PUT of 1 MB", 16, requests.put_large, requests.etcd_put_large),
    "compares": Neighbours("compare of 100,000 keys", 8, requests.compare, requests.etcd_compare),
    "transactions": Neighbours("txn of 1,000 puts", 4, requests.transact, requests.etcd_transact),
    "exports": Neighbours("NDJSON of 100,000 keys", 8, requests.export, None),
    "deletes": Neighbours("delete of 10,000 keys", 2, requests.delete, requests.etcd_delete),
    "delete-90000": Neighbours("delete of 90,000 keys", 1, requests.delete_at_once, requests.etcd_delete_at_once),
    "pages": Neighbours("page of 1,000 keys", 8, requests.page, requests.etcd_page),
    "locks": Neighbours("acquire one lock", 50, requests.lock, requests.etcd_lock),
    "backups": Neighbours("backup", 4, requests.backup, requests.etcd_backup),
}
"""The writer, and its neighbours by the names of the rows."""
