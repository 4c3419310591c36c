"""Results of a run as its stages leave them, written by hand in the working directory."""

import json
import math

from nemoflow import manifest, provenance
from nemoflow.files import write_json, write_whole

EVIL = "<script>alert('generated')</script>"


def work_in(folder, monkeypatch):
    """Let products lie in `folder`, built by a commit and versions that need no looking up."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(provenance, "commit", lambda: "c0ffee")
    monkeypatch.setattr(provenance, "installed", lambda: {"python": "3.11.7", "torch": "2.13.0"})


class Results:
    """A run whose pretraining and SFT are those of `parent`, where that is given."""

    def __init__(
        self,
        run="small",
        parent=None,
        phases=("phase1", "phase2"),
        steps=("rlvr1", "rlvr2"),
        corpora=("news", "code"),
        tasks=("sums", "facts"),
    ):
        self.run, self.owner = run, parent or run
        self.phases, self.steps, self.tasks = phases, steps, tasks
        self.corpora = {name: 3 + place for place, name in enumerate(corpora)}
        self.stages = [*(f"pretrain.{phase}" for phase in phases), "sft"]
        self.stages += [f"rl.{step}" for step in steps]
        self.asked = {"stages": ["pretrain", "sft", "rl"], "tasks": list(tasks)}

    def put(self, path, identity, inputs=(), files=None, **facts):
        """A product with its manifest and build record; its path."""
        for name, text in (files or {}).items():
            write_whole(manifest.payload(path) / name, text)
        manifest.write(path, identity, inputs, **facts)
        return self.record(path, identity, inputs)

    def record(self, path, identity, inputs, **facts):
        """Say who built a product; its path."""
        provenance.record_build([path], identity, inputs, 1_700_000_000.0, **facts)
        return path

    def make(self):
        """Everything up to eval.json; the arguments of `report.render`."""
        tokens = [self.make_corpus(name) for name in self.corpora]
        self.checkpoints, self.blends, before = [], [], []
        for number, phase in enumerate(self.phases):
            folder = f"results/{self.owner}/pretrain/{phase}"
            self.blends.append(self.make_blend(folder, tokens))
            identity = {"stage": "pretrain", "init": "continue" if before else "random"}
            steps = (100 * number, 100 * number + 100)
            before = [self.train(folder, identity, [self.blends[-1], *tokens, *before], *steps)]
        packed, prompts = self.make_packed(), self.make_prompts()
        before = [self.train(f"results/{self.owner}/sft", {"stage": "sft"}, [packed, *before])]
        for step in self.steps:
            exported = self.make_export(self.owner, step, before)
            folder = f"results/{self.run}/rl/{step}"
            before = [self.train(folder, {"stage": "rl"}, [prompts, exported], column="reward")]
        return self.make_eval(), self.blends, self.checkpoints, packed, self.options()

    def options(self):
        return {
            "config": {"about": "a run of a test", "eval": self.asked, "seed": 7},
            "chain": [*self.stages, "rl.branch"],
            "gaps": {"pretrain.phase1": [["books", 0.2, "nobody may have them"]]},
        }

    def shards(self, name):
        return [f"results/data/tokens/small/{name}/{part}/train_00000" for part in ("0000", "0001")]

    def make_corpus(self, name):
        shards = [
            {"prefix": prefix, "split": "train", "sequences": 4, "tokens": 3200}
            for prefix in self.shards(name)
        ]
        rows = {"in": 12, "kept": 9, "dropped": {"too_short": 3}}
        path = f"results/data/tokens/small/{name}.json"
        return self.put(path, {"stage": "corpus", "corpus": name}, shards=shards, rows=rows)

    def make_blend(self, folder, tokens):
        entries = [
            entry
            for name, weight in self.corpora.items()
            for prefix in self.shards(name)
            for entry in (str(weight / 2), prefix)
        ]
        write_json(f"{folder}/blend.json", {"train": entries, "valid": [], "test": []})
        identity = {"stage": "blend", "weights": self.corpora}
        return self.record(f"{folder}/blend.json", identity, tokens)

    def make_packed(self):
        rows = {"in": 142, "dropped": {"no_trained_tokens": 2}, "left_out": 40}
        counts = {"rows": rows | {"train": 90, "valid": 10}, "got": {"rows": 1.0, "tokens": 1.0}}
        counts["tokens"] = {"train": 4500, "valid": 500}
        split = {"rows": 31, "sequences": 90, "tokens": 4000, "trained_tokens": 1500, "fill": 0.95}
        rendered = self.put(
            "results/data/rendered/small/chats.json",
            {"stage": "render"},
            rows={"in": 142, "kept": 142, "dropped": {}},
            tokens=5000,
        )
        return self.put(
            "results/data/packed/small.json",
            {"stage": "pack"},
            [rendered],
            sources={"chats": counts},
            train=split,
            valid=split,
        )

    def make_prompts(self):
        return self.put("results/data/prompts/sums.json", {"stage": "resolve"}, train=60)

    def train(self, folder, identity, inputs, first=0, last=100, column="loss"):
        """A checkpoint and its curve."""
        lines = [f"step,tokens,{column},valid_loss,valid_loss/news,mtp_loss,lr"]
        for step in range(first + 1, last + 1):
            share = math.exp(-step / 60)
            value = 1 - share if column == "reward" else 0.5 + 5 * share
            validated = f"{value + 0.1},{value}" if step % 25 == 0 else ","
            rest = validated if column == "loss" else ","
            lines.append(f"{step},{step * 64},{value + 0.05 * math.sin(step)},{rest},,1e-3")
        write_whole(f"{folder}/curve.csv", "\n".join(lines) + "\n")
        path, facts = f"{folder}/checkpoint.json", {"step": last, "tokens": last * 64}
        self.put(path, identity, inputs, {"model.safetensors": folder}, **facts)
        self.record(path, identity, inputs, attempts=3)
        self.checkpoints.append(path)
        return path

    def make_export(self, owner, stage, checkpoint):
        path = f"results/{owner}/export/{stage}.json"
        return self.put(path, {"stage": "export"}, checkpoint, {"model.safetensors": stage})

    def make_eval(self):
        scores, models = {}, {}
        lasts = [self.checkpoints[len(self.phases) - 1], self.checkpoints[len(self.phases)]]
        for place, (stage, last) in enumerate(
            zip(self.asked["stages"], [*lasts, self.checkpoints[-1]], strict=True)
        ):
            models[stage] = self.make_export(self.run, stage, [last])
            for task in self.tasks:
                value = (0.0, 0.214, 0.823)[place]
                score = {"metric": "exact_match,boxed", "value": value, "stderr": 0.01, "n": 2}
                samples = "".join(json.dumps(sample(number, place)) + "\n" for number in range(2))
                path = f"results/{self.run}/eval/{stage}/{task}.json"
                files = {"samples.jsonl": samples}
                self.put(path, {"stage": "eval_task"}, [models[stage]], files, **score)
                scores.setdefault(stage, {})[task] = score
        scores["rl"][self.tasks[0]] |= {
            "published": 0.8, "tolerance": 0.05, "verdict": "passed"
        }  # fmt: skip
        path = f"results/{self.run}/eval.json"
        content = {"run": self.run, "stages": scores, "models": dict.fromkeys(models, "ab12.dir")}
        write_json(path, content)
        inputs = [f"results/{self.run}/eval/{s}/{t}.json" for s in models for t in self.tasks]
        return self.record(path, {"stage": "eval"}, [*models.values(), *inputs])


def sample(number, place):
    said = (EVIL, "no idea", "41")[place]
    doc = {"question": f"What is {number}+40?"}
    return {
        "doc": doc, "prompt": "…", "response": [said], "target": "41", "score": float(said == "41")
    }  # fmt: skip
