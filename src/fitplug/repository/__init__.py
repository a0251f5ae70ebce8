"""A repository's listing, understood: which files are models, which belong together, what they are called. Pure."""
