"""Copies: a journal that another host records, as it arrives here frame for frame."""
