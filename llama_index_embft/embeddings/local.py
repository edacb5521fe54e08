"""A SentenceTransformer that runs here, as a LlamaIndex embedding with the model's own prompts, length and routes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index.core.bridge.pydantic import (
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from llama_index.core.constants import DEFAULT_EMBED_BATCH_SIZE
from llama_index.core.utils import get_cache_dir, infer_torch_device
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from llama_index_embft.embeddings.fingerprint import state_of_weights
from llama_index_embft.embeddings.identity import ModelIdentity, fingerprints, sentence_transformer_identity
from llama_index_embft.embeddings.sentence_transformer import (
    TextKind,
    has_router,
    keep_within_positions,
    model_prompts,
    own_errors,
    set_max_length,
    sound_text,
)
from llama_index_embft.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# What sentence-transformers turns into an embedding model by leaving layers out, and its vectors say little.
_MULTI_VECTOR: Final = "it gives a vector for each token; use it as LateInteractionReranker"
_NO_EMBEDDING: Final = {
    "CrossEncoder": "it scores pairs of texts; use it with load_reranker",
    "SparseEncoder": "its vectors are sparse, which dense indexes do not hold; give another model",
    "MultiVectorEncoder": _MULTI_VECTOR,
    "ColBERT": _MULTI_VECTOR,
}


class LocalEmbedding(HuggingFaceEmbedding):
    """LlamaIndex's `HuggingFaceEmbedding`, with what it leaves out.

    The model's own prompts are used whether it came by name or by folder, and ``""`` switches one off. Static models
    have no maximum length. A model with a `Router` is told whether it reads a query or a document. Texts are cut where
    the model's positions end. `to_dict` holds the identity, so that an ingestion cache never returns the vectors of
    another model in the same folder.

    Args:
        model_name: Folder, or name on the Hugging Face hub.
        max_length: Tokens that are read; None: the model's own limit.
        query_instruction: Put before each query; None: the model's own.
        text_instruction: Put before each document; None: the model's own.
        normalize: Scale vectors to length 1.
        embed_batch_size: Texts a batch.
        cache_folder: Where models of the hub are kept; None: LlamaIndex's own place.
        trust_remote_code: Run code that comes with the model. Only for repositories you have read.
        device: Torch device; None takes a GPU where there is one.
        **fields: Other fields of `BaseEmbedding`.

    Raises:
        ModelError: Its prompts have names that do not say what they are for, or its weights hold NaN.
    """

    max_length: int | None = Field(default=None, description="Tokens of a text that are read.")  # type: ignore[assignment]
    trust_remote_code: bool = Field(default=False, description="Run code that comes with the model.", exclude=True)
    device: str | None = Field(default=None, description="Torch device.", exclude=True)
    _routes: bool = PrivateAttr(default=False)
    _known: Any = PrivateAttr(default=None)

    def __init__(
        self,
        model_name: str,
        *,
        max_length: int | None = None,
        query_instruction: str | None = None,
        text_instruction: str | None = None,
        normalize: bool = True,
        embed_batch_size: int = DEFAULT_EMBED_BATCH_SIZE,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        **fields: Any,
    ) -> None:
        model = load_sentence_transformer(
            model_name, device=device, trust_remote_code=trust_remote_code, cache_folder=cache_folder
        )
        prompts = model_prompts(
            model.prompts, model.default_prompt_name, model_name, query=query_instruction, document=text_instruction
        )
        model.prompts = {"query": prompts["query"], "document": prompts["document"]}
        model.default_prompt_name = None
        if max_length:
            set_max_length(model, max_length, model_name)
        keep_within_positions(model)
        length = model.max_seq_length
        # Past the parent's own __init__, which would load the model a second time.
        super(HuggingFaceEmbedding, self).__init__(
            model_name=model_name,
            max_length=length if isinstance(length, int) else None,
            query_instruction=prompts["query"],
            text_instruction=prompts["document"],
            normalize=normalize,
            embed_batch_size=embed_batch_size,
            cache_folder=cache_folder,
            trust_remote_code=trust_remote_code,
            device=device,
            **fields,
        )
        self._device = str(model.device)
        self._model = model
        self._parallel_process, self._target_devices = False, None
        self._routes = has_router(model)

    def identity(self, side: TextKind, given: str | None = None) -> ModelIdentity | None:
        """Who makes the vectors of this side."""
        del given  # it has one of its own
        prompt = self.query_instruction if side == "query" else self.text_instruction
        return sentence_transformer_identity(self._model, prompt or "", side, self.normalize, self.model_name)

    def _embed(self, inputs: list[Any], prompt_name: str | None = None) -> list[list[float]]:
        options: dict[str, Any] = {}
        if prompt_name is not None:  # images have none
            kind = "query" if prompt_name == "query" else "document"
            options["prompt"] = self.query_instruction if kind == "query" else self.text_instruction
            if self._routes:
                options["task"] = kind
            inputs = list(map(sound_text, inputs))
        with own_errors(self.model_name):
            vectors = self._model.encode(
                inputs,
                batch_size=self.embed_batch_size,
                normalize_embeddings=self.normalize,
                show_progress_bar=self.show_progress_bar,
                convert_to_tensor=True,
                **options,
            )
        if not vectors.isfinite().all():
            raise ModelError(
                f"{self.model_name} returned a vector with NaN or infinity; load it in float32, or check its weights."
            )
        result: list[list[float]] = vectors.float().cpu().tolist()
        return result

    # The name of LlamaIndex's own, which it replaces.
    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, _info: SerializationInfo) -> dict[str, Any]:
        """Fields, class name, and the identity of both sides."""
        data: dict[str, Any] = handler(self)
        return data | {"class_name": self.class_name(), "identity": self._identities()}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> LocalEmbedding:
        """Load the model that `to_dict` described."""
        merged = {**data, **kwargs}
        return cls(**{name: value for name, value in merged.items() if name not in ("class_name", "identity")})

    def _identities(self) -> dict[str, str | None]:
        """Fingerprints of both sides; weights are hashed anew only after torch has changed them."""
        weights = state_of_weights(self._model)
        prompts = self.query_instruction, self.text_instruction
        state = (weights, *prompts, self.normalize, self._model.max_seq_length, self._model.truncate_dim)
        if self._known is None or self._known[0] != state:
            self._known = (state, fingerprints(self))
        return dict(self._known[1])


def load_sentence_transformer(
    name: str, *, device: str | None, trust_remote_code: bool, cache_folder: str | None = None
) -> SentenceTransformer:
    """Load a SentenceTransformer with all prompts that it was saved with, whatever its default prompt is.

    sentence-transformers refuses a model whose default names none of its prompts; here it is a name without a text.

    Args:
        name: Folder or hub name.
        device: Torch device; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the model.
        cache_folder: Where models of the hub are kept; None: LlamaIndex's own place.

    Raises:
        ModelError: It was saved as something else than an embedding model, of which sentence-transformers would make
            one without a word that is heard, or its weights hold NaN. What else may go wrong is of many kinds, see
            `describe.loading`.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import load_file_path

    # LlamaIndex makes its place when asked for it; a folder needs none, so it loads where there is no home to write to.
    options: dict[str, Any] = {"cache_folder": cache_folder or (None if Path(name).is_dir() else get_cache_dir())}
    config = _saved_config(load_file_path(name, "config_sentence_transformers.json", **options))
    if (kind := str(config.get("model_type"))) in _NO_EMBEDDING:
        raise ModelError(f"{name} is no embedding model: {_NO_EMBEDDING[kind]}.")
    prompts, default = _saved_prompts(config)
    model = SentenceTransformer(
        name,
        device=device or infer_torch_device(),
        trust_remote_code=trust_remote_code,
        prompts=prompts if default is None else {default: "", **prompts},
        **options,
    )
    model.default_prompt_name = default
    keep_within_positions(model)
    _check_weights(model, name)
    return model


def _saved_config(file: str | None) -> dict[str, Any]:
    """What a ``config_sentence_transformers.json`` says; empty where there is none."""
    import json

    config: Any = {} if file is None else json.loads(Path(file).read_text(encoding="utf-8"))
    return config if isinstance(config, dict) else {}


def _saved_prompts(config: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    """The prompts of a model, and the name of the default one."""
    prompts, default = config.get("prompts"), config.get("default_prompt_name")
    named = {str(name): str(text or "") for name, text in prompts.items()} if isinstance(prompts, dict) else {}
    return named, default if isinstance(default, str) else None


def _check_weights(model: Any, name: str) -> None:
    bad = [
        key for key, tensor in model.named_parameters() if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise ModelError(
            f"{len(bad)} weights of {name} hold NaN or infinity (first: {bad[0]}); its training failed, or the file is "
            "damaged: copy or train it again."
        )
