"""Exported files in their runtimes, against the float reference and against exact integers."""
