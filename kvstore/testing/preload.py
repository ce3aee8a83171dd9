"""Modules that the fork server loads once for all replicas; see `kvstore.testing.fork_server`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # sqlite-utils loads numpy if it can; threads do not survive a fork

import kvstore.server.process
import kvstore.testing.fork_server  # noqa: F401 - defines the functions that the processes run
