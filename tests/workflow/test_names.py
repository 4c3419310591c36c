"""The law of names, sizes and layers, for every file of the repository."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nemoflow import readme, specs, stages
from nemoflow.config import reference

ROOT = Path(__file__).parents[2]
SMK = sorted((ROOT / "rules").glob("*.smk"))
TEXT = "\n".join(path.read_text() for path in SMK)
BLOCKS = dict(re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", TEXT, re.M | re.S))
RULES = sorted(BLOCKS)
MOVING = {"seal", "publish"}  # they make no product, so no spec decides about them
PACKAGE = sorted((ROOT / "workflow" / "nemoflow").rglob("*.py"))
SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
HEAVY = {"torch", "transformers", "lm_eval", "megatron", "nemo_rl"}


def repository(*patterns):
    """The repository's files: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def relative(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]


def lines(path):
    return len(path.read_text().splitlines())


def test_there_are_rules_to_look_at():
    assert len(RULES) == 23 and "sft" in RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_and_all_that_belongs_to_it_share_a_name(rule):
    block = BLOCKS[rule]
    assert f"python workflow/scripts/{rule}.py --" in block
    assert re.search(rf"log:\n +\"results/\S*/logs/{rule.partition('_')[0]}[.-]", block), "log"
    assert (ROOT / f"workflow/scripts/{rule}.py").exists()
    assert f"stages.{rule}(**vars(" in (ROOT / f"workflow/scripts/{rule}.py").read_text()
    assert callable(getattr(stages, rule))


@pytest.mark.parametrize("rule", sorted(set(RULES) - MOVING))
def test_the_one_parameter_of_a_rule_is_its_spec(rule):
    assert f"python workflow/scripts/{rule}.py --spec {{params.spec:q}}" in BLOCKS[rule]
    assert f'params:\n        spec=spec("{rule}"),\n    shell' in BLOCKS[rule]
    assert callable(specs.SPECS[rule]) and rule in specs.VERSIONS


def test_nothing_is_named_for_a_rule_that_is_not_there():
    assert sorted(path.stem for path in SCRIPTS) == RULES
    assert sorted(specs.VERSIONS) == sorted(specs.SPECS) == sorted(set(RULES) - MOVING)


def test_the_stages_stand_in_the_order_of_their_versions():
    contents = [name for name in stages.__all__ if name in specs.SPECS]
    assert contents == list(specs.VERSIONS) == list(specs.SPECS)
    assert sorted(stages.__all__) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_its_script_every_argument_it_needs(rule):
    script = (ROOT / f"workflow/scripts/{rule}.py").read_text()
    flags = set(re.findall(r'"(--\w+)"', script))
    if "machine.arguments(parser)" in script:
        flags.add("--machine")
    assert flags == set(re.findall(r"(--\w+) ", BLOCKS[rule]))
    arguments = {flag[2:] for flag in flags}
    assert arguments == set(inspect.signature(getattr(stages, rule)).parameters)


def test_the_rules_that_take_a_machine_are_those_of_the_partition_with_gpus():
    (told,) = re.findall(r"^GPU_RULES = \(([^)]*)\)", TEXT, re.M)
    with_machine = {
        rule for rule in RULES if "--machine nodes={resources.nodes} gres=" in BLOCKS[rule]
    }
    assert set(re.findall(r"\w+", told)) == with_machine
    for rule in with_machine:
        assert f"@heavy\ndef {rule}(" in inspect.getsource(getattr(stages, rule))
        script = (ROOT / f"workflow/scripts/{rule}.py").read_text()
        assert "machine.arguments(parser)" in script


@pytest.mark.parametrize("rule", RULES)
def test_the_documentation_of_a_rule_is_that_of_its_stage(rule):
    first = BLOCKS[rule].strip().splitlines()[0]
    assert re.fullmatch(r'"""[A-Z].*\."""', first)


@pytest.mark.parametrize("word", ["retries:", "script:", "directory(", "lambda", "run:", "touch("])
def test_no_rule_says(word):
    assert word not in "\n".join(BLOCKS.values())
    assert word == "run:" or word not in (ROOT / "Snakefile").read_text()


def test_the_rules_include_every_rule_file():
    told = re.findall(r'include: "(rules/\w+\.smk)"', (ROOT / "Snakefile").read_text())
    assert sorted(told) == [relative(path) for path in SMK]


def test_the_package_does_not_know_snakemake():
    for path in [*PACKAGE, *SCRIPTS]:
        assert not [name for name in imports(path) if name.split(".")[0] == "snakemake"], path


def test_heavy_libraries_are_imported_by_engines_alone():
    for path in [*PACKAGE, *SCRIPTS]:
        heavy = {name.split(".")[0] for name in imports(path)} & HEAVY
        assert not heavy or "engines" in path.parts, f"{relative(path)} imports {heavy}"


def test_imports_point_one_way():
    for path in SCRIPTS:
        inner = {name for name in imports(path) if name.startswith("nemoflow")}
        wanted = {"nemoflow", "nemoflow.stages", "nemoflow.errors", "nemoflow.errors.report"}
        assert inner - {"nemoflow.machine"} == wanted
    contents = ("stages", "data_stages", "model_stages")
    above = {f"nemoflow.{name}" for name in (*contents, "training", "build")}
    for path in PACKAGE:
        if path.stem not in (*contents, "training", "report"):
            assert not above & set(imports(path)), relative(path)


