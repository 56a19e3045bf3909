"""Verdicts for people: a table on the terminal and one self-contained HTML page."""

from ban_jax.report.advice import steps
from ban_jax.report.compared import write_comparison
from ban_jax.report.compared_table import method_line, print_methods
from ban_jax.report.html import PICTURED, render, write_html
from ban_jax.report.repair_table import print_repairs
from ban_jax.report.table import print_passed, print_table, summary

__all__ = [
    "PICTURED",
    "method_line",
    "print_methods",
    "print_passed",
    "print_repairs",
    "print_table",
    "render",
    "steps",
    "summary",
    "write_comparison",
    "write_html",
]
