"""A job as several processes: one supervisor, and workers that it starts, watches and starts again."""
