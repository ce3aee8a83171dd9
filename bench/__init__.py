"""Measurements of speed, memory and fail-over on this machine, and a comparison with other stores.

`python -m bench` lists the commands. The package imports `kvstore.client`, `kvstore.api` and `kvstore.testing`; no
product code imports the package. Checks of correctness are in `tests/torture`.
"""
