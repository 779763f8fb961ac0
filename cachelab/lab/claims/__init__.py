"""Claims in circulation, each with what was measured of it and the verdict that follows."""

from cachelab.lab.claims.cases import Case, Claimed, judged
from cachelab.lab.claims.kept import find
from cachelab.lab.claims.page import case_chart, export, ratio_chart, shown
from cachelab.lab.claims.rows import Row, counts, lines, on_trial, ratios, table

__all__ = [
    "Case",
    "Claimed",
    "Row",
    "case_chart",
    "counts",
    "export",
    "find",
    "judged",
    "lines",
    "on_trial",
    "ratio_chart",
    "ratios",
    "shown",
    "table",
]
