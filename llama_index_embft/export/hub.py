"""Upload a saved result to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_index_embft.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import os

# Left by training or editing, and no part of the result.
_NOT_UPLOADED = ["checkpoint-*/*", "checkpoints/*", "runs/*", ".git/*", ".cache/*", "*.tmp", ".DS_Store"]


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
        raise ConfigError(f"{repo_id!r} is no name of a repository on the hub; write OWNER/NAME.") from err
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
        folder: What an engine saved, with its ``README.md`` as the model card.
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
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not (Path(folder) / "embft.json").is_file():
        raise ConfigError(f"{folder} holds no saved result (embft.json is missing); give the folder an engine saved.")
    check_can_push(repo_id, token=token)
    api = HfApi(endpoint=endpoint, token=token, library_name="llama-index-embft")
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id,
            folder_path=Path(folder),
            commit_message="Upload by llama-index-embft",
            ignore_patterns=_NOT_UPLOADED,
        )
    except HfHubHTTPError as err:
        raise OutputError(_refused(repo_id, err)) from err
    except Exception as err:  # the client lets the errors of its HTTP library through, and which one that is changes
        reason = " ".join(str(err).split())[:300] or type(err).__name__
        raise OutputError(
            f"Could not upload to {repo_id}: {reason.rstrip('.')}; the result is whole in {folder}, try again with "
            "push_to_hub."
        ) from err
    return str(address)


def _refused(repo_id: str, err: Exception) -> str:
    response = getattr(err, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        return f"The hub refused to write {repo_id} ({status}); give HF_TOKEN a token that may write there."
    said = getattr(err, "server_message", None) or str(err).strip().splitlines()[0]
    return f"The hub refused the upload to {repo_id} ({status}): {said}; try again with push_to_hub."
