"""Where a mirror's pages are: stores (base.py says what one offers), and the sums that prove them."""
