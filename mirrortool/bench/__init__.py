"""The bench: measures how much faster a parallel replay is (`mirrortool bench`).

workload.py (what is replayed), store.py (a store that sleeps), ways.py (the ways to replay it), schedule.py (an ideal
scheduler, computed), figure.py (what is measured, and the medians), svg.py (the plot).
"""
