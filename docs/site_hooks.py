"""What MkDocs has to be told about this repository: files outside `docs/` that pages link to, and the notebook.

Pages link to records, figures and cards by their paths in the repository, so the links work there too. Each file that
is linked to becomes a file of the site, and the links to it are rewritten. MkDocs reports whatever is left broken.
"""

import json
import os
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
        for path in map(lambda link: in_repository(page.src_uri, link), LINK.findall(page.content_string)):
            if path and files.get_file_from_path(path) is None and (ROOT / path).is_file():
                files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
                if path.endswith(".md"):
                    waiting.append(files.get_file_from_path(path))
    return files


def on_page_markdown(markdown, page, **_):
    """Rewrite the links that leave `docs/`."""
    here = page.file.src_uri

    def rewritten(match):
        path = in_repository(here, match[0])
        return posixpath.relpath(path, posixpath.dirname(here) or ".") if path else match[0]

    return LINK.sub(rewritten, markdown)


def in_repository(page, link):
    """The path in the repository that a link from a page leads to; None for one that stays in `docs/`."""
    outside = not (ROOT / "docs" / page).exists() and not page == "tutorial.md"  # a page that was itself linked to
    path = os.path.normpath(posixpath.join("" if outside else "docs", posixpath.dirname(page), link))
    return None if outside or path.startswith(("docs/", "..")) else path


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
