"""The description as a page: one HTML file without scripts, which loads no other file."""

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from kvstore.server.http.openapi.description import ApiOperation, Schema, headers_of
from kvstore.server.http.openapi.document import ABOUT, TITLE, example_of, kinds, openapi, urn
from kvstore.server.http.openapi.operations import OPERATIONS, TAGS
from kvstore.server.http.problems import ProblemKind

_STYLE = (Path(__file__).parent / "page.css").read_text()
_READABLE = {"string": "text", "array": "list", "null": "null"}


def policy() -> str:
    """Return the Content-Security-Policy of the page, which allows its own style only."""
    style = b64encode(sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def render() -> str:
    """Return the page."""
    document = openapi()
    shown = [call for call in OPERATIONS if call.method != "HEAD"]
    sections = "".join(
        f"<section><h2>{escape(tag.name)}</h2>{_prose(tag.text)}"
        f"{''.join(_call(call, document) for call in shown if call.tag == tag)}</section>"
        for tag in TAGS
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{TITLE}: the HTTP API</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{_contents(shown)}\n"
        f"<main>\n<h1>The HTTP API of {TITLE}</h1>{_prose(ABOUT)}"
        f'<p class="faint">Version {escape(document["info"]["version"])}. '
        'For programs: <a href="/openapi.json">/openapi.json</a>, OpenAPI 3.1.</p>\n'
        f"{sections}\n{_problems()}\n{_documents(document)}\n</main>\n</body>\n</html>\n"
    )


def _contents(shown: list[ApiOperation]) -> str:
    parts = []
    for tag, calls in groupby(shown, key=lambda call: call.tag):
        links = "".join(
            f'<li><a href="#{call.name}">{_method(call.method)}<code>{escape(call.path)}</code></a></li>'
            for call in calls
        )
        parts.append(f"<b>{escape(tag.name)}</b><ul>{links}</ul>")
    rest = '<b>More</b><ul><li><a href="#problems">Problems</a></li><li><a href="#documents">Documents</a></li></ul>'
    return f'<nav aria-label="Contents"><strong>{TITLE}</strong>{"".join(parts)}{rest}</nav>'


def _method(method: str) -> str:
    return f'<span class="m {method}">{method}</span>'


def _call(call: ApiOperation, document: Schema) -> str:
    operation = document["paths"][call.path][call.method.lower()]
    also = any(other.path == call.path and other.method == "HEAD" for other in OPERATIONS)
    head = '<span class="faint">also HEAD</span>' if also and call.method == "GET" else ""
    rows = [
        (
            f"<code>{escape(each['name'])}</code>",
            f"{each['in']}, {_type(each['schema'])}",
            _prose(each["description"]),
        )
        for each in operation["parameters"]
    ]
    return (
        f'<article id="{call.name}"><h3>{_method(call.method)}<code>{escape(call.path)}</code>{head}</h3>'
        f"<p><strong>{escape(call.summary)}.</strong></p>{_prose(call.text)}"
        f"<pre><code>{escape(example_of(call))}</code></pre>"
        f"{_table('Parameters', ('name', 'place and type', ''), rows)}"
        f"{_body(operation)}{_responses(call, operation)}</article>"
    )


def _body(operation: Schema) -> str:
    if "requestBody" not in operation:
        return ""
    body = operation["requestBody"]
    ((media, content),) = body["content"].items()
    needed = "" if body["required"] else " Optional."
    example = content.get("example")
    shown = (
        ""
        if not isinstance(example, dict)
        else f"<pre><code>{escape(msgspec.json.encode(example).decode())}</code></pre>"
    )
    what = f"<code>{escape(media)}</code>, {_type(content['schema'])}. {escape(body['description'])}{needed}"
    return f"<h4>Body</h4><p>{what}</p>{shown}"


def _responses(call: ApiOperation, operation: Schema) -> str:
    rows = []
    for reply in call.responses:
        answer = operation["responses"][str(reply.status)]
        media = [
            f"<code>{escape(name)}</code>" + (f" {_type(content['schema'])}" if "$ref" in content["schema"] else "")
            for name, content in answer.get("content", {}).items()
        ]
        named = [
            f"<code>{escape(name)}</code> {escape(each['description'])}" for name, each in answer["headers"].items()
        ]
        rows.append((str(reply.status), "<br>".join(media), _prose(reply.text) + "<br>".join(named)))
    for status, each in groupby(call.all_problems, key=lambda kind: kind.status):
        found = list(each)
        links = ", ".join(f'<a href="#{kind.name}">{kind.name}</a>' for kind in found)
        named = [f"<code>{escape(header.name)}</code>" for header in headers_of(found)]
        rows.append((str(status), "problem", links + ("<br>" + ", ".join(named) if named else "")))
    return _table("Responses", ("status", "body", ""), rows)


def _problems() -> str:
    rows = [(str(kind.status), f'<code id="{kind.name}">{urn(kind)}</code>', _meaning(kind)) for kind in kinds()]
    about = _prose(
        "Errors are `application/problem+json`: programs compare `type`; `detail` says what happened and what helps."
    )
    return f'<section id="problems"><h2>Problems</h2>{about}{_table("", ("status", "type", ""), rows)}</section>'


def _meaning(kind: ProblemKind) -> str:
    calls = [call for call in OPERATIONS if kind in call.all_problems and call.method != "HEAD"]
    where = (
        ""
        if len(calls) > 6
        else ", ".join(f'<a href="#{call.name}">{call.method} {escape(call.path)}</a>' for call in calls)
    )
    return f"<p>{escape(kind.title)}.</p>" + (f'<p class="faint">{where}</p>' if where else "")


def _documents(document: Schema) -> str:
    parts = []
    for name, schema in sorted(document["components"]["schemas"].items()):
        if "properties" not in schema:
            rows = [(_type(schema), "", "")]
        else:
            needed = set(schema.get("required", ()))
            rows = [
                (f"<code>{escape(field)}</code>", _type(each), "" if field in needed else "optional")
                for field, each in schema["properties"].items()
            ]
        about = _prose(schema.get("description", ""))
        parts.append(f'<article id="{name}"><h3>{name}</h3>{about}{_table("", ("field", "type", ""), rows)}</article>')
    return f'<section id="documents"><h2>Documents</h2>{"".join(parts)}</section>'


def _type(schema: Schema) -> str:
    """Return the type that a schema describes, in a few words of HTML."""
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f'<a href="#{name}">{name}</a>'
        case {"anyOf": [*ways]}:
            return " or ".join(dict.fromkeys(_type(way) for way in ways))
        case {"enum": [*values]}:
            return "one of " + ", ".join(f"<code>{escape(str(value))}</code>" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"format": "binary"}:
            return "bytes"
        case {"contentEncoding": "base64"}:
            return "base64"
        case {"type": str(kind)}:
            return _READABLE.get(kind, kind) + _bounds(schema)
        case _:
            return "anything"


def _bounds(schema: Schema) -> str:
    least = schema.get("minimum", schema.get("minLength"))
    most = schema.get("maximum", schema.get("maxLength"))
    if least is None and most is None:
        return ""
    unit = " characters" if "maxLength" in schema else ""
    return f" from {least or 0:,}" + ("" if most is None else f" to {most:,}{unit}")


def _table(title: str, columns: Iterable[str], rows: list[tuple[Any, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    name = f"<h4>{title}</h4>" if title else ""
    return f'{name}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _prose(text: str) -> str:
    """Return paragraphs of HTML; text in backquotes becomes code."""
    paragraphs = [
        re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(each, quote=False)) for each in text.split("\n\n") if each
    ]
    return "".join(f"<p>{each}</p>" for each in paragraphs)
