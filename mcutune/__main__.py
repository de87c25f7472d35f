"""`python -m mcutune`."""

from mcutune.cli.app import main

if __name__ == "__main__":
    main()
