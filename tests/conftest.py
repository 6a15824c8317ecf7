"""How many examples hypothesis tries, what Ctrl-C does, and the option `--one-case`.

The garbage collector is off while tests are collected: it would look again and again at thousands
of tests, none of which is garbage, for a quarter of the time that collecting takes.

By default hypothesis draws 40 new examples in each run, or with `CI` set the same ones in each. The
profile `quick` tries fewer: `make quick` and the further interpreters of `make test-all` use it.
The profile `mutants` is for mutation testing, which runs the tests thousands of times.
"""

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.strategies import text

gc.disable()

settings.register_profile("default", deadline=None, max_examples=40)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True
)
settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=20,
    stateful_step_count=20,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
usual = "ci" if os.environ.get("CI") else "default"
settings.register_profile(
    "quick", settings.get_profile(usual), max_examples=15, stateful_step_count=20
)
settings.load_profile(usual)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and they pass that on to the commands that
    # they start: the tests that send Ctrl-C to one would wait in vain.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-case",
        action="store_true",
        help="play the first case of each row of the fault table instead of all its cases",
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Have hypothesis make its table of characters before there are workers, and in no test.

    In a new clone this takes seconds. Otherwise each worker does it, at the same time, and
    hypothesis blames a test for taking so long.
    """
    if not hasattr(session.config, "workerinput"):
        text().validate()


def pytest_collection_finish() -> None:
    """Have the garbage collector look only at what the tests make, not at all modules again."""
    gc.collect()
    gc.freeze()
    gc.enable()
