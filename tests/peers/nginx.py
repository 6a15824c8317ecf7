"""A real nginx that plays a configuration of the pages, on a free port of loopback.

nginx inherits a socket that listens already, as it does when its program is replaced while it
runs: the environment variable NGINX names the descriptor. So its port is surely free, and a client
may connect before nginx is ready.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid
from ssl import SSLContext, create_default_context
from typing import Any, Final

import pytest
import trustme

__all__ = ["Nginx", "nginx", "resolve_examples"]

PATH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

MAIN: Final = """
daemon off;
user {user} {group};
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/replies;
    fastcgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    include {folder}/page.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """An nginx that runs.

    Attributes:
        port: its port on 127.0.0.1.
        trust: a client's context that trusts its certificates.
    """

    port: int
    trust: SSLContext


@contextmanager
def nginx(
    configuration: str, behind: Mapping[str, str], folder: Path
) -> Generator[Nginx, None, None]:
    """Play a configuration whose servers listen with TLS, with certificates in /etc/ssl.

    Args:
        configuration: as a page shows it.
        behind: the addresses in it to replace, such as 127.0.0.1:8080, and what replaces them.
        folder: an empty folder.
    """
    program = shutil.which("nginx", path=PATH)
    if program is None:
        pytest.skip("nginx is not installed")
    authority = trustme.CA()
    trust = create_default_context()
    authority.configure_trust(trust)
    for name in ("chat.example", "ai.example"):
        certificate = authority.issue_cert(name)
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port: int = listener.getsockname()[1]
        replaced = {"listen 443": f"listen 127.0.0.1:{port}", "/etc/ssl/": f"{folder}/", **behind}
        for old, new in replaced.items():
            assert old in configuration
            configuration = configuration.replace(old, new)
        (folder / "page.conf").write_text(configuration)
        # As root, nginx would work as a user who cannot open the folder.
        user, group = getpwuid(os.geteuid()).pw_name, getgrgid(os.getegid()).gr_name
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user, group=group))
        process = subprocess.Popen(
            [program, "-p", str(folder), "-e", "errors.log", "-c", "nginx.conf"],
            env={"NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
        )
        try:
            yield Nginx(port, trust)
        finally:
            process.terminate()
            ended = process.wait(10)
    assert ended == 0, (folder / "errors.log").read_text()


def resolve_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocking code find the hosts of the pages, such as chat.example, on loopback."""
    resolve: Callable[..., Any] = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **hints: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".example") else host, *rest, **hints)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
