"""Whom is measured: each adapter, its library used bare, and what a user would pick instead."""

from .processes import Subject

BARE_ASYNCIO = Subject("bare asyncio protocol", "bare_asyncio")
BARE_AIOHTTP = Subject("bare aiohttp", "bare_aiohttp")
BARE_HTTPX = Subject("bare httpx, asyncio", "bare_httpx")
BARE_HTTPX_TRIO = Subject("bare httpx, trio", "bare_httpx", "trio")
BARE_TRIO = Subject("bare trio and h11", "bare_trio", "trio")

AIOHTTP = Subject("gprochat aiohttp", "gprochat_aiohttp")
HTTPX = Subject("gprochat httpx, asyncio", "gprochat_httpx")
HTTPX_TRIO = Subject("gprochat httpx, trio", "gprochat_httpx", "trio")
TRIO = Subject("gprochat trio", "gprochat_trio", "trio")

G4F = Subject("g4f's GPROChat", "g4f", environment="g4f")
OPENAI = Subject("openai's SDK", "openai", environment="openai")
LITELLM = Subject("litellm", "litellm", environment="litellm")

BARE = {AIOHTTP: BARE_AIOHTTP, HTTPX: BARE_HTTPX, HTTPX_TRIO: BARE_HTTPX_TRIO, TRIO: BARE_TRIO}
"""Each adapter, and what it is to be measured by."""
