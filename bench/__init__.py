"""Benchmarks against a baseline: ``python -m bench [NAME …]``, or ``make bench`` for all of them.

Each result is a ratio to a baseline; both are measured alternately in the same run. Quote medians. At the end, each
benchmark prints its limits and whether they are met, and writes all samples to ``bench-NAME.json``.
"""
