"""Values between host and kernel: smolagents' "safe" format, and bytes beside it.

`Encoder` writes it on both sides, `decode` reads on the host what a sandbox sent, which may be hostile.
Nothing here imports smolagents, and numpy and PIL only where a value needs them.
"""

from sandkernel.serialization.decoder import decode
from sandkernel.serialization.encoder import Encoder, UnsendableError
from sandkernel.serialization.limits import PayloadLimits

__all__ = ["Encoder", "PayloadLimits", "UnsendableError", "decode"]
