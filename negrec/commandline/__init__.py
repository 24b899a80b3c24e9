"""Between a typed command and a run: short forms, configuration folders, one-line errors."""
