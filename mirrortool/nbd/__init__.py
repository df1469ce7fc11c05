"""The NBD front end: serves exports, which can be read and changed, to any NBD client."""
