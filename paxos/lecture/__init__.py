"""Paxos to look at: scripted runs of the production roles on a scripted network. `python -m paxos.lecture`."""
