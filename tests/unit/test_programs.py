"""Programs are found by the one table, wherever Debian puts them, and nothing is started around it."""

import ast
import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import environment
import programs

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(path for name in ("tests", "tools", "benchmarks") for path in (ROOT / name).rglob("*.py"))
STARTERS = {
    "subprocess": ("run", "Popen", "call", "check_call", "check_output"),
    "asyncio": ("create_subprocess_exec", "create_subprocess_shell"),
    "os": ("system", "popen", *(name for name in dir(os) if name.startswith(("exec", "spawn", "posix_spawn")))),
}


def started_by_name(source: str) -> list[int]:
    """The lines that start a program without asking the table, also in programs that are written as text."""
    tree = ast.parse(source)
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
    return sorted({*_calls(tree, values), *_tabled_words(tree), *_in_texts(tree)})


def _calls(tree: ast.AST, values: dict[str, list[ast.expr]]) -> Iterator[int]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not isinstance(node.func.value, ast.Name):
            continue
        module, name = node.func.value.id, node.func.attr
        commands = [*node.args[:1], *(word.value for word in node.keywords if word.arg in ("args", "executable"))]
        if (module, name) == ("shutil", "which"):
            yield node.lineno
        if name in STARTERS.get(module, ()) and any(_begins_with_text(command, values) for command in commands):
            yield node.lineno


