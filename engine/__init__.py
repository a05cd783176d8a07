"""Everything that measures, nothing that draws."""
