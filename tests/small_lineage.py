"""The lineage of a run as its manifests would tell it, made of nothing: no files, no jobs.

What a product holds follows from its identity and from what its inputs hold, as with real ones.
"""

from nemoflow.files import digest
from nemoflow.products import Product, job_of

STEPS = ("rlvr1", "rlvr2")
PHASES = ("phase1", "phase2")


class Lineage:
    """The products of a run by path; `eval` is the path of its scores.

    `owners` tells which run holds what belongs to a section (pretrain, sft, rl), where that is not
    the run itself. `changed` maps a product, by its path below results/ and its run, to keys of its
    identity; those named in `noise` have other bytes than their config would give.
    """

    def __init__(
        self, run="a", owners=None, changed=None, noise=(), tokenizer="tok", mixture="mix",
        prompts="sums", corpora=("code", "news"), phases=PHASES, steps=STEPS,
    ):  # fmt: skip
        self.run, self.owners, self.noise = run, owners or {}, set(noise)
        self.changed, self.products = changed or {}, {}
        self.tokenizer = self.add(f"results/data/tokenizers/{tokenizer}.json")
        tokens = [self.add_corpus(tokenizer, name) for name in corpora]
        init = []
        for phase in phases:
            blend = self.add(f"{self.at('pretrain')}/pretrain/{phase}/blend.json", tokens)
            path = f"{self.at('pretrain')}/pretrain/{phase}/checkpoint.json"
            init = [self.add(path, [blend, *tokens, *init])]
        scores = self.add_scores("pretrain", init)
        rendered = self.add(f"results/data/rendered/{mixture}/chats.json", [self.tokenizer])
        packed = self.add(f"results/data/packed/{mixture}.json", [rendered])
        init = [self.add(f"{self.at('sft')}/sft/checkpoint.json", [*init, packed])]
        scores += self.add_scores("sft", init)
        before, rows = scores[-2], self.add(f"results/data/prompts/{prompts}.json")
        for step in steps:
            init = [self.add(f"{self.at('rl')}/rl/{step}/checkpoint.json", [before, rows])]
            if step != steps[-1]:
                before = self.add(f"{self.at('rl')}/export/rl.{step}.json", [*init, self.tokenizer])
        scores += self.add_scores("rl", init)
        self.eval = self.add(f"results/{run}/eval.json", scores)

    def at(self, section):
        return f"results/{self.owners.get(section, self.run)}"

    def add_corpus(self, tokenizer, name):
        plan = self.add(f"results/data/plans/{name}.json")
        return self.add(f"results/data/tokens/{tokenizer}/{name}.json", [plan, self.tokenizer])

    def add_scores(self, section, checkpoint):
        model = self.add(f"{self.at(section)}/export/{section}.json", [*checkpoint, self.tokenizer])
        return [model, self.add(f"{self.at(section)}/eval/{section}/sums.json", [model])]

    def add(self, path, inputs=()):
        """A product whose bytes follow from its identity and its inputs; its path."""
        rule, named = job_of(path)
        own = path.removeprefix("results/").removeprefix(f"{named.get('run', '')}/")
        identity = {"stage": rule, "version": 1, "seed": 0, **self.changed.get(own, {})}
        made_from = {name: self.products[name].sha256 for name in sorted(inputs)}
        held = [identity, sorted(self.products[name].content["md5"] for name in inputs)]
        content = {
            "identity": identity,
            "inputs": made_from,
            "md5": digest([*held, "noise" if own in self.noise else ""]),
        }
        self.products[path] = Product(path, content, {}, digest([path, content]))
        return path
