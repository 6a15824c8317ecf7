"""What a gateway answers, to whom, and what it logs."""

import json

import aiohttp
import pytest
from aiohttp import web

from gprochat.gateway import Models, make_app
from gprochat.gateway.requests import API
from gprochat.server import serve
from gprochat_core import ConfigurationError, RetryPolicy, Service, Timeouts
from tests.gprochat.server.serving import Watched, answer_of
from tests.peers.scripted import ScriptedPeer, closed_port, receive, send
from tests.peers.wire import answer

from .calling import KEY, PATHS, Caller, calling, model_of, models_of, request_of

pytestmark = pytest.mark.anyio

APIS: list[API] = ["chat", "responses"]
NEVER = RetryPolicy(max_attempts=1)

parametrize_api = pytest.mark.parametrize("api", APIS)
parametrize_stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class TestSettings:
    @parametrize_api
    @parametrize_stream
    async def test_that_are_ignored_are_named_in_a_header(self, api: API, stream: bool) -> None:
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask(api, stream=stream, temperature=0.5, seed=1)
        assert reply.text == "Hi"
        assert reply.headers["x-gprochat-ignored"] == "seed, temperature"

    async def test_no_header_names_nothing(self) -> None:
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask()
        assert "x-gprochat-ignored" not in reply.headers

    async def test_that_would_be_ignored_are_refused_by_a_strict_gateway(self) -> None:
        async with calling(models_of("http://127.0.0.1:1"), strict=True) as caller:
            reply = await caller.ask(temperature=0.5)
        assert reply.status == 400
        assert (reply.error["param"], reply.error["code"]) == (
            "temperature",
            "unsupported_parameter",
        )

    async def test_that_the_service_cannot_do_are_refused(self) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            reply = await caller.ask(tools=[{"type": "function"}])
        assert reply.status == 400
        assert reply.error["param"] == "tools"


class TestModels:
    async def test_a_long_list_of_them_has_no_body_if_only_its_head_is_asked_for(self) -> None:
        (deployments,) = models_of("http://127.0.0.1:1").values()
        models = {f"model-{number}": deployments for number in range(2000)}
        async with calling(models) as caller:
            head = await caller.send("HEAD", "/v1/models")
            listed = await caller.send("GET", "/v1/models")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(listed.body))
        assert len(listed.json["data"]) == 2000

    async def test_are_listed(self) -> None:
        (deployments,) = models_of("http://127.0.0.1:1").values()
        models: Models = {"gprochat": deployments, "org/other": deployments}
        async with calling(models) as caller:
            listed = await caller.send("GET", "/v1/models")
            one = await caller.send("GET", "/v1/models/org/other")
        assert listed.json["object"] == "list"
        assert [each["id"] for each in listed.json["data"]] == ["gprochat", "org/other"]
        assert one.json == listed.json["data"][1]

    async def test_that_do_not_exist_are_not_found(self) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            replies = [
                await caller.send("GET", "/v1/models/gpt-4o"),
                await caller.ask(model="gpt-4o"),
                await caller.ask("responses", model="gpt-4o"),
            ]
        for reply in replies:
            assert reply.status == 404
            assert (reply.error["param"], reply.error["code"]) == ("model", "model_not_found")


class TestHealth:
    async def test_shows_each_deployment_to_a_caller_with_the_key(self) -> None:
        with closed_port() as port:
            async with serve(answer_of("Hi")) as server:
                gone = Service(f"http://127.0.0.1:{port}", secret_key="k")
                async with calling(model_of(gone, server.service)) as caller:
                    await caller.ask()
                    health = await caller.send("GET", "/health")
        assert health.json["status"] == "ok"
        states = {name: each["state"] for name, each in health.json["deployments"].items()}
        assert states == {"d0": "failing", "d1": "ok"}

    async def test_shows_no_more_than_that_it_runs_without_the_key(self) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            health = await caller.send("GET", "/health", headers={"authorization": ""})
        assert (health.status, health.json) == (200, {"status": "ok"})


