"""The strict base of every config model, and the types they share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Strict(BaseModel):
    """Unknown keys and wrong types are errors; nothing is coerced but 4.0 to 4 and 4 to 4.0."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


def whole(value: Any) -> Any:
    """4.0 is 4: one value has one canonical form, so writing it otherwise rebuilds nothing."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(whole)]
Positive = Annotated[Integer, Field(gt=0)]
Count = Annotated[Integer, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Rate = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
NAME = r"[a-z0-9][a-z0-9_-]*"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]


def plain(model: BaseModel, *without: str) -> dict[str, Any]:
    """A model as canonical JSON types, keys by their YAML names, unset ones left out.

    Unset keys are left out so that a new optional key of a later release changes no digest.
    """
    dumped = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, value in dumped.items() if key not in without}
