"""A relay written by hand on aiohttp: it signs, decodes, and sends each piece as an event."""

import asyncio
import codecs
import json

import aiohttp
from aiohttp import web

from ..clients.by_hand import body, endpoint, headers
from . import MODELS, listening, prepare


async def main(peer: str) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        url = f"{peer}/{MODELS[asked['model']]}"
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        completion = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": asked["model"],
        }

        async def send(text: str) -> None:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            event = json.dumps({**completion, "choices": [choice]})
            await response.write(f"data: {event}\n\n".encode())

        async with session.post(endpoint(url), data=body(), headers=headers(url)) as upstream:
            upstream.raise_for_status()
            await response.prepare(request)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            async for chunk in upstream.content.iter_any():
                if text := decoder.decode(chunk):
                    await send(text)
            if text := decoder.decode(b"", True):
                await send(text)
        await response.write(b"data: [DONE]\n\n")
        return response

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(application, access_log=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        _, port = runner.addresses[0][:2]
        await listening(f"http://127.0.0.1:{port}", "none")
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(prepare()))
