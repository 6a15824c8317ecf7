"""HTTP/1.1 answers as bytes, written out by hand so that a test can cut or spoil them anywhere."""

from typing import Final

__all__ = ["LAST_CHUNK", "answer", "chunk", "chunked", "head"]

LAST_CHUNK: Final = b"0\r\n\r\n"


def head(status: int = 200, *fields: str) -> bytes:
    """A status line and header fields, `"name: value"` each, with the empty line at the end."""
    lines = [f"HTTP/1.1 {status} Whatever", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes | str) -> bytes:
    """One chunk (RFC 9112, section 7.1)."""
    data = data.encode() if isinstance(data, str) else data
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes | str, status: int = 200, fields: tuple[str, ...] = ()) -> bytes:
    """A whole answer as the service sends one, each piece a chunk of its own."""
    begin = head(
        status, "content-type: text/plain; charset=utf-8", "transfer-encoding: chunked", *fields
    )
    return b"".join([begin, *map(chunk, pieces), LAST_CHUNK])


def answer(status: int = 200, body: bytes | str = b"", *fields: str) -> bytes:
    """A whole answer with a content-length."""
    body = body.encode() if isinstance(body, str) else body
    return head(status, f"content-length: {len(body)}", *fields) + body
