"""Backup (the stream that a replica sends, and the file), restore, and the verification of data directories.

Imports `kvstore.replica` and below. The server and the command line import it, and the client imports the stream.
"""
