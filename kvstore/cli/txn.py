"""`kvstore txn`."""

from pathlib import Path
from typing import Annotated

import typer

from kvstore.api.json.transaction_parsing import InvalidTransactionError, transaction_of
from kvstore.api.json.transaction_result import transaction_document
from kvstore.api.text_files import NotTextError, text_of
from kvstore.cli.connect import DEFAULT, Endpoints, with_client
from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.cli.input import named, standard_input
from kvstore.cli.output import write_json


def txn(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="File with the JSON body of POST /txn; - is standard input."),
    ],
    endpoints: Endpoints = DEFAULT,
) -> None:
    """Apply a transaction and print its result.

    Exit status 3: not done, safe to repeat. 4: it may have been done. 5: a comparison failed, so `else` was applied.
    """
    try:
        content = standard_input().read() if file == "-" else Path(file).read_bytes()
        command = transaction_of(text_of(content).encode())
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", ExitStatus.USAGE)
    except NotTextError as error:
        fail(f"{named(file)} {error}", ExitStatus.USAGE)
    except InvalidTransactionError as error:
        fail(error, ExitStatus.USAGE)
    result = with_client(endpoints, lambda client: client.txn(command))
    write_json(transaction_document(result))
    if not result.succeeded:
        raise typer.Exit(ExitStatus.CONDITION)
