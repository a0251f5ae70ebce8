"""The words of a converted model: what set_vocab of llama.cpp's converter makes of the tokenizer's files, key by key.

Only how long things are counts here, not what they say: arrays are numbers of items and of bytes. What cannot be known without
running a tokenizer's own code is an `UnreadError`, and the size of the file stays an estimate.
"""
