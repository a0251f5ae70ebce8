"""fitplug: which settings of a local language model fit this machine, to the byte."""
