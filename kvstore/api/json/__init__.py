"""One description of every JSON document: the server encodes it, clients decode it, OpenAPI is generated from it.

documents.py            requests and responses, except transactions
transaction_request.py  the body of `POST /txn`; transaction_parsing.py and transaction_packing.py convert it
transaction_result.py   the response to it

Imported by the HTTP front end, the clients and the command line.
"""
