"""lm-eval's models of OpenAI-style servers, which take no answer for an empty one.

lm-eval reads a reply without choices as an empty answer, which would be scored.
"""

from typing import Any

from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from nemoflow.errors import UserError


def refuse_empty(replies: Any) -> None:
    """UserError for a reply without choices: an error with status 200, or another protocol."""
    for reply in replies if isinstance(replies, list) else [replies]:
        if not isinstance(reply, dict) or not reply.get("choices"):
            raise UserError(f"eval.endpoint: the server answered without choices: {reply!r:.200}")


class Completions(LocalCompletionsAPI):
    """Texts and likelihoods by completions."""

    @staticmethod
    def parse_generations(outputs: Any, **given: Any) -> list[str]:
        """The texts of a reply."""
        refuse_empty(outputs)
        return LocalCompletionsAPI.parse_generations(outputs, **given)

    @staticmethod
    def parse_logprobs(outputs: Any, **given: Any) -> list[tuple[float, bool]]:
        """The likelihoods of a reply."""
        refuse_empty(outputs)
        return LocalCompletionsAPI.parse_logprobs(outputs, **given)


class ChatCompletions(LocalChatCompletion):
    """Answers to chats."""

    def parse_generations(self, outputs: Any, **given: Any) -> list[str]:
        """The answers of a reply; a message without content is an empty one."""
        refuse_empty(outputs)
        return super().parse_generations(outputs, **given)
