"""The documents say what is true: links lead somewhere, commands parse, code runs and prints what stands below it."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from tacit.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)|(?:src|srcset|href)=\"(?P<quoted>[^\"]+)\"")


def named(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, its content, and the text block that directly follows it, if one does."""

    info: str
    body: str
    printed: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = list(FENCE.finditer(text))
    result = []
    for block, after in zip(found, [*found, None][1:], strict=True):
        follows = after is not None and after["info"] == "text" and not text[block.end() : after.start()].strip()
        result.append(Block(block["info"], block["body"], after["body"] if follows and after is not None else None))
    return result


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


# Links and commands ---------------------------------------------------------------------------------------------------------


def slugs(page: Path) -> set[str]:
    """Headings as a link names them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@named(PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for match in LINK.finditer(prose(page)):
        target = match["target"] or match["quoted"]
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        assert there.is_relative_to(ROOT), f"{target} leaves the repository"
        assert not heading or heading in slugs(there), f"{target} has no such heading"


def commands(page: Path) -> Iterator[list[str]]:
    """Every `tacit ...` in fenced blocks and between backticks, as words."""
    lines = [line for block in blocks(page) if not block.info.startswith(("python", "text")) for line in joined(block.body)]
    lines += " ".join(prose(page).split()).split("`")[1::2]
    for line in lines:
        if line.startswith("tacit "):
            yield shlex.split(line, comments=True)[1:]


def joined(body: str) -> list[str]:
    return body.replace("\\\n", " ").splitlines()


@named(PAGES)
def test_every_command_uses_verbs_and_options_that_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for words in commands(page):
        if words[0] in ("--help", "-h"):
            continue
        verb = group.commands.get(words[0])  # pyright: ignore[reportAttributeAccessIssue]
        assert verb is not None, f"there is no `tacit {words[0]}`"
        if len(words) == 1:
            continue  # a verb that is spoken of
        try:
            verb.make_context(words[0], list(words[1:]))
        except Exception as problem:
            pytest.fail(f"`tacit {shlex.join(words)}`: {getattr(problem, 'message', problem)}")


@named(PAGES)
def test_no_page_names_a_place_on_somebody_s_machine(page: Path) -> None:
    assert not re.findall(r"(?:^|[\s`\"'(=])/(?:work|root|home|Users|tmp|mnt)/\S*|\.\./shared", page.read_text())


# Code -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """What running a page left: the folder it was run in, and what each block printed."""

    folder: Path
    outputs: list[tuple[Block, str]]


@pytest.fixture(scope="module")
def session_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Session]]:
    """Runs a page once; what its examples registered is taken back at the end."""
    from tacit.data.kinds.kind import KINDS
    from tacit.evaluation.protocol import PROTOCOLS
    from tacit.methods.registry import METHODS
    from tacit.train.fits import FITS
    from tacit.views.sight import SIGHTS

    sessions: dict[Path, Session] = {}
    modules = set(sys.modules)
    tables = [(table, dict(table)) for table in (FITS, KINDS, METHODS, PROTOCOLS, SIGHTS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TACIT_CACHE", str(tmp_path_factory.mktemp("cache")))

        def session_of(page: Path) -> Session:
            if page not in sessions:
                folder = tmp_path_factory.mktemp(page.stem)
                sessions[page] = Session(folder, performed(page, folder))
            return sessions[page]

        yield session_of
    for table, before in tables:
        table.clear()
        table.update(before)  # pyright: ignore[reportArgumentType, reportCallIssue]
    for title in added_modules(page for page in sessions) & (set(sys.modules) - modules):
        del sys.modules[title]


def performed(page: Path, folder: Path) -> list[tuple[Block, str]]:
    """Run a page's blocks in order, in one session in that folder; what each printed."""
    session: dict[str, object] = {"__name__": page.stem}
    outputs = []
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block in blocks(page):
            if "file=" in block.info:
                install(block, folder)
            elif block.info == "python run":
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(compile(block.body, str(page), "exec"), session)
                outputs.append((block, printed.getvalue()))
    finally:
        os.chdir(before)
    return outputs


def title_of(block: Block) -> str:
    """The module `a.b` for a block with `file=src/a/b.py`."""
    return block.info.partition("file=src/")[2].removesuffix(".py").replace("/", ".")


def added_modules(pages: Iterator[Path]) -> set[str]:
    return {title_of(block) for page in pages for block in blocks(page) if "file=" in block.info}


