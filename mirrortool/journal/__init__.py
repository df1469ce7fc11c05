"""The journal: a directory of append-only files of checksummed, chained frames. See mirrortool-journal(5).

From below: format.py (bytes), codec.py (frame <-> Batch, no I/O), directory.py (what lies where), reader.py and
writer.py, commits.py.
"""
