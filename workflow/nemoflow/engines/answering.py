"""A model that answers while somebody asks: `python -m nemoflow.engines.answering FOLDER SEED`.

It reads a request a line, {"messages" or "text", "max_new_tokens", "temperature"}, and writes lines
of its own: {"context": tokens, "template": whether it has one} when it is ready; then for each
request {"piece": text} as it comes, and {"end": "stop", "length" or "interrupted", "dropped": turns
left out} or {"error": what is wrong}. An interrupt ends an answer. Only a folder's files are read.
"""

import json
import signal
import sys
from typing import Any

from nemoflow.engines import device

chosen = device.choose()
if chosen.type == "cpu":
    device.without_kernels()

import torch  # noqa: E402 (what transformers takes for Mamba is settled when it is imported)
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer  # noqa: E402

from nemoflow.engines.local.model import unclamp_time_steps  # noqa: E402
from nemoflow.errors import UserError, report  # noqa: E402

MOST = 512  # tokens of an answer, where the context is long enough

Json = dict[str, Any]


def tell(**told: Any) -> None:
    """Write a line."""
    print(json.dumps(told), flush=True)


class Pieces(TextStreamer):
    """Tells the text of an answer as it comes, without the token that ends it."""

    def __init__(self, tokenizer: Any, ends: list[int]):
        super().__init__(tokenizer, skip_prompt=True)
        self._ends = ends

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, and then each token."""
        if self.next_tokens_are_prompt or int(value) not in self._ends:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Tell it, if there is any."""
        if text:
            tell(piece=text)


class Model:
    """An exported model, its tokenizer and its template.

    NemotronH answers without transformers' clamp of Mamba's time steps, as it was trained. By a
    seed, the same requests in the same order get the same answers.
    """

    def __init__(self, folder: str, seed: int):
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(chosen).eval()
        unclamp_time_steps(self.network)
        self.context = self.network.config.max_position_embeddings
        known = self.network.generation_config.eos_token_id
        ends = known if isinstance(known, list) else [known]
        self.ends = sorted({*ends, self.tokenizer.eos_token_id} - {None})
        self.interrupted = False
        torch.manual_seed(seed)

    def interrupt(self, *_: Any) -> None:
        """End the answer that is being given."""
        self.interrupted = True

    def answer(self, asked: Json) -> Json:
        """Answer a request; what its last line tells.

        Raises:
            UserError: what is asked leaves no room for an answer.
        """
        most = asked["max_new_tokens"] or min(MOST, self.context // 2)
        tokens, dropped = self.prompt(asked, self.context - most)
        self.interrupted = False
        drawn = {"temperature": asked["temperature"]} if asked["temperature"] else {}
        given = tokens.to(self.network.device)
        made = self.network.generate(
            given,
            attention_mask=torch.ones_like(given),
            streamer=Pieces(self.tokenizer, self.ends),
            stopping_criteria=[self.is_interrupted],
            max_new_tokens=most,
            do_sample=bool(drawn),
            eos_token_id=self.ends,
            pad_token_id=self.ends[0],
            **drawn,
        )
        ended = "stop" if int(made[0, -1]) in self.ends else "length"
        return {"end": "interrupted" if self.interrupted else ended, "dropped": dropped}

    def is_interrupted(self, tokens: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        """For each sequence whether it ends here; transformers asks after every token."""
        return torch.full((len(tokens),), self.interrupted, device=tokens.device)

    def prompt(self, asked: Json, room: int) -> tuple[torch.Tensor, int]:
        """The tokens int64 [1, n] of a request, and how many old turns had no room.

        A system prompt stays. Of the others the oldest go, a question with its answer.
        """
        if "text" in asked:
            return self.fitting(self.tokenizer(asked["text"])["input_ids"], room), 0
        system = [each for each in asked["messages"][:1] if each["role"] == "system"]
        turns, dropped = asked["messages"][len(system) :], 0
        while len(tokens := self.rendered(system + turns)) > room and len(turns) > 1:
            turns, dropped = turns[2:], dropped + 1
        return self.fitting(tokens, room), dropped

    def rendered(self, messages: list[Json]) -> list[int]:
        """The tokens of a conversation, up to where the model answers."""
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def fitting(self, tokens: list[int], room: int) -> torch.Tensor:
        """Tokens as a batch of one; UserError where there are none, or too many."""
        if not 0 < len(tokens) <= room:
            raise UserError(
                f"the prompt has {len(tokens)} tokens; 1 to {max(room, 0)} leave room for the"
                f" answer in a context of {self.context}: shorten it, or lower --max-new-tokens"
            )
        return torch.tensor([tokens])


def main() -> None:
    """Answer until there are no more requests."""
    folder, seed = sys.argv[1:]
    model = Model(folder, int(seed))
    signal.signal(signal.SIGINT, model.interrupt)
    tell(context=model.context, template=model.tokenizer.chat_template is not None)
    for line in sys.stdin:
        try:
            tell(**model.answer(json.loads(line)))
        except UserError as error:
            tell(error=str(error))


if __name__ == "__main__":
    report(main)
