"""The README cannot rot: its table is the registry's, its commands and its picture exist."""

import re
import tomllib
from pathlib import Path

from engine.__main__ import parser
from engine.commands.optimizations import markdown
from engine.presets import presets
from engine.spec import Experiment

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_the_table_of_toggles_is_the_registrys():
    assert markdown() in TEXT, "replace it with the output of: python -m engine optimizations --markdown"


def test_the_commands_exist():
    for line in re.findall(r"^python -m engine (.*?)(?:  +#.*)?$", TEXT, re.M):
        for command in line.split(" | ") if " | " in line else [line]:
            parsed = parser().parse_args(command.split())
            if hasattr(parsed, "preset"):
                assert parsed.preset in presets()


def test_the_example_is_an_experiment():
    made = Experiment.read(tomllib.loads(re.search(r"```toml\n(.*?)```", TEXT, re.S)[1]))
    assert list(made.lanes) == ["A", "B"] and made.rounds == 8 and made.lanes["B"].opts["bitsandbytes"].kind == "nf4"


def test_the_pictures_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (ROOT / picture).is_file(), picture


def test_the_front_matter_fits_a_space():
    front = dict(line.split(": ", 1) for line in TEXT.split("---")[1].strip().splitlines())
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["python_version"] == '"3.12.12"'
    assert len(front["short_description"]) <= 60
