"""What a replica must not forget: SQLite on disk, and the reference implementation in memory."""
