"""Side effects of storaged: the local files, and the streams to and from them."""
