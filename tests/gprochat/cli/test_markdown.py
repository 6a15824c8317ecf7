"""Markdown is rendered on a terminal while it arrives."""

import re
import sys
import unicodedata
from time import process_time

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyte.modes import LNM

from gprochat.cli import markdown
from gprochat.cli.markdown import MarkdownOutput, redraw
from gprochat.server import in_thread, serve
from gprochat_core import TruncatedReply

from .running import answer_of, imported_by, invoke, on_terminal, screen_of

SCREEN = 10 * 40
"""Characters of the recorder's screen."""

TALK = """\
# Title

A paragraph with **bold** words that is long enough to be wrapped.

1. one
1. two

```python
def f():
    return "s"
```
"""


class Recorder:
    """What a `MarkdownOutput` shows, and how much of the reply it renders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int = 40, lines: int = 10) -> None:
        self.shown: list[str] = []
        self.rendered = 0
        self.now = 0.0
        render = MarkdownOutput._render_text

        def counted(output: MarkdownOutput, text: str) -> list[str]:
            self.rendered += len(text)
            return render(output, text)

        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setattr(markdown, "echo", self.shown.append)
        monkeypatch.setattr(markdown, "monotonic", lambda: self.now)
        monkeypatch.setattr(MarkdownOutput, "_render_text", counted)
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000)
        self.screen.set_mode(LNM)

    def lines(self) -> list[str]:
        """Every line of the terminal from its first one, also those that have scrolled away."""
        pyte.Stream(self.screen).feed("".join(self.shown))
        self.shown.clear()
        above = [
            "".join(line[column].data for column in range(self.screen.columns))
            for line in self.screen.history.top
        ]
        return (
            "\n".join(line.rstrip() for line in [*above, *self.screen.display]).strip().split("\n")
        )


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Recorder(monkeypatch)


def test_a_reply_is_rendered_on_a_terminal() -> None:
    with (
        in_thread(serve(answer_of(*re.findall(r"\S+\s*", TALK)))) as server,
        on_terminal("chat", "Hi", service=server.service, columns=40) as terminal,
    ):
        assert terminal.wait() == 0
    screen = screen_of(terminal, 40)
    lines = [line.rstrip() for line in screen.display]
    assert [line for line in lines if line] == [
        "                 Title",
        "A paragraph with bold words that is",
        "long enough to be wrapped.",
        " 1 one",
        " 2 two",
        " def f():",
        '     return "s"',
    ]
    row = lines.index("A paragraph with bold words that is")
    assert [screen.buffer[row][column].bold for column in (16, 17, 20, 21)] == [0, 1, 1, 0]
    code = lines.index(" def f():")
    assert screen.buffer[code][1].fg != "default"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Use the <br> tag, List<int>, a < b.", "Use the <br> tag, List<int>, a < b."),
        ("It is **<your-name>** here.", "It is <your-name> here."),
        ("<div>\nhello\n</div>", "<div> hello </div>"),
        ("<!-- note -->", "<!-- note -->"),
        ("- <b>item</b>", " • <b>item</b>"),
    ],
)
def test_what_looks_like_html_is_shown(recorder: Recorder, text: str, shown: str) -> None:
    output = MarkdownOutput()
    output.write(text)
    output.end()
    assert recorder.lines() == [shown.strip()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("See [it][1].\n\n[1]: https://a.example", ["See [it][1].", "", "[1]: https://a.example"]),
        ("[1]: /a\n[^2]: b\nc\n[3]: d 'e'", ["[1]: /a", "[^2]: b c", "[3]: d 'e'"]),
        ("It is ![a picture](/p.png).", ["It is !a picture (/p.png)."]),
        ("[link](/l 'its title')", ['link (/l "its title")']),
    ],
)
def test_definitions_images_and_titles_are_shown(
    recorder: Recorder, text: str, shown: list[str]
) -> None:
    output = MarkdownOutput()
    output.write(text)
    output.end()
    assert recorder.lines() == shown


def test_long_words_in_a_table_are_broken(recorder: Recorder) -> None:
    url = "https://docs.example/a/path/that/does/not/fit"
    output = MarkdownOutput()
    output.write(f"|{url}|\n|-|\n|{url}|\n")
    output.end()
    assert re.sub(r"[\s─]", "", "".join(recorder.lines())) == url + url


def test_no_color_is_obeyed() -> None:
    with (
        in_thread(serve(answer_of(TALK))) as server,
        on_terminal("chat", "Hi", service=server.service, variables={"NO_COLOR": "1"}) as terminal,
    ):
        assert terminal.wait() == 0
    assert "def" in terminal.seen
    colours = re.findall("\x1b\\[[0-9;]*m", terminal.seen)
    assert not [each for each in colours if re.search(r"[\[;](3|4|9|10)\d", each)]


@pytest.mark.parametrize(
    ("options", "variables"), [(["--plain"], {}), ([], {"TERM": "dumb"})], ids=["option", "dumb"]
)
def test_plain_output_is_the_bare_text(options: list[str], variables: dict[str, str]) -> None:
    with (
        in_thread(serve(answer_of(TALK))) as server,
        on_terminal(
            "chat", *options, "Hi", service=server.service, variables=variables
        ) as terminal,
    ):
        assert terminal.wait() == 0
    assert terminal.seen == TALK.replace("\n", "\r\n")


def test_a_pipe_gets_the_bare_text() -> None:
    with in_thread(serve(answer_of(TALK))) as server:
        assert invoke("chat", "Hi", service=server.service).stdout == TALK


@given(st.lists(st.integers(1, 30), max_size=10), st.integers(4, 30))
def test_however_a_reply_arrives_the_screen_ends_the_same(cuts: list[int], height: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        whole, parts = Recorder(monkeypatch, lines=height), TALK
        output = MarkdownOutput()
        output.write(TALK)
        output.end()
        expected = whole.lines()
        monkeypatch.undo()
        recorder = Recorder(monkeypatch, lines=height)
        output = MarkdownOutput()
        for size in cuts:
            recorder.now += 1.0
            output.write(parts[:size])
            parts = parts[size:]
        output.write(parts)
        output.end()
        assert recorder.lines() == expected


def test_a_block_taller_than_the_screen_is_whole_when_it_ends(recorder: Recorder) -> None:
    output = MarkdownOutput()
    for number in range(50):
        recorder.now += 1.0
        output.write(f"line{number}  \n")
        assert recorder.lines()[-1] == f"line{number}"
    output.end()
    assert recorder.lines()[-50:] == [f"line{number}" for number in range(50)]


def test_text_is_held_back_for_a_moment_and_then_shown(recorder: Recorder) -> None:
    output = MarkdownOutput()
    output.write("one")
    output.write(" two")
    assert recorder.lines() == ["one"]
    recorder.now += 2 * markdown.INTERVAL
    output.tick()
    assert recorder.lines() == ["one two"]


def test_the_first_words_are_shown_before_what_renders_them_is_imported(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[list[str]] = []
    import_markdown = markdown.import_markdown

    def importing() -> object:
        before.append(recorder.lines())
        return import_markdown()

    monkeypatch.delitem(sys.modules, "rich.markdown", raising=False)
    monkeypatch.setattr(markdown, "import_markdown", importing)
    output = MarkdownOutput()
    output.write(f"**two** words\x1b\n\n{'字' * 40}")
    assert before[0] == ["**two** words␛", "", *["字" * 19] * 2, "字字"]
    output.end()
    assert recorder.lines() == ["two words␛", "", *["字" * 19] * 2, "字字"]


def test_text_that_only_the_error_holds_is_shown(recorder: Recorder) -> None:
    output = MarkdownOutput()
    output.write("half")
    output.fail(TruncatedReply("cut off", text="half a word"))
    assert recorder.lines() == ["half a word"]


def test_ctrl_c_leaves_a_clean_line_below_what_has_arrived(recorder: Recorder) -> None:
    output = MarkdownOutput()
    output.write("half a word")
    # The terminal shows this itself.
    recorder.shown.append("^C")
    output.fail(KeyboardInterrupt())
    assert recorder.lines() == ["half a word"]
    assert (recorder.screen.cursor.x, recorder.screen.cursor.y) == (0, 1)


def controls_shown(pieces: list[str]) -> set[str]:
    """The control characters that the terminal gets for a reply that arrives in these pieces."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Without styles and without redrawing, the command itself writes line breaks only.
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(
            markdown, "redraw", lambda _old, stays, moves: "\n".join([*stays, *moves])
        )
        recorder = Recorder(monkeypatch)
        output = MarkdownOutput()
        for piece in pieces:
            recorder.now += 1.0
            output.write(piece)
        output.end()
        return {each for each in "".join(recorder.shown) if unicodedata.category(each) == "Cc"}


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]0;owned\x07\x1b[2J\x9b31m",
        "&#27;[2J",
        "```\n\x1b[2J\n```",
        "[a](\x1b[2J)",
        "[a](http://x/\x1b[2J)",
        "```\x1b[2J\nx\n```",
        "`\x1b[2J`",
        "<http://x/%1b[2J%9b%c2%9b>",
    ],
)
def test_a_reply_cannot_control_the_terminal(text: str) -> None:
    assert controls_shown([text]) <= {"\n"}


CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
ENCODINGS = ["{0}", "&#{1};", "&#x{1:x};", "%{1:02x}", "%c2%{1:02x}"]
PLACES = [
    "{0}",
    "<http://x/{0}>",
    "[{0}](x)",
    "[a](<{0}> '{0}')",
    "![{0}](x{0} '{0}')",
    "[a]: x{0} '{0}'",
    "`{0}`",
    "```{0}\n{0}\n```",
    "    {0}",
    "|{0}|\n|-|\n|{0}|",
    "- {0}",
]
controls = st.builds(
    lambda encoding, control: encoding.format(control, ord(control)),
    st.sampled_from(ENCODINGS),
    st.sampled_from(CONTROLS),
)
written = st.builds(str.format, st.sampled_from(PLACES), st.just("a") | controls)


@given(st.lists(written | st.sampled_from(["\n", "\n\n", "**", "[a]", " ", "> "]) | st.text()))
def test_no_control_character_of_a_reply_reaches_the_terminal(pieces: list[str]) -> None:
    assert controls_shown(pieces) <= {"\n"}


lines = st.lists(st.sampled_from(["a", "b", "a long one"]), max_size=4)


@given(lines, lines, lines)
def test_new_lines_take_the_place_of_old_ones(
    old: list[str], stays: list[str], moves: list[str]
) -> None:
    screen = pyte.Screen(6, 15)
    screen.set_mode(LNM)
    stream = pyte.Stream(screen)
    stream.feed("above\n" + redraw([], [], old) + redraw(old, stays, moves))
    wrapped = [part for line in stays for part in re.findall(".{1,6}", line)]
    cut = [f"{line[:5]}{line[-1]}" if len(line) > 6 else line for line in moves]
    expected = ["above", *wrapped, *cut]
    assert [line.rstrip() for line in screen.display if line.strip()] == expected
    assert (screen.cursor.x, screen.cursor.y) == (0, len(expected))