def install(block: Block, folder: Path) -> None:
    """Make a block importable under the name that its file would have in the package."""
    path = folder / f"{title_of(block)}.py"
    path.write_text(block.body)
    spec = importlib.util.spec_from_file_location(title_of(block), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[title_of(block)] = module
    spec.loader.exec_module(module)


@named([page for page in PAGES if any(block.info == "python run" for block in blocks(page))])
def test_code_runs_and_prints_what_stands_below_it(page: Path, session_of: Callable[[Path], Session]) -> None:
    same = doctest.OutputChecker().check_output
    for block, printed in session_of(page).outputs:
        if block.printed is not None:
            assert same(block.printed, printed, doctest.ELLIPSIS), f"{block.body}\nprinted\n{printed}\nnot\n{block.printed}"


RUFF = str(Path(sys.executable).with_name("ruff"))


def test_python_in_a_page_is_formatted_like_the_package(tmp_path: Path) -> None:
    import subprocess

    for page in PAGES:
        for number, block in enumerate(blocks(page)):
            if block.info.startswith("python"):
                (tmp_path / f"{page.stem}_{number}.py").write_text(block.body)
    ruff = [RUFF, "format", "--check", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES for block in blocks(page) if block.info.startswith("python file=")],
    ids=lambda block: block.info,
)
def test_a_module_in_a_page_passes_the_rules_of_the_package(block: Block) -> None:
    import subprocess

    where = ROOT / block.info.removeprefix("python file=")
    ruff = [RUFF, "check", "--stdin-filename", str(where), "-"]
    done = subprocess.run(ruff, input=block.body, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# The run folder -------------------------------------------------------------------------------------------------------------


def explained() -> dict[str, str]:
    """From `docs/run-folder.md`: the name of every artefact, and whether it is the same when a run is made again."""
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]+) \|$", (ROOT / "docs/run-folder.md").read_text(), re.MULTILINE)
    return dict(rows)


def test_every_file_of_a_run_is_explained(session_of: Callable[[Path], Session]) -> None:
    folder = session_of(ROOT / "docs/python.md").folder / "runs/first"
    names = explained()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file():
            assert any(Path(name).match(pattern) or name.startswith(pattern) for pattern in names), f"{name} is not explained"


def test_what_is_said_to_be_the_same_in_a_second_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tacit

    monkeypatch.setenv("TACIT_CACHE", str(tmp_path / "cache"))
    options = {"encoder": "vit-micro/7", "batch": 32, "precision": "float32", "held_back": 32}
    first, second = (
        tacit.pretrain("mae", "sample:fashion_mnist_sprite", out=tmp_path / name, steps=4, options=options).path
        for name in ("first", "second")
    )
    same = [name for name, again in explained().items() if again == "yes"]
    compared = [path.relative_to(first) for name in same for path in first.glob(name.rstrip("/")) if path.is_file()]
    assert len(compared) >= 7
    for name in compared:
        assert (first / name).read_bytes() == (second / name).read_bytes(), f"{name} differs"


# What is generated, and what is copied from the code ------------------------------------------------------------------------


def generator():
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_sections_are_current() -> None:
    old = [str(page.relative_to(ROOT)) for page, text in generator().current() if page.read_text() != text]
    assert not old, f"{', '.join(old)}: run `python docs/generated.py`"


def test_every_paired_benchmark_is_a_script_that_the_page_of_speed_explains() -> None:
    _, explained = (ROOT / "docs/speed.md").read_text().split("What they measure")
    for name in generator().PAIRED:
        assert (ROOT / f"benchmarks/{name}.py").is_file()
        assert f"(`{name}.py`)" in explained


def test_every_method_has_a_page_that_names_all_its_options() -> None:
    catalogue = json.loads((ROOT / "src/tacit/methods/catalogue.json").read_text())
    for name, entry in catalogue.items():
        page = (ROOT / f"docs/methods/{name}.md").read_text()
        missing = [option for option in entry["options"] if f"`{option}" not in page]
        assert not missing, f"docs/methods/{name}.md says nothing of {', '.join(missing)}"


def test_hooks_that_contributing_lists_are_those_of_a_method() -> None:
    from tacit.methods.method import Method

    listed = re.search(
        r"What else a method may define:(.*?)`methods/method.py`", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    assert listed is not None
    hooks = re.findall(r"`(\w+)`", listed[1])
    assert hooks
    assert [hook for hook in hooks if not hasattr(Method, hook)] == []


def test_constants_in_the_documents_are_those_of_the_code() -> None:
    from tacit.data.payload import Limits
    from tacit.data.skipped import MAX_BAD
    from tacit.train.auto import MOST_EPOCHS
    from tacit.train.plan import SMALLEST
    from tacit.train.recipe import QUICK_MINUTES
    from tacit.train.situation import DEFAULT_MINUTES
    from tacit.train.verdict import COLLAPSED_RANK, COLLAPSED_SHARE
    from tacit.train.watch import CHECKS

    said = {
        "docs/recipes.md": [f"{DEFAULT_MINUTES:g} minutes", f"{QUICK_MINUTES:g} minutes", f"{MOST_EPOCHS} passes"],
        "docs/verdict.md": [
            f"below {COLLAPSED_RANK:g}",
            f"{COLLAPSED_SHARE:.0%}".replace("%", " %"),
            ", ".join(f"{100 * share:g}" for share in CHECKS[1:]),
        ],
        "docs/data/images.md": [f"{Limits().pixels:,}", f"{MAX_BAD:.0%}".replace("%", " %"), f"fewer than {SMALLEST}"],
    }
    for page, facts in said.items():
        text = " ".join((ROOT / page).read_text().split())
        for fact in facts:
            assert fact in text, f"{page} does not say '{fact}'"
