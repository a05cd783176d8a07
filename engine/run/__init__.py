"""Processes: the worker that measures, the runner that takes turns, the jobs that wait, the store that remembers."""
