"""`python -m gprochat_transports` is the command `gprochat`."""

from .cli import main

if __name__ == "__main__":
    main()
