"""What headers tell beside the status: dates, waits, a clock that is off."""

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_core import (
    AuthenticationError,
    BadRequest,
    NotTheService,
    PasswordRejected,
    RateLimited,
    Redactor,
    ServiceFailed,
    SignatureRejected,
)
from gprochat_core.diagnosis import (
    MAX_ERROR_BODY,
    diagnose,
    is_html,
    is_settled_by_head,
    read_headers,
    read_http_date,
    read_requested_wait,
)
from gprochat_core.messages import ENCODINGS, Encoding
from gprochat_core.policy import is_transient

from .timing import cpu_time

# RFC 9110, section 5.6.7: one moment in the three forms.
THE_RFCS_MOMENT = 784111777.0
THREE_FORMS = [
    pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="IMF-fixdate"),
    pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="RFC 850"),
    pytest.param("Sun Nov  6 08:49:37 1994", id="asctime"),
]


def openais(message: str, code: str | None) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json.dumps({"error": error}).encode()


# Headers


def test_headers_are_found_by_lower_case_name_and_joined_where_there_are_several() -> None:
    headers = [(b"Content-Type", b" text/plain "), (b"VIA", b"a"), (b"via", b"b"), (b"via", b"")]
    assert read_headers(200, headers, 1000) == {"content-type": "text/plain", "via": "a, b, "}


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5))
def test_any_bytes_are_headers(headers: list[tuple[bytes, bytes]]) -> None:
    names = {name.decode("latin-1").lower() for name, _ in headers}
    assert read_headers(200, headers, 1000).keys() == names


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/html", True),
        ("Text/HTML; charset=utf-8", True),
        ("text/html;", True),
        ("application/xhtml+xml", True),
        ("text/plain", False),
        ("text/htmlish", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_a_page_is_known_by_its_content_type(content_type: str, expected: bool) -> None:
    assert is_html({"content-type": content_type}) is expected


def test_without_a_content_type_nothing_is_a_page() -> None:
    assert not is_html({})


def test_only_a_status_that_an_error_of_the_service_may_have_needs_its_body() -> None:
    statuses = range(100, 700)
    need_their_body = [status for status in statuses if not is_settled_by_head(status, {})]
    assert need_their_body == [status for status in range(400, 600) if status != 405]


# Dates


@pytest.mark.parametrize("text", THREE_FORMS)
def test_all_three_forms_of_a_date_are_read(text: str) -> None:
    assert read_http_date(text) == THE_RFCS_MOMENT


@given(st.datetimes(min_value=datetime.fromisoformat("0100-01-01"), timezones=st.just(UTC)))
def test_every_moment_survives_the_way_over_a_header(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    assert read_http_date(format_datetime(moment, usegmt=True)) == moment.timestamp()


@pytest.mark.parametrize(
    ("year", "expected"), [("00", 2000), ("69", 2069), ("70", 1970), ("99", 1999)]
)
def test_a_year_of_two_digits_is_the_likelier_one(year: str, expected: int) -> None:
    moment = datetime(expected, 11, 6, 8, 49, 37, tzinfo=UTC)
    assert read_http_date(f"Sunday, 06-Nov-{year} 08:49:37 GMT") == moment.timestamp()


def test_a_year_of_four_digits_is_that_year() -> None:
    moment = datetime(100, 11, 6, 8, 49, 37, tzinfo=UTC)
    assert read_http_date("Sat, 06 Nov 0100 08:49:37 GMT") == moment.timestamp()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system's time zone cannot be set")
def test_a_date_is_the_same_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "UTC-9")
        time.tzset()
        try:
            assert read_http_date("Sun, 06 Nov 1994 08:49:37 GMT") == THE_RFCS_MOMENT
        finally:
            elsewhere.undo()
            time.tzset()


def test_a_leap_second_is_the_second_before_it() -> None:
    assert read_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == read_http_date(
        "Sat, 31 Dec 2016 23:59:59 GMT"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "17",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert read_http_date(text) is None


digits = st.text(alphabet="0123456789", min_size=1, max_size=4)


@given(
    st.one_of(
        st.text(),
        st.builds("{0}, {1} {2} {3} {4}:{5}:{6} GMT".format, *[digits] * 7),
        st.builds("Sun, {0} Nov {1} {2}:{3}:{4} GMT".format, *[digits] * 5),
        st.from_regex(r"[A-Z][a-z]{2}, \d\d (Jan|Feb) \d{4} \d\d:\d\d:\d\d GMT", fullmatch=True),
        st.from_regex(r"[A-Z][a-z]{2} (Jan|Feb) [ \d]\d \d\d:\d\d:\d\d \d{4}", fullmatch=True),
    )
)
def test_any_text_is_a_moment_or_none(text: str) -> None:
    moment = read_http_date(text)
    assert moment is None or datetime.fromtimestamp(moment, UTC).timestamp() == moment


# Retry-After


def retry_after(headers: dict[str, str], *, now: float | None = None) -> float | None:
    error = diagnose(429, headers, b"", now=now)
    assert isinstance(error, RateLimited)
    return error.retry_after


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("007", 7.0),
        ("86400", 86400.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("5, 10", None),
        ("٧", None),
        ("²", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_nothing(value: str, expected: float | None) -> None:
    assert retry_after({"retry-after": value}, now=0) == expected


def test_without_a_retry_after_nothing_is_asked() -> None:
    assert retry_after({}, now=0) is None


@pytest.mark.parametrize("digits", [13, 400, 5000])
def test_an_absurd_wait_is_a_very_long_one(digits: int) -> None:
    seconds = retry_after({"retry-after": "9" * digits})
    assert seconds is not None
    assert 1e9 < seconds < float("inf")


@pytest.mark.parametrize("text", THREE_FORMS)
def test_a_retry_after_date_is_measured_against_the_responses_own_date(text: str) -> None:
    headers = {"retry-after": text, "date": "Sun, 06 Nov 1994 08:49:00 GMT"}
    assert retry_after(headers, now=5e9) == 37.0


@pytest.mark.parametrize("date", [{}, {"date": "yesterday"}])
def test_without_a_date_of_the_response_it_is_measured_against_now(date: dict[str, str]) -> None:
    headers = {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", **date}
    assert retry_after(headers, now=THE_RFCS_MOMENT - 2.5) == 2.5
    assert retry_after(headers) is None


def test_a_retry_after_date_in_the_past_asks_for_no_wait() -> None:
    assert retry_after({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, now=2e9) == 0.0


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_failure_carries_its_retry_after_too(status: int) -> None:
    error = diagnose(status, {"retry-after": "7"}, b"")
    assert isinstance(error, ServiceFailed)
    assert error.retry_after == 7.0
    date = {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}
    error = diagnose(status, date, b"", now=THE_RFCS_MOMENT - 5)
    assert isinstance(error, ServiceFailed)
    assert error.retry_after == 5.0


@pytest.mark.parametrize(("value", "advice"), [("7", "try again in 7 s"), ("", "try again later")])
def test_a_rate_limit_says_when_to_try_again(value: str, advice: str) -> None:
    assert advice in str(diagnose(429, {"retry-after": value}, b""))


# The model's rate limit, inside a 500

QUOTA = "[GoogleGenerativeAI Error]: Error fetching from https://models.example: "


def limited(message: str, headers: dict[str, str] | None = None) -> RateLimited:
    body = json.dumps({"error": {"message": QUOTA + message, "code": "Error"}}).encode()
    error = diagnose(500, headers or {}, body)
    assert isinstance(error, RateLimited)
    return error


@pytest.mark.parametrize(
    "message",
    [
        "[429 Too Many Requests] You exceeded your current quota.",
        "[429 ] Resource has been exhausted (e.g. check quota).",
        "[429] Resource has been exhausted (e.g. check quota).",
        "Quota exceeded for metric x.",
    ],
)
def test_a_models_rate_limit_is_one_with_or_without_a_reason_phrase(message: str) -> None:
    assert limited(message).retry_after is None


@pytest.mark.parametrize("padding", [0, 600, 30_000])
@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please retry in 3.4s.", 3.4),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Please retry in 559.5ms.", 0.5595),
        ("Please retry in 2m3.5s.", 123.5),
        ("Please retry in 14h2m3s.", 50523.0),
        ("Please retry in 5m.", 300.0),
        ('[{"@type":"RetryInfo","retryDelay":"3s"}]', 3.0),
        (r"[{\"retryDelay\": \"3.25s\"}]", 3.25),
        ('Please retry in 3.4s. [{"retryDelay":"3s"}]', 3.4),
        ('Please retry in 1ms. [{"retryDelay":"3s"}]', 3.0),
    ],
)
def test_the_wait_that_a_model_asks_for_is_found_anywhere_in_its_message(
    words: str, seconds: float, padding: int
) -> None:
    error = limited(f"[429 Too Many Requests] Quota. {'x' * padding} {words} {'x' * padding}")
    assert error.retry_after == pytest.approx(seconds)
    assert f"try again in {ceil(seconds)} s" in str(error)


@pytest.mark.parametrize(
    "words", ["retry in a while", "retry in ms", "retry in s", '"retryDelay":"s"', "retry in ٣s"]
)
def test_words_without_a_time_ask_for_no_wait(words: str) -> None:
    assert limited(f"[429 ] {words}").retry_after is None


def test_a_retry_after_header_comes_before_the_models_words() -> None:
    assert limited("[429 ] Please retry in 3.4s.", {"retry-after": "7"}).retry_after == 7.0


def test_reading_the_wait_takes_time_linear_in_the_message() -> None:
    measure = partial(cpu_time, read_requested_wait)
    for piece in ("retry in ", "9", "retryDelay", "\\", '"retryDelay": ', "retry in 999999h"):
        short, long = (piece * (size // len(piece)) for size in (16_384, 65_536))
        taken = min(measure(long) for _ in range(3))
        assert taken < 12 * min(measure(short) for _ in range(3)) + 0.01


# The model refuses the deployment


@pytest.mark.parametrize("padding", [0, 600])
@pytest.mark.parametrize(
    ("message", "whose"),
    [
        ("[400 Bad Request] API key not valid. Please pass a valid API key.", "API key"),
        ("[400 Bad Request] API key expired. Please renew the API key.", "API key"),
        ('[400 ] [{"reason":"API_KEY_INVALID"}]', "API key"),
        ("[403 Forbidden] Your API key was reported as leaked.", "API key"),
        ("[400 Bad Request] User location is not supported for the API use.", "location"),
    ],
)
def test_what_only_the_owner_can_correct_is_permanent_and_says_whose_trouble_it_is(
    message: str, whose: str, padding: int
) -> None:
    body = json.dumps({"error": {"message": "x" * padding + message, "code": "Error"}}).encode()
    error = diagnose(500, {}, body)
    assert type(error) is ServiceFailed
    assert error.permanent
    assert not is_transient(error)
    assert f"the deployment's {whose}; only the deployment's owner can correct this" in str(error)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "invalid_api_key"),
        (403, "unsupported_country_region_territory"),
        (404, "model_not_found"),
    ],
)
def test_a_refusal_that_the_service_passes_through_is_the_deployments_trouble(
    status: int, code: str
) -> None:
    error = diagnose(status, {}, openais("The signature or password xyz is no good", code))
    assert type(error) is ServiceFailed
    assert (error.status, error.code, error.permanent) == (status, code, True)
    assert error.message == "The signature or password xyz is no good"
    assert error.message in str(error)
    assert "only the deployment's owner can correct this" in str(error)
    assert not is_transient(error)


def test_a_rate_limit_that_the_service_passes_through_is_one() -> None:
    error = diagnose(429, {}, openais("Rate limit reached", "rate_limit_exceeded"))
    assert type(error) is RateLimited
    assert error.code == "rate_limit_exceeded"


def test_a_wrong_request_that_the_service_passes_through_is_the_callers() -> None:
    error = diagnose(400, {}, openais("too long", "context_length_exceeded"))
    assert type(error) is BadRequest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Not Found",
        b'{"error":"Not Found"}',
        b'{"error":{"message":"Not Found","code":"404"}}',
        openais("Invalid URL (POST /api/generate)", None),
        openais("Unknown request URL: POST /api/generate.", "unknown_url"),
    ],
)
def test_any_other_404_is_a_strangers(body: bytes) -> None:
    assert type(diagnose(404, {}, body)) is NotTheService


