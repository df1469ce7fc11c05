"""Sockets that this host listens on: addresses, and listeners for them."""
