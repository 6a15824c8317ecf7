"""Real proxy servers: pproxy, in a process of its own, speaking HTTP and SOCKS5 on one port.

The proxy knows one host name that nobody else does, `SECRET_HOST`, which is this machine's
loopback. What reaches a peer under that name has come through the proxy, which resolved it.
"""

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["SECRET_HOST", "ProxyServer"]

SECRET_HOST: Final = "only-the-proxy-knows.invalid"


class ProxyServer:
    """A proxy on loopback, as long as its block lasts.

    Args:
        user, password: what it asks for; None to let everybody in.

    Attributes:
        port: its port on 127.0.0.1.
    """

    def __init__(self, user: str | None = None, password: str | None = None) -> None:
        self._asks_for = "" if user is None else f"#{user}:{password}"
        self._credentials = "" if user is None else f"{user}:{password}@"
        self.port = 0

    def url(self, scheme: str, credentials: str | None = None) -> str:
        """The proxy's URL for a client.

        Args:
            scheme: http, socks5 or socks5h.
            credentials: `user:password@` instead of the right ones.
        """
        given = self._credentials if credentials is None else credentials
        return f"{scheme}://{given}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"http+socks5://127.0.0.1:0{self._asks_for}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The end of its input ends the process, even where this one is killed.
        self._process.communicate(timeout=10)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that resolves `SECRET_HOST`."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        if host in (SECRET_HOST, SECRET_HOST.encode()):
            host = "127.0.0.1"
        return await super().getaddrinfo(host, port, **hints)


async def serve(listen: str) -> None:
    """Serve until standard input ends, having said the port on standard output."""
    import pproxy

    # It would let in without a password who has given it before from the same address.
    options = {"rserver": [], "authtime": -1}
    proxy: Any = pproxy.Server(listen)
    server = await proxy.start_server(options)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(serve(sys.argv[1]))
