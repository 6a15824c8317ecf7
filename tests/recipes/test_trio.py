"""trio: deadlines keep what arrived, and losers of a race are cancelled."""

import trio
from trio.testing import MockClock

from gprochat_core import Service
from gprochat_transports import Reply
from gprochat_transports import trio as trio_client
from tests.docs.pages import module_of
from tests.peers.scripted import Script, ScriptedPeer, receive, send, until_client_closes
from tests.peers.wire import chunk, chunked, head

STOPS: Script = [
    receive,
    send(head(200, "transfer-encoding: chunked") + chunk("half")),
    until_client_closes,
]
SILENT: Script = [receive, until_client_closes]
ANSWERS: Script = [receive, send(chunked("whole")), until_client_closes]


class Client(trio_client.Client):
    """A client that remembers its last reply."""

    last: Reply | None = None

    def enter(self, reply: Reply) -> None:
        self.last = reply
        super().enter(reply)


def test_a_deadline_keeps_what_arrived_and_closes_the_connection() -> None:
    many = module_of("trio", "many.py")
    texts: dict[str, str] = {}
    clock = MockClock()

    async def main(url: str) -> None:
        async with Client(Service(url, secret_key="made up")) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(many.ask, client, "stops", 10, texts)
                while client.last is None or client.last.text != "half":
                    await trio.lowlevel.checkpoint()
                clock.jump(10)
            await many.ask(client, "whole", 10, texts)

    with ScriptedPeer(STOPS, ANSWERS) as peer:
        trio.run(main, peer.url, clock=clock)
        assert peer.connection(0).client_closed.wait(10)
    assert texts == {"stops": "half", "whole": "whole"}


def test_a_deadline_before_the_head_leaves_no_text() -> None:
    texts: dict[str, str] = {}

    async def main() -> None:
        async with Client(Service("http://127.0.0.1:9", secret_key="made up")) as client:
            await module_of("trio", "many.py").ask(client, "too late", 0, texts)

    trio.run(main)
    assert texts == {"too late": ""}


def test_the_first_reply_wins_and_the_others_are_cancelled() -> None:
    fastest = module_of("trio", "fastest.py").fastest

    async def main(slow: str, quick: str) -> None:
        async with (
            Client(Service(slow, secret_key="made up")) as one,
            Client(Service(quick, secret_key="made up")) as two,
        ):
            assert await fastest([one, two], "Hello") == "whole"
            assert silent.connection(0).client_closed.wait(5)

    with ScriptedPeer(SILENT) as silent, ScriptedPeer(ANSWERS) as answering:
        trio.run(main, silent.url, answering.url)
