"""Markdown is cut into blocks as it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat.cli.blocks import Block, Blocks

pieces = st.lists(
    st.sampled_from(["a", " ", "\n", "\n\n", "```", "```\n", "- ", "1. ", "# ", "---\n", "~~~"])
)


def cut(text: str) -> list[str]:
    blocks = Blocks()
    return [block.text for block in [*blocks.feed(text), *blocks.end()]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree", ["one\ntwo", "three"]),
        ("# A\ntext\n## B\n", ["# A", "text", "## B"]),
        ("Title\n===\ntext", ["Title\n===\ntext"]),
        ("one\n\n---\ntwo", ["one", "---", "two"]),
        ("text\n* * *\n", ["text", "* * *"]),
        ("- a\n- b\n", ["- a", "- b"]),
        ("text\n- a\n\n  more\n- b\n\nend", ["text", "- a\n\n  more", "- b", "end"]),
        ("- a\n  - nested\n- b", ["- a\n  - nested", "- b"]),
        ("In the year\n1986. it began", ["In the year\n1986. it began"]),
        ("```py\na\n\nb\n```\nend", ["```py\na\n\nb\n```", "end"]),
        ("text\n~~~\n```\n~~~\nend", ["text", "~~~\n```\n~~~", "end"]),
        ("````\n```\n````", ["````\n```\n````"]),
        ("- a\n  ```\n  x\n\n  y\n  ```\n- b", ["- a\n  ```\n  x\n\n  y\n  ```", "- b"]),
        ("`code` and ```more``` in a line\n\nend", ["`code` and ```more``` in a line", "end"]),
        ("|a|b|\n|-|-|\n|1|2|\n\nend", ["|a|b|\n|-|-|\n|1|2|", "end"]),
        ("```\nnever closed\n\n", ["```\nnever closed\n\n"]),
        ("\n\n", []),
    ],
)
def test_a_text_is_cut_into_its_blocks(text: str, expected: list[str]) -> None:
    assert [block.rstrip("\n") for block in cut(text)] == [each.rstrip("\n") for each in expected]


def test_an_item_has_the_number_that_its_list_gives_to_it() -> None:
    assert cut("3. a\n1. b\n\n1. c\n\ntext\n\n1. d") == ["3. a", "4. b", "5. c", "text", "1. d"]


@given(pieces)
def test_the_blocks_are_the_same_however_the_text_arrives(parts: list[str]) -> None:
    blocks = Blocks()
    arrived = [block for part in parts for block in blocks.feed(part)]
    assert [block.text for block in [*arrived, *blocks.end()]] == cut("".join(parts))


@given(pieces)
def test_no_character_is_lost_but_blank_lines_and_the_numbers_of_items(parts: list[str]) -> None:
    text = "".join(parts)

    def essence(text: str) -> str:
        return "".join(text.split()).translate(str.maketrans("", "", "123456789"))

    assert essence("".join(cut(text))) == essence(text)


def test_a_finished_item_is_an_item_and_a_paragraph_is_none() -> None:
    blocks = Blocks()
    assert blocks.feed("- a\n- b\n\nend\n\n") == [
        Block("- a", True),
        Block("- b", True),
        Block("end", False),
    ]


def test_the_unfinished_block_is_what_has_arrived_of_it() -> None:
    blocks = Blocks()
    assert blocks.unfinished(9, 99) is None
    blocks.feed("done\n\none\ntw")
    assert blocks.unfinished(9, 99) == Block("one\ntw", False)
    blocks.feed("o\n\n- it")
    assert blocks.unfinished(9, 99) == Block("- it", True)


def test_only_the_end_of_a_long_unfinished_block_is_given_and_code_stays_code() -> None:
    blocks = Blocks()
    blocks.feed("```python\n" + "x = 1\n" * 10_000 + "y")
    assert blocks.unfinished(2, 99) == Block("```python\nx = 1\nx = 1\ny", False)
    assert blocks.unfinished(99, 14) == Block("```python\nx = 1\nx = 1\ny", False)
    assert blocks.unfinished(99, 1) == Block("```python\ny", False)