def test_any_other_failure_is_not_permanent() -> None:
    error = diagnose(500, {}, b"fetch failed")
    assert not error.permanent
    assert is_transient(error)


# Passwords, signatures, clocks


def rejected(message: str, headers: dict[str, str], now: float | None) -> AuthenticationError:
    error = diagnose(401, headers, f'{{"error": {{"message": "{message}"}}}}'.encode(), now=now)
    assert isinstance(error, AuthenticationError)
    return error


DATE = {"date": "Sun, 06 Nov 1994 08:49:37 GMT"}


@pytest.mark.parametrize(
    ("behind", "wording"),
    [
        (90.0, "the clock: it is 90 s behind the service's"),
        (-3600.0, "the clock: it is 3600 s ahead of the service's"),
        (2.0, "it is 2 s behind"),
    ],
)
def test_a_rejected_signature_tells_how_far_the_clock_is_off(behind: float, wording: str) -> None:
    error = rejected("Invalid signature.", DATE, THE_RFCS_MOMENT - behind)
    assert isinstance(error, SignatureRejected)
    assert error.clock_skew == behind
    assert wording in str(error)
    assert "check the secret key, and" in str(error)


@pytest.mark.parametrize("behind", [0.0, 1.0, -0.9])
def test_a_clock_that_is_right_but_for_rounding_is_not_blamed(behind: float) -> None:
    error = rejected("Invalid signature.", DATE, THE_RFCS_MOMENT - behind)
    assert error.clock_skew == pytest.approx(behind)
    assert "clock" not in str(error)
    assert "secret key" in str(error)


