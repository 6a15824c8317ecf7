"""What people run, and what a first program imports."""
