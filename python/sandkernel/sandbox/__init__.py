"""The sandbox of the user: its kernel, what that is given, and those that take its place."""
