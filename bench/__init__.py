"""Side-by-side measurements: ``python -m bench [NAME …]``, or ``make bench`` for all of them.

A figure is a ratio to a baseline measured in the same run, in turns; medians are what to quote.
"""
