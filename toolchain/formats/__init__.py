"""The two file formats: write, read back, run, one op table each. Importable on a device without torch."""
