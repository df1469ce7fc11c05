"""Shows a state of the volumes, a mirror's or that of a commit, to NBD clients and in files; nothing of it changes."""
