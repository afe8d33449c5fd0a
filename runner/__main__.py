"""`python -m charrun` is the command `charrun`."""

from charrun.cli import main

if __name__ == "__main__":
    main()
