"""The program that runs in the gateway's process, wherever that is: `program.py` makes one text of it."""
