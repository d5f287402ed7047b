"""Code that runs inside the kernel: shipped as text, never imported by the host."""
