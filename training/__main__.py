"""Command line of training: `python -m <pack>.training train CONFIG`, and preflight, sample and report beside it."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
