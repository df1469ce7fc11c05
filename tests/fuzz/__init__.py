"""Fuzzing by coverage: whatever bytes come from a disk, another host or a user, a parser ends well or names an error.

    python -m tests.fuzz TARGET --runs 100000       one target, with atheris
    python -m tests.fuzz --all --runs 1000000       one after another
    python -m tests.fuzz TARGET --keep DIRECTORY    make its corpus of inputs in a directory
    python -m tests.fuzz --lines                    how much of each parser the corpora reach; without atheris

targets/     one parser a module: `fuzz_one(data)`, seeds made by the real writers, and what mends checksums
judging.py   what is a finding: an error without a type of ours, a false promise, too much time or memory
sealing.py   checksums, lengths and chains after a mutation; without that none gets behind a checksum
jsontexts.py mutations of JSON
fuzzer.py    the process in which atheris runs one target
running.py   starts it, and reads what it says
corpora.py   the kept inputs: an archive a target, which the ordinary tests run
linecover.py which lines an input reaches
"""
