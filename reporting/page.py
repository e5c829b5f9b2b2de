"""Pages of a report: the same sections as one self-contained HTML file and as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Template
from matplotlib.figure import Figure

from encore.reporting.figures import save_png
from encore.reporting.tables import to_markdown

TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One piece of a section, in this order: text, a table, a figure.

    Attributes:
        text: Plain text, paragraphs separated by an empty line; may be empty.
        table: Text cells, or None.
        figure: Saved beside the page, or None.
        name: File name of the figure, without ``.png``; one for each figure of a page.
        caption: Caption of the table or figure.
        folded: Whether the table is collapsed; ``caption`` is then the line to click on.
    """

    text: str = ""
    table: pd.DataFrame | None = None
    figure: Figure | None = None
    name: str = ""
    caption: str = ""
    folded: bool = False


class Section(NamedTuple):
    """A heading and its blocks."""

    title: str
    blocks: list[Block]


def write_pages(page: Path, title: str, sections: Sequence[Section]) -> list[Path]:
    """Write sections as an HTML file with embedded pictures and, beside it, as Markdown and PNG files.

    Args:
        page: The HTML file; its folder is created if needed.
        title: Heading of the pages.
        sections: Contents; all text is escaped.

    Returns:
        The two pages and the pictures.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = {
        block.name: save_png(
            block.figure, page.with_name(re.sub(r"[^A-Za-z0-9_-]", "_", block.name) + ".png")
        )
        for section in sections
        for block in section.blocks
        if block.figure is not None
    }
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()}
    template = Template(TEMPLATE.read_text("utf-8"), autoescape=True, trim_blocks=True)
    page.write_text(template.render(title=title, sections=sections, pictures=encoded) + "\n", "utf-8")
    markdown = page.with_suffix(".md")
    markdown.write_text(_markdown(title, sections, pictures), encoding="utf-8")
    return [page, markdown, *pictures.values()]


def _markdown(title: str, sections: Sequence[Section], pictures: dict[str, Path]) -> str:
    """Format sections as Markdown with links to the pictures."""
    parts = [f"# {title}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        for block in section.blocks:
            if block.text:
                parts.append(f"{block.text}\n")
            if block.table is not None:
                parts.append((f"{block.caption}\n\n" if block.caption else "") + to_markdown(block.table))
            if block.figure is not None:
                parts.append(f"![{block.caption}]({pictures[block.name].name})\n")
    return "\n".join(parts)
