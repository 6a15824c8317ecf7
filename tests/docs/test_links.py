"""Links between the pages lead somewhere."""

import re

from tests.docs.pages import ROOT, pages


def anchors(text: str) -> set[str]:
    """What a page's headings are called in links, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_to_a_file_leads_to_one() -> None:
    broken: list[str] = []
    for page in pages():
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if "://" in path:
                continue
            target = (page.parent / path).resolve() if path else page
            known = anchors(target.read_text(encoding="utf-8")) if target.is_file() else {anchor}
            if not target.is_file() or (anchor and anchor not in known):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_the_readme_leads_to_every_page_and_the_list_of_recipes_to_every_recipe() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    others = [page.relative_to(ROOT).as_posix() for page in pages() if page.name != "README.md"]
    linked = readme + recipes.replace("](recipes/", "](docs/recipes/")
    assert [page for page in others if f"]({page}" not in linked] == []
