"""Replay: the mirrored-storage management mechanism (123) of the patent.

From the journal down: delegator.py (the storage management task, 910: reads, checks, hands out, checkpoints),
coalesce.py (a window of frames becomes units), ranges.py (which group a page belongs to), engine.py (groups and credits
together), taskgroup.py and task.py (FIG. 9 and 11), tasktable.py (FIG. 10), counter.py, inflight.py; readback.py
proves what was written.
"""
