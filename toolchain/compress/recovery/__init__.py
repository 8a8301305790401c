"""Training that brings back what compression and rounding cost."""
