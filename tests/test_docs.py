"""The pages of `docs/` keep their promises: links lead somewhere, examples run, the notebook too."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").glob("*.md")])
GUIDES = [page for page in PAGES if "```python" in page.read_text() and "guides" in page.parts]


def anchors(page):
    """The places in a page that a link can name."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def is_broken(page, link):
    path, _, place = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return not target.exists() or (place and target.suffix == ".md" and place not in anchors(target))


def test_every_link_leads_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s:]+)\)", page.read_text())]
    assert len(links) > 100
    assert not [f"{page.relative_to(ROOT)}: {link}" for page, link in links if is_broken(page, link)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")  # the guide to old files has to
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_examples_of_a_guide_run(page, tmp_path, monkeypatch, digits_network):
    monkeypatch.chdir(tmp_path)
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S), start=1):
        exec(compile(example, f"{page.name}, example {number}", "exec"), digits_network)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_prints(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import run_notebook

    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())
    kept = [len(cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    run_notebook.run(notebook)
    sys.modules.pop("run_notebook")
    assert [len(cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code"] == kept
