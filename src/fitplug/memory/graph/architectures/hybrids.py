"""Recurrent and hybrid architectures: which module draws which."""

MODULES: dict[str, str] = {}
