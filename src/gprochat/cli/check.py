"""`gprochat check`: whether a service works, and if not, what is wrong.

The check asks one short question, as a chat does. The answer alone is not always evidence: a page
of some other server is a 200 too. So if a second question can tell more, it is asked:

* after a reply, the same question signed with another key: a service of this family refuses it;
* after an error that a wrong encoding explains, the same question in the other encoding.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from secrets import token_urlsafe
from time import monotonic, time
from typing import Final, NamedTuple

import click

from gprochat_core import (
    ConnectError,
    GPROChatError,
    InterruptedReply,
    NotTheService,
    PasswordRejected,
    RateLimited,
    ReplyTimeout,
    RetryPolicy,
    Service,
    ServiceFailed,
    SignatureRejected,
    Timeouts,
)
from gprochat_core.diagnosis import read_clock_skew
from gprochat_core.messages import Encoding
from gprochat_transports.environment import Proxy

from .failures import FAILURE
from .loops import Loop, choose
from .options import (
    encoding_option,
    example,
    find_service,
    proxy_option,
    service_options,
    transport_option,
)
from .output import in_the_shell, one_line, say

__all__ = ["Finding", "check", "examine", "is_accepted", "print_findings"]

FIRST_LIMIT: Final = 60.0
"""Seconds that the first question may take; a service has been seen to need 33 to begin."""

SECOND_LIMIT: Final = 20.0
"""Seconds that the second question may take."""

TOLERATED_CLOCK_SKEW: Final = 30.0
"""Seconds; a deployment that checks the time allows five minutes."""

FIRST_BYTE: Final = "first byte"
CLOCK: Final = "clock"
"""The subjects that tell of the model and of this machine, and not of the settings."""

UNKNOWN: Final = "unknown: nothing shows that the service got this far"


@click.command(epilog=example("gprochat check --url https://chat.example"))
@transport_option
@service_options
@proxy_option
@encoding_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each verdict.")
@click.pass_context
def check(
    context: click.Context,
    transport: str | None,
    url: str | None,
    name: str | None,
    ask_password: bool,
    ask_secret_key: bool,
    proxy: Proxy,
    encoding: Encoding | None,
    as_json: bool,
) -> None:
    """Check whether a service works, and if not, what is wrong.

    The check sends a short question and waits for the first byte of the reply. A second question
    shows whether the service refuses a wrong signature, or reads another encoding. The check ends
    within 90 seconds. The exit code is 0 if all is well: each line says ok. Else it is 1.
    """
    loop = choose(transport)
    service = find_service(
        url, name, ask_password=ask_password, ask_secret_key=ask_secret_key, encoding=encoding
    )
    findings = loop.run(lambda: examine(service, loop, proxy))
    print_findings(findings, as_json=as_json)
    # A line without evidence is no success: what it is about may not work.
    if not all(ok for _, ok, _ in findings):
        context.exit(FAILURE)


class Reached(IntEnum):
    """How far a question came, as far as its answer is evidence of it."""

    NOTHING_KNOWN = 0
    SERVICE = 1
    SIGNATURE = 2
    """The password is right: the service looks at it before the signature."""

    MODEL = 3
    """The signature is right too."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question.

    Attributes:
        status: the HTTP status; None if there was no answer.
        error: the error; None if a reply began or was empty.
        first_byte: seconds until the first text of the reply; None if there was none.
        clock_skew: as in `ResponseError`.
    """

    status: int | None
    error: GPROChatError | None
    first_byte: float | None
    clock_skew: float | None

    @property
    def reached(self) -> Reached:
        """How far the question came; a 200 alone is no evidence."""
        match self.error:
            case PasswordRejected():
                return Reached.SERVICE
            case SignatureRejected():
                return Reached.SIGNATURE
            case InterruptedReply():
                return Reached.MODEL
            case ServiceFailed(status=401 | 403 | 404):
                # The model's API behind a service, or an API of that kind in the service's place.
                return Reached.NOTHING_KNOWN
            case RateLimited(status=500):
                return Reached.MODEL
            case RateLimited() | ServiceFailed() if self.error.code is not None:
                # A gateway's error has no code. This is the service's, or its model's.
                return Reached.MODEL
            case _:
                return Reached.NOTHING_KNOWN


class Finding(NamedTuple):
    """One line of a check.

    Attributes:
        what: the subject, such as "password".
        ok: whether it works; None if the check cannot know.
        words: the explanation.
    """

    what: str
    ok: bool | None
    words: str


def print_findings(findings: Sequence[Finding], *, as_json: bool = False) -> None:
    """Print a line for each finding."""
    for what, ok, message in findings:
        words = in_the_shell(message)
        if as_json:
            click.echo(json.dumps({"check": what, "ok": ok, "message": one_line(words)}))
        else:
            verdict = {True: "ok", False: "FAIL", None: "-"}[ok]
            say(words, head=f"{verdict:5} {what:11} ")


def is_accepted(findings: Sequence[Finding]) -> bool:
    """Return whether the service accepts URL, password, secret key and encoding.

    The model may fail all the same, and the clock may be wrong.
    """
    return all(ok for what, ok, _ in findings if what not in (FIRST_BYTE, CLOCK))


async def examine(service: Service, loop: Loop, proxy: Proxy) -> list[Finding]:
    """Ask, and return what the answers show."""
    answer = await ask(service, loop, proxy, FIRST_LIMIT)
    reached = answer.reached
    wrong_signature: Answer | None = None
    encoding: Finding | None = None
    other = other_encoding(service.encoding, answer.error)
    if other is not None:
        second = await ask(replace(service, encoding=other), loop, proxy, SECOND_LIMIT)
        if second.status == 200 or second.reached is Reached.MODEL:
            words = f"this service reads {other}, not {service.encoding}: use --encoding {other}"
            encoding = Finding("encoding", False, words)
            answer, reached = second, Reached.MODEL
        else:
            encoding = Finding("encoding", None, f"unknown: {other} does not work either")
    elif reached is Reached.NOTHING_KNOWN and (
        answer.status == 200 or isinstance(answer.error, ServiceFailed)
    ):
        another_key = replace(service, secret_key=token_urlsafe())
        wrong_signature = await ask(another_key, loop, proxy, SECOND_LIMIT)
        if wrong_signature.reached is Reached.SIGNATURE:
            reached = Reached.MODEL
    return [
        judge_service(service, answer, reached, wrong_signature),
        *judge_secrets(service, answer, reached),
        *([encoding] if encoding else []),
        judge_first_byte(answer, reached),
        judge_clock(answer, reached),
    ]


async def ask(service: Service, loop: Loop, proxy: Proxy, seconds: float) -> Answer:
    """Ask a question, and wait for the first text of the reply."""
    first_byte: float | None = None
    error: GPROChatError | None = None
    once = RetryPolicy(max_attempts=1)
    limits = Timeouts(first_byte=seconds, idle=seconds, total=seconds)
    async with loop.make_client(service, proxy=proxy, retry=once, timeouts=limits) as client:
        reply = client.stream("Hello!")
        asked, begun = time(), monotonic()
        answered: float | None = None
        try:
            async with reply:
                answered = time()
                async for _ in reply:
                    first_byte = monotonic() - begun
                    break
        except GPROChatError as failure:
            error = failure
    if answered is None:
        answered = time()
    skew = read_clock_skew(reply.headers, answered, answered - asked)
    return Answer(reply.status, error, first_byte, skew)


def other_encoding(encoding: Encoding, error: GPROChatError | None) -> Encoding | None:
    """Return the encoding whose absence explains an error; None if none does."""
    if encoding != "content":
        return "content" if isinstance(error, SignatureRejected) else None
    fails_silently = isinstance(error, ServiceFailed) and error.status == 500 and not error.message
    return "native" if fails_silently else None


def judge_service(
    service: Service, answer: Answer, reached: Reached, wrong_signature: Answer | None
) -> Finding:
    if reached is not Reached.NOTHING_KNOWN:
        return Finding("service", True, f"answers at {service.url}")
    if answer.status is None or isinstance(answer.error, (ConnectError, NotTheService)):
        return Finding("service", False, words_of(answer.error))
    if wrong_signature is not None and wrong_signature.status == 200:
        words = "answers 200 to a wrong signature too: no service of this family, or a careless one"
        return Finding("service", False, f"{service.url} {words}; check the URL")
    words = f"unknown: something answers {answer.status} at {service.url}, which may be anything"
    return Finding("service", None, f"{words}; check the URL, or try again later")


def judge_secrets(service: Service, answer: Answer, reached: Reached) -> Iterator[Finding]:
    for what, enough, refused, accepted in (
        (
            "password",
            Reached.SIGNATURE,
            PasswordRejected,
            "accepted" if service.password else "none set, none needed",
        ),
        ("signature", Reached.MODEL, SignatureRejected, "accepted"),
    ):
        if reached >= enough:
            yield Finding(what, True, accepted)
        elif isinstance(answer.error, refused):
            yield Finding(what, False, str(answer.error))
        else:
            yield Finding(what, None, UNKNOWN)


def judge_first_byte(answer: Answer, reached: Reached) -> Finding:
    error = answer.error
    if error is None and reached is Reached.MODEL:
        if answer.first_byte is None:
            words = "the reply is empty: the model said nothing; tell the deployment's owner"
            return Finding(FIRST_BYTE, False, words)
        return Finding(FIRST_BYTE, True, f"after {answer.first_byte:.3f} s")
    answered = answer.status is not None and not isinstance(error, NotTheService)
    unexplained = reached is Reached.NOTHING_KNOWN and answered and error is not None
    if reached is Reached.MODEL or unexplained:
        return Finding(FIRST_BYTE, False, words_of(error))
    return Finding(FIRST_BYTE, None, UNKNOWN)


def words_of(error: GPROChatError | None) -> str:
    if isinstance(error, ReplyTimeout):
        return f"no text within {error.seconds:g} s; try again later"
    return str(error)


def judge_clock(answer: Answer, reached: Reached) -> Finding:
    skew = answer.clock_skew
    if skew is None:
        if reached is Reached.MODEL:
            # The question was signed with this machine's time, and nothing more is asked of it.
            return Finding(CLOCK, True, "accepted; the service does not tell its own time")
        silent = "unknown: the service does not tell its own time"
        return Finding(CLOCK, None, UNKNOWN if answer.status is None else silent)
    # A Date header has whole seconds, rounded down.
    if -2 < skew < 1:
        return Finding(CLOCK, True, "within a second or two of the service's")
    words = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the service's"
    if abs(skew) <= TOLERATED_CLOCK_SKEW:
        return Finding(CLOCK, True, words)
    return Finding(CLOCK, False, f"{words}; set this machine's clock")
