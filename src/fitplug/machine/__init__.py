"""Machines: what they have, recorded, detected or imagined."""
