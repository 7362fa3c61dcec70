"""Plain English: unclear phrases must not reappear in code, tests or documentation.

Each pattern matches a kind of unclear phrase: pronouns for programs, metaphors, and idioms instead of technical terms.
The patterns are in lower case and match single lines, whatever their case. Identifiers, such as the names of tests, are
checked as phrases, too.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Each pattern, with the words to use instead.
PATTERNS = {
    r"\b(no|some)body\b": "name the client, worker, operator or process",
    r"\bwho(so)?ever\b": "name the client, worker, operator or process",
    r"\bone who\b|\bthose who\b": "name the client, worker, operator or process",
    r"(message|file|key|name|one)s? (that|which) (was|were|is|are) none\b": "malformed, invalid, empty",
    r"\bin vain\b": "wasted, unused, without effect",
    r"\banew\b": "again, or a verb with re-",
    r"\bfor ever\b": "indefinitely, without a limit",
    r"\ball the same\b": "anyway, still",
    r"\bso many of\b|\bso many (seconds|bytes|times)\b": "name the number, such as ``count`` or ``seconds``",
    r"\bhung up on\b": "disconnected, SIGHUP",
    r"\bthe marked worker\b": "the selected worker",
    r"\bwhat (came|becomes?|became) of\b": "result, state, outcome",
    r"\bin so many words\b": "explicitly",
    r"\b(the|a) (late|old|last) word\b": "stale heartbeat, reply or event",
    r"\bdoorkeepers?\b|\bdoorway\b": "ZAP handler",
    r"\bknock(s|ed|ing)?\b": "connect",
    r"\btakes? leave of\b": "says bye, closes the session",
    r"\blet in\b|\blets? (no one|every ?one) in\b": "admitted",
    r"\bstrangers?\b|\bliars?\b": "unauthorised peer, unknown key, worker that sends corrupt data",
    r"(?<![`\"'])\bsets? aside\b": "ban",  # events contain the state's name in quotes
    r"\bas it is shared\b": "the shared file",
}
#: This file, which has to contain the phrases.
EXCLUDED = Path(__file__)


@cache
def checked_files() -> dict[Path, tuple[str, str]]:
    """The text of all product code, tests, benchmarks and documentation, as it is and as it is checked."""
    folders = ("broker", "client", "wire", "workers", "tests", "bench", "docs")
    code = [path for folder in folders for path in (ROOT / folder).glob("**/*.py")]
    code += (ROOT / "src" / "msd").glob("*.py")
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "config.toml", "pyproject.toml")
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in names)]
    paths = sorted(path for path in [*code, *pages] if path != EXCLUDED)
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    return {path: (text, text.lower().replace("_", " ")) for path, text in texts.items()}


def findings(pattern: str) -> list[str]:
    """The lines that match ``pattern``, as ``file:line: text``."""
    regex = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, (text, checked) in checked_files().items()
        if regex.search(checked)
        for number, (line, checked_line) in enumerate(zip(text.splitlines(), checked.splitlines(), strict=True), 1)
        if regex.search(checked_line)
    ]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_unclear_phrases_do_not_reappear(pattern: str) -> None:
    found = findings(pattern)
    assert not found, f"write instead: {PATTERNS[pattern]}\n" + "\n".join(found)
