"""Distillation: a small draft learns from text that the whole model writes, and says how far its guesses carry."""
