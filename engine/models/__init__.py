"""The catalogue, resolving a name, fetching, loading, the embedded default, random weights of a real architecture."""
