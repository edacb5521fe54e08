from .identity import check_index as check_index, stamp_index as stamp_index
from .questions import IndexQuestions as IndexQuestions, questions_for_index as questions_for_index
from .reembed import (
    IndexSample as IndexSample,
    MigratingRetriever as MigratingRetriever,
    ReembedResult as ReembedResult,
    reembed_index as reembed_index,
    sample_index as sample_index,
)
from .retrievers import CheckedRetriever as CheckedRetriever, checked_retriever as checked_retriever
from .stamp import StoreError as StoreError
from .update import (
    UpdatePlan as UpdatePlan,
    UpdateResult as UpdateResult,
    plan_update as plan_update,
    resume_update as resume_update,
    rollback_index as rollback_index,
    update_index as update_index,
)
