"""Import: logs of writes that other programs made become operations of a journal.

readwindow.py     reads forward through a file
logstep.py       what a log can say, in any format
logwrites.py  dm-log-writes and QEMU's blklogwrites: bytes to steps
fiolog.py     fio's iologs: lines to steps
importloop.py       steps to a recorder
openlog.py       a log by its format; all of it in one call
"""
