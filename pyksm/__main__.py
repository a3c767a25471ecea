"""``python -m pyksm``: the command line."""

from pyksm.cli import main

main()
