"""Hooks of mkdocs.yml: pages that are made from files outside docs/, and equations without JavaScript."""

import html
import logging
import pathlib
import re

import latex2mathml.converter
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
LOG = logging.getLogger("mkdocs.hooks")  # a warning of it fails a strict build

# Page of the site -> the file that it is made from, which stays where readers of the repository look for it.
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"} | {
    f"data_prep/{path.parent.name}.md": str(path.relative_to(ROOT)) for path in ROOT.glob("data_prep/*/README.md")
}


def on_files(files, config):
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=_links_of_the_site((ROOT / source).read_text())))
    return files


def _links_of_the_site(text: str) -> str:
    """Links of a file at the repository's root, as the page that is made of it needs them."""
    text = re.sub(r"\]\(docs/", "](", text)
    for page, source in PAGES.items():
        text = re.sub(rf"\]\({re.escape(source)}(?=[)#])", f"]({page}", text)
    return text


def on_page_markdown(markdown, page, config, files):
    """Warns of what GitHub shows as a list and Python-Markdown as something else."""
    prose = re.sub(r"^( *)```.*?^\1```", "", markdown, flags=re.M | re.S)
    for above, below in zip(prose.splitlines(), prose.splitlines()[1:], strict=False):
        starts = re.match(r" *([-*]|\d\d?\.) ", below)
        if starts and above.strip() and not re.match(r" *([-*]|\d\d?\.) |\s{2,}|\|", above):
            LOG.warning("%s: a list needs an empty line above it: %s", page.file.src_uri, below)
        if (starts or not above.strip()) and (len(below) - len(below.lstrip())) % 4:
            LOG.warning("%s: what belongs to a list item is indented by four spaces: %s", page.file.src_uri, below)
    return markdown


def on_page_content(content, page, config, files):
    """Turns equations, which pymdownx.arithmatex leaves as LaTeX, into MathML: browsers show it without any script."""
    if page.file.src_uri.startswith("api/") and "<blockquote>" in content:
        LOG.warning("%s: a description that begins with > is taken for a quotation", page.file.src_uri)
    inline = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.S)
    block = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.S)
    content = inline.sub(lambda found: _mathml(found[1], "inline"), content)
    return block.sub(lambda found: f'<div class="equation">{_mathml(found[1], "block")}</div>', content)


def _mathml(latex: str, display: str) -> str:
    return latex2mathml.converter.convert(html.unescape(latex), display=display)
