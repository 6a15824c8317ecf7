"""The signature holds for exactly what was signed, and never gives the key away."""

import hashlib
import hmac
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gprochat_core import ConfigurationError, InvalidMessages, Signer, generate_signature

from .leaks import chain, told_by
from .strategies import characters, keys, surrogates, texts, times

# docs/protocol.md, "Signature": computed by two independent implementations.
VECTORS = [
    pytest.param(
        1700000000000,
        "Hello, world!",
        "secret",
        "1e132a12572889b4a97703ee6b1fb93d114b97125478e738c983b693a1b4402a",
        id="ascii",
    ),
    pytest.param(
        1700000000000,
        "Как дела? 🙂",
        "ключ-Ключ",
        "0a64086a3f19d644bdb5ddf22c9403dcdaa9415f0c7abdfc156fd94d2ec6b333",
        id="non-ascii",
    ),
    pytest.param(
        0,
        "",
        "",
        "d0609c4cf79f05d84dc5065a0f8001d14efd6834343440646d05c888c0b147db",
        id="empty",
    ),
    pytest.param(
        1732264000123,
        'line1\nline2\t"q" \\ \u2028 \u0000 end',
        "k:with:colons",
        "b14d7fc181ee16da7dca561bac7d36a979cbc30b311e625196ec05acc4dfac43",
        id="controls-and-colons",
    ),
    pytest.param(
        9007199254740991,
        "é vs e\u0301",
        "s",
        "48401168a7cb18e0ff82f35538ef5d51e04f506dd843e418e4576c743b697d7c",
        id="not-normalised",
    ),
]

UNLIKE_TIMES = [True, False, 1700000000000.0, float("nan"), "1700000000000", b"0", None, 1j]


@pytest.mark.parametrize(("time_ms", "text", "key", "signature"), VECTORS)
def test_the_vectors_of_the_protocol_are_met(
    time_ms: int, text: str, key: str, signature: str
) -> None:
    assert Signer(key).sign(time_ms, text) == signature
    assert Signer(key).verify(signature, time_ms, text)
    assert generate_signature(time_ms, text, key) == signature


@given(times, texts, keys)
def test_a_signature_is_the_hash_of_time_text_and_key(time_ms: int, text: str, key: str) -> None:
    expected = hashlib.sha256(f"{time_ms}:{text}:{key}".encode()).hexdigest()
    assert Signer(key).sign(time_ms, text) == expected


@given(times, texts, keys)
def test_a_signature_holds_for_what_was_signed(time_ms: int, text: str, key: str) -> None:
    signer = Signer(key)
    assert signer.verify(signer.sign(time_ms, text), time_ms, text)


@given(times, st.integers().filter(bool), texts, keys)
def test_another_time_breaks_a_signature(
    time_ms: int, difference: int, text: str, key: str
) -> None:
    signer = Signer(key)
    signature = signer.sign(time_ms, text)
    assert not signer.verify(signature, time_ms + 1, text)
    assert not signer.verify(signature, time_ms + difference, text)


@st.composite
def changed(draw: st.DrawFn, text: str) -> str:
    """A text that differs in one character: another one, one more or one less."""
    position = draw(st.integers(0, len(text)))
    replacement = draw(characters | st.just(""))
    other = text[:position] + replacement + text[position + draw(st.integers(0, 1)) :]
    assume(other != text)
    return other


@given(st.data(), times, texts, keys)
def test_any_change_of_one_character_of_the_text_breaks_a_signature(
    data: st.DataObject, time_ms: int, text: str, key: str
) -> None:
    signer = Signer(key)
    other = data.draw(changed(text))
    assert not signer.verify(signer.sign(time_ms, text), time_ms, other)


@given(st.data(), times, texts, keys)
def test_any_change_of_one_character_of_the_key_breaks_a_signature(
    data: st.DataObject, time_ms: int, text: str, key: str
) -> None:
    other = data.draw(changed(key))
    assert not Signer(other).verify(Signer(key).sign(time_ms, text), time_ms, text)


