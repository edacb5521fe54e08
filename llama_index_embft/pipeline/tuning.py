"""The best retriever for some documents: found, proven and handed over."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_index_embft._core.checks import check_number, first_line
from llama_index_embft._core.files import check_output_folder
from llama_index_embft.embeddings.describe import folders_below
from llama_index_embft.embeddings.encoding.encoder import as_encoder
from llama_index_embft.embeddings.encoding.run_cache import RunCache
from llama_index_embft.errors import ConfigError, EmbftError
from llama_index_embft.generation import question_realism
from llama_index_embft.pipeline.budget import Clock, in_words, parse_budget
from llama_index_embft.pipeline.choice import Choosing, reranker_of
from llama_index_embft.pipeline.evidence import Evidence, assign, can_choose, data_in_words, trains_on_labels
from llama_index_embft.pipeline.no_labels import NoLabelRule, copied_share
from llama_index_embft.pipeline.parts import DenseModel, StackParts
from llama_index_embft.pipeline.proving import prove
from llama_index_embft.pipeline.questions import made_questions, origin_of, people_questions, what_can_be_shown
from llama_index_embft.pipeline.result import TuneResult, check_can_be_saved
from llama_index_embft.pipeline.settings import TuneSettings
from llama_index_embft.pipeline.sources import TuningSource, base_model_of, check_apart, read_source
from llama_index_embft.pipeline.status import CandidateRow, TuneStatus, Watch, printed, silent
from llama_index_embft.pipeline.trained.candidates import (
    EPOCHS,
    TrainMethod,
    Workload,
    candidates_folder,
    drawn,
    methods_for,
    only_here,
    seconds_a_text,
    train_candidate,
)
from llama_index_embft.pipeline.trained.distilling import JUDGED, NEGATIVES, judged_by, why_no_teacher
from llama_index_embft.pipeline.trained.reranking import (
    LATE_INTERACTION,
    TRAIN_RERANKER,
    no_time_to_read,
    price_of_reading,
    reranker_seconds,
    train_reranker_candidate,
    why_no_reranker,
)
from llama_index_embft.retrievers.late_interaction import LateInteractionReranker
from llama_index_embft.retrievers.loading import as_postprocessor
from llama_index_embft.retrievers.reranking import remembering

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode, Document

    from llama_index_embft.dataset.schema import EmbeddingQAFinetuneDataset
    from llama_index_embft.retrievers.reranking import CrossEncoderReranker


def tune(
    source: str
    | os.PathLike[str]
    | Sequence[str | os.PathLike[str]]
    | Sequence[Document]
    | Sequence[BaseNode]
    | EmbeddingQAFinetuneDataset
    | VectorStoreIndex,
    *,
    model: str | os.PathLike[str] | BaseEmbedding | None = None,
    questions: EmbeddingQAFinetuneDataset | str | os.PathLike[str] | None = None,
    llm: LLM | None = None,
    methods: str | Sequence[str] = "auto",
    reranker: Any = None,
    budget: str | float = "10 min",
    output_path: str | os.PathLike[str] | None = None,
    settings: TuneSettings | None = None,
    seed: int = 0,
    show_progress: bool = True,
    watch: Watch | None = None,
    command: str = "",
) -> TuneResult:
    """Find the best retriever for some documents, prove it, and hand it over.

    Tried, from cheap to dear, within the budget: the embedding model in use, BM25, their mixture, and the mixtures of
    BM25 with an adapter and a fully trained model. One choice is made on some questions, and proven once on others:

    - Questions that people asked (`questions`, or those of a data set) choose and prove. A few dozen are enough; with
      300 or more, about enough documents, they also train.
    - Without them an LLM writes some (`llm`), which train; or they are taken from the text, and train only where
      `methods` asks for it. Neither can say how much weight BM25 deserves, so that follows a rule measured on other
      documents, and on questions from the text nothing counts as proven.

    "Keep what you have" is a result like the others. A search that was interrupted goes on where it stopped: vectors,
    paid questions and trained candidates are kept in the cache folder.

    Args:
        source: A folder or files, LlamaIndex documents or nodes, a data set, a `VectorStoreIndex`, or the folder or
            address of a stored index.
        model: The embedding model in use: a name or folder, or a LlamaIndex embedding. None: the index's own, else
            ``"BAAI/bge-small-en-v1.5"``.
        questions: Questions that people asked, with the passages that answer them: a data set, or a file that
            `read_dataset` reads. The passages are looked for in the documents by their text. These, and the questions
            of a data set, are taken for people's unless their `provenance` says that this package made them; what
            another tool made up makes the verdict claim too much.
        llm: Writes questions where people's do not suffice to train; see `TuneSettings.confirm` for what it costs.
        methods: ``"auto"``: the adapter, and full training where the weights can be trained, if people or an LLM asked
            questions. ``"none"``: nothing is trained. ``"distill"``: full training, and then once more on what the
            reranker says of the passages that the trained model finds. Or some of ``"adapter"``, ``"lora"``,
            ``"full"``, ``"distill"``.
        reranker: Reads the first 30 hits, and is kept only where it wins: a name or folder, a ``CrossEncoder``, a
            function of query and texts, or a LlamaIndex node postprocessor. ``"late-interaction"`` is the model in
            use itself, token by token, see `LateInteractionReranker`; ``"train"`` trains its token vectors first, on
            what people asked. People's questions also say how much a reranker counts beside the order of the hits
            (not for a postprocessor of another class). One that fails is left out, and the notes say so.
        budget: How long the search may take, such as ``"10 min"`` or seconds. What would take longer is left out, and
            named.
        output_path: Folder to save to; None saves nothing, see `TuneResult.save`.
        settings: How documents are cut, how many questions are made and what they may cost, and the like.
        seed: Of questions, divisions and training.
        show_progress: Print what is going on, and show bars.
        watch: Called with a `TuneStatus` instead of printing.
        command: The command line, for the record.

    Raises:
        ConfigError: An argument is out of range, the questions lie among the documents, or the budget does not even
            allow to embed the texts.
        DatasetError: There is no text, or none of the questions is about it.
        DocumentError: Files are missing or unreadable.
        ModelError: The model cannot be loaded.
        OutputError: The folder cannot be written.
    """
    clock = Clock(parse_budget(budget))
    check_number("seed", seed, at_least=0, whole=True)
    watch = watch or (printed() if show_progress else silent)
    settings = settings or TuneSettings()
    if reranker not in (None, TRAIN_RERANKER, LATE_INTERACTION):  # what cannot be loaded is said before the work
        reranker = as_postprocessor(reranker, trust_remote_code=settings.trust_remote_code)
    search = _Search(clock, watch, seed, show_progress, settings)
    with only_here(output_path):
        check_apart(questions, source, settings)
        base = base_model_of(source, model, settings.trust_remote_code)
        if output_path is not None:
            check_output_folder(output_path, keep=folders_below(base))
            check_can_be_saved(base, settings.identity)
        if reranker == LATE_INTERACTION:
            reranker = LateInteractionReranker(base)
        wanted = methods_for(methods, base, reranker=reranker)
        found = read_source(
            source,
            embed_model=base,
            settings=settings,
            show_progress=show_progress,
        )
        labels, notes = people_questions(found, questions)
        with candidates_folder(found.corpus.content_hash()) as search.folder:
            result = search.run(
                found,
                labels,
                base,
                llm=llm,
                methods=wanted,
                asked_for=methods != "auto",
                reranker=reranker,
                notes=[*found.notes, *notes],
                command=command,
            )
            if output_path is not None:
                result = result.save(output_path, identity=settings.identity)
                shutil.rmtree(search.folder, ignore_errors=True)  # what was chosen is saved
    return result


class _Search:
    """One search, step by step."""

    folder: Path
    """Where its candidates wait."""

    def __init__(self, clock: Clock, watch: Watch, seed: int, show_progress: bool, settings: TuneSettings) -> None:
        self._clock, self._watch, self._seed, self._bars, self._settings = clock, watch, seed, show_progress, settings
        self._methods: tuple[TrainMethod, ...] = ()
        self._rows: list[CandidateRow] = []
        self._notes: list[str] = []
        self._cache = RunCache()

    def _say(self, doing: str, left: float | None = None) -> None:
        self._watch(TuneStatus(doing, tuple(self._rows), self._clock.spent, left))

    def run(
        self,
        source: TuningSource,
        labels: EmbeddingQAFinetuneDataset | None,
        base: BaseEmbedding,
        *,
        llm: LLM | None,
        methods: tuple[TrainMethod, ...],
        asked_for: bool,
        reranker: Any,
        notes: Sequence[str],
        command: str,
    ) -> TuneResult:
        self._notes += notes
        self._methods = methods
        self._say(f"Read {source.words}")
        a_text, needed = self._embedding_takes(base, source)
        if shown := what_can_be_shown(source, labels, llm, self._settings):
            self._say(shown)
        made: EmbeddingQAFinetuneDataset | None = None
        if (made_by := origin_of(labels)) != "people":
            made, labels = labels, None  # as if they had been made here: what they prove is said as such
        elif not trains_on_labels(labels) and (methods or not can_choose(labels)):
            self._say("Taking questions from the text" if llm is None else "The LLM is writing questions")
            needs = not can_choose(labels)
            made, made_by, of_made = made_questions(source, llm, self._settings, seed=self._seed, needed=needs)
            self._notes += of_made
        evidence = assign(labels, made, made_by=made_by, seed=self._seed, show_progress=self._bars)
        self._notes += evidence.notes
        parts = StackParts(source.corpus, cache=self._cache, vectors=source.vectors)
        realism = None
        if made is not None:  # before anything is trained on them: how far made-up questions can be trusted here
            realism = question_realism(made, labels, lexical=parts.lexical_index, seed=self._seed)
            for sentence in realism.sentences():
                self._say(sentence)
        base_model = DenseModel("base", base)
        self._say("Embedding the texts with the model in use", needed)
        parts.embed(base_model, show_progress=self._bars)
        rule = NoLabelRule.of(copied_share(source.nodes, parts, base_model, seed=self._seed))
        choosing = Choosing(parts, evidence, rule.weight)
        self._add(choosing.consider(base_model), evidence)
        why_not = rule.why_not(evidence, asked_for=asked_for) if methods else ""
        if why_not:
            self._rows.append(CandidateRow("trained", note=f"left out: {why_not}"))
            methods = ()
        for method in methods:
            if method != "distill":  # after the reranker, which it learns from
                self._try(method, base_model, source, evidence, choosing, a_text)
        if reranker == TRAIN_RERANKER:
            reranker = self._trained_reranker(base, evidence, choosing, a_text)
        given = reranker
        if reranker is not None:
            self._rerank(choosing, reranker := remembering(reranker), parts, evidence)
        if "distill" in methods:
            self._try("distill", choosing.furthest, source, evidence, choosing, a_text, reranker)
        self._say("Proving the choice on questions that had no part in it")
        result = self._proven(source, evidence, parts, choosing, rule, reranker, base)
        handed = None if result.reranker is None else reranker_of(result.chosen, given)  # it keeps no scores in use
        return replace(result, reranker=handed, comparison=result.comparison.amended(command=command), realism=realism)

    def _embedding_takes(self, base: BaseEmbedding, source: TuningSource) -> tuple[float, float]:
        """Seconds to embed one text, and all that have no vector yet.

        Raises:
            ConfigError: That alone is more than the budget.
        """
        texts = list(source.corpus.corpus.values())
        a_text = seconds_a_text(base, texts)
        n_new = 0 if source.vectors is not None else as_encoder(base, cache=self._cache).uncached_documents(texts)
        needed = a_text * n_new
        if n_new and needed > self._clock.left:
            raise ConfigError(
                f"`budget` is {in_words(self._clock.budget)}, and embedding {n_new:,} chunks alone takes about "
                f"{in_words(needed)}; give {in_words(1.5 * needed + 60)} or more."
            )
        return a_text, needed

    def _add(self, rows: Sequence[CandidateRow], evidence: Evidence) -> None:
        self._rows += rows
        if evidence.proof_by == "people":
            best = max((row for row in self._rows if row.score is not None), key=lambda row: row.score or 0.0)
            self._say(f"Best so far: {best.name}, nDCG@10 {best.score:.3f}")
            return
        self._say("These are figures of made-up questions: the highest is not the best here")

    def _try(
        self,
        method: TrainMethod,
        start: DenseModel,
        source: TuningSource,
        evidence: Evidence,
        choosing: Choosing,
        a_text: float,
        teacher: Any = None,
    ) -> None:
        """Train one candidate, if there is time and something to learn from."""
        train = evidence.train
        why_not = (
            "no questions to train on" if train is None else why_no_teacher(teacher) if method == "distill" else ""
        )
        if train is None or why_not:
            self._rows.append(CandidateRow(method, note=f"left out: {why_not}"))
            return
        n_val = len(evidence.val.corpus) + len(evidence.val.queries) if evidence.val is not None else 0
        epochs = EPOCHS[evidence.train_by == "people"]
        load = Workload(a_text, len(source.corpus.corpus), n_val, epochs)
        if method == "distill":
            load = replace(load, passages=1 + NEGATIVES, judged=JUDGED)
        pairs = min(load.pairs_within(method, self._clock.left * 0.9), len(train.queries))
        if pairs == 0:
            needed = in_words(load.seconds(method, min(1000, len(train.queries))))
            note = f"left out: takes about {needed}, and {in_words(max(1.0, self._clock.left))} are left"
            self._rows.append(CandidateRow(method, note=note))
            return
        self._say(f"Training: {method}, on {pairs:,} pairs", load.seconds(method, pairs))
        common: dict[str, Any] = {"seed": self._seed, "cache": self._cache, "show_progress": self._bars}
        try:
            if method == "distill":
                self._say(f"The reranker judges passages of {pairs:,} questions", a_text * JUDGED * pairs)
                train = judged_by(teacher, drawn(train, pairs, self._seed), start, **common)
            candidate = train_candidate(
                method, start.embed_model, train, evidence.val, self.folder, pairs=pairs, epochs=epochs, **common
            )
        except Exception as err:
            if not (isinstance(err, EmbftError) or method == "distill"):  # a teacher of the user's raises what it likes
                raise
            self._rows.append(CandidateRow(method, note=f"failed: {first_line(err)}"))
            self._notes.append(f"Training by {method} failed and was left out: {first_line(err)}")
            return
        if candidate.moves_documents:
            self._say(f"Embedding the texts with the model trained by {method}", a_text * len(source.corpus.corpus))
        self._add(choosing.consider(candidate), evidence)

    def _trained_reranker(
        self, base: BaseEmbedding, evidence: Evidence, choosing: Choosing, a_text: float
    ) -> CrossEncoderReranker | None:
        why_not = why_no_reranker(base, evidence)
        needed = reranker_seconds(a_text, evidence)
        if not why_not and needed > self._clock.left:
            why_not = f"takes about {in_words(needed)}, and {in_words(max(1.0, self._clock.left))} are left"
        if why_not:
            self._rows.append(CandidateRow("reranker", note=f"left out: {why_not}"))
            return None
        self._say("Training a reranker", needed)
        weight = choosing.final().weight
        try:
            return train_reranker_candidate(
                base, evidence, weight, self.folder, seed=self._seed, show_progress=self._bars
            )
        except EmbftError as err:
            self._rows.append(CandidateRow("reranker", note=f"failed: {err}"))
            self._notes.append(f"Training a reranker failed and was left out: {err}")
            return None

    def _rerank(self, choosing: Choosing, reranker: Any, parts: StackParts, evidence: Evidence) -> None:
        self._say("Trying the reranker")
        try:
            if why_not := no_time_to_read(reranker, parts, evidence, self._clock.left):
                self._rows.append(CandidateRow("reranker", note=f"left out: {why_not}"))
            else:
                self._rows.append(choosing.consider_reranker(reranker))
        except Exception as err:  # noqa: BLE001  # the user's own object: whatever it raises, the rest goes on
            self._without_reranker(choosing, err)

    def _without_reranker(self, choosing: Choosing, err: Exception) -> None:
        choosing.drop_reranker()
        self._notes.append(f"The reranker failed and was left out: {type(err).__name__}: {first_line(err)}")
        self._rows.append(CandidateRow("reranker", note="failed"))

    def _proven(
        self,
        source: TuningSource,
        evidence: Evidence,
        parts: StackParts,
        choosing: Choosing,
        rule: NoLabelRule,
        reranker: Any,
        base: BaseEmbedding,
    ) -> TuneResult:
        try:
            verdict = prove(choosing, parts, evidence, reranker, seed=self._seed)
        except Exception as err:
            if not choosing.reranks:
                raise
            self._without_reranker(choosing, err)
            verdict = prove(choosing, parts, evidence, None, seed=self._seed)
        chosen = verdict.chosen
        notes = [*self._notes, *([rule.sentence] if rule.sentence else []), *verdict.notes]
        notes += price_of_reading(reranker if chosen.reranked else None, parts, evidence)
        return TuneResult(
            chosen=chosen,
            comparison=verdict.comparison.amended(notes=notes, data=data_in_words(source.words, evidence)),
            rows=tuple(self._rows),
            proof=verdict.proof,
            evidence=evidence,
            source=source,
            base=base,
            reranker=reranker_of(chosen, reranker) if chosen.reranked else None,
            copied_share=rule.share,
            seconds={"total": self._clock.spent, **parts.seconds},
            asked={"methods": list(self._methods), "budget": self._clock.budget, "seed": self._seed},
        )
