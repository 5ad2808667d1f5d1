"""`spatial-ttt data`: build training data, long streams, questions on scans, pages to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spatial_ttt.scenes.build import BuildReport
    from spatial_ttt.scenes.build_plan import BuildConfig

data_app = typer.Typer(
    help="Make walkthrough videos, descriptions and questions; look at scenes.",
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Option(help="Folder to write; an earlier run there is resumed.")]
Seed = Annotated[int, typer.Option(help="Another seed, other scenes: 0 to 32767.")]
Workers = Annotated[int, typer.Option(help="Processes. The bytes do not depend on it.")]
Fps = Annotated[float, typer.Option(help="Frames per second of the clips.")]
Size = Annotated[str, typer.Option(help="WIDTHxHEIGHT of the clips.")]
SmallSizes = Annotated[str, typer.Option(help="Further sizes of the same clips, by commas.")]
Rooms = Annotated[str, typer.Option(help="Rooms per home, FROM-TO, or one number.")]


def register(app: typer.Typer) -> None:
    """Add `data` to the command line."""
    app.add_typer(data_app, name="data")


@data_app.command("build")
def build_command(
    scenes: Annotated[int, typer.Option(help="Homes of the train split.")],
    out: Out,
    seed: Seed = 0,
    workers: Workers = 1,
    shard: Annotated[
        str | None, typer.Option(help="i/n: make only every n-th shard from the i-th (machines).")
    ] = None,
    val_scenes: Annotated[
        int | None, typer.Option(help="Homes of the val split.", show_default="scenes / 20")
    ] = None,
    test_scenes: Annotated[
        int | None, typer.Option(help="Homes of the test split.", show_default="scenes / 20")
    ] = None,
    fps: Fps = 5.0,
    duration: Annotated[
        float | None, typer.Option(help="Seconds per walk.", show_default="one tour of all rooms")
    ] = None,
    rooms: Rooms = "1-8",
    size: Size = "480x352",
    small_sizes: SmallSizes = "192x144,128x96",
    questions_per_type: Annotated[
        int, typer.Option(help="Most questions of each type about a home, before balancing.")
    ] = 4,
    scenes_per_shard: Annotated[int, typer.Option(help="Homes per tar shard.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Make furnished homes, film walks through them, describe them and ask about them.

    Writes OUT/SIZE/SPLIT/ with tar shards of clips and examples.jsonl, and OUT/manifest.json. Run
    the same command again to go on after a stop.

    Example: spatial-ttt data build --scenes 1000 --seed 0 --workers 8 --out data/homes
    """
    from spatial_ttt.cli.progress import show_build
    from spatial_ttt.scenes.build_plan import BuildConfig, parse_part, parse_range, parse_sizes

    twentieth = -(-scenes // 20)
    least, most = parse_range(rooms)
    (width, height), *small = parse_sizes(f"{size},{small_sizes}")
    config = BuildConfig(
        train_scenes=scenes,
        val_scenes=twentieth if val_scenes is None else val_scenes,
        test_scenes=twentieth if test_scenes is None else test_scenes,
        seed=seed,
        fps=fps,
        duration_s=duration,
        width=width,
        height=height,
        small_sizes=tuple(small),
        min_rooms=least,
        max_rooms=most,
        questions_per_type=questions_per_type,
        scenes_per_shard=scenes_per_shard,
    )
    report = show_build(config, out, workers=workers, part=parse_part(shard))
    typer.echo(_build_json(config, report) if as_json else _build_line(out, report))


@data_app.command("long")
def long_command(
    streams: Annotated[int, typer.Option(help="Streams to make.")],
    minutes: Annotated[float, typer.Option(help="Length of each, 3 to 240 minutes.")],
    out: Out,
    seed: Annotated[int, typer.Option(help="Another seed, other streams: 0 to 2047.")] = 0,
    split: Annotated[str, typer.Option(help="train, val or test: whose homes.")] = "train",
    workers: Workers = 1,
    fps: Fps = 2.0,
    size: Size = "480x352",
    small_sizes: SmallSizes = "192x144,128x96",
    revisits: Annotated[float, typer.Option(help="Share of a stream in homes seen before.")] = 0.2,
) -> None:
    """Chain homes into long streams with recall (vsr) and counting (vsc) questions.

    Example: spatial-ttt data long --streams 4 --minutes 60 --split val --out data/streams
    """
    from spatial_ttt.cli.progress import show_long
    from spatial_ttt.scenes.build_plan import parse_sizes
    from spatial_ttt.scenes.long_plan import LongConfig

    (width, height), *small = parse_sizes(f"{size},{small_sizes}")
    config = LongConfig(
        streams=streams,
        minutes=minutes,
        seed=seed,
        split=split,
        fps=fps,
        width=width,
        height=height,
        small_sizes=tuple(small),
        revisit_share=revisits,
    )
    typer.echo(show_long(config, out, workers=workers))


@data_app.command("questions")
def questions_command(
    annotations: Annotated[Path, typer.Option(help="Boxes of scans: see docs/questions.md.")],
    out: Annotated[Path, typer.Option(help="The examples file to write (.jsonl).")],
    video_name: Annotated[
        str, typer.Option(help="The video of a scene, as examples name it.")
    ] = "{scene_id}.mp4",
    questions_per_type: Annotated[int, typer.Option(help="Most of each type per scene.")] = 4,
    exclude: Annotated[
        Path | None, typer.Option(help="Further scenes to leave out, one id per line.")
    ] = None,
    with_benchmark_scenes: Annotated[
        bool, typer.Option(help="Keep VSI-Bench's scenes: for checks, never for training.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Another seed, other questions.")] = 0,
) -> None:
    """Make descriptions and questions from annotations of real scans.

    Example: spatial-ttt data questions --annotations meta.json --out scans/examples.jsonl
    """
    from spatial_ttt.data_format import to_jsonl
    from spatial_ttt.scenes.annotate import annotate, excluded_scenes
    from spatial_ttt.scenes.shards import write_atomic

    samples = annotate(
        annotations,
        excluded=excluded_scenes(exclude, with_benchmark_scenes=with_benchmark_scenes),
        video_name=video_name,
        per_type=questions_per_type,
        seed=seed,
    )
    write_atomic(out, to_jsonl(samples).encode())
    typer.echo(f"{out}: {len(samples)} examples")


@data_app.command("show")
def show_command(
    scene: Annotated[
        str,
        typer.Argument(help="A home's seed, SHARD.tar/KEY of a build, or ANNOTATIONS.json#SCENE."),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("scene.html"),
) -> None:
    """Write a page to look at a scene: plan, frames, description, questions.

    Example: spatial-ttt data show data/homes/480x352/val/val-000000.tar/val-0000003
    """
    from spatial_ttt.scenes.show import write_page

    write_page(scene, out)
    typer.echo(out)


def _build_line(out: Path, report: BuildReport) -> str:
    if report.shards_missing:
        return (
            f"{out}: {report.shards_made} shards made, {report.shards_missing} left to other "
            "machines; bring all folders together and run the command without --shard to finish"
        )
    return (
        f"{out}/manifest.json: {report.shards_made} shards made, {report.shards_kept} kept, "
        f"{report.frames} frames filmed"
    )


def _build_json(config: BuildConfig, report: BuildReport) -> str:
    import dataclasses
    import json

    return json.dumps(dataclasses.asdict(report) | {"settings": config.to_json()})
