"""Built-in stages and engines: plugins like any other, registered through the same hooks."""
