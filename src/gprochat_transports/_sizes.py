"""How many bytes are read and written at once, whatever the transport."""

from typing import Final

__all__ = ["READ_SIZE", "WRITE_SIZE"]

READ_SIZE: Final = 120 * 1024
"""Of what costs little to make room for, the most: what takes 128 KiB or more comes straight from
the system, which costs more than the read."""

WRITE_SIZE: Final = 64 * 1024
"""What is to have been sent in time, each; a long request may take longer, piece by piece."""
