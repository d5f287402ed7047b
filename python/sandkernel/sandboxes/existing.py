"""Where it was: `sandkernel.providers.gateway` has it now."""

from sandkernel._moved import forward

__getattr__ = forward(
    __name__,
    {
        "ExistingGateway": ("sandkernel.providers.gateway", "ExistingGateway"),
    },
)
