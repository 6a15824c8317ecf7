"""A deployment's URL is taken as it is meant or refused, and its secrets are never shown."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import (
    DEFAULT_MODEL,
    GPROCHAT,
    ConfigurationError,
    Encoding,
    Service,
    Signer,
    get_model,
)

from .leaks import chain, told_by
from .strategies import characters, keys, surrogates, texts

ACCEPTED = [
    # given, the deployment's URL, its origin
    ("https://chat.example", "https://chat.example", "https://chat.example"),
    ("https://chat.example/", "https://chat.example", "https://chat.example"),
    ("http://chat.example", "http://chat.example", "http://chat.example"),
    ("https://chat.example/a/b", "https://chat.example/a/b", "https://chat.example"),
    ("https://chat.example/a/b/", "https://chat.example/a/b", "https://chat.example"),
    ("https://chat.example//", "https://chat.example", "https://chat.example"),
    ("https://chat.example:8443", "https://chat.example:8443", "https://chat.example:8443"),
    ("https://chat.example:8443/a/", "https://chat.example:8443/a", "https://chat.example:8443"),
    ("https://chat.example:443", "https://chat.example", "https://chat.example"),
    ("http://chat.example:80/a", "http://chat.example/a", "http://chat.example"),
    ("http://chat.example:443", "http://chat.example:443", "http://chat.example:443"),
    ("https://chat.example:80", "https://chat.example:80", "https://chat.example:80"),
    ("https://chat.example:", "https://chat.example", "https://chat.example"),
    ("https://chat.example:65535", "https://chat.example:65535", "https://chat.example:65535"),
    ("https://chat.example:00080", "https://chat.example:80", "https://chat.example:80"),
    ("HTTPS://Chat.EXAMPLE/Path", "https://chat.example/Path", "https://chat.example"),
    ("https://xn--e1afmkfd.xn--p1ai", "https://xn--e1afmkfd.xn--p1ai", None),
    ("https://chat.example.", "https://chat.example.", "https://chat.example."),
    ("http://my_host", "http://my_host", "http://my_host"),
    ("http://localhost:3000", "http://localhost:3000", "http://localhost:3000"),
    ("http://127.0.0.1:3000/", "http://127.0.0.1:3000", "http://127.0.0.1:3000"),
    ("http://[::1]:3000/", "http://[::1]:3000", "http://[::1]:3000"),
    ("http://[::1]", "http://[::1]", "http://[::1]"),
    ("http://[::1]:80", "http://[::1]", "http://[::1]"),
    ("http://[2001:DB8:0:0:0:0:0:1]/a", "http://[2001:db8::1]/a", "http://[2001:db8::1]"),
    ("https://chat.example/a%20b/~c@d", "https://chat.example/a%20b/~c@d", "https://chat.example"),
    (f"https://{'a' * 63}.example", f"https://{'a' * 63}.example", None),
]

REFUSED = [
    ("chat.example", "must begin with https:// or http://"),
    ("", "must begin with https:// or http://"),
    ("https", "must begin with https:// or http://"),
    ("/", "must begin with https:// or http://"),
    ("//chat.example", "must begin with https:// or http://"),
    ("ftp://chat.example", "must begin with https:// or http://"),
    ("ws://chat.example", "must begin with https:// or http://"),
    ("file:///etc/hosts", "must begin with https:// or http://"),
    ("javascript:alert(1)", "must begin with https:// or http://"),
    ("\ufeffhttps://chat.example", "must begin with https:// or http://"),
    ("https://user@chat.example", "must not hold a user name or password"),
    ("https://user:word@chat.example", "must not hold a user name or password"),
    ("https://:@chat.example", "must not hold a user name or password"),
    ("https://@chat.example", "must not hold a user name or password"),
    ("https://chat.example@evil.example", "must not hold a user name or password"),
    ("https://[::1]@chat.example", "must not hold a user name or password"),
    (" https://chat.example", "white space or a control character"),
    ("https://chat.example ", "white space or a control character"),
    ("https://chat.example/a b", "white space or a control character"),
    ("https://chat\n.example", "white space or a control character"),
    ("https://chat.example\r\n", "white space or a control character"),
    ("ht\ttps://chat.example", "white space or a control character"),
    ("https://chat.example/\0", "white space or a control character"),
    ("https://chat.example/\x1f", "white space or a control character"),
    ("https://chat.example/\x7f", "white space or a control character"),
    ("https://chat.example/\x85", "white space or a control character"),
    ("https://chat.example/\u2028", "white space or a control character"),
    ("https://chat.example/\u3000", "white space or a control character"),
    ("https://chat.example?", "query or fragment"),
    ("https://chat.example/?a=b", "query or fragment"),
    ("https://chat.example/#", "query or fragment"),
    ("https://chat.example#top", "query or fragment"),
    ("https://chat.example?user@evil.example", "query or fragment"),
    ("https://chat.example/a/../b", "'.' or '..'"),
    ("https://chat.example/a/%2e%2E/b", "'.' or '..'"),
    ("https://chat.example/.%2e", "'.' or '..'"),
    ("https://chat.example/%2e/b", "'.' or '..'"),
    ("https://chat.example/.", "'.' or '..'"),
    ("https://chat.example/a\\b", "must be percent-encoded"),
    ("https://chat.example/100%", "must be percent-encoded"),
    ("https://chat.example/%zz", "must be percent-encoded"),
    ("https://chat.example/путь", "must be percent-encoded"),
    ("https://chat.example/<a>", "must be percent-encoded"),
    ("https://chat.example/\ud800", "must be percent-encoded"),
    ("https://chat.example/\x9f", "must be percent-encoded"),
    ("https://", "no valid host"),
    ("https:///a", "no valid host"),
    ("https:chat.example", "must begin with https:// or http://"),
    ("https:/chat.example", "must begin with https:// or http://"),
    ("httpſ://chat.example", "must begin with https:// or http://"),
    ("https://:443", "no valid host"),
    ("https://.", "no valid host"),
    ("https://chat..example", "no valid host"),
    ("https://.example", "no valid host"),
    ("https://-chat.example", "no valid host"),
    ("https://chat.example\\@evil.example", "must not hold a user name or password"),
    ("https://chat.example\\evil", "no valid host"),
    ("https://пример.рф", "xn-- form"),
    ("https://chat。example", "no valid host"),
    ("https://\u212aelvin.example", "no valid host"),
    ("https://chat%2eexample", "no valid host"),
    ("https://chat\u2100example", "no valid host"),
    ("https://chat\ud800", "no valid host"),
    (f"https://{'a' * 64}.example", "no valid host"),
    (f"https://chat.{'a' * 64}", "no valid host"),
    ("https://[", "no valid host"),
    ("https://]", "no valid host"),
    ("https://[]", "no valid host"),
    ("https://[::1", "no valid host"),
    ("https://::1", "no valid host"),
    ("https://[::1]]", "no valid host"),
    ("https://[::g]", "no valid host"),
    ("https://[1::2::3]", "no valid host"),
    ("https://[fe80::1%25eth0]", "no valid host"),
    ("https://[fe80::1%eth0]", "no valid host"),
    ("https://[127.0.0.1]", "no valid host"),
    ("https://[chat.example]", "no valid host"),
    ("https://[v1.example]", "no valid host"),
    ("https://chat[::1]", "no valid host"),
    ("https://[::1]chat", "no valid host"),
    ("https://[::1]chat:80", "no valid host"),
    ("https://chat.example:0", "a port from 1 to 65535"),
    ("https://chat.example:00000", "a port from 1 to 65535"),
    ("https://chat.example:65536", "a port from 1 to 65535"),
    ("https://chat.example:99999", "a port from 1 to 65535"),
    (f"https://chat.example:{'9' * 5000}", "a port from 1 to 65535"),
    ("https://chat.example:x", "a port from 1 to 65535"),
    ("https://chat.example:-1", "a port from 1 to 65535"),
    ("https://chat.example:+80", "a port from 1 to 65535"),
    ("https://chat.example:8_0", "a port from 1 to 65535"),
    ("https://chat.example:٨٠", "a port from 1 to 65535"),
    ("https://chat.example:80:90", "a port from 1 to 65535"),
    ("https://[::1]:x", "a port from 1 to 65535"),
]


@pytest.mark.parametrize(("given", "url", "origin"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
def test_a_deployments_url_is_taken_as_it_is_meant(
    given: str, url: str, origin: str | None
) -> None:
    service = Service(given)
    assert service.url == url
    assert service.origin == (origin or url)
    assert service.endpoint == f"{url}/api/generate"


@pytest.mark.parametrize(("url", "why"), REFUSED, ids=[ascii(row[0])[:60] for row in REFUSED])
def test_what_is_not_a_deployments_url_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Service(url)


@pytest.mark.parametrize("url", [None, b"https://chat.example", 7, ["https://a"]], ids=repr)
def test_a_url_that_is_not_a_string_is_refused(url: object) -> None:
    with pytest.raises(ConfigurationError, match=f"must be a str, not {type(url).__name__}"):
        Service(cast("str", url))


@pytest.mark.parametrize(
    "url",
    [
        "https://user:correct-horse@chat.example",
        "https://correct-horse@chat.example",
        "https://user:correct-horse/battery@chat.example",
        "https://user:correct-horse@chat.example/a b",
        "https://user:correct-horse\u2100@chat.example",
        "https://user:correct-horse@[chat.example",
        "https://user:correct-horse\udc42@chat.example",
        "https://chat.example?password=correct-horse",
        "https://chat.example:correct-horse",
        "correct-horse",
    ],
)
def test_a_refused_url_is_never_shown_for_it_may_hold_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Service(url)
    assert list(chain(caught.value)) == [caught.value]
    assert "horse" not in told_by(caught.value)
    assert "battery" not in told_by(caught.value)


pieces = st.sampled_from(
    ["https", "http", "HTTP", "://", "//", "chat.example", "127.0.0.1", "::1", "80", "443", "0"]
) | st.sampled_from("/:@[]?#\\%.-_~09aZé\n\t ")


@given(
    st.text(characters | surrogates)
    | st.builds("https://{}".format, st.text(characters | surrogates))
    | st.lists(pieces, max_size=8).map("".join)
    | st.lists(pieces, max_size=8).map(lambda drawn: "https://chat" + "".join(drawn))
)
def test_any_text_is_a_deployments_url_or_a_configuration_error(url: str) -> None:
    try:
        service = Service(url)
    except ConfigurationError:
        return
    # What is accepted is its own canonical form, and fit for a header.
    assert Service(service.url).url == service.url
    assert service.url.startswith(service.origin)
    assert service.url.isascii()
    assert service.url.isprintable()
    assert not set(service.url) & set(' \\?#"<>')


@given(texts, keys, texts)
def test_urls_that_mean_the_same_make_equal_services(path: str, key: str, password: str) -> None:
    one = Service("https://chat.example/a", key, password)
    other = Service("HTTPS://CHAT.example:443/a/", key, password)
    assert one == other
    assert hash(one) == hash(other)


def test_neither_key_nor_password_is_shown() -> None:
    service = Service("https://chat.example", secret_key="correct-horse", password="battery-staple")
    for shown in (repr(service), str(service), f"{service}", repr(service.signer), repr([service])):
        assert "horse" not in shown
        assert "staple" not in shown
    assert "https://chat.example" in repr(service)


SECRETS = [
    pytest.param(lambda secret: Service("https://a", secret_key=secret), "secret key", id="key"),
    pytest.param(lambda secret: Service("https://a", password=secret), "password", id="password"),
]


@pytest.mark.parametrize(("construct", "name"), SECRETS)
@pytest.mark.parametrize("secret", [7, b"correct-horse", ["correct-horse"]], ids=repr)
def test_a_secret_that_is_not_a_string_is_refused_unseen(
    construct: Callable[[object], Service], name: str, secret: object
) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        construct(secret)
    assert f"not {type(secret).__name__}" in str(caught.value)
    assert "horse" not in told_by(caught.value)


@pytest.mark.parametrize(("construct", "name"), SECRETS)
def test_a_secret_with_a_lone_surrogate_is_refused_and_nothing_of_it_told(
    construct: Callable[[object], Service], name: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} holds a lone surrogate") as caught:
        construct("correct-horse\udc42battery")
    assert list(chain(caught.value)) == [caught.value]
    told = told_by(caught.value).lower()
    assert not any(part in told for part in ("correct", "horse", "battery", "dc42", "13"))


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("http://chat.example", True),
        ("http://chat.example:3000/a", True),
        ("http://192.168.0.1", True),
        ("http://127.chat.example", True),
        ("http://127.0.0.1.example", True),
        ("http://localhost.example", True),
        ("http://[::2]", True),
        ("https://chat.example", False),
        ("http://localhost:3000", False),
        ("http://127.0.0.1", False),
        ("http://127.1.2.3:3000/a", False),
        ("http://[0::1]:3000", False),
    ],
)
def test_a_password_is_exposed_where_it_crosses_a_network_in_plain_text(
    url: str, exposed: bool
) -> None:
    assert Service(url, password="word").exposes_password is exposed
    assert Service(url).exposes_password is False


@pytest.mark.parametrize("encoding", ["wire", "", None, []], ids=repr)
def test_an_unknown_encoding_is_refused(encoding: object) -> None:
    with pytest.raises(ConfigurationError, match="use one of native, flattened, content") as caught:
        Service("https://a", password="correct-horse", encoding=cast("Encoding", encoding))
    assert repr(encoding) in str(caught.value)
    assert "horse" not in told_by(caught.value)


@pytest.mark.parametrize("max_history", [0, -1, True, 2.0, "2"], ids=repr)
def test_a_history_of_no_number_of_messages_is_refused(max_history: object) -> None:
    with pytest.raises(ConfigurationError, match="max_history must be None or an int") as caught:
        Service("https://a", password="correct-horse", max_history=cast("int", max_history))
    assert repr(max_history) in str(caught.value)
    assert "horse" not in told_by(caught.value)


@pytest.mark.parametrize("encoding", ["native", "flattened", "content"])
def test_each_encoding_can_be_chosen(encoding: Encoding) -> None:
    assert Service("https://chat.example", encoding=encoding).encoding == encoding


def test_a_service_speaks_the_browsers_dialect_unless_told() -> None:
    service = Service("https://chat.example")
    assert service.encoding == "native"
    assert service.max_history is None
    assert service.password is None


@given(keys)
def test_the_signer_signs_with_the_key(key: str) -> None:
    service = Service("https://chat.example", key)
    assert service.signer.sign(0, "text") == Signer(key).sign(0, "text")


def test_a_service_without_a_key_says_so_when_it_is_to_sign() -> None:
    service = Service("https://chat.example", password="correct-horse")
    with pytest.raises(
        ConfigurationError,
        match=r"no secret key for https://chat\.example.* secret_key=.*GPROCHAT_SECRET_KEY",
    ):
        _ = service.signer


def test_an_empty_key_is_a_key() -> None:
    assert Service("https://chat.example", secret_key="").signer.sign(0, "") == (
        "d0609c4cf79f05d84dc5065a0f8001d14efd6834343440646d05c888c0b147db"
    )


def test_a_service_does_not_change() -> None:
    service = Service("https://chat.example")
    with pytest.raises(AttributeError):
        service.url = "https://other.example"  # type: ignore[misc]


def test_the_public_deployment_takes_its_key_by_replace() -> None:
    assert GPROCHAT.url == "https://gprochat.com"
    assert GPROCHAT.secret_key is None
    assert GPROCHAT.encoding == "native"
    service = replace(GPROCHAT, secret_key="secret")
    assert service.endpoint == "https://gprochat.com/api/generate"
    assert service.secret_key == "secret"


def test_a_service_is_the_same_after_pickling_and_copying() -> None:
    service = Service("https://chat.example/a/", "key", "password", "content", 3)
    for arrived in (pickle.loads(pickle.dumps(service)), copy.deepcopy(service)):
        assert arrived == service
        assert {arrived: "found"}[service] == "found"
        assert arrived.origin == "https://chat.example"


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://chat.example/b"},
        {"secret_key": "other"},
        {"password": None},
        {"encoding": "native"},
        {"max_history": 4},
    ],
    ids=str,
)
def test_a_service_with_one_difference_is_another(change: dict[str, Any]) -> None:
    service = Service("https://chat.example/a/", "key", "password", "content", 3)
    assert replace(service, **change) != service


def test_a_replaced_url_has_its_own_origin_and_is_checked() -> None:
    service = Service("https://chat.example")
    assert replace(service, url="https://other.example/").origin == "https://other.example"
    with pytest.raises(ConfigurationError):
        replace(service, url="ftp://other.example")
    assert pickle.loads(pickle.dumps(service)).origin == "https://chat.example"


@given(st.none() | texts)
def test_every_name_of_a_model_becomes_the_one_known_model(model: str | None) -> None:
    assert get_model(model) == DEFAULT_MODEL == "gemini-1.5-pro"