@pytest.mark.parametrize(("headers", "now"), [({}, 1e9), ({"date": "?"}, 1e9), (DATE, None)])
def test_a_clock_that_cannot_be_compared_is_not_blamed(
    headers: dict[str, str], now: float | None
) -> None:
    error = rejected("Invalid signature.", headers, now)
    assert error.clock_skew is None
    assert "clock" not in str(error)


def test_a_rejected_password_is_not_the_clocks_fault() -> None:
    error = rejected("Invalid password.", DATE, 0.0)
    assert type(error) is PasswordRejected
    assert error.clock_skew == THE_RFCS_MOMENT
    assert "clock" not in str(error)
    assert "set the deployment's password" in str(error)


def test_a_rejection_that_names_neither_points_to_both() -> None:
    error = rejected("No.", DATE, 0.0)
    assert type(error) is AuthenticationError
    assert "check secret key and password" in str(error)


# A wrong encoding


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_rejected_signature_may_be_the_encodings_fault(encoding: Encoding) -> None:
    body = b'{"error": {"message": "Invalid signature."}}'
    said = str(diagnose(401, {}, body, encoding=encoding))
    assert "check the secret key" in said
    assert ('encoding="content"' in said) is (encoding != "content")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("body", [b"", b"fetch failed"])
def test_a_500_without_a_message_may_be_the_encodings_fault(
    encoding: Encoding, body: bytes
) -> None:
    said = str(diagnose(500, {}, body, encoding=encoding))
    assert "try again later" in said
    assert ('encoding="native"' in said) is (encoding == "content" and not body)


