"""Certificates of a service: a good one, and one for each way to be bad."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from ssl import PROTOCOL_TLS_SERVER, SSLContext, create_default_context
from typing import Final

import trustme

__all__ = ["CERTIFICATES", "client_context"]


@cache
def authority() -> trustme.CA:
    """The authority that `client_context` trusts."""
    return trustme.CA()


@cache
def client_context() -> SSLContext:
    """A client's context, one for all clients."""
    context = create_default_context()
    authority().configure_trust(context)
    return context


def good() -> SSLContext:
    return issued_by(authority(), "127.0.0.1", "service.invalid")


def wrong_name() -> SSLContext:
    return issued_by(authority(), "other.example")


def unknown_authority() -> SSLContext:
    return issued_by(trustme.CA(), "127.0.0.1")


def expired() -> SSLContext:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return issued_by(authority(), "127.0.0.1", not_after=yesterday)


def self_signed() -> SSLContext:
    # An authority's own certificate is the one that is signed by itself.
    own = trustme.CA()
    context = SSLContext(PROTOCOL_TLS_SERVER)
    with own.private_key_pem.tempfile() as key, own.cert_pem.tempfile() as certificate:
        context.load_cert_chain(certificate, key)
    return context


def issued_by(ca: trustme.CA, *names: str, not_after: datetime | None = None) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, not_after=not_after).configure_cert(context)
    return context


CERTIFICATES: Final[Mapping[str, Callable[[], SSLContext]]] = {
    "good": cache(good),
    "wrong name": cache(wrong_name),
    "unknown authority": cache(unknown_authority),
    "expired": cache(expired),
    "self-signed": cache(self_signed),
}
