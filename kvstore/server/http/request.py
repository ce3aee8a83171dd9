"""A request, and the interface of its connection, to which a handler may write a stream."""

from typing import Protocol


class ClientConnection(Protocol):
    """The connection of a client whose request is being handled by a task."""

    @property
    def is_gone(self) -> bool:
        """True once the client has closed its side of the connection, or all of it."""

    @property
    def is_behind(self) -> bool:
        """True while the client has not read enough of what was written."""

    def begin_stream(self, fields: bytes, *, endless: bool) -> None:
        """Write the head of a response in chunks. Raises ConnectionError if the client is gone.

        An `endless` stream is aborted when the client closes its side of the connection; other streams are completed.
        """

    def write(self, chunk: bytes) -> None:
        """Write a chunk of the stream."""

    async def drain(self) -> None:
        """Wait until the client has read enough. Raises ConnectionError if the client is gone."""

    def end_stream(self) -> None:
        """Write the end of the stream."""

    def abort(self) -> None:
        """Close the connection at once, so that the client knows that the response is incomplete."""


class HttpRequest:
    """A request whose head is complete. `body` is complete when the handler is called.

    Header names are in lower case. The values of a repeated header are joined by ", " (RFC 9110, 5.3).
    """

    __slots__ = ("body", "client", "headers", "keep_alive", "method", "target", "version")

    def __init__(
        self, client: ClientConnection, method: str, target: str, version: str, headers: dict[bytes, bytes]
    ) -> None:
        self.client = client
        self.method = method
        self.target = target
        """The request target as it was sent."""
        self.version = version
        """`1.1` or `1.0`."""
        self.headers = headers
        self.keep_alive = True
        """False if the connection ends with this request."""
        self.body = b""

    def header(self, name: bytes) -> str | None:
        """Return the value of the header `name`, given in lower case, or None."""
        value = self.headers.get(name)
        return value.decode("utf-8", "surrogateescape") if value is not None else None
