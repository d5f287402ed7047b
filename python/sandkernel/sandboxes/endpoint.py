"""Where it was: `sandkernel.providers.endpoint` has it now."""

from sandkernel._moved import forward

__getattr__ = forward(
    __name__,
    {
        "Endpoint": ("sandkernel.providers.endpoint", "Endpoint"),
    },
)
