"""The graph that is served: signatures, decoding, folding, archive, warm-up."""
