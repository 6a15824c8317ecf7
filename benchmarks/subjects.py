"""The clients that are measured: each adapter, its library used bare, and other clients."""

from .processes import Subject

BARE_ASYNCIO = Subject("bare asyncio protocol", "bare_asyncio")
BARE_AIOHTTP = Subject("bare aiohttp", "bare_aiohttp")
BARE_HTTPX = Subject("bare httpx, asyncio", "bare_httpx")
BARE_HTTPX_TRIO = Subject("bare httpx, trio", "bare_httpx", "trio")
BARE_AIOHTTP_UVLOOP = Subject("bare aiohttp, uvloop", "bare_aiohttp", "uvloop")
BARE_HTTPX_SYNC = Subject("bare httpx, blocking", "bare_httpx_sync", "threads")
BARE_TRIO = Subject("bare trio and h11", "bare_trio", "trio")

AIOHTTP = Subject("gprochat aiohttp", "gprochat_aiohttp")
HTTPX = Subject("gprochat httpx, asyncio", "gprochat_httpx")
HTTPX_TRIO = Subject("gprochat httpx, trio", "gprochat_httpx", "trio")
AIOHTTP_UVLOOP = Subject("gprochat aiohttp, uvloop", "gprochat_aiohttp", "uvloop")
SYNC = Subject("gprochat httpx, blocking", "gprochat_sync", "threads")
TRIO = Subject("gprochat trio", "gprochat_trio", "trio")

G4F = Subject("g4f's GPROChat", "g4f", environment="g4f")
OPENAI = Subject("openai's SDK", "openai", environment="openai")
LITELLM = Subject("litellm", "litellm", environment="litellm")

BARE = {AIOHTTP: BARE_AIOHTTP, HTTPX: BARE_HTTPX, HTTPX_TRIO: BARE_HTTPX_TRIO, TRIO: BARE_TRIO}
"""Each adapter, and the library that it is compared with."""
