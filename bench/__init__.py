"""Benchmarks: gateways side by side (`python -m bench`), and what single parts of the router cost."""
