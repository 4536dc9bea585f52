"""The command line: argparse to typed settings, then the packages below; exit codes."""

from detr_viz.cli.main import DEFAULT_COMMAND, SUBCOMMANDS, build_parser, main

__all__ = ["DEFAULT_COMMAND", "SUBCOMMANDS", "build_parser", "main"]
