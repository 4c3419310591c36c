"""What a recipe has and nobody can get."""

from pydantic import Field

from nemoflow.config.base import Rate, Strict


class Gap(Strict):
    """A category that the recipe names and that cannot be had."""

    weight: Rate = Field(description="its weight or share in the published mix")
    why: str
