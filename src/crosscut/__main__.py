"""`python -m crosscut` is the command `crosscut`."""

from crosscut.cli import main

main()
