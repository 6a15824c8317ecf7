"""What the environment says: the service, and the proxy."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import GPROCHAT, ConfigurationError, Service
from gprochat_transports import FROM_ENVIRONMENT, service_from_environment
from gprochat_transports.environment import (
    basic_authorization,
    credentials_of,
    find_proxy,
    proxy_secrets,
    without_credentials,
)
from tests.core.leaks import told_by

SERVICE = "https://chat.example"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("GPROCHAT_"):
            monkeypatch.delenv(name)


class TestTheService:
    @pytest.mark.parametrize("url", [{}, {"GPROCHAT_URL": ""}])
    def test_without_a_url_there_is_an_error_that_names_the_variable(
        self, url: dict[str, str]
    ) -> None:
        secrets = {"GPROCHAT_SECRET_KEY": "key", "GPROCHAT_PASSWORD": "sesame"}
        with pytest.raises(ConfigurationError, match="no URL: set GPROCHAT_URL") as caught:
            service_from_environment(url | secrets)
        assert "sesame" not in told_by(caught.value)

    def test_an_argument_names_the_url_in_place_of_the_variable(self) -> None:
        environ = {"GPROCHAT_SECRET_KEY": "key", "GPROCHAT_PASSWORD": "sesame"}
        expected = Service(SERVICE, secret_key="key", password="sesame")
        assert service_from_environment(environ, url=SERVICE) == expected
        environ["GPROCHAT_URL"] = f"{SERVICE}/"
        assert service_from_environment(environ, url=SERVICE) == expected

    def test_the_variables_secrets_are_for_their_url_alone(self) -> None:
        environ = {
            "GPROCHAT_URL": "https://other.example",
            "GPROCHAT_SECRET_KEY": "key",
            "GPROCHAT_PASSWORD": "sesame",
        }
        assert service_from_environment(environ, url=SERVICE) == Service(SERVICE)
        own = Service(SERVICE, secret_key="own", password="word")
        assert service_from_environment(environ, url=SERVICE, default=own) == own

    @pytest.mark.parametrize("environ", [{}, {"GPROCHAT_URL": "https://other.example"}])
    def test_the_secrets_of_the_default_are_for_its_url_alone(
        self, environ: dict[str, str]
    ) -> None:
        default = Service(SERVICE, secret_key="key", password="word")
        url = None if environ else "https://other.example"
        service = service_from_environment(environ, url=url, default=default)
        assert service == Service("https://other.example")

    def test_the_password_is_never_sent_to_a_url_that_only_the_default_names(self) -> None:
        environ = {"GPROCHAT_SECRET_KEY": "key", "GPROCHAT_PASSWORD": "sesame"}
        service = service_from_environment(environ, default=GPROCHAT)
        assert service == Service(GPROCHAT.url, secret_key="key")
        named = service_from_environment({**environ, "GPROCHAT_URL": GPROCHAT.url})
        assert named.password == "sesame"

    def test_each_variable_sets_its_field(self) -> None:
        environ = {
            "GPROCHAT_URL": "https://chat.example/",
            "GPROCHAT_SECRET_KEY": "ключ",
            "GPROCHAT_PASSWORD": "open sesame",
        }
        assert service_from_environment(environ) == Service(
            "https://chat.example", secret_key="ключ", password="open sesame"
        )

    def test_it_is_read_when_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GPROCHAT_URL", SERVICE)
        monkeypatch.setenv("GPROCHAT_SECRET_KEY", "later")
        assert service_from_environment().secret_key == "later"

    def test_what_is_not_set_is_as_in_the_default(self) -> None:
        default = Service(SERVICE, secret_key="key", password="word", encoding="flattened")
        assert service_from_environment({}, default=default) == default

    def test_what_is_set_overrides_the_default(self) -> None:
        environ = {"GPROCHAT_URL": "http://other.example", "GPROCHAT_SECRET_KEY": "other"}
        default = Service(SERVICE, secret_key="key", encoding="flattened")
        assert service_from_environment(environ, default=default) == Service(
            "http://other.example", secret_key="other", encoding="flattened"
        )

    def test_an_empty_password_is_none(self) -> None:
        environ = {"GPROCHAT_URL": SERVICE, "GPROCHAT_PASSWORD": ""}
        assert service_from_environment(environ) == Service(SERVICE)

    def test_an_empty_secret_key_is_one(self) -> None:
        environ = {"GPROCHAT_URL": SERVICE, "GPROCHAT_SECRET_KEY": ""}
        assert service_from_environment(environ).secret_key == ""

    def test_an_unusable_url_is_refused_without_its_password(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            service_from_environment({"GPROCHAT_URL": "https://user:sesame@chat.example"})
        assert "sesame" not in told_by(caught.value)


class TestTheProxyOfTheEnvironment:
    def test_there_is_none_by_default(self) -> None:
        assert find_proxy(SERVICE, FROM_ENVIRONMENT) is None

    @pytest.mark.parametrize(
        ("name", "url", "used"),
        [
            ("HTTPS_PROXY", "https://chat.example", True),
            ("https_proxy", "https://chat.example", True),
            ("HTTPS_PROXY", "http://chat.example", False),
            ("HTTP_PROXY", "http://chat.example", True),
            ("http_proxy", "http://chat.example", True),
            ("HTTP_PROXY", "https://chat.example", False),
            ("ALL_PROXY", "https://chat.example", True),
            ("ALL_PROXY", "http://chat.example", True),
            ("all_proxy", "http://chat.example", True),
        ],
    )
    def test_the_urls_scheme_chooses_it(
        self, monkeypatch: pytest.MonkeyPatch, name: str, url: str, used: bool
    ) -> None:
        monkeypatch.setenv(name, "http://proxy.example:3128")
        expected = "http://proxy.example:3128" if used else None
        assert find_proxy(url, FROM_ENVIRONMENT) == expected

    def test_the_schemes_own_comes_before_the_one_for_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", "http://all.example:1")
        monkeypatch.setenv("HTTPS_PROXY", "http://own.example:2")
        assert find_proxy(SERVICE, FROM_ENVIRONMENT) == "http://own.example:2"

    @pytest.mark.skipif(os.name == "nt", reason="names of variables have no case there")
    def test_lower_case_comes_before_upper_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://upper.example:1")
        monkeypatch.setenv("https_proxy", "http://lower.example:2")
        assert find_proxy(SERVICE, FROM_ENVIRONMENT) == "http://lower.example:2"

    def test_it_may_be_written_without_a_scheme(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
        assert find_proxy(SERVICE, FROM_ENVIRONMENT) == "http://proxy.example:3128"

    def test_an_argument_comes_before_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        assert find_proxy(SERVICE, "http://own.example:1") == "http://own.example:1"

    def test_none_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        assert find_proxy(SERVICE, None) is None

    def test_an_unusable_one_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "ftp://user:sesame@proxy.example")
        with pytest.raises(ConfigurationError) as caught:
            find_proxy(SERVICE, FROM_ENVIRONMENT)
        assert "sesame" not in told_by(caught.value)

    @pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
    @pytest.mark.parametrize(
        ("no_proxy", "url", "bypassed"),
        [
            ("*", "https://chat.example", True),
            ("chat.example", "https://chat.example", True),
            ("CHAT.example", "https://chat.example", True),
            ("chat.example", "https://chat.example:8443", True),
            ("chat.example:8443", "https://chat.example:8443", True),
            ("chat.example:8443", "https://chat.example", False),
            ("other.example, chat.example", "https://chat.example", True),
            ("example", "https://chat.example", True),
            (".example", "https://chat.example", True),
            ("hat.example", "https://chat.example", False),
            ("other.example", "https://chat.example", False),
            ("127.0.0.1", "https://127.0.0.1:8000", True),
            ("::1", "https://[::1]", True),
            ("::1", "https://[::1]:8000", True),
            ("[::1]", "https://[::1]:8000", True),
            ("::1", "https://[::2]:8000", False),
            ("10.0.0.0/8", "https://10.1.2.3:8000", True),
            ("10.0.0.0/8", "https://11.1.2.3", False),
            ("10.1.2.3/8", "https://10.3.2.1", True),
            ("chat.example, 10.0.0.0/8 ,192.168.0.0/16", "https://192.168.7.7", True),
            ("10.0.0.0/8", "https://chat.example", False),
            ("fd00::/8", "https://[fd12::1]:8000", True),
            ("fd00::/8", "https://[fe80::1]", False),
            ("10.0.0.0/8", "https://[::1]", False),
            ("::/0", "https://10.1.2.3", False),
            ("10.0.0.0/99,10.0.0.0/", "https://10.1.2.3", False),
        ],
    )
    def test_no_proxy_names_hosts_without(
        self, monkeypatch: pytest.MonkeyPatch, name: str, no_proxy: str, url: str, bypassed: bool
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        monkeypatch.setenv(name, no_proxy)
        expected = None if bypassed else "http://proxy.example:3128"
        assert find_proxy(url, FROM_ENVIRONMENT) == expected

    def test_no_proxy_does_not_change_an_argument(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "*")
        assert find_proxy(SERVICE, "http://own.example:1") == "http://own.example:1"


class TestAProxysURL:
    @pytest.mark.parametrize(
        ("given", "found"),
        [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example:3128/", "http://proxy.example:3128"),
            ("HTTP://Proxy.Example:3128", "http://proxy.example:3128"),
            ("http://proxy.example", "http://proxy.example:80"),
            ("socks5://proxy.example", "socks5://proxy.example:1080"),
            ("socks5h://proxy.example:9050", "socks5://proxy.example:9050"),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("http://[::1]", "http://[::1]:80"),
            ("http://user:pass@proxy.example:1", "http://user:pass@proxy.example:1"),
            ("http://u%40x:p%3A@proxy.example:1", "http://u%40x:p%3A@proxy.example:1"),
            ("socks5h://user:p@ss@proxy.example", "socks5://user:p@ss@proxy.example:1080"),
            ("http://us%C3%A9r@proxy.example:1", "http://us%C3%A9r@proxy.example:1"),
            ("http://:word@proxy.example:1", "http://:word@proxy.example:1"),
        ],
    )
    def test_it_is_made_whole(self, given: str, found: str) -> None:
        assert find_proxy(SERVICE, given) == found

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("", "must begin with"),
            ("proxy.example:3128", "must begin with"),
            ("https://user:sesame@proxy.example", "must begin with"),
            ("socks4://user:sesame@proxy.example", "must begin with"),
            ("http://", "no host"),
            ("http://user:sesame@", "no host"),
            ("http://:3128", "no host"),
            ("http://user:sesame@pro\u00adxy.example", "no valid host"),
            (f"http://user:sesame@{'p' * 64}.example", "no valid host"),
            ("http://user:sesame@proxy.example:port", "invalid port"),
            ("http://user:sesame@proxy.example:99999", "invalid port"),
            ("http://user:sesame/@proxy.example", "invalid port"),
            ("http://user:sesame@[::1", "IPv6 address"),
            ("http://user:sesame @proxy.example", "white space"),
            ("http://user:sesame\n@proxy.example", "white space"),
            ("http://user:12#sesame@proxy.example", "after the port"),
            ("http://user:12/sesame@proxy.example", "after the port"),
            ("http://user:12?sesame@proxy.example", "after the port"),
            ("socks5://user@proxy.example", "a user and a password"),
            ("socks5://user:@proxy.example", "a user and a password"),
            ("socks5h://:sesame@proxy.example", "a user and a password"),
            ("socks5://user:sesamé@proxy.example", "ASCII"),
            ("socks5://us%C3%A9r:sesame@proxy.example", "ASCII"),
            (f"socks5://{'u' * 256}:sesame@proxy.example", "255"),
        ],
    )
    def test_what_cannot_be_used_is_refused_without_its_password(self, url: str, why: str) -> None:
        with pytest.raises(ConfigurationError, match=why) as caught:
            find_proxy(SERVICE, url)
        assert "sesame" not in told_by(caught.value)

    @given(st.text() | st.text().map("http://{}".format))
    def test_any_text_is_used_or_refused(self, url: str) -> None:
        try:
            found = find_proxy(SERVICE, url)
        except ConfigurationError:
            return
        assert found is not None
        assert find_proxy(SERVICE, found) == found


def test_a_proxy_whose_library_is_missing_is_refused_with_what_to_install() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no_such_library: pip install 'gprochat\[socks\]'"
    ):
        find_proxy(SERVICE, "socks5://proxy.example", socks5="no_such_library")
    assert find_proxy(SERVICE, "http://proxy.example", socks5="no_such_library")


class TestAProxysUserAndPassword:
    def test_they_are_split_from_the_url_and_decoded(self) -> None:
        url = "http://us%40er:w%3Ard@proxy.example:3128"
        assert without_credentials(url) == "http://proxy.example:3128"
        assert credentials_of(url) == ("us@er", "w:rd")
        assert without_credentials("socks5://[::1]:1080") == "socks5://[::1]:1080"
        assert credentials_of("socks5://[::1]:1080") == ("", "")

    def test_the_repr_of_a_proxys_url_shows_neither(self) -> None:
        found = find_proxy(SERVICE, "http://us%40er:w%3Ard@proxy.example:3128")
        assert repr(found) == "<proxy http://proxy.example:3128>"

    def test_they_are_sent_in_a_header(self) -> None:
        assert basic_authorization("http://user:word@proxy.example:3128") == [
            ("Proxy-Authorization", "Basic dXNlcjp3b3Jk")
        ]
        assert basic_authorization("http://proxy.example:3128") == []

    def test_the_password_and_the_header_that_carries_it_are_secrets(self) -> None:
        assert proxy_secrets("http://user:word@proxy.example:3128") == ["word", "dXNlcjp3b3Jk"]

    @pytest.mark.parametrize("url", [None, "http://proxy.example:3128", "http://user@proxy:3128"])
    def test_without_a_password_there_is_no_secret(self, url: str | None) -> None:
        assert proxy_secrets(url) == []
