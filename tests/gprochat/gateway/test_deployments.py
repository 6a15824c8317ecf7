"""Which deployment answers, what a file says of deployments, and who may read its secrets."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gprochat.gateway import Deployment, models_from_environment, read_models
from gprochat.gateway.deployments import FAILURES, Upstreams
from gprochat.server import Answer, serve
from gprochat_core import (
    BadRequest,
    ConfigurationError,
    ConnectError,
    Message,
    RetryPolicy,
    Service,
    SignatureRejected,
)
from tests.gprochat.server.serving import Watched, answer_of, failing
from tests.peers.scripted import ScriptedPeer, closed_port, receive, send
from tests.peers.wire import answer

from .calling import model_of

ASKED = [Message("user", "Hi")]
KEYS = {"MAIN_KEY": "main-secret", "SPARE_KEY": "", "SITE": "sesame"}

BOTH = """
[deployments.main]
url = "https://chat.example"
secret_key_env = "MAIN_KEY"
password_env = "SITE"

[deployments.spare]
url = "https://spare.example"
encoding = "content"
max_history = 4
secret_key_env = "SPARE_KEY"

[models]
either = ["main", "spare"]
"""


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    file = path / "deployments.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


class TestFile:
    def test_names_deployments_and_models_of_several(self, tmp_path: Path) -> None:
        main = Deployment(
            "main", Service("https://chat.example", secret_key="main-secret", password="sesame")
        )
        spare = Deployment(
            "spare",
            Service("https://spare.example", secret_key="", encoding="content", max_history=4),
        )
        assert read_models(write(tmp_path, BOTH), KEYS) == {
            "main": (main,),
            "spare": (spare,),
            "either": (main, spare),
        }

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_may_hold_secrets_if_only_its_owner_can_read_it(
        self, tmp_path: Path, mode: int
    ) -> None:
        text = '[deployments.d]\nurl = "https://chat.example"\nsecret_key = "k"\npassword = "p"\n'
        models = read_models(write(tmp_path, text, mode), {})
        service = Service("https://chat.example", secret_key="k", password="p")
        assert models == {"d": (Deployment("d", service),)}

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
    @pytest.mark.parametrize("secret", ["secret_key", "password"])
    def test_that_others_can_open_must_not_hold_a_secret(
        self, tmp_path: Path, mode: int, secret: str
    ) -> None:
        text = f'[deployments.d]\nurl = "https://chat.example"\n{secret} = "very-secret"\n'
        with pytest.raises(ConfigurationError, match="chmod 600") as caught:
            read_models(write(tmp_path, text, mode), {})
        assert "very-secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", r"needs a table \[deployments\]"),
            ("deployments = 1", r"needs a table \[deployments\]"),
            ("[deployments]", "no table"),
            ("[deployments.d", "not valid TOML"),
            ("a" + "=[" * 5000, "not valid TOML"),
            ("[deployments]\nd = 1", r"\[deployments.d\] must be a table"),
            ('[deployments.d]\nurl = "https://a.example"', "needs secret_key_env"),
            ('[deployments.d]\nsecret_key_env = "MAIN_KEY"', "URL"),
            ('[deployments.d]\nurl = "x"\nsecret_key_env = "MAIN_KEY"', "URL"),
            (
                '[deployments.d]\nsecret_key_env = "NOT_SET"',
                "variable that secret_key_env names is not set",
            ),
            (
                "[deployments.d]\nsecret_key_env = 1",
                "variable that secret_key_env names is not set",
            ),
            ("[deployments.d]\nsecret_key = 1", "must be a string"),
            ('[deployments.d]\nsecret_key = "a"\nsecret_key_env = "MAIN_KEY"', "not both"),
            ("[deployments.d]\nkey = 1", "unknown setting key"),
            (
                BOTH + "[extra]",
                r"unknown table extra; a file has \[deployments\.NAME\] and \[models\]",
            ),
            (BOTH + "main = ['spare']", "main is a deployment"),
            (BOTH + "x = []", r"models\.x must be a list"),
            (BOTH + "x = 'main'", r"models\.x must be a list"),
            (BOTH + "x = ['other']", r"models\.x names 'other'; the deployments are main, spare"),
            (BOTH + "x = [1]", r"models\.x names 1; the deployments are main, spare"),
        ],
    )
    def test_of_another_form_is_refused(self, tmp_path: Path, text: str, told: str) -> None:
        with pytest.raises(ConfigurationError, match=told) as caught:
            read_models(write(tmp_path, text, 0o600), KEYS)
        assert "main-secret" not in str(caught.value)

    def test_that_is_not_text_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "deployments.toml"
        file.write_bytes(b"\xff")
        with pytest.raises(ConfigurationError, match="not valid TOML"):
            read_models(file, {})


class TestEnvironment:
    def test_without_a_file_there_is_one_model_of_one_deployment(self) -> None:
        variables = {"GPROCHAT_URL": "https://chat.example", "GPROCHAT_SECRET_KEY": "k"}
        service = Service("https://chat.example", secret_key="k")
        expected = {"gprochat": (Deployment("gprochat", service),)}
        assert models_from_environment(variables) == expected

    def test_a_file_may_be_named(self, tmp_path: Path) -> None:
        file = str(write(tmp_path, BOTH))
        models = models_from_environment({**KEYS, "GPROCHAT_GATEWAY_CONFIG": file})
        assert list(models) == ["main", "spare", "either"]

    @pytest.mark.parametrize("variables", [{}, {"GPROCHAT_URL": "https://chat.example"}])
    def test_without_url_or_key_the_error_says_what_to_set(self, variables: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="GPROCHAT_"):
            models_from_environment(variables)


@pytest.mark.anyio
class TestChoice:
    @pytest.mark.parametrize("models", [{}, {"m": []}])
    async def test_a_gateway_needs_models_and_deployments(
        self, models: dict[str, Sequence[Deployment]]
    ) -> None:
        with pytest.raises(ConfigurationError):
            Upstreams(models)

    async def test_the_deployment_with_the_fewest_live_replies_answers(self) -> None:
        async with AsyncExitStack() as stack:
            answers = [Watched("a"), Watched("b")]
            models = model_of(*[await serving(stack, each) for each in answers])
            upstreams = await stack.enter_async_context(Upstreams(models))
            firsts = []
            for _ in range(4):
                call = await stack.enter_async_context(upstreams.call("gprochat", ASKED))
                firsts.append(call.first)
            assert firsts == ["a", "b", "a", "b"]
            assert [live["live_replies"] for live in states(upstreams)] == [2, 2]
        assert [live["live_replies"] for live in states(upstreams)] == [0, 0]

    async def test_a_call_that_fails_before_its_first_character_goes_to_the_next(self) -> None:
        async with AsyncExitStack() as stack:
            broken = await serving(stack, failing(error=ValueError()))
            good = await serving(stack, answer_of("Hello"))
            with closed_port() as port:
                gone = Service(f"http://127.0.0.1:{port}", secret_key="k")
                models = model_of(gone, broken, good)
                upstreams = await stack.enter_async_context(Upstreams(models))
                async with upstreams.call("gprochat", ASKED) as call:
                    assert call.first == "Hello"
                    assert call.attempts == 3

    async def test_the_error_of_the_last_deployment_is_raised(self) -> None:
        async with AsyncExitStack() as stack:
            good = await serving(stack, answer_of("Hello"))
            wrong = Service(good.url, secret_key="wrong")
            with closed_port() as port:
                gone = Service(f"http://127.0.0.1:{port}", secret_key="k")
                upstreams = await stack.enter_async_context(Upstreams(model_of(gone, wrong)))
                call = upstreams.call("gprochat", ASKED)
                with pytest.raises(SignatureRejected):
                    await call.__aenter__()
                assert call.attempts == 2

    async def test_a_request_that_is_at_fault_goes_to_no_other_deployment(self) -> None:
        refusing = answer(400, '{"error":{"message":"no"}}')
        async with AsyncExitStack() as stack:
            peer = stack.enter_context(ScriptedPeer([receive, send(refusing)]))
            other = stack.enter_context(ScriptedPeer([receive, send(refusing)]))
            services = [Service(each.url, secret_key="k") for each in (peer, other)]
            upstreams = await stack.enter_async_context(Upstreams(model_of(*services)))
            with pytest.raises(BadRequest):
                await upstreams.call("gprochat", ASKED).__aenter__()
            assert other.requests == []
            assert states(upstreams)[0]["failures_in_a_row"] == 0

    async def test_a_deployment_alone_is_asked_again_by_its_client(self) -> None:
        # The peer closes each connection, and says so: a second request on it would be sent again.
        refusing = send(answer(503, "", "connection: close"))
        with ScriptedPeer([receive, refusing], [receive, refusing]) as peer:
            service = Service(peer.url, secret_key="k")
            retry = RetryPolicy(max_attempts=2, base_delay=0.0)
            async with Upstreams(model_of(service), retry=retry) as upstreams:
                call = upstreams.call("gprochat", ASKED)
                with pytest.raises(Exception, match="503"):
                    await call.__aenter__()
                assert call.attempts == len(peer.requests) == 2

    async def test_a_deployment_that_keeps_failing_rests(self) -> None:
        async with AsyncExitStack() as stack:
            good = await serving(stack, answer_of("Hello"))
            with closed_port() as port:
                gone = Service(f"http://127.0.0.1:{port}", secret_key="k")
                upstreams = await stack.enter_async_context(Upstreams(model_of(gone, good)))
                attempts: list[int] = []
                for _ in range(FAILURES + 2):
                    async with upstreams.call("gprochat", ASKED) as call:
                        attempts.append(call.attempts)
            assert attempts == [2] * FAILURES + [1, 1]
            assert [each["state"] for each in states(upstreams)] == ["resting", "ok"]

    async def test_a_deployment_that_rests_is_asked_if_all_others_fail(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gprochat.gateway.deployments.FAILURES", 1)
        with closed_port() as port:
            gone = Service(f"http://127.0.0.1:{port}", secret_key="k")
            async with Upstreams(model_of(gone, gone)) as upstreams:
                for _ in range(2):
                    call = upstreams.call("gprochat", ASKED)
                    with pytest.raises(ConnectError):
                        await call.__aenter__()
                    assert call.attempts == 2

    async def test_a_complete_reply_ends_the_row_of_failures(self) -> None:
        retry = RetryPolicy(max_attempts=1)
        bad, good = send(answer(500)), send(answer(200, "Hello"))
        with ScriptedPeer([receive, bad], [receive, good]) as peer:
            service = Service(peer.url, secret_key="k")
            async with Upstreams(model_of(service), retry=retry) as upstreams:
                with pytest.raises(Exception, match="500"):
                    await upstreams.call("gprochat", ASKED).__aenter__()
                assert states(upstreams)[0]["state"] == "failing"
                async with upstreams.call("gprochat", ASKED) as call:
                    assert [piece async for piece in call.reply] == []
                assert states(upstreams)[0]["state"] == "ok"

    async def test_a_cancelled_call_is_no_failure(self) -> None:
        async with AsyncExitStack() as stack:
            watched = Watched()
            service = await serving(stack, watched)
            upstreams = await stack.enter_async_context(Upstreams(model_of(service)))
            task = asyncio.create_task(upstreams.call("gprochat", ASKED).__aenter__())
            await watched.begun.wait()
            assert states(upstreams)[0]["live_replies"] == 1
            task.cancel()
            await asyncio.wait([task])
            (state,) = states(upstreams)
            assert (state["live_replies"], state["failures_in_a_row"]) == (0, 0)


async def serving(stack: AsyncExitStack, answer: Answer) -> Service:
    return (await stack.enter_async_context(serve(answer, grace=0.0))).service


def states(upstreams: Upstreams) -> list[dict[str, object]]:
    return list(upstreams.health().values())
