"""``python -m rtsr`` is the ``rtsr`` program."""

from rtsr.cli import main

# Processes that are spawned import this module again.
if __name__ == "__main__":
    main()
