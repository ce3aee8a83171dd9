"""All operations of the API, by tag."""

from kvstore.server.http.openapi.operations import cluster, keys, leases, locks, status, transactions, watches

_RESOURCES = (keys, transactions, watches, leases, locks, cluster, status)
TAGS = tuple(resource.TAG for resource in _RESOURCES)
OPERATIONS = tuple(call for resource in _RESOURCES for call in resource.OPERATIONS)
