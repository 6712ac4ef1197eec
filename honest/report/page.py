"""A report as one HTML page that opens from disk: plain CSS, figures inlined, no script; and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from string import Template

from honest.report.content import Content, Figure, Section, Table
from honest.report.figures_style import DPI
from honest.report.tables import layout

CSS_PIXELS = 100  # of the page for an inch of a figure
MARK = "<!-- made by honest report; may be made anew -->"

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  margin: 2rem auto; padding: 0 1.5rem; max-width: 76rem; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
p, li, dd { max-width: 60rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { font-weight: 600; }
dd { margin: 0; }
dd div + div { margin-top: .15rem; }
dd.command { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88em; }
ul { margin: .3rem 0; padding-left: 1.2rem; }
.warnings { background: #fff6e0; border-left: 4px solid #d58a00; padding: .5rem 1rem; margin: .6rem 0; }
.none { color: #555; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .4rem 0 1.2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .28rem .55rem; border-bottom: 1px solid #e4e4e4; }
thead th { border-bottom: 2px solid #999; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 9rem; }
tbody tr:nth-child(even) { background: #f7f7f7; }
td small { display: block; color: #555; white-space: nowrap; }
figure { margin: 1.4rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: #333; max-width: 60rem; }
footer { margin-top: 2rem; font-size: .88rem; color: #333; }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { margin: 0; padding: 0; max-width: none; font-size: 10pt; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; }
  tr, figure { break-inside: avoid; }
  figure img { width: auto; max-height: 160mm; }
}
"""

PAGE = Template("""<!DOCTYPE html>
$mark
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<h1>$title</h1>
<h2>What was run</h2>
<dl>
$facts
</dl>
<h2>Whom the heads side with</h2>
$sides
<h2>Warnings</h2>
$warnings
<h2>Does anything beat two heads with the prior?</h2>
$beats
$sections
<footer>
<h2>How to read this</h2>
$notes
</footer>
</body>
</html>
""")


def html_page(content: Content) -> str:
    """The whole page; reads the figures' files."""
    warnings = _list(content.warnings)
    return PAGE.substitute(
        mark=MARK,
        title=escape(content.title),
        style=STYLE,
        facts="\n".join(_fact(name, lines) for name, lines in content.facts),
        sides=_list(content.sides),
        warnings=f'<div class="warnings">{warnings}</div>' if content.warnings else '<p class="none">None.</p>',
        beats=_list(content.beats),
        sections="\n".join(map(_section, content.sections)),
        notes=_list(content.notes),
    )


def _fact(name: str, lines: Sequence[str]) -> str:
    kind = ' class="command"' if name == "To make it again" else ""
    return f"<dt>{escape(name)}</dt><dd{kind}>{''.join(f'<div>{escape(line)}</div>' for line in lines)}</dd>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _section(section: Section) -> str:
    parts = [f"<section><h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.texts]
    parts += map(_table, section.tables)
    parts += map(_figure, section.figures)
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    lines = "\n".join(f"<tr><th>{escape(line[0])}</th>{''.join(map(_cell, line[1:]))}</tr>" for line in table.lines)
    return (
        f'<div class="scroll"><table><caption>{escape(table.caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def _cell(text: str) -> str:
    """The interval in small print under its number."""
    number, bracket, interval = text.partition(" [")
    return f"<td>{escape(number)}<small>[{escape(interval)}</small></td>" if bracket else f"<td>{escape(text)}</td>"


def _figure(figure: Figure) -> str:
    png = figure.path.read_bytes()
    data, caption = base64.b64encode(png).decode("ascii"), escape(figure.caption)
    width = round(int.from_bytes(png[16:20]) / DPI * CSS_PIXELS)  # as large as on paper, so that all text is alike
    return (
        f'<figure><img alt="{caption}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption} <small>({escape(figure.path.parent.name)}/{escape(figure.path.name)})</small>"
        "</figcaption></figure>"
    )


def markdown_table(table: Table) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in table.lines]
    return layout(table.header, lines, "l" * len(table.header), as_markdown=True)


def markdown_page(content: Content) -> str:
    """The page's texts and tables, and links to the figures."""
    facts = [f"- **{name}**: {'; '.join(lines)}" for name, lines in content.facts]
    parts = [
        MARK,
        f"# {content.title}",
        "## What was run",
        "\n".join(facts),
        "## Whom the heads side with",
        _bullets(content.sides),
        "## Warnings",
        _bullets(content.warnings) or "None.",
        "## Does anything beat two heads with the prior?",
        _bullets(content.beats),
    ]
    for section in content.sections:
        parts += [f"## {section.title}", *section.texts]
        for table in section.tables:
            parts += [f"**{table.caption}**", markdown_table(table)]
        parts += [f"![{f.caption}]({f.path.parent.name}/{f.path.name})" for f in section.figures]
    parts += ["## How to read this", _bullets(content.notes)]
    return "\n\n".join(parts) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
