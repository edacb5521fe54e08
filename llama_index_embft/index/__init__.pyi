from .identity import check_index as check_index
from .identity import stamp_index as stamp_index
from .reembed import (
    IndexSample as IndexSample,
)
from .reembed import (
    MigratingRetriever as MigratingRetriever,
)
from .reembed import (
    ReembedResult as ReembedResult,
)
from .reembed import (
    reembed_index as reembed_index,
)
from .reembed import (
    sample_index as sample_index,
)
from .retrievers import CheckedRetriever as CheckedRetriever
from .retrievers import checked_retriever as checked_retriever
from .stamp import StoreError as StoreError
from .update import (
    UpdatePlan as UpdatePlan,
)
from .update import (
    UpdateResult as UpdateResult,
)
from .update import (
    plan_update as plan_update,
)
from .update import (
    resume_update as resume_update,
)
from .update import (
    rollback_index as rollback_index,
)
from .update import (
    update_index as update_index,
)
