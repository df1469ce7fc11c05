"""Record: everything that puts operations into a journal."""
