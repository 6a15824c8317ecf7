"""What people run, and what a first program imports."""

__all__: list[str] = []
