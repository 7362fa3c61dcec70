"""Benchmarks against a baseline: ``python -m bench [NAME …]``, or ``make bench`` for all of them.

Most results are ratios to a baseline that is measured alternately with msd in the same run. Quote medians, not single
rounds. At the end, each benchmark prints its limits and whether they are met, and writes all samples to
``bench-NAME.json``.
"""
