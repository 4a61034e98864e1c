"""Hooks of the documentation site: pages from outside docs/, one API page per public module, and math as MathML."""

import ast
import html
import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
API_ROOTS = ("attention_processors", "pipelines", "datasets/readers", "training/core", "evaluation/core")
MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def pages() -> dict[str, str]:
    """Returns the page of the site by path in the repository, for files outside docs/."""
    models = ROOT / "pretrained"
    cards = [path.parent.relative_to(models).as_posix() for path in sorted(models.glob("**/README.md"))]
    return {
        "README.md": "index.md",
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        "examples/finetuning/README.md": "finetuning.md",
        "examples/notebooks/pairs.py": "notebooks/pairs.md",
        "examples/notebooks/style.py": "notebooks/style.md",
    } | {f"pretrained/{card}/README.md": f"models/{card.removeprefix('baselines/')}.md" for card in cards}


def content(source: str) -> str:
    """Returns the Markdown of a page outside docs/: a file as it is, or the cells of a script in percent format."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if not source.endswith(".py"):
        return text
    cells = [cell.partition("\n") for cell in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]]
    return "\n\n".join(
        re.sub(r"^# ?", "", body, flags=re.MULTILINE) if "markdown" in head else f"```python\n{body.strip()}\n```"
        for head, _, body in cells
    )


def modules() -> dict[str, str]:
    """Returns the API page of every public module by dotted name."""
    found: dict[str, str] = {}
    if missing := [root for root in API_ROOTS if not (ROOT / root).is_dir()]:
        raise FileNotFoundError(f"API_ROOTS: {missing[0]} not found; update docs/hooks.py")
    for path in sorted(file for root in API_ROOTS for file in (ROOT / root).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            found[".".join(("weftwork", *parts[:-1]))] = "/".join(("api", *parts[:-1], "index.md"))
        elif not parts[-1].startswith("_"):
            found[".".join(("weftwork", *parts))] = "/".join(("api", *parts)) + ".md"
    return found


def summary(name: str) -> str:
    """Returns the first line of a module's docstring."""
    path = ROOT.joinpath(*name.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def method_pages(nav: list[dict[str, Any]]) -> list[str]:
    """Returns the pages of docs/ that the navigation does not name, which are those of methods."""
    named = re.findall(r"[\w/]+\.md", str(nav))
    return [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named]


def on_config(config: Any) -> Any:
    """Fills the section of methods, and appends those of models and of the API reference."""
    section = next(one for one in config.nav if "Methods" in one)
    section["Methods"] = method_pages(config.nav)
    models: dict[str, list[Any]] = {"": [], "baselines": []}
    for path, page in pages().items():
        root, _, rest = path.partition("/")
        folder = rest.partition("/")[0]
        if root == "pretrained":
            models[folder if folder in models else ""].append(page)
    reference: dict[str, Any] = {}
    for name, page in modules().items():
        section = reference
        *packages, last = name.split(".")[1:]
        for package in packages:
            section = section.setdefault(package, {})
        if page.endswith("index.md"):
            section.setdefault(last, {})[""] = page
        else:
            section[last] = page
    config.nav += [
        {"Models": [*models[""], {"Baselines": models["baselines"]}]},
        {"API reference": ["api/index.md", *_nav(reference)]},
    ]
    return config


def _nav(section: dict[str, Any]) -> list[Any]:
    return [
        value if not name else {name: _nav(value) if isinstance(value, dict) else value}
        for name, value in sorted(section.items())
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside docs/, their images, and the API pages."""
    for source, page in pages().items():
        files.append(File.generated(config, page, content=content(source)))
        for image in sorted((ROOT / source).parent.glob("*.png")) if source.startswith("pretrained") else ():
            files.append(File.generated(config, f"models/{image.name}", abs_src_path=str(image)))
    rows = [f"| [`{name}`]({page.removeprefix('api/')}) | {summary(name)} |" for name, page in modules().items()]
    table = "\n".join(("| module | content |", "| --- | --- |", *rows))
    files.append(File.generated(config, "api/index.md", content=f"# API reference\n\n{table}\n"))
    for name, page in modules().items():
        files.append(File.generated(config, page, content=f"---\ntitle: {name.split('.')[-1]}\n---\n\n::: {name}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turns links between files of the repository into links between pages of the site."""
    if page.parent is None:  # a tab with this page alone
        page.meta["hide"] = ["navigation"]
    sources = {uri: source for source, uri in pages().items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    if page.file.src_uri.startswith("api/"):
        return markdown

    def moved(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        uri = pages().get(path, path.removeprefix("docs/"))
        if path.startswith("pretrained") and path.endswith(".png"):
            uri = f"models/{os.path.basename(path)}"
        return before + os.path.relpath(uri, os.path.dirname(page.file.src_uri) or ".") + (anchor or "") + after

    return LINK.sub(moved, markdown)


def on_page_content(content: str, **_: object) -> str:
    """Replaces LaTeX by MathML, which browsers draw without a script."""

    def drawn(match: re.Match[str]) -> str:
        return convert(html.unescape(match[3]), display="block" if match[2] == "[" else "inline")

    return MATH.sub(drawn, content)
