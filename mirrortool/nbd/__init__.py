"""NBD: serves exports, which can be read and changed, to any client; and a client of any server."""
