"""Blobs: bytes that can be read at any place, from a disk or over the network."""
