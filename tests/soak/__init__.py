"""A long run of many calls at once, a third of which fail: `make soak`.

A program and not a test, for it takes minutes. `peer` fails on purpose, in a process of its own;
`worker` calls it over one transport, in another; `__main__` starts both for each transport, prints
what came of it as a table, and fails if anything did.
"""
