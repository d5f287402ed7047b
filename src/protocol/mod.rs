//! The Jupyter messaging protocol, as much of it as running code takes.
