"""What the user sees: measured facts (report.json), and what is made of them: a page, the terminal's summary.

`facts` gathers; `html` and `terminal` show; `progress` tells how far work is. None of them imports torch.
"""

from toolchain.report.facts import SCHEMA, FloatFile, report_facts
from toolchain.report.html import render_html
from toolchain.report.progress import RichProgress
from toolchain.report.terminal import print_summary

__all__ = ["SCHEMA", "FloatFile", "RichProgress", "print_summary", "render_html", "report_facts"]
