"""Backups, taken from the first replica that sends one."""

from collections.abc import AsyncGenerator

import aiohttp

from kvstore.api.queries import Consistency
from kvstore.backup.stream import StreamDecoder, StreamEnd, StreamError, StreamPage, StreamStart
from kvstore.client.caller import Caller, ConnectionLostError, cannot_connect
from kvstore.client.errors import Rejected, Response, Unavailable, accept


async def take_backup(
    caller: Caller, consistency: Consistency
) -> AsyncGenerator[StreamStart | StreamPage | StreamEnd, None]:
    """Yield the messages of a backup stream in order; the last one is a StreamEnd.

    Raises Unavailable, perhaps after some messages, which are then useless.
    """
    failures: list[str] = []
    for endpoint in caller.endpoints.ranked("GET"):
        reader = StreamDecoder()
        try:
            async with caller.open(endpoint, f"/backup?consistency={consistency}") as response:
                if response.status == 200:
                    async for data in response.content.iter_any():
                        for part in reader.feed(data):
                            yield part
                    reader.finish()
                    return
                accept(endpoint, "GET", Response(response.status, response.headers, await response.read(), endpoint))
        except (Rejected, Unavailable) as error:  # a replica of another release may accept the request
            failures.append(str(error))
        except StreamError as error:
            raise Unavailable(f"{endpoint}: {error}") from error
        except aiohttp.ClientConnectorError as error:
            failures.append(cannot_connect(endpoint, error))
        except (ConnectionLostError, aiohttp.ClientError, TimeoutError) as error:
            why = f"the backup from {endpoint} was interrupted: {str(error) or 'timed out'}"
            if reader.started:
                raise Unavailable(f"{why}; take the backup again") from error
            failures.append(why)
    raise Unavailable("; ".join(failures))
