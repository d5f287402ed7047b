"""Where sandboxes come from: this machine, a gateway that already runs, Modal.

A provider's object stands for one sandbox: it has an `Endpoint`, and ends with `terminate()`. `base` has what
all of them share; nothing here is imported before it is used.
"""
