"""Where the time of a request goes on the leader."""
