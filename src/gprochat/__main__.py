"""`python -m gprochat` runs the command `gprochat`."""

from .cli import main

if __name__ == "__main__":
    main()
