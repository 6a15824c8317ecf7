"""Decides which error an answer is, from the status, headers and body of what is not a reply.

The table is in docs/protocol.md, "Errors". Gateways send some statuses (408, 413, 429, 5xx) with
any body, also with an HTML page. With any other status, an HTML page means that the server is not a
service of this family.
"""

import json
import re
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Final

from .errors import (
    AuthenticationError,
    BadRequest,
    NotTheService,
    PasswordRejected,
    RateLimited,
    ResponseError,
    ServiceFailed,
    SignatureRejected,
)
from .messages import Encoding
from .redaction import Redactor

__all__ = [
    "MAX_ERROR_BODY",
    "diagnose",
    "is_html",
    "is_settled_by_head",
    "one_line",
    "read_clock_skew",
    "read_headers",
    "read_http_date",
]

MAX_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error's body that are read; no message is longer."""

MAX_MESSAGE: Final = 500
"""Characters of a service's message that an error quotes at most."""

HIDDEN_RATE_LIMIT: Final = ("[429 ", "[429]", "429 Too Many Requests", "Quota exceeded")
"""What the message of a 500 contains if the model's rate limit caused it."""

# Compiled when it is first used: few answers ask for a wait.
REQUESTED_WAIT: Final = (
    # The sentence has Go's durations, such as 1h2m3.4s or 250ms; the detail has seconds. Within a
    # message, quotes may be escaped.
    r"""
    retry\ in\ (?:(?P<hours>\d{1,6})h)?(?:(?P<minutes>\d{1,6})m(?!s))?
        (?:(?P<seconds>\d{1,9}(?:\.\d{1,12})?)(?P<milli>m?)s)?
    | retryDelay\\{0,8}"\s{0,8}:\s{0,8}\\{0,8}"(?P<delay>\d{1,9}(?:\.\d{1,12})?)s
    """
)
"""How the message of a model's rate limit says how long to wait."""

KEY_REFUSED: Final = "the model refuses the deployment's API key"

PERMANENT: Final = {
    "API key not valid": KEY_REFUSED,
    "API key expired": KEY_REFUSED,
    "API_KEY_INVALID": KEY_REFUSED,
    "reported as leaked": KEY_REFUSED,
    "User location is not supported": "the model does not serve the deployment's location",
}
"""What the message of a 5xx contains if trying again changes nothing, and what that means."""

ONLY_THE_OWNER: Final = "only the deployment's owner can correct this, trying again changes nothing"

NO_SECRETS: Final = Redactor(())

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Compiled when it is first used: few answers need a date read.
HTTP_DATE: Final = (
    # RFC 9110, section 5.6.7: IMF-fixdate and the obsolete RFC 850 form, then asctime's.
    r"[A-Za-z]+, (?P<day>\d\d)[ -](?P<month>[A-Z][a-z]{2})[ -](?P<year>\d{4}|\d\d) "
    r"(?P<time>\d\d:\d\d:\d\d) GMT"
    r"|[A-Za-z]+ (?P<month2>[A-Z][a-z]{2}) (?P<day2>[ \d]\d) (?P<time2>\d\d:\d\d:\d\d) "
    r"(?P<year2>\d{4})"
)


def read_headers(
    status: int, headers: Iterable[tuple[bytes, bytes]], max_bytes: int
) -> dict[str, str]:
    """Return headers by lower-case name; commas join the values of one name (RFC 9110, 5.3).

    Raises:
        NotTheService: no honest service sends such headers, whether or not the transport accepts
            them: they are longer than `max_bytes`, they give two lengths of the body, which
            different programs would read differently (RFC 9112, 6.3), or they name another
            transfer coding than chunked, which nobody asked for (RFC 9112, 7.4).
    """
    size = 0
    fields: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for raw_name, raw_value in headers:
        # The line of a header also has a colon, a space and a line break.
        size += len(raw_name) + len(raw_value) + 4
        name = raw_name.decode("latin-1").lower()
        value = raw_value.decode("latin-1").strip()
        if name in fields:
            repeated.setdefault(name, [fields[name]]).append(value)
        else:
            fields[name] = value
    if size > max_bytes:
        raise NotTheService(
            f"the response's headers are {size} bytes long, more than {max_bytes}; "
            "check what is at this URL",
            status=status,
        )
    if "content-length" in fields:
        lengths = set(repeated.get("content-length", ()))
        if len(lengths) > 1 or "transfer-encoding" in fields:
            raise NotTheService(
                "the response gives its length in two ways, so its end cannot be known; "
                "check what stands in front of the service",
                status=status,
            )
    for name, values in repeated.items():
        fields[name] = ", ".join(values)
    coding = fields.get("transfer-encoding", "chunked")
    if coding.lower() != "chunked":
        raise NotTheService(
            "the response has another transfer coding than chunked; "
            "check what stands in front of the service",
            status=status,
        )
    return fields


