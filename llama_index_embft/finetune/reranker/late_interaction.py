"""Train the token vectors of an embedding model, so that it ranks by late interaction (MaxSim)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import batch_to_device
from torch import nn
from torch.utils.checkpoint import checkpoint

from llama_index_embft.embeddings.encoding.tokenizing import preprocess
from llama_index_embft.embeddings.sentence_transformer import own_errors, sound_text
from llama_index_embft.errors import ModelError
from llama_index_embft.finetune.running.base_model import load_base_model
from llama_index_embft.finetune.running.settings import TextSettings
from llama_index_embft.retrievers.late_interaction import token_scorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from llama_index_embft.embeddings.encoding.late_interaction import LateInteraction
    from llama_index_embft.embeddings.sentence_transformer import TextKind

_SCALE: Final = 40.0
"""Logits are that many times the mean cosine: near the sum over a question's tokens, whatever its length."""
_SIDES: Final[tuple[TextKind, TextKind]] = ("query", "document")
_AT_ONCE: Final = {"cpu": 16, "cuda": 64}
_NO_CHANCE: Final = -1e4


class LateInteractionModel(CrossEncoder):
    """An embedding model that scores pairs by its token vectors, in the form that trainers of rerankers take.

    Args:
        scorer: The model with its prompts. The weights are shared: what is trained here is trained there.
    """

    scorer: LateInteraction

    def __init__(self, scorer: LateInteraction) -> None:
        whole = scorer.model
        super().__init__(modules=OrderedDict(whole.named_children()), device=str(whole.device))
        self.__dict__["scorer"] = scorer  # not as a part: its modules are parts already

    @classmethod
    def _load_with_module_classes(
        cls, model_name_or_path: str, module_classes: Mapping[str, type[nn.Module]], **kwargs: Any
    ) -> Any:
        """A checkpoint, by sentence-transformers' trainer: it holds the embedding model."""
        return SentenceTransformer._load_with_module_classes(model_name_or_path, module_classes, **kwargs)

    @property
    def num_labels(self) -> int:
        """A pair has one score, whatever the configuration of the transformer says."""
        return 1

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:  # noqa: ARG002
        """Token ids of both sides of pairs; each side has its own prompt, so that a common one is left out."""
        sides = zip(_SIDES, zip(*inputs, strict=True), strict=True)
        return {f"{kind} {name}": value for kind, texts in sides for name, value in self.features(kind, texts).items()}

    def features(self, kind: TextKind, texts: Sequence[str]) -> dict[str, Any]:
        """Token ids of some texts."""
        sound = [sound_text(text) for text in texts]
        return preprocess(self.scorer.model, sound, self.scorer.prompts[kind] or None, **self._routed(kind))

    def forward(self, input: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:  # noqa: ARG002
        """Scores of pairs, under ``scores``."""
        query, document = ({k.partition(" ")[2]: v for k, v in input.items() if k.startswith(s)} for s in _SIDES)
        wanted, asked = self.tokens(query, "query")
        found, there = self.tokens(document, "document")
        cosines = torch.einsum("bqd,btd->bqt", wanted, found).masked_fill(~there[:, None], _NO_CHANCE)
        return {"scores": _SCALE * _mean_of_best(cosines, asked)}

    def tokens(self, features: dict[str, Any], kind: TextKind) -> tuple[Tensor, Tensor]:
        """Vectors of length 1, shape ``(n, tokens, dim)``, and which of them stand for tokens, ``(n, tokens)``.

        Raises:
            ModelError: The model has no vector for each token.
        """
        there = features["attention_mask"].bool()  # before a pooling that leaves the prompt out changes it
        with own_errors():
            states = super().forward(dict(features), **self._routed(kind)).get("token_embeddings")
        if states is None or states.ndim != 3:
            raise ModelError(
                f"The model has no vector for each token of a text (its first part is a {type(self[0]).__name__}); "
                "late interaction needs a transformer."
            )
        return nn.functional.normalize(states.float(), dim=-1), there

    def predict(self, inputs: Any, *args: Any, **options: Any) -> NDArray[np.float32]:  # type: ignore[override]  # noqa: ARG002
        """Scores of pairs as in use: a passage is read once, whatever the number of questions that found it."""
        return self.scorer.predict(inputs)

    def save_pretrained(self, path: str, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Write the embedding model into a folder."""
        self.scorer.save_pretrained(path, **options)

    def _routed(self, kind: TextKind) -> dict[str, Any]:
        return {"task": kind} if self.scorer.routes else {}


def open_late_interaction(
    name: str, *, device: str | None, max_length: int | None, trust_remote_code: bool
) -> LateInteractionModel:
    """Load an embedding model whose token vectors are to be trained, in float32.

    Args:
        name: Folder or hub name.
        device: Torch device; None takes a GPU where there is one.
        max_length: Tokens of a text that it is to read; None: as many as it reads by itself.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.

    Raises:
        ConfigError: It is a saved adapter, or cannot read texts of that length.
        ModelError: It cannot be loaded, or has nothing to train.
    """
    text = TextSettings(max_seq_length=max_length)
    base = load_base_model(name, text, device=device, trust_remote_code=trust_remote_code)
    return LateInteractionModel(token_scorer(base.embedding))


class InBatchLoss(nn.Module):
    """Softmax over the passages of a question and those of all other questions in the batch.

    The targets are a question's grades, in shares. A passage of another question is none of its negatives where the
    data set says, or its words do, that it answers this question as well. Documents are read in parts that are
    computed again on the way back, so that memory holds the activations of one part.

    Args:
        model: The model.
        forbidden: Question -> passages that are not to be its negatives.
        mini_batch_size: Questions whose passages are read at a time, which changes memory and no result; None: 16
            passages on a CPU, 64 elsewhere.
    """

    def __init__(
        self,
        model: LateInteractionModel,
        forbidden: Mapping[str, frozenset[str]] | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.mini_batch_size = mini_batch_size
        self._forbidden = forbidden or {}

    def forward(self, inputs: list[list[Any]], labels: list[Tensor], **_: Any) -> Tensor:
        """The loss of a batch: questions, their lists of passages, and the grades of these."""
        queries, lists = inputs
        texts = list(dict.fromkeys(text for some in lists for text in some))
        column = {text: place for place, text in enumerate(texts)}
        target = torch.zeros(len(queries), len(texts))
        barred = torch.zeros(len(queries), len(texts), dtype=torch.bool)
        for row, (query, some, grades) in enumerate(zip(queries, lists, labels, strict=True)):
            alien = self._forbidden.get(query, frozenset()).difference(some)
            barred[row, [column[text] for text in alien if text in column]] = True
            for text, grade in zip(some, grades.tolist(), strict=True):
                target[row, column[text]] = max(float(grade), 0.0)
        device = self.model.device
        target, barred = (target / target.sum(dim=1, keepdim=True)).to(device), barred.to(device)
        logits = self._logits(queries, texts).masked_fill(barred, _NO_CHANCE)
        return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()

    def _logits(self, queries: Sequence[str], texts: Sequence[str]) -> Tensor:
        """Scores of all texts for all queries, shape ``(n_queries, n_texts)``."""
        wanted, asked = self.model.tokens(self._placed("query", queries), "query")
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        size = _AT_ONCE.get(self.model.device.type, _AT_ONCE["cuda"])
        if self.mini_batch_size is not None:
            size = self.mini_batch_size * -(-len(texts) // len(queries))
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        scores = partial(self._scores, wanted, asked)
        found = []
        for part in parts:
            features = self._placed("document", [texts[place] for place in part])
            again = len(parts) > 1 and torch.is_grad_enabled()
            found.append(checkpoint(scores, features, use_reentrant=False) if again else scores(features))
        return torch.cat(found, dim=1)[:, torch.tensor(np.argsort(order), device=wanted.device)]

    def _scores(self, wanted: Tensor, asked: Tensor, features: dict[str, Any]) -> Tensor:
        found, there = self.model.tokens(features, "document")
        cosines = torch.einsum("qid,njd->qnij", wanted, found).masked_fill(~there[None, :, None], _NO_CHANCE)
        return _SCALE * _mean_of_best(cosines, asked[:, None])

    def _placed(self, kind: TextKind, texts: Sequence[str]) -> dict[str, Any]:
        features = self.model.features(kind, texts)
        placed: dict[str, Any] = batch_to_device(features, self.model.device)
        return placed


def _mean_of_best(cosines: Tensor, asked: Tensor) -> Tensor:
    """Mean over the tokens of a query of the best cosine in a passage; the last two axes of `cosines` are these."""
    best = cosines.max(dim=-1).values
    return (best * asked).sum(dim=-1) / asked.sum(dim=-1).clamp(min=1)
