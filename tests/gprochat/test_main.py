"""`python -m gprochat` runs the command."""

from gprochat.server import in_thread, serve
from tests.gprochat.cli.running import run


def test_the_module_runs_the_command() -> None:
    with in_thread(serve(grace=0.0)) as server:
        done = run("chat", "Как дела? 🙂", service=server.service)
    assert (done.stdout, done.stderr, done.returncode) == ("Как дела? 🙂", "", 0)
