"""A self-contained HTML page from parts: headings, tables, figures, texts. No script, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root{--ink:#1d2430;--faint:#667085;--line:#dfe4ea;--tint:#f5f8fb;--blue:#2563a8;--bad:#a8323a}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);
max-width:1040px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.12rem;margin:2.2rem 0 .6rem;padding-top:.9rem;
border-top:1px solid var(--line)}p{margin:.4rem 0}.faint{color:var(--faint)}
.big{font-size:2.3rem;font-weight:600;color:var(--blue)}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.24rem .65rem;border-bottom:1px solid var(--line);text-align:right;font-size:.9rem;
vertical-align:top}th{color:var(--faint);font-weight:600}
th:first-child,td:first-child{text-align:left}td.text,th.text{text-align:left}
svg{max-width:100%;height:auto}.warn{background:#fff5e6;border-left:4px solid #d98a00;
padding:.5rem .8rem}.case{border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;
margin:.7rem 0;background:var(--tint)}.case img{height:96px;margin:.3rem .3rem 0 0;border-radius:4px}
.case pre{white-space:pre-wrap;margin:.3rem 0;font:.85rem/1.4 ui-monospace,monospace}
.wrong{color:var(--bad)}
"""


class Page:
    """Collects parts in order; `render` gives the finished document. All texts are escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """A section's title."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, *, kind: str = "") -> None:
        """A paragraph; `kind` is a style: faint, warn, big."""
        self._parts.append(f'<p class="{escape(kind)}">{escape(text)}</p>')

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: first column left, numbers right."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        self._parts.append(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def facts(self, facts: Mapping[str, str]) -> None:
        """Names and values, one per line."""
        rows = "".join(
            f'<tr><th class="text">{escape(name)}</th><td class="text">{escape(value)}</td></tr>'
            for name, value in facts.items()
        )
        self._parts.append(f'<div class="wide"><table><tbody>{rows}</tbody></table></div>')

    def figure(self, svg: str | None, caption: str) -> None:
        """An inline SVG with its caption; nothing when there is none."""
        if svg is not None:
            self._parts.append(
                f'<figure style="margin:0"><div class="wide">{svg}</div>'
                f'<figcaption class="faint">{escape(caption)}</figcaption></figure>'
            )

    def case(self, title: str, text: str, verdict: str, pictures: Sequence[str]) -> None:
        """One failure: what was asked, what was said, what was seen (data URLs)."""
        images = "".join(f'<img alt="a moment of the clip" src="{escape(p)}">' for p in pictures)
        self._parts.append(
            f'<div class="case"><b>{escape(title)}</b><pre>{escape(text)}</pre>'
            f'<div class="wrong">{escape(verdict)}</div>{images}</div>'
        )

    def render(self) -> str:
        """The whole document."""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{STYLE}</style></head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )
