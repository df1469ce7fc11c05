"""NBD front end: serves objects that can be read and changed to any NBD client."""
