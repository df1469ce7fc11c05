"""Points: what a journal's volumes held at any of its commits, read from its bases and frames without a copy."""
