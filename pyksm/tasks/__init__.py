"""Tasks: operations that run at the same time, interleaved by the core at every lock."""
