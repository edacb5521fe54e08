"""What mining returns: a data set with negatives, and the report of how they were found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
from llama_index_embft.errors import DatasetError

if TYPE_CHECKING:
    from llama_index_embft.mining.report import MiningReport


class MinedDataset(EmbeddingQAFinetuneDataset):
    """A data set with ``negative_docs`` that knows how they were found.

    Its JSON is that of any data set; the report is saved by `MiningReport.to_json` and `MiningReport.to_html`.
    """

    _report: Any = PrivateAttr(default=None)

    @classmethod
    def with_report(cls, report: MiningReport, **fields: Any) -> MinedDataset:
        """Make a mined data set.

        Args:
            report: What the mining run did.
            **fields: As in `EmbeddingQAFinetuneDataset`.
        """
        mined = cls(**fields)
        mined._report = report
        return mined

    @property
    def report(self) -> MiningReport:
        """What the mining run did.

        Raises:
            DatasetError: This data set was read from a file, or cut from a mined one.
        """
        report: MiningReport | None = self._report
        if report is None:
            raise DatasetError(
                "This data set has no mining report: it was read from a file or cut from a mined one; read `report` of "
                "what `mine_hard_negatives` returned."
            )
        return report
