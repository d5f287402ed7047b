"""Adapters to agent frameworks, each a package of its own that imports its framework alone."""
