"""Runs the code of agents in real Jupyter kernels."""
