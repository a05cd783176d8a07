"""The English text over which quality is read: the opening of Alice's Adventures in Wonderland."""

from pathlib import Path

TEXT = (Path(__file__).parent / "alice.txt").read_text("utf-8").strip()
"""Lewis Carroll, 1865, chapter I: in the public domain. About 2,000 tokens; quotation marks are today's.

Source: the Millennium Fulcrum Edition, Project Gutenberg's no. 11, as it stands in the Canterbury corpus.
"""