def test_lines_whose_width_the_terminal_counts_otherwise_are_shown_once(recorder: Recorder) -> None:
    # rich counts no columns for the second character, pyte counts two.
    thumb = "\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}"
    output = MarkdownOutput()
    for number in range(20):
        recorder.now += 1.0
        output.write(f"{thumb} {number:02} ")
    output.end()
    assert re.findall(r"\d\d", "".join(recorder.lines())) == [f"{each:02}" for each in range(20)]


def test_the_screen_is_never_cleared_as_a_whole(recorder: Recorder) -> None:
    output = MarkdownOutput()
    for number in range(30):
        recorder.now += 1.0
        output.write(f"line{number}  \n")
    output.end()
    assert not re.search("\x1b\\[[0-3]?J", "".join(recorder.shown))


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("A word and another, and so on and on. ", 100_000),
        ("One line of it.\n\n", 10_000),
        ("- an item\n", 10_000),
        ("x = f(1)\n", 10_000),
    ],
    ids=["one paragraph", "paragraphs", "a list", "code"],
)
def test_the_cost_of_a_reply_grows_with_its_length(
    recorder: Recorder, unit: str, length: int
) -> None:
    # 200 pieces a second.
    reply = ("```python\n" if "=" in unit else "") + unit * (length // len(unit))
    output = MarkdownOutput()
    begun = process_time()
    for start in range(0, len(reply), 20):
        recorder.now += 1 / 200
        output.write(reply[start : start + 20])
    output.end()
    spent = process_time() - begun
    # Each drawing renders at most a screen of text that is not complete.
    drawings = recorder.now / markdown.INTERVAL
    assert recorder.rendered < len(reply) + 1.1 * drawings * (SCREEN + len("```python\n"))
    assert spent < recorder.now


def test_nothing_of_rich_is_imported_for_a_pipe() -> None:
    assert "rich" not in imported_by("chat", "--local", "Hi")
