"""Carrying it: gate, tap, upstream, relay, dispatch."""
