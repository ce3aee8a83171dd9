"""Watchers that must receive every change exactly once and in order, while clients write and leaders are killed."""
