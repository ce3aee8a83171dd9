"""Backups, that is the stream that a replica sends, the file that the client writes and the cluster that a restore
creates; and the verification of data directories.

Imports `kvstore.replica` and below; the server and the command line import it, and the client imports the stream.
"""
