"""Retention: which files of a journal may go, and their removal."""
