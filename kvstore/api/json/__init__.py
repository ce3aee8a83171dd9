"""One description of every JSON document: used to decode, to encode, and to make the OpenAPI schema."""
