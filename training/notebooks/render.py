"""Executes the notebooks and writes them with their outputs as pages of the documentation.

    python training/notebooks/render.py [NAME ...] && zensical build

A page each goes to docs/notebooks, which is not kept: outputs are made anew. It takes minutes a
notebook; RS_MODELS_NOTEBOOK_SMALL=1 makes all of them small. What they draw from lies in the clone.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PAGES = FOLDER.parent.parent / "docs" / "notebooks"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def execute(script: Path, folder: Path = FOLDER.parent.parent) -> Any:
    """Runs a notebook from its first cell to its last.

    Args:
        script: The notebook as a script of cells.
        folder: Folder that it runs in.
    """
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(script)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=resources).execute()
    return notebook


def write_page(notebook: Any, name: str, pages: Path = PAGES) -> Path:
    """Writes an executed notebook as Markdown, its pictures beside it.

    Args:
        notebook: From `execute`.
        name: Name of the page.
        pages: Folder of the pages.

    Returns:
        The page.
    """
    pages.mkdir(parents=True, exist_ok=True)
    parts: list[str] = []
    pictures = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            image = output.get("data", {}).get("image/png")
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if image:
                pictures += 1
                picture = pages / f"{name}-{pictures}.png"
                picture.write_bytes(base64.b64decode(image))
                parts.append(f"![Drawn by the cell above]({picture.name})")
            elif text and output.get("name") != "stderr":  # bars are no result
                parts.append(f"```text\n{_COLOURS.sub('', text).rstrip()}\n```")
    page = pages / f"{name}.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def main(names: Sequence[str]) -> int:
    """Renders the notebooks that are named, or all."""
    for script in sorted(FOLDER.glob("[0-9]*.py")):
        if not names or script.stem in names:
            print(write_page(execute(script), script.stem), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
