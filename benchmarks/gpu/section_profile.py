"""Where the time of encoding and of training goes: torch.profiler, the fifteen dearest operations of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from section_finetune import engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit import Kit

TOP = 15
MODEL = "bge-small"


def run(kit: Kit) -> None:
    """Profile one encoding and one short training in BGE-small's shape, after a run of each that does not count."""
    from sentence_transformers import SentenceTransformer

    from llama_index_embft.embeddings import encode_texts

    model = SentenceTransformer(kit.model_folder(MODEL), device=kit.device)
    texts = kit.texts(kit.size(2048, 8))
    _profile(kit, "encode", lambda: encode_texts(model, texts, precision="bfloat16"))
    data, batch = kit.dataset(kit.size(1024, 16)), kit.size(256, 8)
    out = str(kit.folder / "profile")
    if kit.has_time_for("profile of training", 0.4):
        _profile(kit, "train", lambda: engine(data, kit.model_folder(MODEL), out, kit.device, batch, "full").finetune())


def _profile(kit: Kit, what: str, work: Callable[[], Any]) -> None:
    from torch.profiler import ProfilerActivity, profile

    on_gpu = kit.device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    work()
    with profile(activities=activities) as profiled:
        work()
        kit.sync()
    kinds = {"GPU": "self_device_time_total"} if on_gpu else {}
    for side, name in {**kinds, "CPU": "self_cpu_time_total"}.items():
        found = profiled.key_averages()
        total = sum(getattr(event, name) for event in found) or 1.0
        for event in sorted(found, key=lambda event: -getattr(event, name))[:TOP]:
            took = getattr(event, name)
            row = {"what": what, "model": MODEL, "on": side, "operation": event.key, "calls": event.count}
            kit.add(**row, seconds=took / 1e6, share=took / total)
