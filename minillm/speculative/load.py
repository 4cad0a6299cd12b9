"""Read the model of a proposer, and check that it fits the target model."""

from pathlib import Path

from minillm.config import ModelConfig, SpeculativeConfig
from minillm.errors import CheckpointError
from minillm.model.stored import open_model
from minillm.model.tokenizer import Tokenizer
from minillm.model.transformer import Transformer
from minillm.quantization.products import Prepared
from minillm.quantization.schemes import scheme_for
from minillm.speculative.eagle import EagleHead
from minillm.speculative.eagle_checkpoint import load_head


def load_draft(
    speculation: SpeculativeConfig, folder: Path, target: Transformer, tokenizer: Tokenizer | None
) -> Transformer | EagleHead:
    """Return the model or the EAGLE-3 head in `folder`, on the device and in the dtype of `target`.

    Raises `CheckpointError` if it was not made for the target: its tokens or, for a head, its sizes differ.
    """
    if speculation.method == "eagle3":
        return load_head(folder, target)
    stored = open_model(folder)
    own = stored.tokenizer()
    if tokenizer is not None and own is not None:
        _check_tokens(speculation, tokenizer, own)
        if stored.config.vocab_size < min(target.config.vocab_size, tokenizer.vocab_size):
            raise CheckpointError(
                f"the draft model {speculation.model!r} has an embedding of {stored.config.vocab_size} tokens, fewer "
                f"than the {tokenizer.vocab_size} of its tokenizer: choose another draft model"
            )
    elif stored.config.vocab_size != target.config.vocab_size:
        raise CheckpointError(
            f"the draft model {speculation.model!r} has a vocabulary of {stored.config.vocab_size} tokens and the "
            f"model has {target.config.vocab_size}: choose a draft model of the same family"
        )
    scheme = Prepared(scheme_for(stored.quantization_config, None), target.ops)
    return stored.weights(target.device, target.dtype, target.ops, scheme)


def check_length(speculation: SpeculativeConfig, draft: ModelConfig, max_model_len: int) -> None:
    """Raise `ValueError` if the draft model has fewer positions than the longest text of the engine."""
    if draft.max_position_embeddings < max_model_len:
        raise ValueError(
            f"the draft model {speculation.model!r} has {draft.max_position_embeddings} positions and max_model_len is "
            f"{max_model_len}: set max_model_len={draft.max_position_embeddings}, or choose another draft model"
        )


def _check_tokens(speculation: SpeculativeConfig, tokenizer: Tokenizer, draft: Tokenizer) -> None:
    ours, theirs = tokenizer.vocabulary(), draft.vocabulary()
    if ours == theirs:
        return
    piece = next(piece for piece in {**ours, **theirs} if ours.get(piece) != theirs.get(piece))
    raise CheckpointError(
        f"the draft model {speculation.model!r} has another tokenizer: {piece!r} is token {theirs.get(piece)} there "
        f"and {ours.get(piece)} in the model. Choose a draft model with the same tokenizer"
    )
