"""The HTTP API, described. `/openapi.json` and `/docs` are made from it, and tests hold the server to it.

calls/         each call with its parameters, answers and problems: what is added to the API is added there
parameters.py  what queries and headers say             answers.py  the documents that answers hold
document.py    all of it as OpenAPI 3.1                 page.py     all of it for a person
pages.py       both as they are served
"""
