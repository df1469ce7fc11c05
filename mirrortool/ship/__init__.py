"""Ships a journal to other hosts, frame for frame, as it grows.

sender.py     one destination: sessions one after another, through every outage; several beside each other
session.py    one connection, seen from the sender
receiver.py   one connection, seen from the receiver; a value comes in, values go out
protocol.py   what they say to each other, as bytes; no I/O
link.py       how it gets there: local.py into a directory of this host, remote.py through ssh and the like,
              oneway.py into a pipe; receiverprocess.py is the far end of remote.py and oneway.py
"""
