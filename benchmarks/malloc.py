"""glibc's allocator, brought to the state that it has in a program that has run for a while."""


def settle() -> None:
    """Free a large block once.

    asyncio reads into a fresh 256 KiB each time. Until a program has once freed a block as large,
    glibc maps and unmaps memory for each of these, which is a third of all time. Which libraries
    free one when they are imported is luck. A process that begins by freeing one does not depend
    on it.
    """
    bytes(16 << 20)
