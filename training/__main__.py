"""Command line of training: `python -m <pack>.training --tokenizer DIR` makes the tiny bundled model from nothing."""

if __name__ == "__main__":
    from .tiny.__main__ import main

    main()
