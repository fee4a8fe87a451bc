"""The command line: its commands, and how their errors are told.

What needs torch is imported only by the command that needs it, so that --help and `ask` come at once.
"""

import asyncio
import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lookonce import alone, benching, planning_command, serving, size_command
from lookonce.asking import Asked, Shown, ask_in_thread, read_questions
from lookonce.asking import ask as ask_server
from lookonce.client import DEFAULT_SERVER, Client
from lookonce.doctor.examination import Targets, examine, report
from lookonce.errors import ChildDied, LookonceError, NothingAnswers, Stopped
from lookonce.kinds import read_addresses
from lookonce.launcher import with_deployment
from lookonce.models import DEMO, DEMO_DIR, model_dir, named
from lookonce.options import PREFIX
from lookonce.serve_settings import LOOPBACK, from_environment, serve_settings
from lookonce.serving import INTERRUPTED
from lookonce.terminal import Terminal
from rpc.peers import PeerSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Look once, ask many: a vision and a language half of a Qwen-VL model, served apart.",
)
serving.add_command(app)
alone.add_commands(app)
benching.add_command(app)
size_command.add_command(app)
planning_command.add_command(app)

Token = Annotated[
    str | None, typer.Option(envvar="LOOKONCE_TOKEN", show_envvar=False, help="The server's token, where it wants one.")
]


def main() -> None:
    """Runs the command that the arguments name; exit status 1 for a failure, 2 for a wrong command line."""
    terminal = Terminal(Console(), Console(stderr=True, highlight=False), "warning")
    try:
        app()
    except Stopped:
        sys.exit(INTERRUPTED)
    except ChildDied as death:
        terminal.died(death)
    except LookonceError as exc:
        terminal.error(str(exc))
    sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lookonce {_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command line itself; the version's callback does all there is to do."""


def _version() -> str:
    try:
        return importlib.metadata.version("lookonce")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


@app.command()
def ask(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Picture files, or ids: img_….")],
    question: Annotated[list[str] | None, typer.Option("--question", "-q", help="Repeat it for more.")] = None,
    questions: Annotated[Path | None, typer.Option(metavar="FILE", help="A file of questions, one a line.")] = None,
    choices: Annotated[str | None, typer.Option(metavar="A,B,…", help="Score each question over these words.")] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="LOOKONCE_SERVER", show_envvar=False, help=f"Default: {DEFAULT_SERVER}."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="DIR|demo", help="Start a server of this model for the call.")
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="Ask about all images at once, as an album.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's replies, one a line.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="The longest answer.")] = None,
    token: Token = None,
) -> None:
    """Ask questions about pictures; answers in a table, with what was saved."""
    if server and model:
        raise typer.BadParameter("give --server or --model, not both")
    asked = Asked(tuple(images), _questions(question, questions), _choices(choices), together, max_tokens)
    shown = Shown(Console(highlight=False), as_json=as_json)
    raise typer.Exit(0 if _ask(asked, shown, server, model, token) else 1)


def _ask(asked: Asked, shown: Shown, server: str | None, model: str | None, token: str | None) -> bool:
    if model:
        return _ask_local(asked, shown, model, token)
    with Client(server or DEFAULT_SERVER, token) as client:
        if server is None and not client.is_there():
            raise NothingAnswers(
                f"nothing answers at {DEFAULT_SERVER}: start 'lookonce serve --model demo' in another terminal, "
                "or give --model DIR or --server URL"
            )
        return ask_server(asked, client, shown)


def _ask_local(asked: Asked, shown: Shown, model: str, token: str | None) -> bool:
    values = from_environment(model=model_dir(model), host=LOOPBACK, port=0)
    settings = serve_settings(named(values))
    errors = Console(stderr=True, highlight=False)

    async def work(url: str) -> bool:
        with Client(url, token) as client:
            return await ask_in_thread(asked, client, shown)

    return asyncio.run(with_deployment(settings, Terminal(errors, errors, settings.log_level), work))


def _questions(given: list[str] | None, file: Path | None) -> tuple[str, ...]:
    questions = (*(given or ()), *(read_questions(file) if file else ()))
    if not questions:
        raise typer.BadParameter("ask something: -q QUESTION, or --questions FILE")
    return questions


def _choices(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    choices = tuple(choice.strip() for choice in text.split(","))
    if not all(choices) or len(set(choices)) != len(choices):
        raise typer.BadParameter("write different words with commas between them: yes,no", param_hint="--choices")
    return choices


@app.command()
def inspect(
    directory: Annotated[str, typer.Argument(metavar="DIR|demo", help="A checkpoint's directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which tensors and bytes of a checkpoint go to which half, and every fault; exit status 1 if any."""
    model = DEMO_DIR if directory == DEMO else Path(directory).expanduser()
    if not model.is_dir():
        raise typer.BadParameter(f"{directory!r} is not a directory", param_hint="DIR")
    from lookonce.inspecting import inspect_directory

    raise typer.Exit(0 if inspect_directory(model, Console(highlight=False), as_json=as_json) else 1)


def _workers(half: str) -> Any:
    return typer.Option(
        metavar="HOST:PORT[,…]", envvar=PREFIX + half.upper(), show_envvar=False, help=f"The {half} workers."
    )


def _peer(name: str, what: str) -> Any:
    return typer.Option(metavar="FILE", envvar=f"{PREFIX}PEER_{name}", show_envvar=False, help=what)


@app.command()
def doctor(
    vision: Annotated[str, _workers("vision")] = "",
    language: Annotated[str, _workers("language")] = "",
    cache: Annotated[
        str | None, typer.Option(metavar="URL", envvar="LOOKONCE_CACHE", show_envvar=False, help="The store.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", envvar="LOOKONCE_SERVER", show_envvar=False, help="The gateway.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="DIR|demo", help="A checkpoint on this host.")] = None,
    peer_cert: Annotated[str | None, _peer("CERT", "Certificate to show to the workers, PEM.")] = None,
    peer_key: Annotated[str | None, _peer("KEY", "Its private key, PEM.")] = None,
    peer_ca: Annotated[str | None, _peer("CA", "Authority that signed the workers' certificates, PEM.")] = None,
    peer_tokens_file: Annotated[str | None, _peer("TOKENS_FILE", "The workers' tokens.")] = None,
    token: Token = None,
) -> None:
    """Examine a deployment: who answers, do the halves belong together, is the store set up well.

    Exit status 1 if anything fails. Without any option the gateway on this machine is asked.
    """
    try:
        peers = PeerSettings(peer_cert, peer_key, peer_ca, peer_tokens_file)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    targets = Targets(
        vision=read_addresses(vision) if vision else (),
        language=read_addresses(language) if language else (),
        cache=cache,
        server=server,
        model=Path(model_dir(model)) if model else None,
        peers=peers,
    )
    if targets == Targets(peers=peers):
        targets = Targets(server=DEFAULT_SERVER, peers=peers)
    raise typer.Exit(0 if report(examine(targets, token), Console(highlight=False)) else 1)
