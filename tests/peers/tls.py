"""Certificates of an authority made for the test run, and the contexts of both ends."""

from ssl import PROTOCOL_TLS_SERVER, SSLContext, create_default_context

import trustme

__all__ = ["Authority"]


class Authority:
    """A certificate authority that nobody trusts but who asks for `client_context`."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    def server_context(self, *names: str) -> SSLContext:
        """A server's context, with a certificate for these names; 127.0.0.1 for none."""
        context = SSLContext(PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
        return context

    def client_context(self) -> SSLContext:
        """A client's context that trusts this authority, besides those of the system."""
        context = create_default_context()
        self._authority.configure_trust(context)
        return context
