"""The site in Chromium, opened from its files: pages, search, dark mode, a phone's width."""

from collections.abc import Callable
from typing import Any

import pytest

WIDTH = 360
PHONE: dict[str, Any] = {
    "viewport": {"width": WIDTH, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}


def results(page: Any) -> list[str]:
    """The pages that a search finds, by their files, the best first."""
    page.wait_for_selector("#search-results .search-summary:has-text('found')")
    page.wait_for_timeout(100)
    links = page.locator("#search-results li > a")
    found: list[str] = links.evaluate_all("links => links.map(a => a.pathname + a.hash)")
    return [link.partition("build/docs/")[2] for link in found]


def brightness(page: Any, selector: str, what: str) -> float:
    """How bright a colour of an element is, from 0 to 255."""
    script = "(element, what) => getComputedStyle(element)[what].match(/[0-9.]+/g).slice(0, 3)"
    return sum(map(float, page.locator(selector).first.evaluate(script, what))) / 3


def test_the_home_shows_the_recorded_chat_and_leads_on(visit: Callable[..., Any]) -> None:
    page = visit("index.html")
    assert page.title() == "gprochat"
    assert page.locator("img[src$='command-line.svg']").evaluate("image => image.naturalWidth > 0")
    page.get_by_role("link", name="the command line").first.click()
    assert page.locator("h1").inner_text().startswith("The command line")


def test_a_guide_has_copy_buttons_and_leads_to_the_next_and_the_previous(
    visit: Callable[..., Any],
) -> None:
    page = visit("guides/errors.html")
    page.locator("div.highlight-python").first.hover()
    page.locator("button.copybtn").first.click()
    page.wait_for_selector("button.copybtn.success")
    page.locator("a.next-page").click()
    assert page.url.endswith("timeouts-and-limits.html")
    page.locator("a.prev-page").click()
    assert page.url.endswith("errors.html")


def test_the_reference_leads_to_the_source(visit: Callable[..., Any]) -> None:
    page = visit("reference/clients.html#gprochat_transports.aiohttp.Client.stream")
    page.locator("[id='gprochat_transports.aiohttp.Client.stream'] .viewcode-link").click()
    assert page.locator("h1").inner_text() == "Source code for gprochat_transports.client"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("SignatureRejected", "reference/core.html#gprochat_core.SignatureRejected"),
        ("SignatureRejected", "troubleshooting.html"),
        ("no connection was free within", "troubleshooting.html"),
        ("StreamingResponse", "recipes/fastapi.html"),
        ("FastAPI", "recipes/fastapi.html"),
        ("max_history", "guides/conversations.html"),
    ],
)
def test_the_search_finds(visit: Callable[..., Any], words: str, expected: str) -> None:
    page = visit("index.html")
    page.locator("input[name=q]").fill(words)
    page.locator("input[name=q]").press("Enter")
    assert expected in [link.split("?")[0] for link in results(page)][:8]


def test_light_and_dark_are_as_the_system_says_and_can_be_changed(
    visit: Callable[..., Any],
) -> None:
    for scheme in ("light", "dark"):
        page = visit("guides/errors.html", color_scheme=scheme)
        paper, ink = brightness(page, "body", "backgroundColor"), brightness(page, "body", "color")
        assert paper - ink > 150 if scheme == "light" else ink - paper > 150
    page.locator("button.theme-toggle:visible").click()
    page.wait_for_function("document.body.dataset.theme !== 'auto'")
    assert brightness(page, "body", "backgroundColor") > 200


@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "design.html",
        "faults.html",
        "guides/errors.html",
        "benchmarks/results.html",
        "reference/clients.html",
        "reference/core.html",
        "troubleshooting.html",
    ],
)
def test_nothing_is_wider_than_a_phone(visit: Callable[..., Any], path: str) -> None:
    page = visit(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH


def test_a_phone_shows_the_menu_when_it_is_asked_for(visit: Callable[..., Any]) -> None:
    page = visit("index.html", **PHONE)
    entry = page.locator(".sidebar-tree a", has_text="Errors and retries")
    assert not page.evaluate("document.elementFromPoint(20, 300).closest('.sidebar-drawer')")
    page.locator("label[for=__navigation]:visible").first.click()
    entry.click()
    assert page.locator("h1").inner_text().startswith("Errors and retries")
