"""The HTTP front end that every replica has: its own server, on httptools, and the handlers of all paths.

`server.py` is the way in. Imported by `kvstore.server` only; `limits.py` also by its settings.
"""
