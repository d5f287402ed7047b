"""Threads, tasks and exits: a lock for both, cancellation across threads, a bridge into asyncio."""
