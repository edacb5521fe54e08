"""Attention masks that a GPU is not asked about.

Before each forward pass transformers looks whether a mask hides anything, to leave it out if not. On a GPU that look
waits for all work sent there before, so the next batch is only launched when the last one is done. Here the mask goes
in as the matrix that transformers would make of it, and there is nothing to look at.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

# Every token of a text attends to every other, in all layers, and the mask is used for nothing else.
_PLAIN: Final = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra"})


@contextmanager
def masks_without_looking(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Give the encoders inside of a model their masks ready-made, while the block lasts.

    The result is the same to the last bit where a batch has padding; where it has none, the kernel with a mask runs
    instead of the one without. Encoders of other kinds, with other attention, or compiled are left alone.

    Args:
        model: A SentenceTransformer, or what holds one.
        wanted: False changes nothing.
    """
    with ExitStack() as stack:
        for module in model.modules() if wanted else ():
            if _is_plain_encoder(module):
                # Of the module of sentence-transformers: it calls that of transformers past its hooks.
                stack.callback(module.register_forward_pre_hook(_with_matrix, with_kwargs=True).remove)
        yield


def _is_plain_encoder(module: nn.Module) -> bool:
    from sentence_transformers.sentence_transformer.modules import Transformer
    from torch import nn

    encoder: Any = module.model if type(module) is Transformer else None
    if not isinstance(encoder, nn.Module):  # another module, or a graph of ONNX or OpenVINO
        return False
    config: Any = encoder.config
    return (
        config.model_type in _PLAIN
        and config._attn_implementation == "sdpa"
        and not getattr(config, "is_decoder", False)
        and encoder._compiled_call_impl is None
    )


def _with_matrix(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ARG001 - torch's interface
    mask: torch.Tensor | None = args[0].get("attention_mask")
    if mask is None or mask.ndim != 2 or "attention_mask" in options:
        return args, options
    n, length = mask.shape
    return args, options | {"attention_mask": mask.bool()[:, None, None, :].expand(n, 1, length, length)}
