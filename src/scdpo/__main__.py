"""`python -m scdpo`, which launchers of several processes can start."""

from scdpo.cli import main

main()
