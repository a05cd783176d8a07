"""The decode loops over loaded modules: caches, speculation, batches, compiled steps."""
