"""The journal: a directory of append-only files of checksummed, chained frames. See mirrortool-journal(5).

From below:

    format, codec, position     bytes; frame <-> Batch, without I/O; where one stands
    directory, lineage          what lies where; whose history it is
    journalfile, reader         one file; frames in order, over files, cuts and promotions
    judgement                   torn tail or damage
    writer, check               what the recorder appends; what it may not append
    runs, commits, head, audit  readers for who ships, restores, waits for news, verifies
    tail                        watchdog: when to look again
    slots, retention, prune     who still needs what; what may go; its going
    basefile, basewriter, bases a committed state in one file
    copy, copydir, incoming, arriving   a journal that came from elsewhere
    promoting, forking          a new epoch, and what it drops
"""
