"""The program on a disk that is slow, or full: so that what takes a moment can be met at it.

python hard_disk.py slow|full ARGUMENT...    in place of    python -m mirrortool ARGUMENT...
"""

import errno
import os
import sys
import time

_LARGE = 16 << 10
"""Small reads are many where a command begins."""
_READ_SECONDS, _SYNC_SECONDS = 0.05, 0.005


def _be_slow(file_class):
    read, read_into, sync = file_class.pread, file_class.pread_into, file_class.fdatasync

    def slow_read(file, length, offset):
        time.sleep(_READ_SECONDS if length >= _LARGE else 0)
        return read(file, length, offset)

    def slow_read_into(file, buffers, offset):
        time.sleep(_READ_SECONDS if sum(map(len, buffers)) >= _LARGE else 0)
        return read_into(file, buffers, offset)

    def slow_sync(file):
        time.sleep(_SYNC_SECONDS)
        sync(file)

    file_class.pread, file_class.pread_into, file_class.fdatasync = slow_read, slow_read_into, slow_sync


def _be_full(file_class):
    def refuse(file, *_arguments):
        raise host_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), file.path, "write")

    file_class.pwrite_runs = file_class.pwritev = refuse  # of volumes; small files are written otherwise


if __name__ == "__main__":
    del sys.path[0]  # this directory, whose modules are no part of the program
    from mirrortool.errors import host_error
    from mirrortool.openfile import File

    {"slow": _be_slow, "full": _be_full}[sys.argv.pop(1)](File)
    from mirrortool.__main__ import run

    sys.exit(run())
