"""Where the providers were: `sandkernel.providers` has them now."""

from sandkernel._moved import forward

__getattr__ = forward(
    __name__,
    {
        "Sandbox": ("sandkernel.providers.base", "Provider"),
    },
)