# Advice


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (400, b"", "the request must change"),
        (413, b"", "shorten the conversation"),
        (500, b"API key not valid. Pass another.", "trying again changes nothing"),
        (500, b"", "try again later"),
        (404, b"", "check the URL"),
        (300, b"", "set the service's URL to its new address"),
        (399, b"", "set the service's URL to its new address"),
    ],
)
def test_an_error_says_what_to_do(status: int, body: bytes, advice: str) -> None:
    assert advice in str(diagnose(status, {}, body))


@pytest.mark.parametrize("status", [200, 400, 404, 418])
def test_a_page_is_told_to_be_one(status: int) -> None:
    error = diagnose(status, {"content-type": "text/html"}, b"")
    assert f"answered {status} with an HTML page, which" in str(error)


def test_what_is_no_page_is_not_told_to_be_one() -> None:
    assert "answered 404, which" in str(diagnose(404, {}, b""))


@pytest.mark.parametrize("status", [400, 401, 408, 413, 429, 500])
def test_an_error_carries_its_code(status: int) -> None:
    error = diagnose(status, {}, b'{"error": {"message": "No.", "code": "E7"}}')
    assert error.code == "E7"


def test_a_secret_in_a_location_is_redacted_and_the_rest_of_it_told() -> None:
    headers = {"location": "https://elsewhere.example/?pass=open-sesame"}
    error = diagnose(302, headers, b"", redactor=Redactor(["open-sesame"]))
    assert isinstance(error, NotTheService)
    assert error.location == "https://elsewhere.example/?pass=***"
    assert "open-sesame" not in str(error)


@pytest.mark.parametrize("location", ["\x80open-sesame", "open-sesame\x80"])
def test_a_secret_is_redacted_where_a_location_is_quoted_with_escapes(location: str) -> None:
    error = diagnose(302, {"location": location}, b"", redactor=Redactor(["open-sesame"]))
    assert isinstance(error, NotTheService)
    assert repr(location.replace("open-sesame", "***")) in str(error)


@pytest.mark.parametrize("padding", [0, 490, 499, 1990, 1999])
def test_a_secret_is_redacted_before_a_message_is_cut(padding: int) -> None:
    body = (" " * 7 * padding + "x" * padding + "open-sesame").encode()
    error = diagnose(500, {}, body, redactor=Redactor(["open-sesame"]))
    assert "open" not in f"{error} {error.message}"


def test_a_secret_that_white_space_would_hide_is_redacted() -> None:
    for secret in ("open  sesame", "open\nsesame", "open\x85sesame"):
        error = diagnose(500, {}, f"no {secret} here".encode(), redactor=Redactor([secret]))
        assert error.message == "no *** here"


@pytest.mark.parametrize("secret", ["password", "Invalid", "signature", "error", "message", ":"])
def test_a_secret_that_is_a_word_of_the_service_changes_no_diagnosis(secret: str) -> None:
    redactor = Redactor([secret])
    for message, kind in (
        ("Invalid password.", PasswordRejected),
        ("Invalid signature.", SignatureRejected),
    ):
        body = json.dumps({"error": {"message": message}}).encode()
        error = diagnose(401, {}, body, redactor=redactor)
        assert type(error) is kind
        assert error.message == message.replace(secret, "***")


def test_of_an_error_64_kib_are_read() -> None:
    assert MAX_ERROR_BODY == 65_536


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_service_that_says_nothing_is_not_quoted(status: int) -> None:
    assert '""' not in str(diagnose(status, {}, b""))
