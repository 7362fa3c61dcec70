"""Benchmarks against a baseline: ``python -m bench [NAME …]``, or ``make bench`` for all of them.

A result is a ratio to a baseline that is measured in the same run, in alternation. Quote medians. At its end, each
benchmark prints its limits and whether they are met, and writes all samples to ``bench-NAME.json``.
"""
