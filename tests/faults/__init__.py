"""The fault table: each thing that can go wrong, played on every adapter over real sockets.

`table` is the data, `play` plays one row over one transport, and `report` plays all of them and
writes the outcome down in `docs/faults.md`.
"""
