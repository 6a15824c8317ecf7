"""Content codings: a compressed body back to plain bytes, a piece at a time, within bounds.

Requests ask for `identity`, but a proxy may compress all the same. Decoding here and not in a
transport lets all transports hand over the bytes of the wire, and behave alike (RFC 9110, 8.4.1).
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
    """Decodes one body.

    Args:
        coding: one of `CODINGS`. A "deflate" without the zlib wrapper, which RFC 9110 notes some
            servers send, is understood too.

    Attributes:
        corrupt: whether something in the data, or after its end, makes no sense.
    """

    __slots__ = ("_begin", "_gzip", "_inflate", "corrupt")

    def __init__(self, coding: str) -> None:
        self._gzip = coding != "deflate"
        self._inflate = zlib.decompressobj(GZIP) if self._gzip else None
        self._begin = b""
        self.corrupt = False

    @property
    def complete(self) -> bool:
        """Whether the compressed data has come to its end; true before any of it, too."""
        if self._inflate is None:
            return not self._begin
        return self._inflate.eof or not self._begin

    def decode(self, data: bytes, max_length: int) -> bytes:
        """Return what some more bytes decode to, `max_length` bytes of it at most.

        What is over is not kept: who meets the limit is through with this body. Of data that
        turns out to be corrupt, what precedes the fault is returned.
        """
        if self._inflate is None:
            # The zlib wrapper shows in the first two bytes (RFC 1950, 2.2).
            self._begin += data
            if len(self._begin) < 2:
                return b""
            data = self._begin
            wrapped = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._inflate = zlib.decompressobj(ZLIB if wrapped else RAW_DEFLATE)
        else:
            self._begin = self._begin or data[:1]
        plain = bytearray()
        # In short parts, because zlib copies the rest of a part at the end of each gzip member.
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
                # For data with a fault zlib returns nothing; byte by byte, what precedes the fault.
                with suppress(zlib.error):
                    for byte in data:  # pragma: no branch (the fault ends the loop)
                        plain += before.decompress(bytes((byte,)))
            data = inflate.unused_data
