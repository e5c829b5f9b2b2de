"""Pages of a report: the same sections as one self-contained HTML file and as Markdown."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd
from jinja2 import Template
from matplotlib.figure import Figure
from PIL import Image

from encore.reporting.figures import DPI, save_png
from encore.reporting.tables import to_markdown

TEMPLATE = Path(__file__).with_name("page.html.j2")
LARGEST_PNG = 250_000
"""Bytes; larger pictures, which are spectrograms, are embedded as WebP of a fifth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One piece of a section, in this order: text, audio, a table, a figure.

    Attributes:
        text: Plain text, paragraphs separated by an empty line; may be empty.
        audio: FLAC files by the name of the signal.
        table: Text cells, or None.
        figure: Saved beside the page, or the path of a PNG file, or None.
        name: File name of a figure to save, without ``.png``; one for each figure of a page.
        caption: Caption of the table or figure.
        folded: Whether table and figure are collapsed; ``caption`` is then the line to click on.
    """

    text: str = ""
    audio: Mapping[str, Path] = field(default_factory=dict)
    table: pd.DataFrame | None = None
    figure: Figure | Path | None = None
    name: str = ""
    caption: str = ""
    folded: bool = False


class Section(NamedTuple):
    """A heading and its blocks; one that leads has large type, and its text beside its figure."""

    title: str
    blocks: list[Block]
    leads: bool = False


def write_pages(page: Path, title: str, sections: Sequence[Section]) -> list[Path]:
    """Write sections as an HTML file with embedded pictures and audio and, beside it, as Markdown and PNG.

    Args:
        page: The HTML file; its folder is created if needed.
        title: Heading of the pages.
        sections: Contents; all text is escaped.

    Returns:
        The two pages and the pictures that were saved.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    saved, files = [], {}
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block.figure, Figure) and id(block) not in files:
            path = page.with_name(re.sub(r"[^A-Za-z0-9_-]", "_", block.name) + ".png")
            saved.append(save_png(block.figure, path))
            files[id(block)] = path
        elif isinstance(block.figure, Path):
            files[id(block)] = block.figure
    template = Template(TEMPLATE.read_text("utf-8"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    figures = {key: (_data_uri(path), _css_width(path)) for key, path in files.items()}
    html = template.render(title=title, sections=sections, figures=figures, data_uri=_data_uri, id=id)
    page.write_text(html + "\n", "utf-8")
    markdown = page.with_suffix(".md")
    places = {key: _link(path, page) for key, path in files.items()}
    markdown.write_text(_markdown(title, sections, places, page), encoding="utf-8")
    return [page, markdown, *saved]


def _data_uri(path: Path) -> str:
    """Return a PNG or FLAC file as a data URI."""
    data, kind = path.read_bytes(), "image/png" if path.suffix == ".png" else "audio/flac"
    if kind == "image/png" and len(data) > LARGEST_PNG:
        smaller = BytesIO()
        Image.open(path).save(smaller, "webp", quality=85)
        data, kind = smaller.getvalue(), "image/webp"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _css_width(path: Path) -> int:
    """Return the width of a PNG file in CSS pixels, 96 an inch, so that its letters have their size."""
    return int.from_bytes(path.read_bytes()[16:20], "big") * 96 // DPI


def _link(path: Path, page: Path) -> str:
    return quote(os.path.relpath(path, page.parent))


def _markdown(title: str, sections: Sequence[Section], pictures: Mapping[int, str], page: Path) -> str:
    """Format sections as Markdown with links to pictures and audio."""
    parts = [f"# {title}\n"]
    for section in sections:
        parts += [f"## {section.title}\n"] if section.title else []
        for block in section.blocks:
            parts += [f"{block.text}\n"] if block.text else []
            if block.audio:
                links = (f"[{name}]({_link(path, page)})" for name, path in block.audio.items())
                parts.append(" · ".join(links) + "\n")
            if block.table is not None:
                parts.append((f"{block.caption}\n\n" if block.caption else "") + to_markdown(block.table))
            if block.figure is not None:
                parts.append(f"![{block.caption}]({pictures[id(block)]})\n")
    return "\n".join(parts)
