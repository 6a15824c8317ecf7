"""Real proxy servers: pproxy, in a process of its own, speaking HTTP and SOCKS5 on one port.

The proxy knows one host name that nobody else does, `SECRET_HOST`, which is this machine's
loopback. What reaches a peer under that name has come through the proxy, which resolved it.
"""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["SECRET_HOST", "ProxyServer"]

SECRET_HOST: Final = "only-the-proxy-knows.invalid"

START_LIMIT: Final = 20.0
"""Seconds that the proxy's process may take to say its port."""


class ProxyServer:
    """A proxy on loopback, as long as its block lasts.

    Args:
        user, password: what it asks for; None to let everybody in.

    Attributes:
        port: its port on 127.0.0.1.
        log: its access log, one line a connection: `protocol client -> host:port`.
    """

    def __init__(self, user: str | None = None, password: str | None = None) -> None:
        self._fragment = "" if user is None else f"#{user}:{password}"
        self._credentials = "" if user is None else f"{user}:{password}@"
        self.log: list[str] = []
        self.port = 0

    def url(self, scheme: str, credentials: str | None = None) -> str:
        """The proxy's URL for a client: with scheme http or socks5, `user:password@` if needed."""
        given = self._credentials if credentials is None else credentials
        return f"{scheme}://{given}127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        listen = f"http+socks5://127.0.0.1:0{self._fragment}"
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), listen],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._started.wait(START_LIMIT) or not self.port:
            self.__exit__(None, None, None)
            raise RuntimeError("the proxy server did not start")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The end of its input ends the process, even where this one is killed.
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if self._started.is_set():
                self.log.append(line.strip())
            else:
                self.port = int(line)
                self._started.set()
        self._started.set()


class Loop(asyncio.SelectorEventLoop):
    """An event loop that resolves `SECRET_HOST`."""

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        if host in (SECRET_HOST, SECRET_HOST.encode()):
            host = "127.0.0.1"
        return await super().getaddrinfo(host, port, **hints)


async def serve(listen: str) -> None:
    """Serve until standard input ends, having said the port on standard output."""
    import pproxy

    options = {
        "rserver": [],
        "verbose": lambda line: print(line, flush=True),
        # It would let in without a password who has given it before from the same address.
        "authtime": -1,
    }
    proxy: Any = pproxy.Server(listen)
    server = await proxy.start_server(options)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(serve(sys.argv[1]))
