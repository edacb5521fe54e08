"""Mine, train, mine again with the model just trained: negatives that keep up with the model.

Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval" (ANCE), arXiv
2007.00808: what was hard for the base model is easy for the tuned one, and no longer teaches it much.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft._files import atomic_write_text, write_folder_atomically
from llama_index_embft.embeddings.loading import load_embed_model
from llama_index_embft.errors import ConfigError
from llama_index_embft.mining import DEFAULT_STRATEGIES, MiningReport, mine_hard_negatives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.finetune.base import FinetuneResult

logger = logging.getLogger(__name__)

_LOADING: Final = ("query_prompt", "document_prompt", "device", "trust_remote_code")


@dataclass(frozen=True)
class Round:
    """One round of `finetune_in_rounds`.

    Attributes:
        result: What training did.
        mining: What was mined before it, with the model of the round before.
    """

    result: FinetuneResult
    mining: MiningReport


def finetune_in_rounds(
    dataset: EmbeddingQAFinetuneDataset,
    model_id: str,
    model_output_path: str,
    *,
    rounds: int = 2,
    strategies: Sequence[Any] | str = DEFAULT_STRATEGIES,
    num_negatives: int = 1,
    mining_options: dict[str, Any] | None = None,
    **engine_options: Any,
) -> list[Round]:
    """Train in rounds, each on hard negatives that the model of the round before finds, and from its weights.

    With a validation set a round that does not improve on the one before ends the run, and the result is that of the
    round before.

    Args:
        dataset: Training set; negatives that it has are replaced.
        model_id: As in `SentenceTransformersFinetuneEngine`.
        model_output_path: Folder to save to.
        rounds: How many; 1 mines once, with the base model.
        strategies: What to mine, see `mine_hard_negatives`.
        num_negatives: Negatives of each query. Every one costs about as much time as the positive.
        mining_options: Further arguments of `mine_hard_negatives`. Queries with too few negatives are filled up with
            random documents (``pad``) unless it says otherwise: training needs as many for each.
        **engine_options: Further arguments of `SentenceTransformersFinetuneEngine`; ``epochs`` is that of one round.

    Returns:
        A record of each round, the last of which may be one that did not improve.

    Raises:
        ConfigError: `rounds` is below 1.
        EmbftError: As the engine and `mine_hard_negatives` do.
    """
    from llama_index_embft.finetune.sentence_transformer import SentenceTransformersFinetuneEngine

    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; it must be at least 1.")
    loading: dict[str, Any] = {name: engine_options[name] for name in _LOADING if name in engine_options}
    scratch = Path(tempfile.mkdtemp(prefix="embft-rounds-"))
    done: list[Round] = []
    current, first_record = str(model_id), None
    try:
        for number in range(1, rounds + 1):
            report = MiningReport()
            mined = mine_hard_negatives(
                dataset,
                load_embed_model(current, **loading),
                strategies,
                num_negatives,
                report=report,
                **{"pad": True, **(mining_options or {})},
            )
            target = str(model_output_path) if number == 1 else str(scratch / f"round-{number}")
            result = SentenceTransformersFinetuneEngine(mined, current, target, **engine_options).finetune()
            done.append(Round(result, report))
            if number > 1 and result.improved is False:
                logger.warning(
                    "Round %d did not improve on validation; the result is that of the round before.", number
                )
                break
            if first_record is None:
                first_record = _record(Path(target))
            else:
                _take_over(Path(target), Path(model_output_path), first_record)
            current = str(model_output_path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return done


def _record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "embft.json").read_text(encoding="utf-8"))
    return record


def _take_over(source: Path, target: Path, first: dict[str, Any]) -> None:
    """Put a later round's model in the place of the result; its base is that of the first round."""
    from llama_index_embft.finetune.model_card import model_card

    record = _record(source)
    record |= {name: first[name] for name in ("base", "base_fingerprint")}
    record["metrics"] = {**record["metrics"], "base": first["metrics"].get("base")}
    with write_folder_atomically(target) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        atomic_write_text(folder / "embft.json", json.dumps(record, indent=2) + "\n")
        atomic_write_text(folder / "README.md", model_card(record))
