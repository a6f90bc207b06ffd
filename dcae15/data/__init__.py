"""Images in, shards out: sources, decoding, shards, order, statistics."""
