"""Compressed bodies: whatever the cuts, the same bytes; whatever the data, bounded memory."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core.content_coding import CODINGS, Inflater

PLAIN = "Как дела? 🙂 Fine, and you? ".encode() * 20


def zlib_deflate(data: bytes) -> bytes:
    return zlib.compress(data)


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


COMPRESSIONS = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param("x-gzip", gzip.compress, id="x-gzip"),
    pytest.param("deflate", zlib_deflate, id="deflate in zlib's wrapper"),
    pytest.param("deflate", raw_deflate, id="raw deflate"),
]


def inflate(coding: str, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    inflater = Inflater(coding)
    plain = b"".join(inflater.decode(piece, 1 << 20) for piece in pieces)
    return plain, inflater.complete


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_the_known_codings_are_gzip_its_old_name_and_deflate() -> None:
    assert {"gzip", "x-gzip", "deflate"} == CODINGS


@pytest.mark.parametrize(("coding", "compress"), COMPRESSIONS)
@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_a_body_decodes_to_the_same_however_it_is_cut(
    coding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    assert inflate(coding, cut(compress(PLAIN), size)) == (PLAIN, True)


@pytest.mark.parametrize(("coding", "compress"), COMPRESSIONS)
def test_an_empty_text_compressed_is_complete(
    coding: str, compress: Callable[[bytes], bytes]
) -> None:
    assert inflate(coding, [compress(b"")]) == (b"", True)


@pytest.mark.parametrize("coding", sorted(CODINGS))
def test_no_bytes_at_all_are_a_complete_empty_body(coding: str) -> None:
    assert inflate(coding, []) == (b"", True)
    assert inflate(coding, [b""]) == (b"", True)


@pytest.mark.parametrize(("coding", "compress"), COMPRESSIONS)
def test_a_body_cut_off_anywhere_is_not_complete_and_gives_what_arrived(
    coding: str, compress: Callable[[bytes], bytes]
) -> None:
    data = compress(PLAIN)
    for end in range(1, len(data)):
        plain, complete = inflate(coding, [data[:end]])
        assert not complete
        assert PLAIN.startswith(plain)


@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from(["zlib", "raw"]))
def test_both_kinds_of_deflate_are_told_apart_whatever_they_hold(
    plain: bytes, size: int, kind: str
) -> None:
    data = zlib_deflate(plain) if kind == "zlib" else raw_deflate(plain)
    assert inflate("deflate", cut(data, size)) == (plain, True)


def test_raw_deflate_is_known_by_its_first_bytes_together() -> None:
    # A stored block, its padding such that the first byte is that of zlib's wrapper.
    stored = b"\x08\x01\x00\xfe\xffA\x01\x00\x00\xff\xff"
    assert inflate("deflate", [stored]) == (b"A", True)
    # Of any texts, of some the first two bytes are a multiple of 31 all the same.
    for text in (str(number).encode() for number in range(300)):
        assert inflate("deflate", [raw_deflate(text)]) == (text, True)


def test_a_body_that_makes_sense_is_not_corrupt() -> None:
    inflater = Inflater("gzip")
    assert inflater.corrupt is False
    inflater.decode(gzip.compress(PLAIN), 1 << 20)
    assert inflater.corrupt is False


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_several_gzip_members_are_one_body(size: int) -> None:
    data = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert inflate("gzip", cut(data, size)) == (b"one two", True)


def test_a_further_gzip_member_that_has_begun_must_end() -> None:
    data = gzip.compress(b"one") + gzip.compress(b"two")[:-1]
    assert inflate("gzip", [data]) == (b"onetwo", False)


def test_decoding_stops_at_the_length_asked_for() -> None:
    data = gzip.compress(b"12345") + gzip.compress(b"67890")
    for length in range(1, 10):
        assert Inflater("gzip").decode(data, length) == b"1234567890"[:length]


def test_a_bomb_takes_no_more_memory_than_the_length_asked_for() -> None:
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    mebibyte = bytes(1 << 20)
    bomb = b"".join(compressor.compress(mebibyte) for _ in range(200)) + compressor.flush()
    tracemalloc.start()
    try:
        plain = Inflater("gzip").decode(bomb, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(plain) == 1 << 20
    assert peak < 4 << 20


@pytest.mark.parametrize("before", [1000, 1 << 20])
def test_a_bomb_behind_another_member_takes_no_more_memory_either(before: int) -> None:
    data = gzip.compress(bytes(before)) + gzip.compress(bytes(50 << 20))
    tracemalloc.start()
    try:
        plain = Inflater("gzip").decode(data, 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(plain) == 1 << 20
    assert peak < 5 << 20


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize(("coding", "compress"), COMPRESSIONS)
def test_data_after_the_end_is_corrupt_and_costs_nothing_of_the_text(
    coding: str, compress: Callable[[bytes], bytes], size: int
) -> None:
    inflater = Inflater(coding)
    data = compress(PLAIN) + b"<!-- served by a proxy -->"
    assert b"".join(inflater.decode(piece, 1 << 20) for piece in cut(data, size)) == PLAIN
    assert inflater.corrupt


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_a_wrong_checksum_is_corrupt_and_costs_nothing_of_the_text(size: int) -> None:
    data = bytearray(gzip.compress(PLAIN))
    data[-8] ^= 1
    inflater = Inflater("gzip")
    assert b"".join(inflater.decode(piece, 1 << 20) for piece in cut(bytes(data), size)) == PLAIN
    assert inflater.corrupt


@given(st.sampled_from(sorted(CODINGS)), st.binary(max_size=200), st.lists(st.integers(0, 250)))
def test_any_bytes_decode_to_the_same_however_they_are_cut(
    coding: str, data: bytes, ends: list[int]
) -> None:
    assert_independent_of_cuts(coding, data, ends)


@given(
    st.sampled_from([("gzip", gzip.compress), ("deflate", zlib_deflate), ("deflate", raw_deflate)]),
    st.integers(0, 1 << 16),
    st.integers(0, 255),
    st.lists(st.integers(0, 400)),
)
def test_a_body_with_one_wrong_byte_decodes_to_the_same_however_it_is_cut(
    kind: tuple[str, Callable[[bytes], bytes]], where: int, byte: int, ends: list[int]
) -> None:
    coding, compress = kind
    data = bytearray(compress(PLAIN))
    data[where % len(data)] = byte
    assert_independent_of_cuts(coding, bytes(data), ends)


def assert_independent_of_cuts(coding: str, data: bytes, ends: list[int]) -> None:
    whole, cut_up = Inflater(coding), Inflater(coding)
    at_once = whole.decode(data, 1 << 20)
    bounds = [0, *sorted(ends), len(data)]
    pieces = [data[start:end] for start, end in pairwise(bounds)]
    assert b"".join(cut_up.decode(piece, 1 << 20) for piece in pieces) == at_once
    assert (cut_up.corrupt, cut_up.complete) == (whole.corrupt, whole.complete)


def test_data_without_end_after_the_end_is_not_kept() -> None:
    inflater = Inflater("deflate")
    inflater.decode(zlib_deflate(b"text"), 100)
    piece = bytes(64 * 1024)
    tracemalloc.start()
    try:
        for _ in range(100):
            assert inflater.decode(piece, 100) == b""
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024
