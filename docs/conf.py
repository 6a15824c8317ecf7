"""Sphinx's settings for the site: `make docs` writes it to build/docs.

The pages are the Markdown files of this folder, as they are read in the repository too, and those
that stand elsewhere in it (`PAGES`). The reference is made from the docstrings: these are Google's
style, and one backtick marks a name.
"""

import ast
import inspect
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

from docutils import nodes
from pygments.lexers import TextLexer
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from gprochat_transports import ClientOptions, Settings

DOCS: Final = Path(__file__).resolve().parent

PAGES: Final = {
    DOCS / f"{page}.md": DOCS.parent / file
    for page, file in {
        "benchmarks/results": "benchmarks/RESULTS.md",
        "benchmarks/method": "benchmarks/README.md",
        "project/changelog": "CHANGELOG.md",
        "project/contributing": "CONTRIBUTING.md",
        "project/releasing": "RELEASING.md",
        "project/security": "SECURITY.md",
        "project/tests": "tests/README.md",
    }.items()
}
"""The pages of the site whose text is a file outside of this folder."""

project = "gprochat"
copyright = "gprochat contributors"
nitpicky = True
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
html_theme = "furo"
html_title = "gprochat"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
myst_heading_anchors = 4

smartquotes_action = "D"  # Python has its own quotes.
default_role = "py:obj"
add_module_names = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "inherited-members": "BaseException,str,tuple,dict"}
napoleon_use_ivar = True
napoleon_use_rtype = False
nitpick_ignore_regex = [
    # What Python and other libraries define has its pages elsewhere.
    ("py:.*", r"(?s)(?!gprochat).*"),
    # These stand in annotations of public names, and are in no `__all__`.
    ("py:.*", r"gprochat.*\.(C|T|Connection|FROM_ENVIRONMENT|Pace|ProxyUrl|Run|SharedOptions)"),
]

OPTIONS: Final = [
    # As they are written: evaluated, a type is longer than its name.
    (option.target.id, ast.unparse(option.annotation), getattr(Settings(), option.target.id))
    for option in ast.walk(ast.parse(inspect.getsource(Settings)))
    if isinstance(option, ast.AnnAssign) and isinstance(option.target, ast.Name)
]
"""The names, types and defaults of the arguments that all clients take."""

LINK: Final = re.compile(r"(?<=\]\()(?P<path>[^)\s:#]+)(?P<anchor>#[^)\s]*)?(?=\))")

NAME: Final = re.compile(r"gprochat\w*(?:\.\w+)+|[A-Z]\w*(?:\.\w+)*")

BACK: Final = re.compile(
    r'(?P<before>id="(?P<name>[\w.]+)">\s*)<a class="viewcode-back" href="[^"]*">'
)


def read_page(app: Sphinx, docname: str, content: list[str]) -> None:
    """Show the file that a page of `PAGES` stands for; lead links to such files to their pages."""
    page = Path(app.env.doc2path(docname))
    file = PAGES.get(page, page)
    if file != page:
        app.env.note_dependency(file)
        content[0] = file.read_text(encoding="utf-8")
    shown = {target: page for page, target in PAGES.items()}

    def lead(link: re.Match[str]) -> str:
        target = (file.parent / link["path"]).resolve()
        target = shown.get(target, target)
        return Path(os.path.relpath(target, page.parent)).as_posix() + (link["anchor"] or "")

    if page.suffix == ".md":
        content[0] = LINK.sub(lead, content[0])


class Names(SphinxDirective):
    """Lists names of a module that another page describes: `.. names:: MODULE HOME`, the names."""

    required_arguments = 2
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return an entry for each name, with the first paragraph of its docstring."""
        module, home = self.arguments
        lines = [f".. py:currentmodule:: {module}", ""]
        names = " ".join(self.content).split()
        for name in names:
            found = getattr(import_module(module), name)
            kind, said = "data", ""
            if inspect.isclass(found) or inspect.isroutine(found):
                kind = "class" if inspect.isclass(found) else "function"
                said = (inspect.getdoc(found) or "").partition("\n\n")[0].replace("\n", " ")
            lines += [f".. py:{kind}:: {name}", "   :no-contents-entry:", ""]
            lines += [f"   {said}", "", f"   See :py:obj:`{home}.{name}`.", ""]
        entries: list[nodes.Node] = self.parse_text_to_nodes("\n".join(lines))
        # An unqualified name in a docstring means the name that is described.
        objects = self.env.domains.python_domain.objects
        for name in names:
            full = f"{module}.{name}"
            objects[full] = objects[full]._replace(aliased=True)
        return entries


def expand_options(
    app: Sphinx, what: str, name: str, found: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Write the keyword arguments of `ClientOptions` into a signature, with their defaults."""
    if "Unpack" not in (signature or ""):
        return None
    arguments = ", ".join(
        f"{key}: {kind} = {getattr(default, 'name', default)}" for key, kind, default in OPTIONS
    )
    return re.sub(r"\*\*options: [\w.\[\]~]+", arguments, signature), returns


