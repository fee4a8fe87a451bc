"""Checkpoints from a model hub: the small files, and of the weights only the bytes that a half needs.

Owns the way from `org/name@revision` to a directory that `checkpoint` reads. Does not own what a half needs: that is
`checkpoint`'s plan, made here from the shards' headers before any weight travels.
"""
