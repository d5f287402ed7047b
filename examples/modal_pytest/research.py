"""The program under test: it computes something in a sandbox, and copes with a lack of sandboxes."""

from __future__ import annotations

from sandkernel import BootError, ModalExecutor


def mean(values: list[float]) -> float | None:
    """Compute a mean where nothing can be broken; `None` while Modal has no sandbox for us."""
    try:
        with ModalExecutor(app_name="research", timeout=10) as executor:
            executor.send_variables({"values": values})
            return float(executor("sum(values) / len(values)").output)
    except BootError:
        return None
