"""`python -m charrun` is the command `charrun`."""

from charrun.cli import run

if __name__ == "__main__":
    run()