@given(st.data(), times, texts, keys)
def test_any_change_of_one_character_of_a_signature_breaks_it(
    data: st.DataObject, time_ms: int, text: str, key: str
) -> None:
    signer = Signer(key)
    other = data.draw(changed(signer.sign(time_ms, text)))
    assert signer.verify(other, time_ms, text) is False


@pytest.mark.parametrize("time_ms", UNLIKE_TIMES, ids=repr)
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda time_ms: Signer("k").sign(time_ms, "text"), id="sign"),
        pytest.param(lambda time_ms: Signer("k").verify("0" * 64, time_ms, "text"), id="verify"),
        pytest.param(lambda time_ms: generate_signature(time_ms, "text", "k"), id="function"),
    ],
)
def test_a_time_that_is_not_an_integer_is_refused(
    use: Callable[[object], object], time_ms: object
) -> None:
    with pytest.raises(TypeError, match=f"not {type(time_ms).__name__}"):
        use(time_ms)


@given(texts, surrogates, st.text(characters | surrogates, max_size=10))
def test_a_lone_surrogate_in_the_text_is_refused_with_its_position(
    before: str, surrogate: str, after: str
) -> None:
    with pytest.raises(InvalidMessages) as caught:
        Signer("k").sign(0, before + surrogate + after)
    assert caught.value.position == len(before)
    assert caught.value.index is None
    assert f"U+{ord(surrogate):04X}) at position {len(before)}," in str(caught.value)


def test_two_halves_of_a_pair_are_not_taken_for_their_character() -> None:
    with pytest.raises(InvalidMessages, match=r"U\+D83D"):
        Signer("k").sign(0, "\ud83d\ude42")


@pytest.mark.parametrize(
    "signature",
    ["", "0", "0" * 63, "0" * 65, "é" * 64, "\ud800" * 64, "\0" * 64, "🙂", "０" * 64, "?" * 64],
)
def test_what_cannot_be_a_signature_is_one_that_does_not_hold(signature: str) -> None:
    assert Signer("k").verify(signature, 0, "text") is False


@given(st.text(characters | surrogates), times, texts)
def test_any_string_may_be_offered_as_a_signature(signature: str, time_ms: int, text: str) -> None:
    signer = Signer("k")
    assert signer.verify(signature, time_ms, text) is (signature == signer.sign(time_ms, text))


def test_an_upper_case_signature_does_not_hold() -> None:
    signer = Signer("secret")
    assert not signer.verify(signer.sign(0, "text").upper(), 0, "text")


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    signer = Signer("secret")
    assert signer.verify("0" * 64, 0, "text")
    assert compared == [(b"0" * 64, signer.sign(0, "text").encode())]


@pytest.mark.parametrize("key", [None, b"secret-key", 7, ["secret-key"]], ids=repr)
def test_a_key_that_is_not_a_string_is_refused_unseen(key: object) -> None:
    said = f"the secret key must be a str, not {type(key).__name__}"
    with pytest.raises(ConfigurationError, match=said) as caught:
        Signer(cast("str", key))
    assert "secret-key" not in told_by(caught.value)


def test_a_key_with_a_lone_surrogate_is_refused_and_nothing_of_it_told() -> None:
    with pytest.raises(ConfigurationError, match="lone surrogate") as caught:
        Signer("correct-horse\udc42battery")
    # What is chained counts too: a codec's error carries the whole text, others its position.
    assert list(chain(caught.value)) == [caught.value]
    told = told_by(caught.value).lower()
    assert not any(part in told for part in ("correct", "horse", "battery", "dc42", "13"))


@pytest.mark.parametrize("show", [repr, str, "{}".format, ascii], ids=["repr", "str", "f", "ascii"])
def test_a_signer_never_shows_its_key(show: Callable[[object], str]) -> None:
    assert show(Signer("correct-horse")) == "Signer(<secret key>)"


def test_an_error_about_the_text_or_time_does_not_tell_the_key() -> None:
    signer = Signer("correct-horse")
    with pytest.raises(InvalidMessages) as about_text:
        signer.sign(0, "\ud800")
    with pytest.raises(TypeError) as about_time:
        signer.sign(cast("int", 0.5), "text")
    assert "horse" not in told_by(about_text.value) + told_by(about_time.value)
