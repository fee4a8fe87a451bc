"""The vision worker: image bytes → pixels → embedding → store, and what a caller may ask of it over gRPC.

It has no error tree of its own: what a caller is told is one of `rpc.errors`.
"""
