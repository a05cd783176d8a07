"""The bench: this engine beside what one would use instead, in one run on one machine, within a deadline."""
