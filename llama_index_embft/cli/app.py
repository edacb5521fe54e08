"""The command `embft`: its sub-commands, and what happens when one of them fails."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from typing import Annotated

import typer

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.files import DISK_ERRORS, cannot_write
from llama_index_embft._core.redaction import redact
from llama_index_embft.cli.commands import LazyGroup
from llama_index_embft.errors import EmbftError

app = typer.Typer(
    name="embft",
    cls=LazyGroup,
    help="Fine-tune the embedding model behind a LlamaIndex retriever, and prove that it retrieves better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut the names of options in a terminal of 80 columns
)


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"llama-index-embft {metadata.version('llama-index-embft')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version  # its callback has done the work


class _RedactingFormatter(logging.Formatter):
    """Hides secrets in whatever is logged, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def main() -> None:
    """Run the command line. A failure is one sentence: exit code 2 if the user can mend it, 3 if not."""
    from llama_index_embft.cli.shared.progress import plain_progress

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A letter that a terminal or a pipe cannot take is no reason to lose the result of hours.
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_RedactingFormatter("%(levelname)s: %(message)s"))
    try:
        with plain_progress():
            app()
    except EmbftError as err:
        logging.getLogger(__name__).debug("%s", type(err).__name__, exc_info=err)  # shown with -vv
        typer.echo(f"Error: {redact(str(err))}", err=True)
        sys.exit(2)
    except Exception as err:  # noqa: BLE001 - a fault of ours or of a library; its traceback is for a report
        if isinstance(err, UnicodeEncodeError) and "surrogates" in err.reason:
            part = err.object[err.start : err.end].encode(errors="backslashreplace").decode()
            typer.echo(
                f"Error: A path holds bytes that are no letters in this locale ({part}); set PYTHONUTF8=1 or "
                "LANG=C.UTF-8, or rename it.",
                err=True,
            )
            sys.exit(2)
        if isinstance(err, OSError) and err.errno in DISK_ERRORS:
            typer.echo(f"Error: {cannot_write(err.filename or 'the output', err)}", err=True)
            sys.exit(2)
        if logging.getLogger("llama_index_embft").isEnabledFor(logging.INFO):
            typer.echo(redact("".join(traceback.format_exception(err))), err=True)
        what = type(err).__name__ + (f": {first_line(err)}" if str(err).strip() else "")
        typer.echo(
            f"Error: Something unexpected went wrong ({what}); run again with -v for where, and report it.", err=True
        )
        sys.exit(3)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
