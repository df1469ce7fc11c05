"""The program with journal files of 1 MiB: so there is something to prune within seconds, and a place is found fast.

python small_files.py ARGUMENT...    in place of    python -m mirrortool ARGUMENT...
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this directory, whose modules are no part of the program
    from mirrortool.journal import format as layout

    layout.FILE_BYTES_TARGET = 1 << 20  # before the writer takes it as its default
    from mirrortool.__main__ import run

    sys.exit(run())
