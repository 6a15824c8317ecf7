"""The request as a user of a bare library writes it: a dict, `json.dumps` and `hashlib`."""

import hashlib
import json
import time
from urllib.parse import urlsplit

from . import PROMPT

SECRET_KEY = "a key made up for the benchmarks"

USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/129.0.0.0 Safari/537.36"
)


def endpoint(url: str) -> str:
    return f"{url}/api/generate"


def headers(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "text/plain;charset=UTF-8",
        "origin": f"{parts.scheme}://{parts.netloc}",
        "referer": f"{url}/",
        "user-agent": USER_AGENT,
    }


def body() -> bytes:
    now = int(time.time() * 1000)
    sign = hashlib.sha256(f"{now}:{PROMPT}:{SECRET_KEY}".encode()).hexdigest()
    messages = [{"role": "user", "parts": [{"text": PROMPT}]}]
    return json.dumps({"messages": messages, "time": now, "pass": None, "sign": sign}).encode()
