"""What is written as Markdown: cards from their templates, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .assets import asset
from .papers import PAPERS

DECIDED = ("holds", "the reverse")
TESTED = (*DECIDED, "cannot be told")
# The Hub's words for how many rows a data set has.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


@dataclass(frozen=True, kw_only=True)
class CardData:
    """What a card is filled from: a kind of card adds its fields, and its template has no others.

    Attributes:
        template: File of the kind's template, an asset.
        metadata: What the Hub reads, a `huggingface_hub.CardData`.
        name: What the card is about, its title.
    """

    template: ClassVar[str]
    metadata: Any
    name: str


def render_card(card: CardData) -> str:
    """A card as a README.md: the metadata, then the template filled with the other fields.

    Args:
        card: Card of any kind.

    Returns:
        The same text for the same input.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # nosec B701: Markdown, no page
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    template = environment.from_string(asset(card.template).read_text(encoding="utf-8"))
    values = {field.name: getattr(card, field.name) for field in fields(card)}
    metadata = values.pop("metadata").to_yaml(line_break="\n").strip()
    return f"---\n{metadata}\n---\n\n{template.render(values)}"


def size_category(rows: int) -> str:
    """The Hub's word for how many rows a data set has.

    Example:
        >>> size_category(2100)
        '1K<n<10K'
    """
    return next((name for limit, name in _SIZES if rows < limit), "1M<n<10M")


def claims_table(told: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table: a row a claim, by the measure that decides.

    Args:
        told: Contents of a study's claims.json.
    """
    head = (
        *("paper", "claim", "measured by", "seeds", "over random weights"),
        *("difference, points", "visible", "at this scale"),
    )
    rows = []
    for claim in told:
        found = claim["differences"][0] or {}
        rows.append(
            (
                PAPERS[claim["paper"]].label,
                claim["says"],
                claim["measures"][0],
                str(len(found["seeds"])) if found else "-",
                over_random(found) or "-",
                claim_difference(found),
                "-" if found.get("visible") is None else f"{found['visible']:.1f}",
                claim_verdict(claim, mark="**"),
            )
        )
    return markdown_table(head, rows)


def claim_verdict(claim: Mapping[str, Any], *, mark: str = "") -> str:
    """A claim's verdict for a table.

    Args:
        claim: One of a study's claims.json.
        mark: What stands around decided ones.
    """
    verdict = claim["verdict"]
    word = f"{mark}{verdict}{mark}" if verdict in DECIDED else verdict
    return f"{word} (asked afterwards)" if claim.get("afterwards") else word


def over_random(found: Mapping[str, Any] | None) -> str:
    """How far both sides of a difference are above random weights, in points; "" of none.

    What is not told from random weights stands in brackets.
    """
    sides = (found or {}).get("over_random") or [None, None]
    if sides == [None, None]:
        return ""
    return ", ".join(_margin(side) for side in sides)


def _margin(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "-"
    return f"{side['mean']:+.1f}" if side["above"] else f"({side['mean']:+.1f})"


def span(numbers: Iterable[int]) -> str:
    """How many, where that differs: "3" or "3 to 5"; "0" of none."""
    found = sorted(set(numbers)) or [0]
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


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


def claim_difference(found: Mapping[str, Any] | None) -> str:
    """A paired difference with its 95% interval, in points."""
    if not found:
        return "-"
    return f"{found['mean']:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"
