def stage() -> None:
    """Not a stage."""
