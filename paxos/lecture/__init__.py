"""Paxos as diagrams: scripted runs of the production roles on a scripted network, for teaching.

`python -m paxos.lecture` prints the scenes, and docs/lecture.md explains them. The package may import all of `paxos`,
and nothing imports it.
"""
