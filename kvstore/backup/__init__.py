"""Backups: how a replica streams its state, the file that is made of it, and the new cluster that is made of that."""
