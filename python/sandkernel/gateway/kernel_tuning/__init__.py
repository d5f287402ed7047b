"""What is different in a kernel of ours: texts that run in its process, and import nothing of ours."""
