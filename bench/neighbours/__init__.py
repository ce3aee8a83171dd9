"""The latency of one steady writer beside other clients of the same leader."""
