"""Kernels of our own: fused and tiled loops in Triton for CUDA, and in C++ for the processor."""
