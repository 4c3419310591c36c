"""The words of a text that the search for evaluated items compares."""

from nemoflow.overlap import plain


def words_of(text: str) -> list[str]:
    """In order, without case and punctuation."""
    return plain(text).decode().split()
