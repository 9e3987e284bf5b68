"""The pages: they build strictly into a site that loads nothing from elsewhere, and the Python that they show runs."""

import html.parser
import importlib
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests import pages

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NOT_RUN_HERE = {  # why; the Python must compile all the same
    "ablations.md": "an excerpt of a file",
    "bundle.md": "tests/export/test_bundle.py runs it beside a bundle",
    "load.md": "wants a trained ACRN; tests/test_face.py makes these calls",
    "training.md": "wants TensorFlow",
}


def build(source, out):
    """Builds the site from a copy of the repository's text; the process."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--site-dir", out],
        cwd=source,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_has_every_page(site):
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).exists(), page
    menu = {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html"}
    shown = Page.of(site / "index.html").links
    assert menu <= {link.partition("#")[0] for link in shown}, "a page that the menu does not show"


class Page(html.parser.HTMLParser):
    """What a built page loads, and where its links lead."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links, self.tags, self.ids = [], [], set(), set()

    @classmethod
    def of(cls, path):
        page = cls()
        page.feed(path.read_text())
        return page

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids.add(attributes.get("id"))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in ("script", "img", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        if tag == "link" and "canonical" not in (attributes.get("rel") or ""):
            self.loaded.append(attributes["href"])


def test_pages_load_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        assert not [what for what in Page.of(path).loaded if re.match(r"(https?:)?//", what)], path


def test_equations_are_mathml(site):
    method = site / "method.html"
    assert {"math", "mfrac", "msub"} <= Page.of(method).tags
    assert "arithmatex" not in method.read_text()  # nothing is left for a script to do


@pytest.mark.parametrize("module", ["acrn_jax", "acrn_jax.evaluation", "acrn_jax.losses", "acrn_jax.results"])
def test_the_reference_has_every_public_name(site, module):
    found = set().union(*(Page.of(path).ids for path in (site / "api").glob("*.html")))
    module = importlib.import_module(module)
    for name in getattr(module, "__all__", ()):
        if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)):
            assert {f"{module.__name__}.{name}", f"acrn_jax.{name}"} & found, name


def test_examples_of_the_reference_are_code(site):
    page = (site / "api" / "evaluation.html").read_text()
    assert '<span class="gp">' in page and "<blockquote>" not in page  # the prompt of a Python session


def test_broken_pages_fail(tmp_path):
    """Each of five faults is told; a build with a warning fails."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for source in ("mkdocs.yml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", *ROOT.glob("data_prep/*/README.md")):
        target = tmp_path / (ROOT / source).relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, target)
    (tmp_path / "acrn_jax").symlink_to(ROOT / "acrn_jax")
    (tmp_path / "docs" / "no_way_leads_here.md").write_text("# Lost\n")
    links = "[a page](nowhere.md), [a heading](method.md#no-such-heading), [absolute](/method.md)"
    add(tmp_path / "docs" / "speed.md", f"{links}\n- no list")
    done = build(tmp_path, tmp_path / "site")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Aborted with 5 warnings in strict mode" in said
    for what in ("no_way_leads_here.md", "nowhere.md", "no-such-heading", "/method.md", "empty line above"):
        assert what in said, said


def add(page, text):
    page.write_text(f"{page.read_text()}\n{text}\n")


def test_settings_of_the_site_are_strict():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    assert settings["strict"] is True
    assert {level for kind in settings["validation"].values() for level in kind.values()} == {"warn"}


def test_sections_of_the_method_that_the_code_cites_are_there():
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "docs" / "method.md").read_text(), re.M))
    code = [path for folder in ("acrn_jax", "configs", "tests") for path in (ROOT / folder).rglob("*.py")]
    cited = [(path, number) for path in code for number in re.findall(r"method\.md,? section (\d+)", path.read_text())]
    assert len(cited) > 4
    assert not [(str(path), number) for path, number in cited if number not in sections]


def test_files_that_pages_name_are_there():
    """Paths of the repository in `code`, so that a page does not outlive what it tells of."""
    kept = ("acrn_jax/", "configs/", "data_prep/", "docs/", "tests/", "benchmarks/")
    for page in (ROOT / "README.md", *PAGES):
        new = {block.title for block in pages.blocks(page)}
        for name in set(re.findall(r"`([\w./-]+\.(?:py|md|sh|toml))`", page.read_text())) - new:
            assert not name.startswith(kept) or (ROOT / name).exists(), f"{page.name} names {name}"


def test_pages_that_the_code_names_are_there():
    code = [path for folder in ("acrn_jax", "configs", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    for path in (*code, ROOT / "launch.sh"):
        for name in re.findall(r"docs/[\w/]+\.md", path.read_text()):
            assert (ROOT / name).exists(), f"{path} names {name}"


WITH_CODE = [page for page in (ROOT / "README.md", *PAGES) if any(b.language == "python" for b in pages.blocks(page))]
WITH_CODE = [page for page in WITH_CODE if page.name != "trackers.md"]  # tests/export/test_trackers.py runs that one


@pytest.mark.parametrize("page", WITH_CODE, ids=[page.name for page in WITH_CODE])
def test_code_on_a_page_runs(page, tmp_path):
    if page.name in NOT_RUN_HERE:
        for block in pages.blocks(page):
            if block.language == "python":
                compile(block.text, str(page), "exec")
    else:
        pages.carry_out(page, tmp_path, commands=page.parent.name == "extending")


def test_a_diff_whose_place_is_not_there_is_told():
    assert pages.patched("a\nb\nc\n", " a\n-b\n+d\n@@\n c\n+e\n") == "a\nd\nc\ne\n"
    with pytest.raises(AssertionError, match="0 places"):
        pages.patched("a\nb\n", " b\n a\n+c\n")
    with pytest.raises(AssertionError, match="2 places"):
        pages.patched("a\na\n", " a\n+c\n")
