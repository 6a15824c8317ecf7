"""HTTP/1.1 for libraries that bring only sockets.

`Http11Transport` speaks HTTP with h11, keeps connections in a pool, and has a watchdog end the
waits that take too long. It knows no event loop: a `Network` connects, and a `Stream` carries
bytes. There is one of each for trio, for anyio and for blocking sockets, and you can write both for
another library.
"""
