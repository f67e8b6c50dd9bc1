"""Makes the website from files that are also read on their own: links of the repository, and docstrings.

MkDocs runs the functions, and mkdocstrings the class; ``mkdocs.yml`` names both.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository outside ``docs`` that are pages, and what they are called there."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in ``docs``, or not Markdown."""
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        page = file.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=notebook_to_markdown(json.loads(file.content_string))))
    return files


def notebook_to_markdown(notebook: dict[str, Any]) -> str:
    """Return the text, code, printed output and PNG pictures of a notebook as they are stored, without running it."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![Output of the code above](data:image/png;base64,{''.join(data['image/png']).strip()})")
            elif text := "".join(output.get("text") or data.get("text/plain", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages, or to the source on the web.

    A link to a file that does not exist stays as it is, and MkDocs reports it.
    """
    uri = page.file.src_uri
    here = ROOT / {there: name for name, there in OUTSIDE.items()}.get(uri, f"docs/{uri}")

    def replace(link: re.Match[str]) -> str:
        path = (here.parent / link[1]).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            return link[0]
        name = path.relative_to(ROOT).as_posix()
        inside = OUTSIDE.get(name, re.sub(r"\.ipynb$", ".md", name).removeprefix("docs/"))
        if files.get_file_from_path(inside):
            return f"]({posixpath.relpath(inside, posixpath.dirname(uri))}{link[2]})"
        return f"]({config.repo_url}/blob/main/{name}{link[2]})"

    return re.sub(r"\]\(([^)#:\s]+)(#[^)]*|)\)", replace, markdown)


class Docstrings(griffe.Extension):
    """Shows our docstrings as they are meant: `Name` is a link, ``Example:`` is code, and ``::`` starts a block."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Rewrite the docstrings of a package, once all of it is read."""
        self._rewrite(pkg)

    def _rewrite(self, obj: griffe.Object) -> None:
        if obj.docstring:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)", lambda name: self._link(obj, name[1]), text)
        for member in obj.members.values():
            if isinstance(member, griffe.Object):
                self._rewrite(member)

    def _link(self, obj: griffe.Object, name: str) -> str:
        """Return a link to what a name means in the docstring of ``obj``; code, if that is on no page."""
        try:
            target = name if name.startswith("seq2seq.") else obj.resolve(name)
        except griffe.NameResolutionError:
            return f"`{name}`"
        return f'<autoref optional identifier="{target}"><code>{name}</code></autoref>'
