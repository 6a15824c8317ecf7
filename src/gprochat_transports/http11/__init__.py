"""HTTP/1.1 over any stream: for every transport whose library brings no HTTP of its own.

h11 speaks HTTP, a pool keeps the connections, the watchdog ends what takes too long. What differs
between event loops, and without one, is behind two small protocols: a `Network` connects, and a
`Stream` carries bytes. trio, anyio and blocking sockets have one of each.
"""
