"""Everything that draws, nothing that measures."""
