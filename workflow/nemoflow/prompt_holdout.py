"""Which prompts are held out of training: of every environment its share, by a seeded hash."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from nemoflow.errors import UserError
from nemoflow.splits import point

Groups = Mapping[int, Mapping[str, int]]


def hold_out(rows: Iterable[tuple[int, str]], holdout: int, seed: int) -> set[int]:
    """The prompts of about `holdout` rows, each (hash of its prompt, environment).

    Of each environment its share, at least one where it has two prompts, those with the lowest
    seeded hash. Rows with one prompt stay together, whatever their environments, so that no prompt
    is in both splits; the number is met as closely as that allows, and every environment keeps one
    prompt to train on, unless only others' prompts could stand for it in validation.

    Raises:
        UserError: nothing would be left to train on, or nothing can be held out.
    """
    groups: dict[int, Counter] = defaultdict(Counter)
    sizes: Counter = Counter()
    for prompt, name in rows:
        groups[prompt][name] += 1
        sizes[name] += 1
    if holdout >= sizes.total():
        raise UserError(
            f"prompts: holdout {holdout} leaves none of {sizes.total()} rows to train on; lower it"
        )
    prompts: dict[str, list[int]] = defaultdict(list)
    for prompt in sorted(groups, key=lambda prompt: point(seed, prompt)):
        for name in groups[prompt]:
            prompts[name].append(prompt)
    held = chosen(groups, prompts, shares(sizes, holdout))
    if not held:
        raise UserError("prompts: no agent has two different prompts, so none can be held out")
    return held


def chosen(groups: Groups, prompts: Mapping[str, list[int]], wanted: Mapping[str, int]) -> set[int]:
    """The prompts that are held out, `wanted` rows of each environment."""
    held: set[int] = set()
    left = {name: len(known) for name, known in prompts.items()}

    def take(prompt: int) -> None:
        held.add(prompt)
        for name in groups[prompt]:
            left[name] -= 1

    for name in sorted(prompts):
        taken = sum(groups[prompt][name] for prompt in prompts[name] if prompt in held)
        for prompt in prompts[name]:
            if taken >= wanted[name]:
                break
            if prompt not in held and all(left[other] > 1 for other in groups[prompt]):
                take(prompt)
                taken += groups[prompt][name]
    for _, known in sorted(prompts.items()):
        if len(known) > 1 and held.isdisjoint(known) and len(held) < len(groups) - 1:
            take(known[0])
    return held


def shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` divided in proportion to `sizes` by largest remainders, then at least one each."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    found = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (found[name] - exact[name], name))
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    return {name: max(1, share) for name, share in found.items()}
