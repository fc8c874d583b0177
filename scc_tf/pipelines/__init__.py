"""Protocols: each a readable function ``run(config, …) -> record``."""
