"""The built pages: no link that leads nowhere, nothing from another host, every public name."""

import importlib
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from gprochat_transports import ClientOptions

MODULES = [
    "gprochat",
    "gprochat.batch",
    "gprochat.client",
    "gprochat.gateway",
    "gprochat.provider",
    "gprochat.pytest_plugin",
    "gprochat.server",
    "gprochat_core",
    "gprochat_transports",
    "gprochat_transports.aiohttp",
    "gprochat_transports.environment",
    "gprochat_transports.extras",
    "gprochat_transports.http11.network",
    "gprochat_transports.http11.transport",
    "gprochat_transports.httpx",
    "gprochat_transports.pool",
    "gprochat_transports.trio",
    "gprochat_transports.watchdog",
]
"""The modules that people import names from."""


class Links(HTMLParser):
    """What a page loads, what it links to, and the anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif source := given.get("src") or (tag == "link" and given.get("href")):
            self.loaded.append(source)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Links]:
    return {
        path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }


@pytest.fixture(scope="module")
def anchors(site: Path) -> dict[str, str]:
    """The names that the site's inventory has, and where they are described."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = re.findall(r"(?m)^(\S+) py:\w+ \S+ (\S+) ", zlib.decompress(packed).decode())
    return {name: url.replace("$", name) for name, url in lines}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_its_place(
    anchors: dict[str, str], pages: dict[str, Links], module: str
) -> None:
    for name in importlib.import_module(module).__all__:
        page, _, anchor = anchors[f"{module}.{name}"].partition("#")
        assert anchor in pages[page].anchors


@pytest.mark.parametrize(
    "client",
    [
        "gprochat.Client",
        "gprochat.SyncClient",
        "gprochat_transports.Client",
        "gprochat_transports.aiohttp.Client",
        "gprochat_transports.httpx.Client",
        "gprochat_transports.httpx.SyncClient",
        "gprochat_transports.trio.Client",
    ],
)
def test_every_client_shows_its_methods(anchors: dict[str, str], client: str) -> None:
    assert {f"{client}.stream", f"{client}.complete"} <= anchors.keys()


def test_a_client_shows_its_keyword_arguments(site: Path) -> None:
    page = (site / "reference" / "clients.html").read_text(encoding="utf-8")
    signature = re.sub(r"<[^>]+>", "", page.partition('<dt class="sig')[2].partition("</dt>")[0])
    for name in ClientOptions.__annotations__:
        assert f"{name}:" in signature
    assert "Unpack" not in page


def test_a_guide_links_names_to_the_reference(pages: dict[str, Links]) -> None:
    links = pages["guides/errors.html"].links
    assert "../reference/core.html#gprochat_core.SignatureRejected" in links


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Links]) -> None:
    broken: list[str] = []
    for name, page in pages.items():
        for link in page.links:
            target = urlsplit(urljoin(name, link))
            if target.scheme or not link:
                continue
            path = unquote(target.path)
            known = pages[path].anchors if path in pages else {""}
            if not (site / path).is_file() or unquote(target.fragment) not in known:
                broken.append(f"{name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[str, Links]) -> None:
    loaded = [source for page in pages.values() for source in page.loaded]
    assert loaded
    assert [source for source in loaded if urlsplit(source).netloc] == []
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert not re.search(r"""url\(["']?(?:https?:)?//""", "".join(styles))
