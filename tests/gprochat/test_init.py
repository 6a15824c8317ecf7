"""The front door: the names of a first program, each imported when it is first used."""

import inspect
import json
import sys

import pytest

import gprochat
import gprochat_core
import gprochat_transports
from gprochat.client import Client
from gprochat.provider import GPROChat
from gprochat_transports.httpx import SyncClient
from tests.installations import output_with, run_with


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import importlib, json, sys, typing; before = set(sys.modules); import gprochat;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    assert json.loads(output_with([], code)) == ["gprochat"]


def test_the_core_names_need_no_library() -> None:
    code = "import gprochat; print(gprochat.Service('https://chat.example').url)"
    assert output_with([], code) == "https://chat.example\n"


@pytest.mark.parametrize("name", gprochat.__all__)
def test_each_name_is_there(name: str) -> None:
    gprochat.__dict__.pop(name, None)
    value = getattr(gprochat, name)
    assert value.__name__ == name
    assert getattr(gprochat, name) is value


def test_the_names_are_those_of_the_modules_below() -> None:
    assert gprochat.Client is Client
    assert gprochat.SyncClient is SyncClient
    assert gprochat.GPROChat is GPROChat
    assert gprochat.service_from_environment is gprochat_transports.service_from_environment
    assert gprochat.Service is gprochat_core.Service


def test_every_error_that_a_user_can_meet_is_there() -> None:
    errors = {
        name
        for name, value in vars(gprochat_core).items()
        if inspect.isclass(value) and issubclass(value, gprochat_core.GPROChatError)
    }
    assert errors <= {*gprochat.__all__}


def test_its_names_can_be_listed_before_they_are_used() -> None:
    assert {*gprochat.__all__} == {*dir(gprochat)}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'gprochat' has no attribute 'Klient'"):
        _ = gprochat.Klient  # type: ignore[attr-defined]


def test_its_modules_can_still_be_imported_from_it() -> None:
    from gprochat import demo

    assert sys.modules["gprochat.demo"] is demo


@pytest.mark.parametrize(("name", "extra"), [("SyncClient", "httpx"), ("GPROChat", "aiohttp")])
def test_a_name_without_its_library_names_the_extra(name: str, extra: str) -> None:
    run = run_with([], f"import gprochat; gprochat.{name}")
    assert run.returncode == 1
    assert f"pip install 'gprochat[{extra}]'" in run.stderr.splitlines()[-1]
