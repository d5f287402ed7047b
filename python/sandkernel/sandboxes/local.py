"""Where it was: `sandkernel.providers.local` has it now."""

from sandkernel._moved import forward

__getattr__ = forward(
    __name__,
    {
        "LocalSandbox": ("sandkernel.providers.local", "LocalSandbox"),
    },
)
