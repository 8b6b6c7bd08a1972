"""From a table of embeddings to an answer: search it, choose what to label, classify the rest.

`index` opens the table that `rs-models embed` writes, `search` finds tiles by example, `suggest`
says which tiles to label next, `classify` learns from the labels so far, `propagate` lets the
unlabelled tiles help, `labels` keeps what a person said, `answers` writes what the table says and
`saving` the classifier. Any backbone will do, brute force is enough for a million tiles, and
nothing needs a network.
"""

from __future__ import annotations

from .classify import Answers, classify
from .index import Index
from .labels import Labels
from .propagate import propagate
from .search import search
from .suggest import suggest

__all__ = ["Answers", "Index", "Labels", "classify", "propagate", "search", "suggest"]
