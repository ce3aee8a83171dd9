"""Malformed requests, a hundred thousand of them: does a replica stay up, answer rightly, and keep its memory?"""
