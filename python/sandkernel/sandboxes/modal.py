"""Where it was: `sandkernel.providers.modal` has it now."""

from sandkernel._moved import forward

__getattr__ = forward(
    __name__,
    {
        "ModalSandbox": ("sandkernel.providers.modal", "ModalSandbox"),
    },
)
