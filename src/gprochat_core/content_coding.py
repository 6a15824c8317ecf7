"""Decompresses a body piece by piece, and never more of it than is wanted.

Requests ask for the content coding `identity`, but a proxy may compress a reply all the same
(RFC 9110, 8.4.1). The core decompresses, not the transports, so that all transports behave alike.
"""

import zlib
from contextlib import suppress
from typing import Final

__all__ = ["CODINGS", "Inflater"]

GZIP: Final = 16 + zlib.MAX_WBITS
ZLIB: Final = zlib.MAX_WBITS
RAW_DEFLATE: Final = -zlib.MAX_WBITS

PART: Final = 1024
"""Bytes that are decoded at a time."""

CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})


class Inflater:
    """Decompresses one body.

    Args:
        coding: one of `CODINGS`. "deflate" may come without its zlib wrapper, as some servers send
            it (RFC 9110, 8.4.1.2).

    Attributes:
        corrupt: whether the data is not valid, or is followed by other data.
    """

    __slots__ = ("_begin", "_gzip", "_inflate", "corrupt")

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        self._inflate = zlib.decompressobj(GZIP) if self._gzip else None
        self._begin = b""
        self.corrupt: bool = False

    @property
    def complete(self) -> bool:
        """Whether the end of the compressed data has been reached; true before its first byte."""
        if self._inflate is None:
            return not self._begin
        return self._inflate.eof or not self._begin

    def decode(self, data: bytes, max_length: int) -> bytes:
        """Decompress more bytes; return at most `max_length` bytes.

        Bytes beyond `max_length` are lost: a body that reaches the limit is not read further. If
        the data is corrupt, the bytes before the fault are returned.
        """
        if self._inflate is None:
            # The first two bytes tell whether there is a zlib wrapper (RFC 1950, 2.2).
            self._begin += data
            if len(self._begin) < 2:
                return b""
            data = self._begin
            wrapped = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflate = zlib.decompressobj(ZLIB if wrapped else RAW_DEFLATE)
        else:
            self._begin = self._begin or data[:1]
        plain = bytearray()
        # In short parts, because at the end of each gzip member zlib copies the rest of its input.
        for start in range(0, len(data), PART):
            self._decode_part(data[start : start + PART], plain, max_length)
        return bytes(plain[:max_length])

    def _decode_part(self, data: bytes, plain: bytearray, max_length: int) -> None:
        while data and not self.corrupt and len(plain) < max_length:
            inflate = self._inflate
            if inflate is None or inflate.eof:
                # A gzip body may consist of several members (RFC 1952, 2.2).
                if not self._gzip:
                    self.corrupt = True
                    break
                inflate = self._inflate = zlib.decompressobj(GZIP)
            before = inflate.copy()
            try:
                plain += inflate.decompress(data, max_length - len(plain))
            except zlib.error:
                self.corrupt = True
                # zlib returns nothing for a part with a fault; byte by byte it returns the rest.
                with suppress(zlib.error):
                    for byte in data:  # pragma: no branch (the fault ends the loop)
                        plain += before.decompress(bytes((byte,)))
            data = inflate.unused_data
