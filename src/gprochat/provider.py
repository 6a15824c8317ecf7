"""The provider class that g4f's applications expect, over the aiohttp client.

It has the names of the original provider class, so that it can replace that class: class
attributes that describe it, and an asynchronous generator of text. A conversation is sent as one
prompt, the encoding "flattened".
"""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

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

if TYPE_CHECKING:
    import aiohttp

__all__ = ["GPROChat"]


class GPROChat:
    """The provider. Applications use the class itself and make no instance.

    Attributes:
        label: the provider's name, for people.
        url: the deployment's URL; an argument or `GPROCHAT_URL` overrides it.
        api_endpoint: where conversations are posted, below that URL.
        secret_key: the deployment's secret key; an argument or `GPROCHAT_SECRET_KEY` overrides it.
            If it is None, one of the two is needed.
        working: whether the provider can be used, for applications that ask.
        supports_stream: whether replies are streamed.
        supports_message_history: whether a conversation may have several messages.
        default_model: the one known model, which every name stands for.
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
        """Return the default model, whatever the name."""
        return get_model(model)

    @classmethod
    def generate_signature(cls, timestamp: int, message: str) -> str:
        """Sign a message's text.

        Args:
            timestamp: Unix time in milliseconds.
            message: the text of the conversation's last message.

        Raises:
            ConfigurationError: there is no secret key.
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
        session: "aiohttp.ClientSession | None" = None,
        **options: object,
    ) -> AsyncGenerator[str, None]:
        """Send a conversation and yield the pieces of the reply as they arrive.

        When the generator has ended or has been closed, its connection is closed. Close a
        generator that you do not read to its end (`contextlib.aclosing`).

        Args:
            model: the model that the application asks for; no request names it, because the
                deployment chooses its model itself.
            messages: role/content dicts, or another conversation that `Client.stream` takes; the
                last message must be the user's.
            proxy: the URL of an HTTP or SOCKS5 proxy. With None, which applications pass for "not
                given", the environment decides.
            url, secret_key, password: the deployment; by default `GPROCHAT_URL`,
                `GPROCHAT_SECRET_KEY` and `GPROCHAT_PASSWORD`, then the class attributes. If
                `GPROCHAT_URL` names another deployment than `url`, its key and password are not
                used; `GPROCHAT_PASSWORD` is never sent to the URL of the class.
            timeouts: the time limits; None for the defaults.
            session: a session to use, with its own proxy; it is not closed here.
            options: further arguments that applications pass to every provider, such as
                `temperature`; the protocol has no field for them, so they are ignored.

        Raises:
            ConfigurationError: there is no secret key, or a setting cannot be used.
            InvalidMessages: the conversation cannot be sent.
            GPROChatError: every other error, as for `Client.stream`.
        """
        service = cls._service(url, secret_key, password)
        client = Client(
            service, proxy=proxy or FROM_ENVIRONMENT, timeouts=timeouts, session=session
        )
        # A traceback may be shown with its local variables.
        del secret_key, password, proxy
        async with client, client.stream(messages) as reply:
            async for text in reply:
                yield text

    @classmethod
    def _service(
        cls, url: str | None = None, secret_key: str | None = None, password: str | None = None
    ) -> Service:
        """Return the service: each setting from the arguments, else environment, else class.

        As in `service_from_environment`, no secret goes to a deployment that it is not for.
        """
        service = service_from_environment(
            url=url, default=Service(cls.url, secret_key=cls.secret_key, encoding="flattened")
        )
        service = replace(
            service,
            secret_key=service.secret_key if secret_key is None else secret_key,
            password=service.password if password is None else password,
        )
        if service.secret_key is None:
            raise ConfigurationError(
                "there is no secret key, and requests are signed with the deployment's; "
                "pass secret_key=..., or set GPROCHAT_SECRET_KEY (and GPROCHAT_URL, if it names "
                "another deployment)"
            )
        return service
