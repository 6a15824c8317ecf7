"""Prompts from a file: JSON lines, CSV, or plain text, one prompt at a time.

The file is UTF-8. An id that the file does not give is the number of the line, or of the CSV row
below the header, counted from 1.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from string import Formatter
from typing import BinaryIO, Final, Literal, TypeAlias, cast

from gprochat_core import GPROChatError
from gprochat_core.messages import Conversation

from .results import Prompt

__all__ = ["Format", "InputError", "format_of", "read_prompts"]

Format: TypeAlias = Literal["jsonl", "csv", "text"]

FORMATS: Final[Mapping[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}

DELIMITERS: Final = ",;\t"
"""What may separate the columns of CSV. In many countries Excel writes semicolons."""

MAX_FIELD: Final = 2**31 - 1
"""The longest CSV field in characters; Python's own limit is 128 KiB."""


class InputError(GPROChatError, ValueError):
    """The input cannot be used; the message names the line, if a line is at fault."""


def format_of(suffix: str) -> Format:
    """Return the format that a file's suffix names, ".csv" for example; others are text."""
    return FORMATS.get(suffix.lower(), "text")


def read_prompts(
    stream: BinaryIO, format: Format, column: str | None = None, template: str | None = None
) -> Iterator[Prompt]:
    """Read prompts, one for each step of the iteration.

    Args:
        stream: the file.
        format: "jsonl": each line is `{"id": ..., "prompt": ...}`, `{"id": ..., "messages": [...]}`
            or a line of OpenAI's batch format, `{"custom_id": ..., "body": {"messages": [...]}}`.
            "csv": each row below the header is a prompt; a column `id` has its id. "text": each
            line is a prompt. Empty lines and rows are left out.
        column: the CSV column that holds the prompt; by default "prompt", or the only column.
        template: the text of the prompts, with names of CSV columns in braces.

    Raises:
        InputError: the input is not of this format.
    """
    lines = decode(stream)
    if format == "csv":
        rows = open_csv(lines)
        try:
            yield from read_csv(rows, column, template)
        except csv.Error as error:
            raise InputError(f"line {rows.reader.line_num} is not CSV: {error}") from None
        return
    parse = parse_json if format == "jsonl" else Prompt
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield parse(str(number), text)


def decode(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines of UTF-8 text, without a byte order mark, with their line breaks."""
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(
                f"line {number} is not UTF-8 text; save the file as UTF-8, or convert it with iconv"
            ) from None


def parse_json(number: str, line: str) -> Prompt:
    """Return the prompt of a line of JSON.

    Args:
        number: the line's number, which is the id if the line has none.
        line: the line.
    """
    try:
        fields: object = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"line {number} is not JSON") from None
    if not isinstance(fields, dict):
        raise InputError(f"line {number} is not a JSON object")
    item = cast("dict[str, object]", fields)
    name = item.get("custom_id", item.get("id", number))
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise InputError(f"line {number}: the id must be a string or a whole number")
    body = item.get("body", item)
    if not isinstance(body, dict):
        raise InputError(f"line {number}: body must be an object with messages")
    conversation = cast("dict[str, object]", body).get("messages", item.get("prompt"))
    if not isinstance(conversation, (str, list)):
        raise InputError(f'line {number} needs "prompt", a string, or "messages", a list')
    return Prompt(checked(str(name), number), cast("Conversation", conversation))


def open_csv(lines: Iterator[str]) -> "csv.DictReader[str]":
    csv.field_size_limit(MAX_FIELD)
    header = next(lines, "")
    # If the header has none of them, or as many of two, this is the comma.
    delimiter = max(DELIMITERS, key=header.count)
    return csv.DictReader(chain([header], lines), delimiter=delimiter, strict=True)


def read_csv(
    rows: "csv.DictReader[str]", column: str | None, template: str | None
) -> Iterator[Prompt]:
    columns = list(rows.fieldnames or ())
    if not columns:
        raise InputError("the first line must name the columns, and it is empty")
    pieces: list[tuple[str, str | None]]
    if template is None:
        pieces = [("", choose_column(column, columns))]
    else:
        pieces = parse_template(template, columns)
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise InputError(f"row {number} has not as many fields as the header")
        if any(row.values()):
            prompt = "".join(text + (row[name] if name else "") for text, name in pieces)
            yield Prompt(row.get("id") or str(number), prompt)


def choose_column(column: str | None, columns: list[str]) -> str:
    if column is None and len(columns) == 1:
        return columns[0]
    column = column or "prompt"
    if column not in columns:
        raise InputError(f"there is no column {column}; the columns are {', '.join(columns)}")
    return column


def parse_template(template: str, columns: list[str]) -> list[tuple[str, str | None]]:
    """Return pieces of text, each with the name of the column whose value follows it, or None."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"the template: {error}; write {{{{ and }}}} for braces") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (name not in columns or spec or conversion):
            raise InputError(
                f"the template names the column {name!r}; the columns are {', '.join(columns)}"
            )
    if not any(name for _, name, _, _ in parsed):
        raise InputError(f"the template names no column; the columns are {', '.join(columns)}")
    return [(text, name) for text, name, _, _ in parsed]


def checked(name: str, number: str) -> str:
    """Return an id that can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"line {number}: the id has half of a surrogate pair") from None
    return name
