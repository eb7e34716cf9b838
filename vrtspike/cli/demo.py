"""`vrtspike demo`: run the whole pipeline, from rendering scenes to a report."""

from __future__ import annotations

from pathlib import Path

from vrtspike.cli.console import ConfigFile, Debug, JsonFile, Overrides, command, say


def demo(
    overrides: Overrides = None,
    config: ConfigFile = Path("demo"),
    json_file: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run the whole pipeline on rendered scenes.

    Simulates, restores with packaged weights, prepares, trains twice and evaluates.
    """
    with command(json_file, debug) as outcome:
        from vrtspike.cli.demo_phases import demo_folder, plan, run_demo, starting_line
        from vrtspike.config.loader import load_config
        from vrtspike.runtime.progress import clock_text

        settings = load_config(config, overrides or ())
        phases = plan(config, settings, overrides or ())
        say(starting_line(settings))
        status, seconds = run_demo(phases, say)
        outcome.status, outcome.facts = status, {"seconds": seconds}
        if not status:
            out = demo_folder(settings)
            outcome.facts["report"] = str(out / "report.html")
            say(f"all of it took {clock_text(sum(seconds.values()))}")
            say(f"report: {out / 'report.html'}")
