"""The journal: a directory of append-only files of checksummed, chained frames. See mirrortool-journal(5).

From below:

    format, codec, position     bytes; frame <-> Batch, without I/O; where one stands
    durablemark                 up to where a copy is durable here
    directory, lineage          what lies where; which history it is of
    journalfile, reader         one file; frames in order, over files, cuts and promotions
    judgement                   torn tail or damage
    writer, check               what the recorder appends; what it may not append
    runs, commits, head, audit  readers: to ship, to restore, to wait for news, to verify
    tail                        watchdog: when to look again
    slots, retention, prune     which reader still needs what; what may go; removing it
    basefile, basewriter, bases a committed state in one file
    copy, copydir, incoming, arriving   a journal that came from elsewhere
    promoting, forking          a new epoch, and what it drops
"""
