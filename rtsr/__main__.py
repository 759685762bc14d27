"""``python -m rtsr`` is the ``rtsr`` program."""

from rtsr.cli import main

main()
