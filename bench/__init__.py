"""Side-by-side measurements: ``python -m bench [NAME …]``, or ``make bench`` for all of them.

A figure is a ratio to a baseline measured in the same run, in turns; medians are what to quote. Each measurement says
at its end what must hold and whether it did, and writes every sample to ``bench-NAME.json``.
"""
