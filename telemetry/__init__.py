"""What a process tells about itself: structured logs and counters."""
