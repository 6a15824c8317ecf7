"""This project's gateway."""

import asyncio

from gprochat.gateway import Deployment, gateway
from gprochat_core import Service

from ..clients.by_hand import SECRET_KEY
from . import MODELS, listening, prepare


async def main(peer: str) -> None:
    models = {
        name: [Deployment(name, Service(f"{peer}/{path}", secret_key=SECRET_KEY))]
        for name, path in MODELS.items()
    }
    async with gateway(models, grace=0.0) as running:
        await listening(running.url, running.key or "")


if __name__ == "__main__":
    asyncio.run(main(prepare()))
