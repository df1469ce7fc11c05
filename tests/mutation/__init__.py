"""Mutants of the package's source: one place changed, and the tests that find it.

    mutant.py     what a mutant is, and how places in a source are found and named
    operators.py  the usual changes of a source: all mutants of a module
    runner.py     runs tests on a copy of the tree that has one mutant's source
    sample.py     a hundred of these that a seed chooses; found.tsv and survivors.tsv say what became of each
    syncs.py      each call that makes something durable: without it, a test fails, or it is said why none does
    orders.py     each rule of order, broken
    unsynced.py   what such a call does when it makes nothing durable

`python -m tests.mutation --help` runs them. The ordinary suite compares the lists with the code (test_syncs.py,
test_sample.py).
"""
