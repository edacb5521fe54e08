"""Upload a saved result, an exported model or a data set to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_embft._core.checks import first_line
from llama_index_embft._core.redaction import redact
from llama_index_embft._core.temporary import scratch_folder
from llama_index_embft.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import os

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset

# Left by training or editing, and no part of the result.
_NOT_UPLOADED = [".embft-*", "checkpoint-*/*", "checkpoints/*", "runs/*", ".git/*", ".cache/*", "*.tmp", ".DS_Store"]


def check_can_push(repo_id: str, *, token: str | None = None) -> None:
    """Find out before the work whether an upload could begin: the name is well formed, and there is a token.

    Raises:
        ConfigError: The name is not that of a repository, there is no token, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as err:
        raise ConfigError(f"{repo_id!r} is not the name of a repository on the hub; write OWNER/NAME.") from err
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("The hub is switched off by HF_HUB_OFFLINE; unset it to upload.")
    if not (token or get_token()):
        raise ConfigError("There is no token for the hub; set HF_TOKEN to one that may write, or run: hf auth login.")


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a saved result, a model or an adapter, in one commit.

    Args:
        folder: What an engine or `export_model` saved, with its ``README.md`` as the model card.
        repo_id: ``owner/name``; the repository is made if there is none.
        private: Make a new repository private. An existing one stays as it is.
        token: Access token; None: ``HF_TOKEN``, else what ``hf auth login`` has stored.
        endpoint: Address of the hub; None: ``HF_ENDPOINT``, else huggingface.co.

    Returns:
        Address of the repository.

    Raises:
        ConfigError: `folder` holds no saved result, or see `check_can_push`.
        OutputError: The hub refuses, or cannot be reached.
    """
    if not (Path(folder) / "embft.json").is_file():
        raise ConfigError(f"{folder} holds no saved result (embft.json is missing); give the folder an engine saved.")
    check_can_push(repo_id, token=token)
    return _upload(Path(folder), repo_id, "model", private=private, token=token, endpoint=endpoint)


def push_dataset_to_hub(
    dataset: EmbeddingQAFinetuneDataset,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a data set in one commit: ``dataset.json`` (`EmbeddingQAFinetuneDataset.from_json` reads it) and a card.

    The texts go with it: look at what they say, and whose they are, before you make the repository public.

    Args:
        dataset: The data set.
        repo_id: ``owner/name``; the repository is made if there is none.
        private: Make a new repository private. An existing one stays as it is.
        token: Access token; None: ``HF_TOKEN``, else what ``hf auth login`` has stored.
        endpoint: Address of the hub; None: ``HF_ENDPOINT``, else huggingface.co.

    Returns:
        Address of the repository.

    Raises:
        ConfigError: See `check_can_push`.
        OutputError: The hub refuses, or cannot be reached.
    """
    check_can_push(repo_id, token=token)
    with scratch_folder() as folder:
        dataset.save_json(folder / "dataset.json")
        (folder / "README.md").write_text(_dataset_card(dataset), encoding="utf-8")
        return _upload(folder, repo_id, "dataset", private=private, token=token, endpoint=endpoint)


def _dataset_card(dataset: EmbeddingQAFinetuneDataset) -> str:
    negatives = f", {len(dataset.negative_docs):,} of them with negatives" if dataset.negative_docs else ""
    return (
        "---\ntags:\n- llama-index\n- llama-index-embft\n- retrieval\ntask_categories:\n- text-retrieval\n---\n\n"
        "# Retrieval data set\n\n"
        f"{len(dataset.queries):,} queries{negatives}; {len(dataset.corpus):,} passages. Content hash "
        f"`{dataset.content_hash()}`.\n\n"
        "```python\nfrom huggingface_hub import hf_hub_download\nfrom llama_index_embft import "
        "EmbeddingQAFinetuneDataset\n\n"
        'file = hf_hub_download("OWNER/NAME", "dataset.json", repo_type="dataset")\n'
        "dataset = EmbeddingQAFinetuneDataset.from_json(file)\n```\n"
    )


def _upload(folder: Path, repo_id: str, kind: str, *, private: bool, token: str | None, endpoint: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint, token=token, library_name="llama-index-embft")
    call = "push_to_hub" if kind == "model" else "push_dataset_to_hub"
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            repo_type=kind,
            commit_message="Upload by llama-index-embft",
            ignore_patterns=_NOT_UPLOADED,
        )
    except HfHubHTTPError as err:
        raise OutputError(_refused(repo_id, err, call)) from err
    except Exception as err:  # the client lets the errors of its HTTP library through, and which one that is changes
        reason = " ".join(redact(str(err)).split())[:300] or type(err).__name__
        whole = f"the result is whole in {folder}, try again with" if kind == "model" else "try again with"
        raise OutputError(f"Could not upload to {repo_id}: {reason.rstrip('.')}; {whole} {call}.") from err
    return str(address)


def _refused(repo_id: str, err: Exception, call: str) -> str:
    response = getattr(err, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return f"The hub refused to write {repo_id} ({status}); give HF_TOKEN a token that may write there."
    said = getattr(err, "server_message", None) or first_line(err)
    return f"The hub refused the upload to {repo_id} ({status}): {said}; try again with {call}."
