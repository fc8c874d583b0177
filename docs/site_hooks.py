"""What MkDocs has to be told about this repository: files outside `docs/` that pages link to, and the notebook.

Pages link to records, figures and cards by their paths in the repository, so the links work there too. Each file that
is linked to becomes a file of the site, and the links to it are rewritten. MkDocs reports whatever is left broken.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def on_files(files, config):
    """Add the notebook as a page, and every file of the repository that a page links to."""
    text = from_notebook(json.loads((ROOT / "docs" / "tutorial.ipynb").read_text()))
    files.remove(files.get_file_from_path("tutorial.ipynb"))
    files.append(File.generated(config, "tutorial.md", content=text))
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for path in (target(page.src_uri, link) for link in LINK.findall(page.content_string)):
            if not path.startswith("docs/") and files.get_file_from_path(path) is None and (ROOT / path).is_file():
                files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
                if path.endswith(".md"):
                    waiting.append(files.get_file_from_path(path))
    return files


def on_page_markdown(markdown, page, **_):
    """Rewrite the links that leave `docs/`, and those to the notebook."""
    here = page.file.src_uri

    def rewritten(match):
        path = target(here, match[0])
        if path == "docs/tutorial.ipynb":
            return match[0].replace(".ipynb", ".md")
        if not is_in_docs(here) or path.startswith("docs/"):
            return match[0]
        return posixpath.relpath(path, posixpath.dirname(here) or ".")

    return LINK.sub(rewritten, markdown)


def is_in_docs(page):
    """Whether a page of the site is a file of `docs/`; others keep their paths in the repository."""
    return page == "tutorial.md" or (ROOT / "docs" / page).exists()


def target(page, link):
    """The path in the repository that a link of a page leads to."""
    folder = posixpath.join("docs" if is_in_docs(page) else "", posixpath.dirname(page))
    return posixpath.normpath(posixpath.join(folder, link))


def from_notebook(notebook):
    """A notebook as Markdown: code in fences, what it printed below."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
