"""A place that work is costed at: sites, basins, generation mixes, AWARE factors, each with its source."""
