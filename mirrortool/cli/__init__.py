"""The command line: the only part that knows click and rich. A file a command; main.py finds them lazily."""
