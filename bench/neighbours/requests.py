"""The requests of the writer and of its neighbours, to kvstore and to the HTTP gateway of etcd.

An activity is a function that does one operation of the client with this number.
"""

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

KEYS = 100_000
"""Keys in the store, named k0, k1 and so on."""
VALUE = "v" * 100
LARGE = b"v" * 1_000_000
DELETED, DELETED_AT_ONCE = 10_000, 90_000
PUTS, ETCD_PUTS = 1000, 128
"""Puts in a transaction. etcd allows 128."""
PAGE = 1000

Activity = Callable[["LeaderClient", int], Awaitable[None]]


class LeaderClient:
    """The leader of a store at `url`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def send(self, method: str, path: str, body: bytes | None = None, accept: str = "*/*") -> bytes:
        """Send a request and return the body of the answer. Raises aiohttp.ClientError for an error."""
        async with self._session.request(
            method, self._url + path, data=body, headers={"Accept": accept}, raise_for_status=True
        ) as response:
            return await response.read()

    async def drain(self, method: str, path: str, body: bytes | None = None, accept: str = "*/*") -> None:
        """As `send`, but discard the body piece by piece."""
        async with self._session.request(
            method, self._url + path, data=body, headers={"Accept": accept}, raise_for_status=True
        ) as response:
            async for _ in response.content.iter_any():
                pass

    async def ask(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """Post a JSON document and return the one in the answer."""
        answer: dict[str, Any] = json.loads(await self.send("POST", path, json.dumps(document).encode()))
        return answer


async def put(target: LeaderClient, number: int) -> None:
    """Put a small value."""
    await target.send("PUT", f"/kv/writer{number}", VALUE.encode())


async def put_large(target: LeaderClient, number: int) -> None:
    """Put a value of 1 MB."""
    await target.send("PUT", f"/kv/large{number}", LARGE)


async def compare(target: LeaderClient, number: int) -> None:
    """Put a key if a condition holds for each of 100,000 keys."""
    then = [{"put": {"key": f"compared{number}", "value": VALUE}}]
    await target.ask("/txn", {"compare": [{"prefix": "k", "version": {"gt": 0}}], "then": then})


async def transact(target: LeaderClient, number: int) -> None:
    """Put 1,000 keys in a transaction."""
    await _put_many(target, f"t{number}/", PUTS)


async def export(target: LeaderClient, number: int) -> None:  # noqa: ARG001 - an activity
    """List all keys as NDJSON."""
    await target.drain("GET", "/kv/?prefix=k", accept="application/x-ndjson")


async def delete(target: LeaderClient, number: int) -> None:
    """Put 10,000 keys and delete them by their prefix."""
    await _put_many(target, f"d{number}/", DELETED)
    await target.send("DELETE", f"/kv/?prefix=d{number}/")


async def delete_at_once(target: LeaderClient, number: int) -> None:
    """Put 90,000 keys and delete them by their prefix."""
    await _put_many(target, f"e{number}/", DELETED_AT_ONCE)
    await target.send("DELETE", f"/kv/?prefix=e{number}/")


async def page(target: LeaderClient, number: int) -> None:  # noqa: ARG001
    """Read a page of 1,000 keys."""
    await target.send("GET", f"/kv/?prefix=k&limit={PAGE}")


async def lock(target: LeaderClient, number: int) -> None:  # noqa: ARG001
    """Acquire and release a lock that all other clients want."""
    held = await target.ask("/locks/contended", {"ttl_s": 30, "wait_s": 30})
    await target.send("DELETE", f"/locks/contended?lease={held['lease']}")


async def backup(target: LeaderClient, number: int) -> None:  # noqa: ARG001
    """Read a backup."""
    await target.drain("GET", "/backup")


async def etcd_put(target: LeaderClient, number: int) -> None:
    """Put a small value."""
    await target.ask("/v3/kv/put", {"key": _text(f"writer{number}"), "value": _text(VALUE)})


async def etcd_put_large(target: LeaderClient, number: int) -> None:
    """Put a value of 1 MB."""
    await target.ask("/v3/kv/put", {"key": _text(f"large{number}"), "value": b64encode(LARGE).decode()})


async def etcd_compare(target: LeaderClient, number: int) -> None:
    """Put a key if a condition holds for each of 100,000 keys."""
    condition = {"key": _text("k"), "range_end": _text("l"), "target": "VERSION", "result": "GREATER", "version": "0"}
    await target.ask("/v3/kv/txn", {"compare": [condition], "success": [_etcd_operation(f"compared{number}")]})


async def etcd_transact(target: LeaderClient, number: int) -> None:
    """Put 128 keys in a transaction."""
    await _etcd_put_many(target, f"t{number}/", ETCD_PUTS)


async def etcd_delete(target: LeaderClient, number: int) -> None:
    """Put 10,000 keys and delete them by their prefix."""
    await _etcd_put_many(target, f"d{number}/", DELETED)
    await target.ask("/v3/kv/deleterange", {"key": _text(f"d{number}/"), "range_end": _text(f"d{number}0")})


async def etcd_delete_at_once(target: LeaderClient, number: int) -> None:
    """Put 90,000 keys and delete them by their prefix."""
    await _etcd_put_many(target, f"e{number}/", DELETED_AT_ONCE)
    await target.ask("/v3/kv/deleterange", {"key": _text(f"e{number}/"), "range_end": _text(f"e{number}0")})


async def etcd_page(target: LeaderClient, number: int) -> None:  # noqa: ARG001
    """Read a page of 1,000 keys."""
    await target.ask("/v3/kv/range", {"key": _text("k"), "range_end": _text("l"), "limit": str(PAGE)})


async def etcd_lock(target: LeaderClient, number: int) -> None:  # noqa: ARG001
    """Acquire and release a lock that all other clients want."""
    lease = (await target.ask("/v3/lease/grant", {"TTL": "30"}))["ID"]
    held = await target.ask("/v3/lock/lock", {"name": _text("contended"), "lease": lease})
    await target.ask("/v3/lock/unlock", {"key": held["key"]})


async def etcd_backup(target: LeaderClient, number: int) -> None:  # noqa: ARG001
    """Read a backup."""
    await target.drain("POST", "/v3/maintenance/snapshot", b"{}")


async def fill(target: LeaderClient, *, etcd: bool) -> None:
    """Put KEYS keys."""
    await (_etcd_put_many if etcd else _put_many)(target, "k", KEYS)


async def _put_many(target: LeaderClient, prefix: str, count: int) -> None:
    for first in range(0, count, PUTS):
        puts = [{"put": {"key": f"{prefix}{key}", "value": VALUE}} for key in range(first, min(count, first + PUTS))]
        await target.ask("/txn", {"then": puts})
        await asyncio.sleep(0)


async def _etcd_put_many(target: LeaderClient, prefix: str, count: int) -> None:
    for first in range(0, count, ETCD_PUTS):
        puts = [_etcd_operation(f"{prefix}{key}") for key in range(first, min(count, first + ETCD_PUTS))]
        await target.ask("/v3/kv/txn", {"success": puts})


def _etcd_operation(key: str) -> dict[str, Any]:
    return {"request_put": {"key": _text(key), "value": _text(VALUE)}}


def _text(text: str) -> str:
    return b64encode(text.encode()).decode()
