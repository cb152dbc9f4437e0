"""The command line: parse, call, print. Heavy imports happen inside the verbs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tacit.core import launch, signals
from tacit.core.errors import TacitError, plain

app = typer.Typer(
    name="tacit",
    help="Turn unlabelled data into a representation, and say honestly whether that worked.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MAX_BAD = 0.05
"""That of `data.skipped`, which takes too long to import for a line of help."""

Run = Annotated[Path, typer.Argument(help="Folder of a run", metavar="RUN")]
Data = Annotated[str, typer.Argument(help="Folder, file list, manifest, .npz, shards, saved data set, URL or sample:NAME")]
Split = Annotated[str | None, typer.Option(help="Use only this split of the data")]
Kind = Annotated[
    str | None,
    typer.Option(help="Kind of data, where it should not be guessed: image, channels, volume, video, points or pair"),
]
Columns = Annotated[list[str] | None, typer.Option("--column", help="Name a manifest's column, as `path=filename`")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Set an option, as `temperature=0.2`; beats every recipe")]
Features = Annotated[
    str, typer.Option(help="What of the encoder is used: pooled, class, mean, mean+max, class+mean, class4 or whitened")
]
Devices = Annotated[int, typer.Option(help="Processes on this machine, one per device")]
Nodes = Annotated[int, typer.Option(help="Machines; give the same command on each, with MASTER_ADDR set")]
Strategy = Annotated[str | None, typer.Option(help="How weights lie on many devices: ddp (a copy on each) or fsdp (a part)")]
MaxBad = Annotated[float, typer.Option(help="Share of unreadable samples that is an error", min=0, max=1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]


@app.command()
def doctor(data: Data, kind: Kind = None, split: Split = None, column: Columns = None, device: Device = "auto") -> None:
    """Say how the data was understood, what is wrong with it, which methods fit, what an epoch costs."""
    from tacit import api

    _print(api.doctor(data, kind=kind, split=split, columns=_pairs(column), device=device).text())


@app.command()
def pretrain(
    method: Annotated[str, typer.Argument(help="A method's name; `tacit methods` lists them")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder of the new run [default: runs/METHOD-DATA-N]")] = None,
    recipe: Annotated[str, typer.Option(help="auto, quick, paper, or paper:NAME (see `tacit methods METHOD`)")] = "auto",
    minutes: Annotated[float | None, typer.Option(help="Fit the run into this time")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples seen")] = None,
    init: Annotated[str | None, typer.Option(help="Start from the weights in this file or run folder")] = None,
    encoder: Annotated[str | None, typer.Option(help="resnet18, vit-tiny/4, timm:NAME, file.py:Class ...")] = None,
    need: Annotated[
        list[str] | None, typer.Option(help="A finished run that the method is to have first, as `tokenizer=RUN`")
    ] = None,
    set_: Sets = None,
    batch: Annotated[int | None, typer.Option(help="Samples per step")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw")] = None,
    mirror: Annotated[bool | None, typer.Option("--mirror/--no-mirror", help="Whether a mirror image means the same")] = None,
    checkpoint_every: Annotated[str | None, typer.Option(help="Steps (500), seconds (30s) or minutes (10m)")] = None,
    stop_on: Annotated[str | None, typer.Option(help="collapse or none")] = None,
    probe: Annotated[str | None, typer.Option(help="Labelled data to run k-NN on now and then, apart from the loss")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the encoder")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="Trade time for memory in transformers")] = False,
    log_to: Annotated[str | None, typer.Option(help="Also log to wandb or mlflow")] = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = None,
    max_bad: Annotated[float | None, typer.Option(help="Share of unreadable samples that stops a run before it starts")] = None,
    kind: Kind = None,
    split: Split = None,
    column: Columns = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, where there is one")] = False,
) -> None:
    """Train an encoder on unlabelled data. This is the main job."""
    if devices * nodes > 1 and not launch.launched():
        launch.on_many(devices, nodes)
        return
    from tacit import api

    given = _settings(set_)
    for name, value in (
        ("init", init), ("encoder", encoder), ("batch", batch), ("precision", precision), ("seed", seed),
        ("checkpoint_every", checkpoint_every), ("stop_on", stop_on), ("max_bad", max_bad), ("probe", probe),
        ("strategy", strategy), ("compile", compile_ or None), ("recompute", recompute or None), ("log_to", log_to),
    ):  # fmt: skip
        if value is not None:
            given[name] = value
    with _listener() as listener:
        run = api.pretrain(
            method,
            data,
            out=out,
            recipe=recipe,
            minutes=minutes,
            epochs=epochs,
            steps=steps,
            samples=samples,
            kind=kind,
            split=split,
            columns=_pairs(column),
            device=device,
            mirrored=mirror,
            options=given,
            needs=_pairs(need),
            resume=resume,
            listener=listener,
        )
    _finish(run)


@app.command()
def resume(
    run: Run,
    data: Annotated[str | None, typer.Option(help="The run's data, where it lies elsewhere now")] = None,
    devices: Devices = 1,
    nodes: Nodes = 1,
    strategy: Strategy = None,
) -> None:
    """Go on with an interrupted run exactly where it stopped, on any number of devices."""
    if devices * nodes > 1 and not launch.launched():
        launch.on_many(devices, nodes)
        return
    from tacit import api

    with _listener() as listener:
        resumed = api.resume(run, data, listener=listener, strategy=strategy)
    _finish(resumed)


@app.command()
def evaluate(
    run: Run,
    data: Data,
    protocol: Annotated[list[str] | None, typer.Option(help="Protocol to run; may be repeated")] = None,
    baselines: Annotated[str, typer.Option(help="`both` (untrained encoder and raw input) or `none`")] = "both",
    seed: Annotated[int, typer.Option(help="Seed of splits and draws")] = 0,
    features: Features = "pooled",
    max_bad: MaxBad = MAX_BAD,
    kind: Kind = None,
    split: Split = None,
    column: Columns = None,
    device: Device = "auto",
) -> None:
    """Measure a run's encoder on labelled data, beside the untrained encoder and raw input."""
    from tacit import api

    records = api.load(run, device=device).evaluate(
        data,
        protocols=protocol,
        baselines=baselines,
        seed=seed,
        kind=kind,
        split=split,
        columns=_pairs(column),
        features=features,
        max_bad=max_bad,
    )
    from tacit.use.evaluate import table

    _rich(table(records))


