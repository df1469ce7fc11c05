"""Traces of replays (`replay --trace`): their lines, what they prove, and a picture of them (`mirrortool trace`).

jsonlines.py (a record as a line, and back); proof.py (reads a file); check.py, section.py, lastwriters.py and
violation.py (the rules); summary.py (the sums).
The picture: window.py (the part of the trace), scene.py (what is in it), timescale.py and lanes.py (where that is),
blocks.py, legend.py and timeline.py (how it looks).
"""
