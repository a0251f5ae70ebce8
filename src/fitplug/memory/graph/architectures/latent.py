"""Latent attention, encoders and everything exotic: which module draws which."""

MODULES: dict[str, str] = {}
