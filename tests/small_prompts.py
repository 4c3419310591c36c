"""Small sets of prompts for tests: rows, files, and what resolving them makes."""

import json

from nemoflow import prompts


def row(number, agent="boxed_math", **fields):
    """A row of an environment."""
    asked = {"input": [{"role": "user", "content": f"question {number}"}]}
    reference = {"type": "responses_api_agents", "name": agent}
    return {"responses_create_params": asked, "agent_ref": reference, **fields}


def placeholder(number, dataset="dapo17k", template=None, **fields):
    """A row that stands for a row of another set; of DAPO where no template is given."""
    template = {"prefix": "Solve.\n\n", "suffix": "\n\nBox it.\n"} if template is None else template
    told = {"row": number, "question_template": template}
    reference = {"type": "responses_api_agents", "name": "math_with_judge"}
    return {"_hf_placeholder": told, "dataset": dataset, "agent_ref": reference, **fields}


def write(path, rows):
    """Rows, or lines as they are, as JSON lines; the source of them."""
    lines = (line if isinstance(line, str) else json.dumps(line) for line in rows)
    path.write_text("".join(line + "\n" for line in lines))
    return {"local": str(path)}


def read(folder, name):
    """The rows of a split."""
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def resolve(folder, train, validation=None, **told):
    """What the manifest tells of rows, as they are resolved into {folder}/out."""
    folder.mkdir(exist_ok=True)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    settings = {"kind": "rl", "holdout": 0, "seed": 1, **told}
    settings["sources"] = [write(folder / "rows.jsonl", train)] if train else []
    if validation is not None:
        settings["validation"] = [write(folder / "held.jsonl", validation)]
    return prompts.make(settings, out, folder / "cache")
