"""Bases: whole committed states in sealed files, so that older journal files can go."""
