"""What prompts each format of the input holds, and what is said of an input that is wrong."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gprochat.batch import Prompt
from gprochat.batch.reading import Format, InputError, format_of, read_prompts


def prompts(
    text: str | bytes,
    format: Format = "jsonl",
    column: str | None = None,
    template: str | None = None,
) -> list[Prompt]:
    data = text.encode() if isinstance(text, str) else text
    return list(read_prompts(io.BytesIO(data), format, column, template))


@pytest.mark.parametrize(
    ("suffix", "format"),
    [
        (".jsonl", "jsonl"),
        (".JSON", "jsonl"),
        (".csv", "csv"),
        (".tsv", "csv"),
        (".ndjson", "jsonl"),
        (".txt", "text"),
        ("", "text"),
    ],
)
def test_a_file_name_tells_the_format(suffix: str, format: Format) -> None:
    assert format_of(suffix) == format


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ('{"id": "a", "prompt": "Hello"}', Prompt("a", "Hello")),
        ('{"id": 7, "prompt": "Hello"}', Prompt("7", "Hello")),
        ('{"prompt": "Hello"}', Prompt("1", "Hello")),
        (
            '{"id": "a", "messages": [{"role": "user", "content": "Hi"}]}',
            Prompt("a", [{"role": "user", "content": "Hi"}]),
        ),
        ('{"id": "other", "custom_id": "a", "prompt": "Hello"}', Prompt("a", "Hello")),
        (
            (
                '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", '
                '"body": {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}}'
            ),
            Prompt("a", [{"role": "user", "content": "Hi"}]),
        ),
    ],
)
def test_a_line_of_json_is_a_prompt(line: str, prompt: Prompt) -> None:
    assert prompts(line) == [prompt]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=3))
def test_json_lines_are_read_as_they_were_written(items: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"id": name, "prompt": text}, ensure_ascii=False) for name, text in items]
    assert prompts("\n".join(lines)) == [Prompt(name, text) for name, text in items]


def test_empty_lines_are_left_out_and_counted() -> None:
    assert prompts("\ufeffOne\r\n\n  \n  Two ", "text") == [
        Prompt("1", "One"),
        Prompt("4", "  Two "),
    ]


def test_a_line_of_text_may_hold_any_separator_but_a_line_feed() -> None:
    assert prompts("a\u2028b\x85c\x0bd\n", "text") == [Prompt("1", "a\u2028b\x85c\x0bd")]


@pytest.mark.parametrize("column", [None, "prompt"])
def test_a_column_of_csv_holds_the_prompts(column: str | None) -> None:
    table = 'id,prompt\na,"Hello, ""you"""\nb,"two\nlines"\n'
    assert prompts(table, "csv", column) == [
        Prompt("a", 'Hello, "you"'),
        Prompt("b", "two\nlines"),
    ]


def test_the_only_column_of_csv_need_not_be_named_and_rows_are_counted() -> None:
    assert prompts("question\nWho?\nWhen?\n", "csv") == [Prompt("1", "Who?"), Prompt("2", "When?")]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_columns_may_be_separated_by_semicolons_or_tabs(delimiter: str) -> None:
    table = 'id,prompt\r\na,"Hello; you,\tthere"\r\n'.replace("id,", f"id{delimiter}")
    assert prompts(table.replace("a,", f"a{delimiter}"), "csv") == [
        Prompt("a", "Hello; you,\tthere")
    ]


def test_rows_without_text_are_left_out_and_counted() -> None:
    assert prompts("id,prompt\n,\na,One\n,Two\n,\n,\n", "csv") == [
        Prompt("a", "One"),
        Prompt("3", "Two"),
    ]


def test_a_template_makes_a_prompt_of_columns() -> None:
    table = "text,to language\nHello,German\n"
    found = prompts(table, "csv", template='Say "{text}" in {to language} as {{"json": 1}}.')
    assert found == [Prompt("1", 'Say "Hello" in German as {"json": 1}.')]


@settings(max_examples=25)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
        min_size=1,
        max_size=3,
    )
)
def test_a_template_takes_values_as_they_are(values: list[str]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["text"], *([value] for value in values)])
    found = prompts(file.getvalue(), "csv", template="<{text}>")
    assert [prompt.conversation for prompt in found] == [f"<{value}>" for value in values]


def test_a_csv_field_may_be_longer_than_pythons_own_limit() -> None:
    (prompt,) = prompts(f"prompt\n{'x' * 200_000}\n", "csv")
    assert prompt.conversation == "x" * 200_000


@pytest.mark.parametrize(
    ("text", "format", "options", "message"),
    [
        ("Hello", "jsonl", {}, "line 1 is not JSON"),
        ("[" * 100_000, "jsonl", {}, "line 1 is not JSON"),
        ('{"prompt": "a"}\n[]', "jsonl", {}, "line 2 is not a JSON object"),
        ('{"id": "a"}', "jsonl", {}, 'line 1 needs "prompt"'),
        ('{"id": "a", "prompt": 1}', "jsonl", {}, 'line 1 needs "prompt"'),
        ('{"id": true, "prompt": "a"}', "jsonl", {}, "line 1: the id must be"),
        ('{"id": "\\ud800", "prompt": "a"}', "jsonl", {}, "line 1: the id has half"),
        ('{"custom_id": "a", "body": 1}', "jsonl", {}, "line 1: body must be"),
        (b"ok\n\xff", "text", {}, "line 2 is not UTF-8 text; save the file as UTF-8"),
        ("", "csv", {}, "the first line must name the columns"),
        ("id;prompt\na;Hello;you\n", "csv", {}, "row 1 has not as many fields"),
        ("a,b\n1,2\n", "csv", {}, "there is no column prompt; the columns are a, b"),
        ("a,b\n1,2\n", "csv", {"column": "c"}, "there is no column c"),
        ("a,b\n1\n", "csv", {"column": "a"}, "row 1 has not as many fields"),
        ("a,b\n1,2,3\n", "csv", {"column": "a"}, "row 1 has not as many fields"),
        ('a\n1\n"2"3\n4\n', "csv", {}, "line 3 is not CSV"),
        ('a\n"1', "csv", {}, "line 2 is not CSV"),
        ("a\n1\n", "csv", {"template": "{b}"}, "names the column 'b'; the columns are a"),
        ("a\n1\n", "csv", {"template": "{a.b}"}, "names the column 'a.b'"),
        ("a\n1\n", "csv", {"template": "{a!r}"}, "names the column 'a'"),
        ("a\n1\n", "csv", {"template": "{a"}, "the template: "),
    ],
)
def test_an_input_that_is_wrong_is_refused_with_its_place(
    text: str | bytes, format: Format, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prompts(text, format, **options)


@pytest.mark.parametrize("format", ["jsonl", "csv", "text"])
def test_a_file_is_read_prompt_by_prompt(format: Format) -> None:
    stream = io.BytesIO(b'{"prompt": "a"}\n' * 100_000)
    assert next(read_prompts(stream, format)).id == "1"
    assert stream.tell() < 1000
