"""Ships a journal to other hosts, frame for frame, as it grows.

sender.py     one destination: sessions one after another, through every outage; several at the same time
session.py    one connection, seen from the sender
receiver.py   one connection, seen from the receiver: a message comes in, replies go out
protocol.py   the messages between them, as bytes; no I/O
link.py       the way there: local.py into a directory of this host, remote.py through ssh and similar commands,
              oneway.py into a pipe; receiverprocess.py is the far end of remote.py and oneway.py
"""
