"""How results are shown: a percentage the same everywhere, and tables for notebooks.

>>> percent(0.9728, 0.0032)
'97.28 ± 0.32 %'
"""

from collections.abc import Iterable, Sequence


def percent(share: float, ci95: float | None = None, digits: int = 2) -> str:
    """A share, 0.9728, as "97.28 %"; with half its interval as "97.28 ± 0.32 %"."""
    interval = "" if ci95 is None else f" ± {100 * ci95:.{digits}f}"
    return f"{100 * share:.{digits}f}{interval} %"


def html_table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table for a notebook, which asks an object for it by `_repr_html_`."""

    import html  # here, since importing the library would wait for it

    def line(cells: Sequence[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(str(c))}</{tag}>' for c in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption>{line(header, 'th')}{body}</table>"
