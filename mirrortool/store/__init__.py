"""Where a mirror's pages are: stores (initialscan.py says what one offers), and the sums that prove them."""
