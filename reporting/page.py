"""Pages of a report: the same sections as one self-contained HTML file and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from encore.reporting.tables import to_markdown

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
       max-width: 1180px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.6em; margin-bottom: .2em; }
h2 { font-size: 1.25em; margin-top: 2.2em; border-bottom: 1px solid #ccc; padding-bottom: .2em; }
p { max-width: 80ch; }
nav a { margin-right: 1.1em; white-space: nowrap; }
a { color: #0072B2; }
.scroll { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: .87em; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4em; color: #444; }
th, td { padding: .28em .75em; text-align: right; white-space: nowrap; }
thead th { border-top: 2px solid #222; border-bottom: 1px solid #222; }
tbody tr.group td { border-top: 1px solid #ccc; }
tbody tr:first-child td { border-top: 0; }
tbody tr:last-child td { border-bottom: 2px solid #222; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.2em 0; }
figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .9em; max-width: 80ch; }
summary { cursor: pointer; color: #0072B2; }
@media print { body { max-width: none; margin: 0; } h2, figure, tr { break-inside: avoid; } }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One piece of a section, in this order: a paragraph, a table, a picture.

    Attributes:
        text: Plain text of a paragraph, or empty.
        table: Text cells, or None.
        picture: PNG file on disk, or None; Markdown links it by its file name.
        caption: Caption of the table or picture.
        folded: Whether the table is collapsed; ``caption`` is then the line to click on.
    """

    text: str = ""
    table: pd.DataFrame | None = None
    picture: Path | None = None
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def write_pages(html: Path, title: str, sections: Sequence[Section]) -> list[Path]:
    """Write sections as an HTML file and, beside it, as Markdown.

    Returns:
        The two pages and the pictures of the sections.
    """
    markdown = html.with_suffix(".md")
    html.write_text(render_html(title, sections), encoding="utf-8")
    markdown.write_text(render_markdown(title, sections), encoding="utf-8")
    pictures = [block.picture for section in sections for block in section.blocks if block.picture]
    return [html, markdown, *pictures]


def render_markdown(title: str, sections: Sequence[Section]) -> str:
    """Render sections as Markdown; pictures are linked as files of the same folder."""
    parts = [f"# {title}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        for block in section.blocks:
            if block.text:
                parts.append(f"{block.text}\n")
            if block.table is not None:
                parts.append((f"{block.caption}\n\n" if block.caption else "") + to_markdown(block.table))
            if block.picture is not None:
                parts.append(f"![{block.caption}]({block.picture.name})\n")
    return "\n".join(parts)


def render_html(title: str, sections: Sequence[Section]) -> str:
    """Render sections as one HTML file with embedded style and pictures, all text escaped, no script.

    Raises:
        OSError: If a picture cannot be read.
    """
    links = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    body = [f"<h1>{escape(title)}</h1>", f"<nav>{links}</nav>"]
    for index, section in enumerate(sections):
        body.append(f'<section id="s{index}"><h2>{escape(section.title)}</h2>')
        body += [_html_block(block) for block in section.blocks]
        body.append("</section>")
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{CSS}</style>'
    sized = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    content = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}{sized}</head>\n<body>\n{content}\n</body></html>\n'


def _html_block(block: Block) -> str:
    """Render a block as HTML."""
    parts = []
    caption = escape(block.caption)
    if block.text:
        parts += [f"<p>{escape(paragraph)}</p>" for paragraph in block.text.split("\n\n")]
    if block.table is not None:
        above = "" if block.folded else caption
        table = f'<div class="scroll">{_html_table(block.table, above)}</div>'
        parts.append(f"<details><summary>{caption}</summary>{table}</details>" if block.folded else table)
    if block.picture is not None:
        data = base64.b64encode(block.picture.read_bytes()).decode("ascii")
        image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
        parts.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return "\n".join(parts)


def _html_table(table: pd.DataFrame, caption: str) -> str:
    """Render a frame of text as an HTML table, with a rule wherever the first column changes."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in table.columns)
    rows = []
    before: object = None
    for cells in table.itertuples(index=False):
        group = ' class="group"' if cells[0] != before else ""
        before = cells[0]
        rows.append(f"<tr{group}>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>")
    above = f"<caption>{caption}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
