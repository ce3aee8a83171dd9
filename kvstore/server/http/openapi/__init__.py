"""The description of the HTTP API. `/openapi.json` and `/docs` are generated from it, and tests hold the server to it.

operations/     every operation with its parameters, responses and problems: a new operation is added there
parameters.py   parameters of paths, queries and headers
description.py  the types of the description
document.py     the description as OpenAPI 3.1
page.py         the description as a page for people
pages.py        the pages as they are served

The documents of requests and responses are `kvstore.api.json`. Imported by `kvstore.server.http` only.
"""
