"""The other ends of the wire: a scripted server, TLS certificates, proxies.

They are for any suite that tests over real sockets, on loopback alone.
"""
