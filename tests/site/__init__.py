"""The built site: what is in it, and how it looks and works in a browser."""
