"""The files of a sandbox, from the host."""

from sandkernel.files.entry import FileEntry
from sandkernel.files.files import Files

__all__ = ["FileEntry", "Files"]