@app.command()
def embed(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(help="File to write: .parquet, .npy or .h5")] = Path("embeddings.parquet"),
    shard: Annotated[str, typer.Option(help="Part k of n, as `0/4`: one process of many")] = "0/1",
    map_: Annotated[bool, typer.Option("--map", help="Add x and y, a two-dimensional map")] = False,
    absolute: Annotated[bool, typer.Option("--absolute", help="Write whole paths")] = False,
    features: Features = "pooled",
    cluster: Annotated[str | None, typer.Option(help="Compute with Ray: local, auto (the cluster here) or HOST:PORT")] = None,
    max_bad: MaxBad = MAX_BAD,
    kind: Kind = None,
    split: Split = None,
    column: Columns = None,
    device: Device = "auto",
) -> None:
    """Write the features of every sample to a file."""
    from tacit import api

    part, _, parts = shard.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise TacitError(f"--shard {shard}: give it as k/n with k below n, such as 0/4")
    path = api.load(run, device=device).embed(
        data,
        out=out,
        kind=kind,
        split=split,
        columns=_pairs(column),
        shard=(int(part), int(parts)),
        map=map_,
        absolute=absolute,
        features=features,
        cluster=cluster,
        max_bad=max_bad,
    )
    _print(f"features in {path}")


@app.command()
def search(
    run: Run,
    query: Annotated[str, typer.Argument(help="A file, `row:N` of the data searched in, or `text:A SENTENCE`")],
    data: Annotated[str | None, typer.Option("--in", help="Data to search in [default: what the run was trained on]")] = None,
    k: Annotated[int, typer.Option("-k", help="How many to show")] = 10,
    index: Annotated[str, typer.Option(help="exact, ivf, hnsw, or auto")] = "auto",
    features: Annotated[str, typer.Option(help="What is compared: pooled or whitened")] = "pooled",
    device: Device = "auto",
) -> None:
    """Find the samples nearest to a file or a row."""
    from tacit import api

    for hit in api.load(run, device=device).search(query, data=data, k=k, index=index, features=features):
        _print(f"{hit.rank:3d}  {hit.score:.4f}  {plain(hit.path)}")


@app.command()
def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="File to write [default: RUN/report.html]")] = None,
    device: Device = "auto",
) -> None:
    """Write one self-contained page: verdict, curves, map, neighbours, pictures, evaluations."""
    from tacit import api

    _print(f"report in {api.load(run, device=device).report(out)}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders")],
    out: Annotated[Path | None, typer.Option(help="Also write a page to this file")] = None,
) -> None:
    """Show runs side by side."""
    from tacit import api

    _rich(api.compare(runs, out=out))


@app.command()
def export(
    run: Run,
    form: Annotated[str, typer.Option("--format", help="onnx, timm or torch")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File to write [default: RUN/export/encoder.*]")] = None,
) -> None:
    """Write the encoder for other programs, reopened and compared."""
    from tacit import api

    _print(api.load(run, device="cpu").export(form, out=out).text())


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="Show one method with all its options")] = None) -> None:
    """List the methods, or one with every option, its meaning and its value in each recipe."""
    from tacit.methods import catalogue

    _print(catalogue.overview() if name is None else catalogue.details(name))


@app.command()
def samples() -> None:
    """List the bundled data."""
    from tacit.data import samples as bundled

    _print(bundled.overview())


def main() -> None:
    """Run the command line; a user's mistake, or a signal to end, is one line on standard error."""
    try:
        with signals.heard(signals.raise_it):
            app(standalone_mode=False)
    except TacitError as problem:
        launch.tell(problem)
        sys.exit(problem.exit_code)
    except signals.Signalled as stop:
        print("tacit: interrupted; give the same command again", file=sys.stderr)
        sys.exit(128 + stop.number)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except Exception as problem:
        if isinstance(problem, typer.BadParameter) or type(problem).__module__.startswith(("click", "typer")):
            message = getattr(problem, "format_message", problem.__str__)()
            print(f"tacit: {message} (see `tacit --help`)", file=sys.stderr)
            sys.exit(2)
        raise


def _print(text: str) -> None:
    print(text)


def _rich(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    """`name=value` with values read as JSON where they are JSON, else as text."""
    return {name: _value(value) for name, value in (_pairs(pairs) or {}).items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _pairs(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    for pair in pairs:
        if not pair.partition("=")[1]:
            raise TacitError(f"'{pair}' has no equals sign; write it as name=value")
    return {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs)}


def _listener() -> Any:
    from tacit.terminal import Terminal

    return Terminal()


def _finish(run: Any) -> None:
    if launch.place():
        return  # the first rank speaks for all
    verdict = run.verdict
    _print(f"{verdict['verdict']}: {'; '.join(verdict['reasons'])}")
    for advice in verdict["advice"]:
        _print(f"  try: {advice}")
    _print(f"run in {run.path}")


if __name__ == "__main__":
    main()
