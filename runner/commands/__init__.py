"""The commands, one module each, imported when they run: `charrun --help` reads only the table in `charrun.cli`."""