def test_no_tracking_service_is_asked():
    stands_in = (
        ROOT / "workflow/nemoflow/engines/megatron/stubs.py"
    )  # for what Megatron-Bridge would import
    for path in repository():
        # NeMo-RL must be told by name not to ask one.
        if path not in (Path(__file__), stands_in) and "nemo_rl" not in str(path):
            assert b"wandb" not in path.read_bytes().lower(), relative(path)


def test_nothing_is_called_by_a_name_that_says_nothing():
    for path in repository():
        stem = path.name.partition(".")[0]
        nothing = {"utils", "util", "helpers", "helper", "common", "misc"}
        assert stem not in nothing or relative(path) == "rules/common.smk", relative(path)


def test_names_are_snake_case_but_for_runs_and_data_sets():
    for path in [*PACKAGE, *SCRIPTS, *SMK, *repository("tests/*.py", "tests/**/*.py")]:
        assert re.fullmatch(r"[a-z0-9_]+", path.stem), relative(path)
    for path in repository("config/*.yaml", "config/**/*.yaml"):
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", path.stem), relative(path)


def test_files_are_small():
    sizes = {relative(path): lines(path) for path in repository("*.py")}
    assert not {name: size for name, size in sizes.items() if size >= 300}
    scripts = {relative(path): lines(path) for path in SCRIPTS}
    assert not {name: size for name, size in scripts.items() if size >= 30}
    rules = {relative(path): lines(path) for path in SMK}
    assert not {name: size for name, size in rules.items() if size >= 150}


def test_functions_are_short():
    long = {
        f"{relative(path)}:{f.name}": f.end_lineno - f.lineno + 1
        for path in [*PACKAGE, *SCRIPTS]
        for f in functions(path)
        if f.end_lineno - f.lineno + 1 >= 40
    }
    assert not long


def test_no_except_catches_everything():
    for path in repository("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), relative(path)


def test_nothing_in_the_repository_is_true_of_one_machine_alone():
    """No absolute path of a machine, no address of a registry."""
    inside = r"(?!/opt/(nemo-rl|gym_venvs)\b)"  # of NeMo-RL's image
    machine = re.compile(
        r"(?<![\w./*])" + inside + r"/(home|root|tmp|work|mnt|opt|scratch|Users|lustre|data)/\w"
    )
    registry = re.compile(r"index-url|pypi\.org|/simple/|nvcr\.io|docker\.io|ghcr\.io|quay\.io")
    for path in repository():
        other = path.suffix in (".lock", ".png") or path.name == "LICENSE"
        if path == Path(__file__) or other:
            continue
        text = path.read_text(encoding="utf-8")
        for pattern in (machine, registry):
            if (relative(path), pattern) == ("envs/images.yaml", registry):  # an image has one
                continue
            assert not (found := pattern.search(text)), f"{relative(path)}: {found and found[0]}"


@pytest.mark.parametrize("folder", ["results", "provenance"])
def test_the_repository_holds_no_results(folder):
    tracked = subprocess.run(
        ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert tracked.stdout.split() == [f"{folder}/README.md"]


def test_no_pattern_hides_pointers_from_dvc():
    """A last component of stars alone: DVC skips the pointers beside the folder without a word."""
    patterns = (ROOT / ".gitignore").read_text().splitlines()
    assert not [p for p in patterns if re.search(r"(^|/)\*+/$", p)]


@pytest.mark.parametrize("path", ["config/schema.json", "config/README.md"])
def test_the_reference_is_as_the_models_are(path):
    assert (ROOT / path).read_text() == reference.files()[path], "run make reference"


def test_the_rule_graph_in_the_readme_is_as_drawn(monkeypatch):
    monkeypatch.chdir(ROOT)
    (drawn,) = readme.BLOCK.findall((ROOT / "README.md").read_text())
    assert drawn == readme.graph(), "run make dag"
    elsewhere = MOVING | {"import_model", "image"}  # not behind the report of a released recipe
    assert set(re.findall(r"\[(\w+)\]", drawn)) == set(RULES) - elsewhere


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*/config.yaml")), ids=str)
def test_a_profile_names_rules_that_exist_and_restricts_the_triggers(path):
    profile = yaml.safe_load(path.read_text())
    assert profile["rerun-triggers"] == ["mtime", "params", "input"]
    for key in ("set-resources", "set-threads"):
        assert set(profile.get(key, {})) <= set(RULES)


def test_every_command_in_the_makefile_is_told():
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):(.*)$", text, re.M)
    assert all("## " in rest for _, rest in targets)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    assert sorted(phony.split()) == sorted(name for name, _ in targets)


def test_the_stages_of_the_readme_are_the_rules():
    table = (ROOT / "README.md").read_text().partition("## Stages")[2].partition("\n## ")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", "".join(first))) == RULES


def test_what_a_file_tests_has_its_name():
    engines = ("local", "megatron", "nemo_rl")
    modules = {path.stem for path in PACKAGE}
    modules |= {f"{engine}_{path.stem}" for engine in engines for path in PACKAGE}
    modules |= {"messages_config", "recipes", "local_training", "build_training"}
    for path in sorted((ROOT / "tests/unit").rglob("test_*.py")):
        assert path.stem.removeprefix("test_") in modules, relative(path)


def test_scripts_run_with_the_python_of_the_path():
    assert sys.version_info >= (3, 11)
    for path in SCRIPTS:
        assert not path.read_text().startswith("#!")
