"""What is different in a kernel of ours: it runs in the kernel, and imports nothing else of ours."""
