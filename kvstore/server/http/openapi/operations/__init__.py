"""All calls, by what they are for."""

from kvstore.server.http.openapi.operations import cluster, keys, leases, locks, operations, transactions, watches

_RESOURCES = (keys, transactions, watches, leases, locks, cluster, operations)
TAGS = tuple(resource.TAG for resource in _RESOURCES)
OPERATIONS = tuple(call for resource in _RESOURCES for call in resource.OPERATIONS)
