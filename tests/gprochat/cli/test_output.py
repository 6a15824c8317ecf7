"""What makes a stranger's text fit for a terminal and for readers of lines."""

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gprochat.cli.output import JSONOutput, TextOutput, one_line, printable
from gprochat_core import TruncatedReply


@given(st.text())
@example("\x1b[2J\x9b\x7f\r")
def test_printable_text_holds_no_control_but_line_breaks_and_tabs(text: str) -> None:
    controls = {each for each in printable(text) if unicodedata.category(each) == "Cc"}
    assert controls <= {"\n", "\t"}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_printable_text_is_otherwise_as_it_was(text: str) -> None:
    assert printable(text) == text


def test_controls_are_made_visible() -> None:
    assert printable("a\x1bb\x00c\x7fd\x85e\r\n\tf") == "a␛b␀c␡d\ufffde\n\tf"


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b\u2029c\x85d", "\x9b31m\x7f\x1b", "Привет"])
def test_a_piece_is_one_json_line_and_comes_back_whole(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    JSONOutput().write(text)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"type": "text", "text": text}


def test_text_that_only_the_error_brings_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    output = TextOutput()
    output.write("half")
    output.fail(TruncatedReply("cut off", text="half Int"))
    assert capsys.readouterr().out == "half Int"
    assert output.text == "half Int"
