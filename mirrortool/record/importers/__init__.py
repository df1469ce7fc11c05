"""Import: logs of writes that other programs made become operations of a journal.

openlog.py     opens a log by its format; imports all of it in one call
importloop.py  steps to a recorder
logstep.py     what a log can say, in any format
logwrites.py   dm-log-writes and QEMU's blklogwrites: bytes to steps
fiolog.py      fio's iologs: lines to steps
readwindow.py  reads forward through a file
"""
