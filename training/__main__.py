"""Command line of training: `python -m <pack>.training train CONFIG`; without a command the bundled model's recipe."""

import sys


def main() -> int:
    """Run what the first argument names: a command for a CONFIG, or the stages of training/tiny."""
    from .command import COMMANDS
    from .command import main as of_a_configuration
    from .tiny.__main__ import main as of_the_bundled_model

    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        return of_a_configuration(sys.argv[1:])
    of_the_bundled_model()
    return 0


if __name__ == "__main__":
    sys.exit(main())
