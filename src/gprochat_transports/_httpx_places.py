"""Whose turn it is to ask httpx for a connection, and whether there may be one more."""

import anyio

__all__ = ["Place", "Places"]


class Places:
    """The connections that a client made here may have, and the calls that wait for one.

    The library offers a connection that is free to all that ask it at once. All but one of them
    ask again, and each time each of them looks at all connections. So where connections may be
    free, one call asks at a time, and none before there is a place for it.

    Args:
        number: how many connections there may be.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._left = anyio.Semaphore(number, fast_acquire=True)
        self._most_taken = 0
        self.asking = anyio.Lock(fast_acquire=True)

    async def take(self) -> bool:
        """Wait for a place and take it; return whether a connection may be free for it."""
        await self._left.acquire()
        taken = self._number - self._left.value
        if taken <= self._most_taken:
            return True
        self._most_taken = taken
        return False

    def give_back(self) -> None:
        """Let another call have the place."""
        self._left.release()


class Place:
    """One call's place among a client's connections; for the asynchronous client alone.

    Args:
        places: all there are; None where calls ask as they come, and the library makes them wait.
    """

    def __init__(self, places: Places | None) -> None:
        self._places = places
        self._taken = self._asking = self._needs_turn = False

    async def take(self) -> None:
        """Wait until there is one."""
        if self._places is not None:
            self._needs_turn = await self._places.take()
            self._taken = True

    def may_ask(self) -> bool:
        """Ask the library for a connection at once, if no other call is asking."""
        if self._places is not None and self._needs_turn:
            try:
                self._places.asking.acquire_nowait()
            except anyio.WouldBlock:
                return False
            self._asking = True
        return True

    async def ask_in_turn(self) -> None:
        """Wait for this call's turn to ask; nobody has it for long."""
        if self._places is not None:
            await self._places.asking.acquire()
            self._asking = True

    def end_asking(self) -> None:
        """Let the next call ask."""
        if self._places is not None and self._asking:
            self._asking = False
            self._places.asking.release()

    def give_back(self) -> None:
        """Let another call have the place."""
        if self._places is not None and self._taken:
            self._taken = False
            self._places.give_back()
