"""The README says what is so."""

import re
import subprocess
import sys
from pathlib import Path

from kvstore.server.config_sources import settings_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_settings_are_the_codes() -> None:
    """To update README: `python -c "from kvstore.server.config_sources import *; print(settings_table())"`."""
    assert settings_table().strip() in README


def test_every_command_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^\$ |`)make ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= targets
    commands = set(re.findall(r"^\$ kvstore ([a-z]+)", README, re.MULTILINE))
    assert commands
    help_text = subprocess.run(
        [sys.executable, "-m", "kvstore", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in commands:
        assert command in help_text


def test_every_link_into_the_project_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
