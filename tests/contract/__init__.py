"""What every adapter must do: one suite, played on each adapter over real sockets.

A transport of your own takes it with

    pytest tests/contract --adapter your_package.your_module:Client@asyncio

where `Client` is called as `Client(service, timeouts=..., retry=..., limits=...)` and gives a
`gprochat_transports.Client`, or with `@blocking` a `SyncClient`; the loop is asyncio, trio or
blocking. Proxies and TLS have files of their own, to be left out where it takes no `proxy=` or
`ssl_context=`: `--ignore tests/contract/test_proxies.py --ignore tests/contract/test_tls.py`.
"""
