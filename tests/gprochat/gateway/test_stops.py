"""A reply is cut before its first stop sequence, however it is split."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat.gateway.stops import StopCutter

few = st.text("abc", max_size=30)
stops = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4)


def cut(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    cutter = StopCutter(stops)
    texts: list[str] = []
    for piece in pieces:
        texts.append(cutter.feed(piece))
        if cutter.stopped:
            return "".join(texts), True
    return "".join(texts) + cutter.finish(), False


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Return a text up to the stop sequence that is complete first, without that sequence."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(st.lists(few), stops)
@example(["ab", "ca"], ["abcd", "bc"])
@example(["aab"], ["ab"])
def test_a_text_is_cut_at_the_first_stop_sequence_however_it_is_split(
    pieces: list[str], stops: list[str]
) -> None:
    assert cut(pieces, stops) == expected("".join(pieces), stops)


@given(few, stops)
def test_a_text_in_single_characters_is_cut_like_the_whole(text: str, stops: list[str]) -> None:
    assert cut(list(text), stops) == cut([text], stops)


@given(few, stops)
def test_no_more_is_held_back_than_a_stop_sequence_may_need(text: str, stops: list[str]) -> None:
    cutter = StopCutter(stops)
    passed = cutter.feed(text)
    if not cutter.stopped:
        held = text[len(passed) :]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(("piece", "passed"), [("Hello", "Hello"), ("Hello\n", "Hello")])
def test_only_the_possible_beginning_of_a_stop_sequence_waits(piece: str, passed: str) -> None:
    assert StopCutter(["\n\n", "END"]).feed(piece) == passed


def test_what_was_held_back_is_passed_on_if_no_stop_sequence_followed() -> None:
    cutter = StopCutter(["STOP"])
    assert [cutter.feed("a ST"), cutter.feed("ART S"), cutter.finish()] == ["a ", "START ", "S"]
