"""A thousand watchers of one replica while clients write and leaders die: is every change told, once and in order?"""
