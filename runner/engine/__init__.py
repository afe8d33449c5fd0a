"""The local engine: a Tinker-protocol server on loopback, with transformers, peft and torch behind it."""
