"""`/ui`: the page that shows a replica at work, and its files."""

from pathlib import Path

from kvstore.server.http.openapi.pages import Page

PATH = "/ui"

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The page loads only files of this server, runs only scripts of these files, and may not be framed."""


def pages() -> dict[str, Page]:
    """Return each path with its page."""
    found = {}
    for file in sorted(Path(__file__).parent.iterdir()):
        if file.suffix in _TYPES:
            path = PATH if file.name == "index.html" else f"{PATH}/{file.name}"
            found[path] = Page(_fields(_TYPES[file.suffix]), file.read_bytes())
    return found


def _fields(content_type: str) -> bytes:
    lines = (
        f"Content-Type: {content_type}; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        f"Content-Security-Policy: {_POLICY}",
    )
    return "".join(f"{line}\r\n" for line in lines).encode()
