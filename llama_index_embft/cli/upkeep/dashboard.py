"""``embft dashboard``: look at recorded apps in TruLens' dashboard, on this machine only."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_index_embft.integrations.trulens.database import DEFAULT_DATABASE


def dashboard(
    database: Annotated[
        str, typer.Option(help="SQLite file that `evaluate_app` wrote, or a database URL.")
    ] = DEFAULT_DATABASE,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0: any free one.", min=0, max=65_535)] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser, where there is a screen.")] = True,
    repair: Annotated[
        bool, typer.Option("--repair", help="First remove rows with NaN, which make the database unreadable.")
    ] = False,
) -> None:
    """Open the TruLens dashboard on recorded apps; only this machine can reach it. Ctrl-C stops it.

    Examples:
    embft dashboard
    embft dashboard --database runs/live.sqlite --port 8501 --no-browser
    """
    import os
    import sys
    import webbrowser

    from llama_index_embft.cli.shared.console import console, print_record
    from llama_index_embft.integrations.trulens.database import repair_database
    from llama_index_embft.integrations.trulens.monitoring.dashboard import Dashboard

    removed = repair_database(database) if repair else 0
    if repair:
        console.print(f"Removed {removed} rows with NaN.")
    with Dashboard(database, port=port) as running:
        console.print(f"TruLens dashboard: {running.url}  (Ctrl-C stops it)", soft_wrap=True)
        print_record({"url": running.url, "removed": removed})
        has_screen = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
        if browser and has_screen:
            webbrowser.open(running.url)
        running.wait()