class TestErrors:
    @parametrize_stream
    async def test_a_rate_limit_says_how_long_to_wait(self, stream: bool) -> None:
        limited = answer(429, "", "retry-after: 33")
        with ScriptedPeer([receive, send(limited)]) as peer:
            async with calling(models_of(peer.url)) as caller:
                reply = await caller.ask(stream=stream)
        assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
        assert reply.headers["retry-after"] == "33"
        assert len(peer.requests) == 1
        assert "x-should-retry" not in reply.headers

    @parametrize_stream
    async def test_a_wrong_key_of_the_deployment_is_not_the_callers(self, stream: bool) -> None:
        async with serve(secret_key="right") as server:
            wrong = Service(server.url, secret_key="very-wrong")
            async with calling(model_of(wrong)) as caller:
                reply = await caller.ask(stream=stream)
        assert (reply.status, reply.error["code"]) == (502, "deployment_key_rejected")
        assert reply.headers["x-should-retry"] == "false"
        assert b"very-wrong" not in reply.body

    async def test_a_wrong_password_of_the_deployment_is_not_the_callers(self) -> None:
        async with serve(secret_key="k", password="p") as server:
            wrong = Service(server.url, secret_key="k", password="very-wrong")
            async with calling(model_of(wrong)) as caller:
                reply = await caller.ask()
        assert (reply.status, reply.error["code"]) == (502, "deployment_password_rejected")
        assert b"very-wrong" not in reply.body

    async def test_a_deployment_that_cannot_be_reached_is_a_bad_gateway(self) -> None:
        with closed_port() as port:
            retry = RetryPolicy(max_attempts=2, base_delay=0.0)
            async with calling(models_of(f"http://127.0.0.1:{port}"), retry=retry) as caller:
                reply = await caller.ask()
        assert (reply.status, reply.error["code"]) == (502, "deployment_unreachable")
        assert reply.headers["x-should-retry"] == "false"

    @parametrize_stream
    async def test_a_deployment_that_says_nothing_is_a_gateway_timeout(self, stream: bool) -> None:
        watched = Watched()
        async with (
            serve(watched, grace=0.0) as server,
            calling(model_of(server.service), timeouts=Timeouts(first_byte=0.1)) as caller,
        ):
            reply = await caller.ask(stream=stream)
        assert (reply.status, reply.error["code"]) == (504, "reply_timeout")
        # The caller cannot raise the gateway's time limit.
        assert reply.error["message"] == "no reply began within 0.1 s, 0 characters arrived"

    @parametrize_api
    @pytest.mark.parametrize(
        ("body", "status"),
        [(b"", 400), (b"Hello", 400), (b"[" * 10_000, 400), (b'{"a":' * 10_000, 400)],
    )
    async def test_a_body_that_is_no_request_is_refused(
        self, api: API, body: bytes, status: int
    ) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            reply = await caller.send("POST", PATHS[api], body)
        assert (reply.status, reply.error["code"]) == (status, "invalid_json")

    async def test_a_body_beyond_the_limit_is_refused(self) -> None:
        async with calling(models_of("http://127.0.0.1:1"), max_request_bytes=1000) as caller:
            reply = await caller.ask(messages=[{"role": "user", "content": "x" * 1000}])
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")

    async def test_a_compressed_body_is_refused(self) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            headers = {"content-encoding": "gzip"}
            reply = await caller.send("POST", PATHS["chat"], b"{}", headers)
        assert reply.status == 415

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/", 404),
            ("POST", "/v1/embeddings", 404),
            ("POST", "/chat/completions", 404),
            ("GET", "/v1/chat/completions", 405),
            ("OPTIONS", "/v1/chat/completions", 405),
            ("DELETE", "/v1/models/gprochat", 405),
        ],
    )
    async def test_everything_else_is_an_error_in_the_same_shape(
        self, method: str, path: str, status: int
    ) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            reply = await caller.send(method, path)
        assert reply.status == status
        assert reply.error.keys() == {"message", "type", "param", "code"}

    @parametrize_stream
    async def test_a_bug_is_an_error_that_tells_nothing(
        self, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> bytes:
            raise ZeroDivisionError("the conversation")

        monkeypatch.setattr("gprochat.gateway.frames.ChatFrames.whole", fail)
        monkeypatch.setattr("gprochat.gateway.frames.ChatFrames.end", fail)
        async with serve(answer_of("Hi")) as server, calling(model_of(server.service)) as caller:
            reply = await caller.ask(stream=stream)
        if stream:
            assert reply.cut
        else:
            assert (reply.status, reply.error["code"]) == (500, "internal_error")
        assert "ZeroDivisionError" in caplog.text
        assert "the conversation" not in caplog.text


class TestKeys:
    @pytest.mark.parametrize(
        "authorization",
        [
            "",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            f"Basic {KEY}",
            KEY,
            f"Bearer {KEY}x",
            "Bearer é",
        ],
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/elsewhere")],
    )
    async def test_a_caller_without_the_key_is_refused(
        self, authorization: str, method: str, path: str
    ) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            reply = await caller.send(method, path, headers={"authorization": authorization})
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"
        assert KEY.encode() not in reply.body

    @pytest.mark.parametrize("authorization", [f"bearer {KEY}", f"Bearer  {KEY} "])
    async def test_the_scheme_is_not_a_matter_of_case_or_spaces(self, authorization: str) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            reply = await caller.send("GET", "/v1/models", headers={"authorization": authorization})
        assert reply.status == 200

    async def test_a_gateway_without_a_key_takes_any(self) -> None:
        async with calling(models_of("http://127.0.0.1:1"), key=None, no_key=True) as caller:
            with_one = await caller.send("GET", "/v1/models")
            without = await caller.send("GET", "/v1/models", headers={"authorization": ""})
        assert (with_one.status, without.status) == (200, 200)


class TestPages:
    @pytest.mark.parametrize("header", ["Host", "Origin"])
    async def test_of_elsewhere_are_refused(self, header: str) -> None:
        value = "evil.example" if header == "Host" else "https://evil.example"
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            reply = await caller.send("GET", "/v1/models", headers={header: value})
        assert (reply.status, reply.error["code"]) == (403, "forbidden")
        assert "access-control-allow-origin" not in reply.headers

    async def test_of_a_host_that_is_named_may_call(self) -> None:
        async with calling(models_of("http://127.0.0.1:1"), allowed_hosts=["a.example"]) as caller:
            reply = await caller.send("GET", "/v1/models", headers={"Host": "a.example"})
        assert reply.status == 200

    @parametrize_stream
    async def test_of_an_origin_that_is_named_may_read_the_reply(self, stream: bool) -> None:
        origin = "https://app.example"
        async with (
            serve(answer_of("Hi")) as server,
            calling(model_of(server.service), allowed_origins=[origin]) as caller,
        ):
            headers = {"Origin": origin}
            body = request_of("chat", stream=stream)
            reply = await caller.send("POST", PATHS["chat"], body, headers)
        assert reply.headers["access-control-allow-origin"] == origin
        assert "x-request-id" in reply.headers["access-control-expose-headers"]
        assert reply.headers["vary"] == "Origin"

    async def test_of_an_origin_that_is_named_may_ask_what_they_may_send(self) -> None:
        origin = "https://app.example"
        headers = {
            "authorization": "",
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        }
        models = models_of("http://127.0.0.1:1")
        async with calling(models, allowed_origins=[origin]) as caller:
            allowed = await caller.send("OPTIONS", PATHS["chat"], headers=headers)
            other = await caller.send(
                "OPTIONS", PATHS["chat"], headers={**headers, "Origin": "https://evil.example"}
            )
        assert allowed.status == 204
        assert allowed.headers["access-control-allow-origin"] == origin
        assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
        assert other.status == 403

    async def test_of_this_machine_may_call_but_read_nothing_unless_named(self) -> None:
        async with calling(models_of("http://127.0.0.1:1")) as caller:
            headers = {"Origin": "http://localhost:3000"}
            reply = await caller.send("GET", "/v1/models", headers=headers)
        assert reply.status == 200
        assert "access-control-allow-origin" not in reply.headers


class TestMakeApp:
    async def test_may_be_mounted_in_another_application(self) -> None:
        async with serve(answer_of("Hi")) as server:
            host = web.Application()
            host.add_subapp("/ai", make_app(model_of(server.service), key=KEY))
            runner = web.AppRunner(host, handler_cancellation=True)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/ai"
                async with aiohttp.ClientSession(
                    headers={"authorization": f"Bearer {KEY}"}
                ) as session:
                    caller = Caller(session, url)
                    reply = await caller.ask(stream=True)
                    unknown = await caller.send("GET", "/unknown")
                    no_key = {"authorization": ""}
                    health = await caller.send("GET", "/health", headers=no_key)
            finally:
                await runner.cleanup()
        assert reply.text == "Hi"
        assert unknown.error["code"] == "not_found"
        assert health.json == {"status": "ok"}

    async def test_takes_its_settings_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with serve(answer_of("Hi")) as server:
            monkeypatch.setenv("GPROCHAT_URL", server.url)
            monkeypatch.setenv("GPROCHAT_SECRET_KEY", server.service.secret_key or "")
            monkeypatch.setenv("GPROCHAT_GATEWAY_KEY", KEY)
            runner = web.AppRunner(make_app())
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                async with aiohttp.ClientSession(
                    headers={"authorization": f"Bearer {KEY}"}
                ) as session:
                    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                    reply = await Caller(session, url).ask()
            finally:
                await runner.cleanup()
        assert reply.text == "Hi"

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({}, "GPROCHAT_GATEWAY_KEY"),
            ({"key": ""}, "key"),
            ({"key": "two words"}, "key"),
            ({"key": "ключ"}, "key"),
            ({"key": KEY, "allowed_hosts": "a.example"}, "allowed_hosts"),
            ({"key": KEY, "allowed_origins": "https://a.example"}, "allowed_origins"),
            ({"key": KEY, "allowed_origins": ["a.example"]}, "origin"),
            ({"key": KEY, "allowed_origins": ["*"]}, "origin"),
            ({"key": KEY, "allowed_origins": ["https://a.example/"]}, "origin"),
        ],
    )
    async def test_refuses_settings_that_cannot_be_used(
        self, options: dict[str, str], told: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=told):
            make_app(models_of("http://127.0.0.1:1"), **options)  # type: ignore[arg-type]


async def test_the_body_of_an_error_is_json_of_one_shape() -> None:
    async with calling(models_of("http://127.0.0.1:1")) as caller:
        reply = await caller.ask(n=2)
    assert json.loads(reply.body).keys() == {"error"}
    assert reply.error["type"] == "invalid_request_error"
