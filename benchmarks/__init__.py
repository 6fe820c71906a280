"""Benchmarks: an asv suite (``bench_*.py``) and a side-by-side comparison (``python -m benchmarks.compare``)."""
