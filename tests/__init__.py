"""The tests; they import one another's helpers as tests.<module>."""
