"""The architecture: the same words for every engine."""

from pydantic import Field, model_validator

from nemoflow.config.base import Number, Positive, Rate, Strict


class Attention(Strict):
    """Grouped-query attention without position embeddings."""

    heads: Positive = Field(description="query heads")
    kv_heads: Positive = Field(description="key and value heads")
    head_dim: Positive = Field(description="dimensions per head")


class Mamba(Strict):
    """Mamba-2 mixer."""

    heads: Positive = Field(description="heads")
    head_dim: Positive = Field(description="dimensions per head")
    state: Positive = Field(description="state dimensions")
    groups: Positive = Field(description="groups that share B and C")
    conv: Positive = Field(4, description="width of the causal convolution")
    chunk: Positive = Field(128, description="chunk of the scan, in tokens")


class Moe(Strict):
    """Mixture of experts with a sigmoid router."""

    experts: Positive = Field(description="routed experts")
    experts_per_token: Positive = Field(description="experts that each token uses (top-k)")
    ffn: Positive = Field(description="hidden size of a routed expert")
    shared_ffn: Positive = Field(description="hidden size of the shared expert")
    latent: Positive | None = Field(description="latent dimension of the experts; null = none")
    scaling: Number = Field(description="factor on the routed experts' output")
    bias_update_rate: Rate = Field(description="step of the expert bias that balances the load")
    aux_loss: Rate = Field(description="coefficient of the auxiliary balancing loss; 0 = none")


class Mtp(Strict):
    """Multi-token prediction head."""

    pattern: str = Field(pattern=r"^[ME*-]+$", description="layers of one depth")
    depths: Positive = Field(description="prediction depths, with shared weights")
    loss_scale: Rate = Field(description="factor on the head's loss")


class Model(Strict):
    """Architecture of the hybrid Mamba, attention and mixture-of-experts model."""

    pattern: str = Field(
        pattern=r"^[ME*-]+$",
        description="one letter per layer: M Mamba-2, E MoE, * attention, - dense",
    )
    layers: Positive = Field(description="number of layers, equal to the pattern's length")
    hidden_size: Positive = Field(description="model dimension")
    vocab_size: Positive = Field(description="rows of the embedding, at least the tokenizer's")
    max_positions: Positive = Field(description="longest sequence in tokens")
    init_std: Rate = Field(description="standard deviation of the initial weights")
    norm_epsilon: Rate = Field(1e-5, description="epsilon of the RMSNorm")
    ffn: Positive | None = Field(None, description="hidden size of a dense layer (-); null = none")
    attention: Attention
    mamba: Mamba
    moe: Moe
    mtp: Mtp | None = Field(None, description="null = no multi-token prediction")

    @model_validator(mode="after")
    def agree(self) -> "Model":
        """Numbers that must fit each other."""
        if len(self.pattern) != self.layers:
            raise ValueError(
                f"layers is {self.layers} but the pattern has {len(self.pattern)} letters;"
                " make them equal"
            )
        if "-" in self.pattern and self.ffn is None:
            raise ValueError("the pattern has dense layers (-): set ffn")
        if self.attention.heads % self.attention.kv_heads:
            raise ValueError("attention.kv_heads must divide attention.heads")
        if self.moe.experts_per_token > self.moe.experts:
            raise ValueError("moe.experts_per_token is larger than moe.experts")
        return self
