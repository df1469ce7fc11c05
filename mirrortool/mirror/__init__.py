"""A mirror: a directory with its identity, what it durably knows, its sums, and its volumes or where they are."""
