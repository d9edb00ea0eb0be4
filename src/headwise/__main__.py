"""``python -m headwise`` is the command ``headwise``."""

from .cli import main

if __name__ == "__main__":
    main()