def read_http_date(text: str) -> float | None:
    """Return an HTTP date (RFC 9110, 5.6.7) as Unix time in seconds; None for any other text."""
    match = re.fullmatch(HTTP_DATE, text, re.ASCII)
    if match is None:
        return None
    # Imported here, because few answers need it.
    from datetime import UTC, datetime

    year = int(match["year"] or match["year2"])
    if year < 100:
        # RFC 850's two digits. RFC 9110 puts a year that would be far in the future into the past.
        year += 2000 if year < 70 else 1900
    hour, minute, second = (match["time"] or match["time2"]).split(":")
    try:
        month = MONTHS.index(match["month"] or match["month2"]) + 1
        day = int(match["day"] or match["day2"])
        # datetime has no second 60, which a leap second is.
        date = datetime(year, month, day, int(hour), int(minute), min(int(second), 59), tzinfo=UTC)
    except ValueError:
        return None
    return date.timestamp()


def read_retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    """Return how many seconds a Retry-After header asks to wait; None if there is none.

    A date is compared with the response's Date header, so that this machine's clock does not
    matter, or with `now`, Unix time in seconds, if the response has no Date header.
    """
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        # 12 digits are longer than any wait; int() refuses thousands of digits.
        return float(value[:12])
    date = read_http_date(value)
    reference = read_http_date(headers.get("date", ""))
    if reference is None:
        reference = now
    if date is None or reference is None:
        return None
    return max(0.0, date - reference)


def read_requested_wait(said: str) -> float | None:
    """Return the longest wait in seconds that a model's message asks for; None without one."""
    waits: list[float] = []
    for match in re.finditer(REQUESTED_WAIT, said, re.ASCII | re.VERBOSE):
        hours, minutes, seconds, milli, delay = match.groups()
        if hours or minutes or seconds or delay:
            last = float(seconds or delay or 0) / (1000 if milli else 1)
            waits.append(int(hours or 0) * 3600 + int(minutes or 0) * 60 + last)
    return max(waits, default=None)