def write_rest(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Write a docstring's indented code, and its `options`, as reStructuredText has them."""
    if what in ("data", "type"):
        lines[:] = list(comment(name)) or lines
    before = ""
    listed = False
    rest: list[str] = []
    for number, line in enumerate(lines):
        if line.startswith("    ") and number and not lines[number - 1] and before[:1] != " ":
            rest += ["::", ""]
        if line == "    options: see `gprochat_transports.ClientOptions`.":
            said = (inspect.getdoc(ClientOptions) or "").partition("Attributes:\n")[2]
            rest += said.rstrip().splitlines()
        elif line.startswith("Raises, "):
            # Napoleon knows "Raises:" alone, and not what is raised later.
            rest += [line, ""]
        elif listed and line.startswith("    "):
            rest.append(f"  {line[8:]}" if line.startswith("        ") else f"* {line[4:]}")
        else:
            rest.append(line)
        if line and line[0] != " ":
            listed = line.startswith("Raises, ")
        before = line or before
    lines[:] = rest


def comment(name: str) -> Iterator[str]:
    """Give the lines that describe a constant or a type's name, in the file that defines it."""
    package, _, constant = name.rpartition(".")
    for module in sorted(sys.modules):
        if module == package or module.startswith(f"{package}."):
            docs = ModuleAnalyzer.for_module(module).find_attr_docs()
            if ("", constant) in docs:
                yield from docs["", constant]
                return


def described(app: Sphinx, page: str, name: str) -> str | None:
    """Return the link from a page to what describes a name, which may lack its module."""
    objects = app.env.domains.python_domain.objects
    # gprochat_core.exchange.Exchange is described as gprochat_core.Exchange.
    short = re.sub(r"^(gprochat\w*)\.[\w.]*(?=\b[A-Z])", r"\1.", name)
    names = (
        name,
        short,
        f"gprochat_core.{name}",
        f"gprochat.{name}",
        f"gprochat_transports.{name}",
    )
    known = next((objects[each] for each in names if each in objects), None)
    if known is None:
        return None
    return f"{app.builder.get_relative_uri(page, known.docname)}#{known.node_id}"


def find_name(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, text: nodes.TextElement
) -> nodes.reference | None:
    """Find a name that a docstring writes without its module."""
    uri = node.get("refdomain") == "py" and described(
        app, node["refdoc"], node["reftarget"].removesuffix("()")
    )
    return nodes.reference("", "", text, internal=True, refuri=uri) if uri else None


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link names in the text of a page, such as `RetryPolicy`, to the reference."""
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().removesuffix("()")
        if isinstance(literal.parent, nodes.reference | nodes.title):
            continue
        if NAME.fullmatch(name) and (uri := described(app, docname, name)):
            reference = nodes.reference("", "", internal=True, refuri=uri)
            literal.replace_self(reference)
            reference += literal


def lead_back(
    app: Sphinx, pagename: str, template: str, context: dict[str, str], doctree: object
) -> None:
    """Lead from a name's source to where the name is described: often not under its module."""
    if not pagename.startswith("_modules/"):
        return
    objects = app.env.domains.python_domain.objects
    module = pagename.removeprefix("_modules/").replace("/", ".")
    packages = [module.rsplit(".", times)[0] for times in range(module.count(".") + 1)]

    def lead(link: re.Match[str]) -> str:
        names = [f"{package}.{link['name']}" for package in packages]
        known = next(objects[name] for name in names if name in objects)
        uri = app.builder.get_relative_uri(pagename, known.docname)
        return f'{link["before"]}<a class="viewcode-back" href="{uri}#{known.node_id}">'

    context["body"] = BACK.sub(lead, context["body"])


def setup(app: Sphinx) -> None:
    """Register the above."""
    app.add_directive("names", Names)
    # Pygments has none.
    app.add_lexer("csv", TextLexer)
    app.connect("source-read", read_page)
    app.connect("autodoc-process-signature", expand_options)
    # Before napoleon reads it.
    app.connect("autodoc-process-docstring", write_rest, priority=100)
    app.connect("missing-reference", find_name)
    app.connect("doctree-resolved", link_names)
    app.connect("html-page-context", lead_back)
