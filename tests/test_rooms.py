"""The shape of the package: who imports whom, how long files are, where jit lives."""

import ast
import configparser
import functools
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LONGEST = 400


@functools.cache
def sources():
    """Module name -> parsed file, of the whole package."""
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in files().items()
    }


@functools.cache
def files():
    found = {}
    for top, package in (("ban_jax", "ban_jax"), ("models", "ban_jax.models")):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


@functools.cache
def imports(tree, *, at_import_time=True):
    """Dotted names a module imports; inside functions only where asked for."""
    return tuple(_imports(tree, at_import_time))


def _imports(tree, at_import_time):
    nodes = ast.walk(tree)
    if at_import_time:
        inside = {
            node
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
        }
        types_only = {
            node
            for test in ast.walk(tree)
            if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
            for node in ast.walk(test)
        }
        nodes = [n for n in nodes if n not in inside and n not in types_only]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def room_of(name):
    """`ban_jax.scanning.loop` -> `scanning`; a module at the top is a room of its own."""
    return name.split(".")[1] if name.count(".") else ""


def arrows():
    """Room -> the rooms it imports."""
    known = set(files())
    rooms = {room_of(name) for name in known} - {""}
    found = {room: set() for room in rooms}
    for name, tree in sources().items():
        for target in imports(tree):
            if target.startswith("ban_jax."):
                room = room_of(target)
                if room in rooms and room_of(name) and room != room_of(name):
                    found[room_of(name)].add(room)
    return found


def test_imports_between_rooms_point_one_way():
    waiting = {room: set(targets) for room, targets in arrows().items()}
    while free := [room for room, targets in waiting.items() if not targets]:
        for room in free:
            del waiting[room]
        for targets in waiting.values():
            targets.difference_update(free)
    assert not waiting, f"rooms that import each other in a circle: {waiting}"


def test_kernels_know_no_architecture_and_no_host():
    found = arrows()
    for room in ("perturb", "mask", "types"):
        assert found[room] <= {"types"}, room
    assert not found["detectors"] & {"population", "records", "checkpoints"}


def test_detectors_know_the_network_that_changes_images_and_no_architecture():
    known = {
        target
        for name, tree in sources().items()
        for target in imports(tree)
        if room_of(name) == "detectors" and target.startswith("ban_jax.models")
    }
    assert known <= {"ban_jax.models", "ban_jax.models.unet"}


def test_few_modules_stand_at_the_top():
    top = [name for name in files() if name.count(".") == 1]
    modules = [name for name in top if files()[name].name != "__init__.py"]
    assert len(modules) <= 10, modules


def calls(tree, name):
    """Lines on which `jax.NAME` is used."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id == "jax"
    ]


@pytest.mark.parametrize("name", ["jit", "shard_map", "pmap"])
def test_programs_are_compiled_in_one_room(name):
    strays = {
        module: lines
        for module, tree in sources().items()
        if (lines := calls(tree, name)) and room_of(module) != "population"
    }
    assert not strays


ONE_MODEL = {
    "ban_jax.detectors.ban",  # two views of one model's features
    "ban_jax.detectors.inversion",  # target classes of one model
    "ban_jax.detectors.reference",  # starts of one model's searches
    "ban_jax.perturb",  # neurons of one model
}


def test_models_are_stacked_in_one_room():
    strays = {
        module: lines
        for module, tree in sources().items()
        if (lines := calls(tree, "vmap"))
        and room_of(module) != "population"
        and module not in ONE_MODEL
    }
    assert not strays


@pytest.mark.parametrize("folder", ["ban_jax", "models", "benchmarks"])
def test_a_long_file_says_why_at_its_head(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LONGEST:
            head = ast.get_docstring(ast.parse(text)) or ""
            assert "One file" in head, f"{os.fspath(path)}: {text.count(chr(10))} lines"


def test_every_package_is_installed():
    declared = (ROOT / "setup.cfg").read_text(encoding="utf-8").split()
    for name, path in files().items():
        if path.name == "__init__.py":
            assert name in declared, name


def test_every_file_that_is_read_at_work_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = setup["options.package_data"]["ban_jax"].split()
    package = ROOT / "ban_jax"
    for path in package.rglob("*"):
        name = path.relative_to(package)
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(name.match(pattern) for pattern in declared), name
