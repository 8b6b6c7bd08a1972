"""A study's claims as a Markdown table, for the README and for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .papers import PAPERS

_CLEAR = ("holds", "the reverse")


def claims_table(told: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table: a row a claim, by the measure that decides.

    Args:
        told: Contents of a study's claims.json.
    """
    head = ("paper", "claim", "measured by", "difference, points", "visible", "at this scale")
    rows = [
        (
            PAPERS[claim["paper"]].label,
            claim["says"],
            claim["measures"][0],
            claim_difference(claim["differences"][0]),
            _visible(claim["differences"][0]),
            f"**{claim['verdict']}**" if claim["verdict"] in _CLEAR else claim["verdict"],
        )
        for claim in told
    ]
    return markdown_table(head, rows)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        head: Titles of the columns.
        rows: As many cells each; a `|` in one is escaped.

    Example:
        >>> print(markdown_table(("a", "b"), [("1", "2")]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _visible(found: Mapping[str, Any] | None) -> str:
    """The smallest difference that could have been seen: half the interval."""
    return "-" if found is None else f"{(found['high'] - found['low']) / 2:.1f}"


def claim_difference(found: Mapping[str, Any] | None) -> str:
    """A paired difference with its 95% interval, in points."""
    if found is None:
        return "-"
    return f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
