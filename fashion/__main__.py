"""`python -m fashion` is `fashion-sweep`."""

from fashion.cli.main import main

main()