def is_html(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is an HTML page, by its Content-Type header."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type in ("text/html", "application/xhtml+xml")


def is_settled_by_head(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether the status and headers alone decide which error an answer is."""
    if status in (408, 413, 429) or 500 <= status <= 599:
        return False
    return is_html(headers) or status == 405 or not 400 <= status <= 499


def read_error_body(headers: Mapping[str, str], body: bytes) -> tuple[str, str | None]:
    """Return the message and the code of an error's body, whether it is JSON or plain text."""
    text = body.decode("utf-8", "replace").strip()
    code: object = None
    message: object = text
    try:
        error = json.loads(text)["error"]
        if isinstance(error, str):
            message = error
        else:
            message = error["message"]
            code = error.get("code")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        if is_html(headers) or text[:1] == "<":
            message = ""
    return (
        message if isinstance(message, str) else text,
        str(code) if isinstance(code, (str, int)) else None,
    )


def has_openai_shape(body: bytes) -> bool:
    """Tell whether an error has a `type`, as OpenAI's errors have and the family's do not."""
    try:
        return isinstance(json.loads(body)["error"]["type"], str)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return False


def one_line(text: str) -> str:
    """Make a redacted text fit for a log or a terminal: one line, printable, 500 characters."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_MESSAGE])
    return " ".join(printable.split())[:MAX_MESSAGE]


def diagnose(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float | None = None,
    waited: float = 0.0,
    redactor: Redactor = NO_SECRETS,
    encoding: Encoding = "native",
) -> ResponseError:
    """Return the error that an answer is.

    Args:
        status: the HTTP status of an answer that is not a reply.
        headers: the headers by lower-case name, as `read_headers` returns them.
        body: the first `MAX_ERROR_BODY` bytes of the body; b"" if `is_settled_by_head`.
        now: when the answer arrived, Unix time in seconds; None if unknown.
        waited: seconds from the start of the attempt to `now`.
        redactor: removes secrets from the texts that the error quotes.
        encoding: how the request was written; a wrong one may be the cause.
    """
    if is_settled_by_head(status, headers):
        return diagnose_stranger(status, headers, redactor)
    said, said_code = read_error_body(headers, body)
    is_passed_through = status in (401, 403, 404) and has_openai_shape(body)
    # An API of OpenAI's shape says "URL" if it does not know the URL. Then it stands in the place
    # of a service, and not behind one.
    if status == 404 and (not is_passed_through or "URL" in said):
        return diagnose_stranger(status, headers, redactor)
    message = one_line(redactor.redact(said))
    code = None if said_code is None else one_line(redactor.redact(said_code))
    answered = (
        f'answered {status}: "{message}"' if message else f"answered {status} without a message"
    )

    if is_passed_through:
        return ServiceFailed(
            f"the service {answered}; its model's API refuses the deployment's key, model or "
            f"location; {ONLY_THE_OWNER}",
            status=status,
            message=message,
            code=code,
            permanent=True,
        )
    if status in (401, 403):
        skew = read_clock_skew(headers, now, waited)
        kind, advice = diagnose_authentication(said.lower(), skew, encoding)
        return kind(
            f"the service {answered}; {advice}",
            status=status,
            message=message,
            code=code,
            clock_skew=skew,
        )
    retry_after = read_retry_after(headers, now)
    if retry_after is None:
        retry_after = read_requested_wait(said)
    hidden = status == 500 and any(sign in said for sign in HIDDEN_RATE_LIMIT)
    if status == 429 or hidden:
        when = "later" if retry_after is None else f"in {ceil(retry_after)} s"
        return RateLimited(
            f"too many requests: the service {answered}; try again {when}",
            status=status,
            message=message,
            code=code,
            retry_after=retry_after,
        )
    if status == 408 or status >= 500:
        trouble = next((PERMANENT[sign] for sign in PERMANENT if sign in said), None)
        advice = "try again later" if trouble is None else f"{trouble}; {ONLY_THE_OWNER}"
        if status == 500 and not message and encoding == "content":
            # GeminiProChat fails at messages without parts.
            advice += ', or check the encoding: GeminiProChat needs encoding="native"'
        return ServiceFailed(
            f"the service {answered}; {advice}",
            status=status,
            message=message,
            code=code,
            retry_after=retry_after,
            permanent=trouble is not None,
        )
    advice = "shorten the conversation" if status == 413 else "the request must change"
    return BadRequest(
        f"the service {answered}; {advice}", status=status, message=message, code=code
    )


def diagnose_stranger(status: int, headers: Mapping[str, str], redactor: Redactor) -> NotTheService:
    if 300 <= status <= 399:
        location = redactor.redact(headers.get("location", ""))
        target = f"to {location[:MAX_MESSAGE]!r}" if location else "without a location"
        return NotTheService(
            f"redirected ({status}) {target}; a redirect is never followed, because it would send "
            "the signed request to another host: set the service's URL to its new address",
            status=status,
            location=location or None,
        )
    what = f"answered {status}{' with an HTML page' if is_html(headers) else ''}"
    return NotTheService(
        f"the server at this URL {what}, which is not this service's reply; check the URL",
        status=status,
    )


def read_clock_skew(headers: Mapping[str, str], now: float | None, waited: float) -> float | None:
    """Return how many seconds the service's clock is ahead of this machine's.

    The service wrote its Date header at some moment of the wait. Skew is only how far the Date is
    outside of the wait.
    """
    date = read_http_date(headers.get("date", ""))
    if date is None or now is None:
        return None
    ahead = date - now
    return ahead if ahead > 0 else min(0.0, ahead + waited)


def diagnose_authentication(
    said: str, skew: float | None, encoding: Encoding
) -> tuple[type[AuthenticationError], str]:
    if "password" in said:
        return PasswordRejected, "set the deployment's password"
    if "signature" not in said:
        return AuthenticationError, "check secret key and password"
    advice = "check the secret key"
    if encoding != "content":
        # chatgpt-demo finds no text in such messages, and so expects another signature.
        advice += ', and the encoding: chatgpt-demo and its forks need encoding="content"'
    if skew is not None and abs(skew) > 1:
        direction = "behind" if skew > 0 else "ahead of"
        advice += f", and the clock: it is {abs(skew):.0f} s {direction} the service's"
    return SignatureRejected, advice