def _begins_with_text(node: ast.expr, values: dict[str, list[ast.expr]], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a command's program is written out: as text, or as the first word of a list or of a list in it."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and not node.value.startswith("-")  # options, for a program before them
    if isinstance(node, ast.Starred):
        return _begins_with_text(node.value, values, seen)
    if isinstance(node, ast.List | ast.Tuple):
        return bool(node.elts) and _begins_with_text(node.elts[0], values, seen)
    if isinstance(node, ast.BinOp):
        return _begins_with_text(node.left, values, seen)
    if isinstance(node, ast.Name) and node.id not in seen:
        return any(_begins_with_text(value, values, seen | {node.id}) for value in values.get(node.id, ()))
    return False


def _tabled_words(tree: ast.AST) -> Iterator[int]:
    """Lists that begin with a program of the table and go on: a command, whoever starts it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1:
            first, second = node.elts[:2]
            options = isinstance(second, ast.Constant) and str(second.value).startswith("-")
            if isinstance(first, ast.Constant) and first.value in programs.PROGRAMS and options:
                yield node.lineno


def _in_texts(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "subprocess" in node.value:
            try:
                found = started_by_name(textwrap.dedent(node.value))
            except SyntaxError:
                continue
            yield from (node.lineno for _ in found)


def test_every_program_is_started_by_way_of_the_table() -> None:
    known = (ROOT / "tools" / "programs.py", Path(__file__))
    found = {str(path.relative_to(ROOT)): started_by_name(path.read_text()) for path in SOURCES if path not in known}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(['nginx', '-t'])",
        "subprocess.run('true')",
        "subprocess.Popen(args=('wrk', url))",
        "command = ['wrk']\nsubprocess.run(command)",
        "WORDS = ('chromium', '--headless')\ncommand = [*WORDS, url]\nsubprocess.run(command)",
        "subprocess.run([*('curl', '-s'), url])",
        "subprocess.run(['ps'] + options)",
        "os.execvp('sh', ['sh'])",
        "os.system('ls')",
        "shutil.which('nginx')",
        "site.started(before=('unshare', '--pid'))",
        "site.write('''import subprocess\nsubprocess.run(['sh', '-c', 'sleep 1'])''')",
    ],
)
def test_a_program_started_by_name_is_found(source: str) -> None:
    assert started_by_name(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run([sys.executable, '-m', 'pytest'])",
        "subprocess.run([programs.path('nginx'), '-t'])",
        "words = [programs.path('nginx')]\nsubprocess.run([*words, '-t'])",
        "os.execv(sys.executable, [sys.executable])",
        "site.command('deploy', 'nginx')",
    ],
)
def test_what_asks_the_table_is_not(source: str) -> None:
    assert started_by_name(source) == []


def executable(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_users_path_comes_before_the_folders_of_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, system = executable(tmp_path / "bin" / "nginx"), executable(tmp_path / "sbin" / "nginx")
    monkeypatch.setattr(programs, "SERVER_FOLDERS", (str(system.parent),))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert programs.path("nginx") == str(system)
    monkeypatch.setenv("PATH", str(own.parent))
    assert programs.path("nginx") == str(own)


def test_an_ordinary_users_path_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    assert programs.missing_packages("test") == set()


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(programs, "SERVER_FOLDERS", ())
    with pytest.raises(programs.MissingProgram, match=r"^ps is not installed. On Debian: apt-get install procps$"):
        programs.path("ps")
    assert "procps" in programs.missing_packages("test")


def test_a_program_that_the_table_lacks_is_refused() -> None:
    with pytest.raises(LookupError, match=r"ls is not in the table of programs.py: add it with its Debian package"):
        programs.path("ls")


def test_the_newest_of_several_installations_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.6", "15", "17"):
        executable(tmp_path / version / "bin" / "initdb")
    monkeypatch.setenv("PATH", "/nonexistent")
    several = programs.Program("postgresql", folders=f"{tmp_path}/*/bin")
    monkeypatch.setitem(programs.PROGRAMS, "initdb", several)
    assert programs.path("initdb") == str(tmp_path / "17" / "bin" / "initdb")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs: env, true, and a sudo that obeys."""
    folder = tmp_path / "bin"
    for name in ("env", "true"):
        executable(folder / name, f'exec {programs.path(name)} "$@"')
    executable(folder / "sudo", 'shift; exec "$@"')
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(programs, "SERVER_FOLDERS", ())
    monkeypatch.setattr("programs._newest_first", lambda pattern: [])
    return folder


def apt_get(folder: Path, simulated: str, code: int = 0) -> Path:
    """An apt-get that simulates what it is told, notes its arguments, and ends with `code`; the notes' path."""
    notes = folder / "notes"
    simulation = f'case "$*" in *--simulate*) echo "{simulated}"; exit 0;; esac'
    executable(folder / "apt-get", f'echo "$@" >> {notes}\n{simulation}\necho "E: said apt-get"; exit {code}')
    return notes


def test_a_package_that_would_remove_another_is_refused(bare: Path) -> None:
    notes = apt_get(bare, "Remv mysql-server [8.4]\nInst mariadb-server (11.8)")
    refusal = environment._install_packages(["mariadb-server"])
    assert refusal == (
        "Installing mariadb-server would remove mysql-server; the set-up removes nothing. "
        "Run this in a container, or remove it yourself."
    )
    assert [line for line in notes.read_text().splitlines() if " install " in line and "--simulate" not in line] == []


def test_what_is_installed_removes_nothing(bare: Path) -> None:
    notes = apt_get(bare, "Inst wrk (4.1)")
    assert environment._install_packages(["wrk"]) == ""
    assert "--no-remove wrk" in notes.read_text().splitlines()[-1]


def test_an_installation_that_fails_shows_why(bare: Path) -> None:
    apt_get(bare, "Inst wrk (4.1)", code=100)
    refusal = environment._install_packages(["wrk"])
    assert "E: said apt-get" in refusal
    assert "sudo apt-get install wrk" in refusal


def test_where_nothing_can_be_installed_the_command_is_told(bare: Path) -> None:
    assert environment._install_packages(["a", "b"]) == "Missing: a, b. Install with:\n  sudo apt-get install a b"


def test_beside_mysql_no_mariadb_is_asked_for(bare: Path) -> None:
    assert "mariadb-server" in environment.missing_packages("test")
    executable(bare / "mysqld")
    assert "mariadb-server" not in environment.missing_packages("test")
    # The demo on MariaDB needs it all the same: the installation is refused, since it would remove MySQL.
    assert "mariadb-server" in environment.missing_packages("demo-mariadb")


@pytest.mark.parametrize("config", ["mariadb_config", "mysql_config"])
def test_either_client_library_is_enough(bare: Path, config: str) -> None:
    assert "libmariadb-dev" in environment.missing_packages("test")
    executable(bare / config)
    assert "libmariadb-dev" not in environment.missing_packages("test")


def test_make_without_python_says_what_to_install() -> None:
    command = [programs.path("make"), "demo", "PYTHON=python-that-is-not-there"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "python-that-is-not-there does not run. Install Python 3.11 or newer" in done.stderr
    assert done.stderr.count("\n") == 1


def unbounded(source: str) -> list[int]:
    """The lines of a tool that may wait for ever; one that means to says so on its line: `# unbounded: …`."""
    lines, found = source.splitlines(), []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        runs = node.func.attr in ("run", "check_call", "check_output") and ast.unparse(node.func.value) == "subprocess"
        waits = node.func.attr in ("wait", "communicate", "join", "acquire", "recv") and not node.args
        bounded = any(word.arg in ("timeout", None) for word in node.keywords)
        if (runs or waits) and not bounded and "# unbounded: " not in lines[(node.end_lineno or 0) - 1]:
            found.append(node.lineno)
    return found


def test_every_wait_of_a_tool_has_a_bound() -> None:
    """Those of a test have that of pytest-timeout, which shows the stacks of all threads."""
    found = {path.name: unbounded(path.read_text()) for path in (ROOT / "tools").glob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("wait", ["subprocess.run(words)", "process.wait()", "thread.join()", "process.communicate()"])
def test_a_wait_without_a_bound_is_found(wait: str) -> None:
    assert unbounded(wait) == [1]
    assert unbounded(f"{wait}  # unbounded: the user ends it") == []
    assert unbounded(wait[:-1].rstrip("(") + ("(" if wait.endswith("()") else ", ") + "timeout=5)") == []
