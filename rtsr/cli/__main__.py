"""``python -m rtsr.cli`` is the ``rtsr`` program."""

from rtsr.cli import main

main()
