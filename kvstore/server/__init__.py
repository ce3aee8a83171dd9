"""One replica as a process: settings, event loop, storage thread, peer links, metrics and the HTTP front end.

Imports every package below it. Only the command line, `kvstore.testing` and tests import it.
"""
