"""The provider: the class that the ecosystem's applications expect, over the aiohttp client.

Its face is the original provider's, so that it stands in its place: class attributes that say
what it can, and an asynchronous generator of text. A conversation goes out as one prompt.
"""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import ClassVar

import aiohttp

from gprochat_core import (
    DEFAULT_MODEL,
    GPROCHAT,
    ConfigurationError,
    Conversation,
    Service,
    Timeouts,
    get_model,
)
from gprochat_transports.aiohttp import Client
from gprochat_transports.environment import FROM_ENVIRONMENT, service_from_environment

__all__ = ["GPROChat"]


class GPROChat:
    """The provider, to be used as a class, without an instance.

    Attributes:
        label: its name for people.
        url, api_endpoint: the deployment, which an argument or `GPROCHAT_URL` overrides.
        secret_key: the deployment's, which an argument or `GPROCHAT_SECRET_KEY` overrides; None
            where it must be one of these.
        working, supports_stream, supports_message_history: what an application may count on.
        default_model: the model that a name not known means.
    """

    label: ClassVar[str] = "GPROChat"
    url: ClassVar[str] = GPROCHAT.url
    api_endpoint: ClassVar[str] = GPROCHAT.endpoint
    secret_key: ClassVar[str | None] = None
    working: ClassVar[bool] = True
    supports_stream: ClassVar[bool] = True
    supports_message_history: ClassVar[bool] = True
    default_model: ClassVar[str] = DEFAULT_MODEL

    @classmethod
    def get_model(cls, model: str | None) -> str:
        """Return the known model that a name means, the default one for a name not known."""
        return get_model(model)

    @classmethod
    def generate_signature(cls, timestamp: int, message: str) -> str:
        """Sign a message's text.

        Args:
            timestamp: Unix time in milliseconds.
            message: the text of the conversation's last message.

        Raises:
            ConfigurationError: no secret key is known.
            InvalidMessages: the text holds a lone surrogate.
        """
        return cls._service().signer.sign(timestamp, message)

    @classmethod
    async def create_async_generator(
        cls,
        model: str | None,
        messages: Conversation,
        proxy: str | None = None,
        *,
        url: str | None = None,
        secret_key: str | None = None,
        password: str | None = None,
        timeouts: Timeouts | None = None,
        session: aiohttp.ClientSession | None = None,
        **options: object,
    ) -> AsyncGenerator[str, None]:
        """Ask, and give the reply in pieces as it arrives.

        The connection has been closed when the generator has, however that came about; close one
        that is not read to its end (`contextlib.aclosing`).

        Args:
            model: what an application asks for; the deployment decides for itself.
            messages: role/content dicts, or what else a `Client` takes; the last is the user's.
            proxy: the URL of an HTTP or SOCKS5 proxy. None, which applications pass for "not
                given", leaves it to the environment.
            url, secret_key, password: the deployment; by default as `GPROCHAT_URL`,
                `GPROCHAT_SECRET_KEY` and `GPROCHAT_PASSWORD` say.
            timeouts: how long to wait.
            session: a session to use, which is not closed here; it brings its own proxy.
            options: what applications pass to every provider (`temperature`, `stream` and so on);
                the protocol has no place for them.

        Raises:
            ConfigurationError: no secret key is known, or a setting cannot be used.
            InvalidMessages: the conversation cannot be sent.
            GPROChatError: any other of the tree, as `Client.stream`.
        """
        service = cls._service(url, secret_key, password)
        async with (
            Client(
                service, proxy=proxy or FROM_ENVIRONMENT, timeouts=timeouts, session=session
            ) as client,
            client.stream(messages) as reply,
        ):
            async for text in reply:
                yield text

    @classmethod
    def _service(
        cls, url: str | None = None, secret_key: str | None = None, password: str | None = None
    ) -> Service:
        """Return the service that the arguments tell, then the environment, then the class."""
        service = service_from_environment(
            default=Service(cls.url, secret_key=cls.secret_key, encoding="flattened")
        )
        service = replace(
            service,
            url=service.url if url is None else url,
            secret_key=service.secret_key if secret_key is None else secret_key,
            password=service.password if password is None else password,
        )
        if service.secret_key is None:
            raise ConfigurationError(
                "no secret key: requests are signed with the deployment's own; "
                "pass secret_key=... or set GPROCHAT_SECRET_KEY"
            )
        return service
