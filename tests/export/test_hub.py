"""push_to_hub with the real huggingface_hub client against a stand-in for the hub on the loopback interface."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llama_index_embft.errors import ConfigError, OutputError
from llama_index_embft.export import check_can_push, push_to_hub

TOKEN = "hf_only_for_this_test"


class Hub:
    """Create repository, preupload, LFS batch and upload, commit: what the hub's API answers, kept in memory."""

    def __init__(self):
        self.requests, self.stored, self.committed, self.repo = [], {}, {}, None
        self.refuse = {}  # beginning of a path -> (status, body)
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def _answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.requests.append((self.command, self.path, self.headers.get("Authorization")))
                status, answer = hub.answer(self.path.partition("?")[0], body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        for method in ("GET", "POST", "PUT"):
            setattr(Handler, f"do_{method}", Handler._answer)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def is_private(self):
        # The client's older and newer name for it.
        return self.repo.get("private", False) or self.repo.get("visibility") == "private"

    def answer(self, path, body):
        for beginning, answer in self.refuse.items():
            if path.startswith(beginning):
                return answer
        if path == "/api/repos/create":
            self.repo = json.loads(body)
            kind = "datasets/" if self.repo.get("type") == "dataset" else ""
            return 200, {"url": f"{self.address}/{kind}{self.repo['organization']}/{self.repo['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path in ("/api/models/me/tuned/preupload/main", "/api/datasets/me/tuned/preupload/main"):
            files = json.loads(body)["files"]
            mode = {True: "lfs", False: "regular"}
            return 200, {
                "files": [
                    {"path": f["path"], "uploadMode": mode[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                    for f in files
                ]
            }
        if path == "/me/tuned.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            upload = [o | {"actions": {"upload": {"href": f"{self.address}/lfs/{o['oid']}"}}} for o in objects]
            return 200, {"transfer": "basic", "objects": upload}
        if path.startswith("/lfs/"):
            self.stored[path.removeprefix("/lfs/")] = body
            return 200, {}
        if path in ("/api/models/me/tuned/commit/main", "/api/datasets/me/tuned/commit/main"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.committed[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.committed[value["path"]] = self.stored[value["oid"]]
            return 200, {"commitUrl": f"{self.address}/me/tuned/commit/1", "commitOid": "1" * 40, "success": True}
        return 404, {"error": f"not found: {path}"}


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "model"
    files = {
        "embft.json": b"{}",
        "README.md": b"---\ntags:\n- x\n---\n\n# Card\n",
        "modules.json": b"[]",
        "model.safetensors": bytes(range(256)) * 64,
        "1_Pooling/config.json": b"{}",
        "checkpoint-5/optimizer.pt": b"not for others",
        "checkpoint-5/deep/model.safetensors": b"not for others",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_the_folder_arrives_whole_in_one_commit(hub, saved, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    address = push_to_hub(saved, "me/tuned", endpoint=hub.address)
    assert address == f"{hub.address}/me/tuned"
    assert hub.is_private
    wanted = {str(p.relative_to(saved)): p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    wanted = {name: content for name, content in wanted.items() if not name.startswith("checkpoint")}
    assert hub.committed == wanted
    weights = wanted["model.safetensors"]
    assert hub.stored == {hashlib.sha256(weights).hexdigest(): weights}
    assert sum(path.startswith("/api/models/me/tuned/commit") for _, path, _ in hub.requests) == 1
    sent = {path: authorization for _, path, authorization in hub.requests}
    assert sent["/api/repos/create"] == f"Bearer {TOKEN}"


def test_public_and_with_a_token_of_its_own(hub, saved):
    push_to_hub(saved, "me/tuned", private=False, token="hf_other", endpoint=hub.address)
    assert not hub.is_private
    assert {"Bearer hf_other"} == {authorization for _, path, authorization in hub.requests if "/api/repos" in path}


def test_without_a_token_nothing_is_sent(hub, saved):
    with pytest.raises(ConfigError, match="There is no token for the hub; set HF_TOKEN"):
        push_to_hub(saved, "me/tuned", endpoint=hub.address)
    assert hub.requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_write(hub, saved, status):
    hub.refuse["/api/repos/create"] = (status, {"error": "You don't have the rights"})
    with pytest.raises(OutputError, match=rf"The hub refused to write me/tuned \({status}\); give HF_TOKEN a token"):
        push_to_hub(saved, "me/tuned", token=TOKEN, endpoint=hub.address)


def test_a_card_that_the_hub_does_not_accept(hub, saved):
    hub.refuse["/api/validate-yaml"] = (400, {"errors": [{"message": '"base_model" is wrong'}], "warnings": []})
    with pytest.raises(OutputError, match=r"me/tuned.*base_model"):
        push_to_hub(saved, "me/tuned", token=TOKEN, endpoint=hub.address)
    assert hub.committed == {}


def test_a_commit_that_fails(hub, saved):
    hub.refuse["/api/models/me/tuned/commit"] = (413, {"error": "Payload too large"})
    with pytest.raises(OutputError, match=r"refused the upload to me/tuned \(413\): .*Payload too large"):
        push_to_hub(saved, "me/tuned", token=TOKEN, endpoint=hub.address)


def test_no_hub_at_that_address(hub, saved):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(OutputError, match=r"Could not upload to me/tuned: .*; the result is whole in"):
        push_to_hub(saved, "me/tuned", token=TOKEN, endpoint=hub.address)


def test_what_is_no_result_and_no_name(hub, saved, tmp_path):
    with pytest.raises(ConfigError, match="holds no saved result"):
        push_to_hub(tmp_path, "me/tuned", token=TOKEN, endpoint=hub.address)
    for name in ("a/b/c", "", "me/tuned.git", "me/ü"):
        with pytest.raises(ConfigError, match="is not the name of a repository on the hub"):
            check_can_push(name, token=TOKEN)


def test_offline_is_said_at_once(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="switched off by HF_HUB_OFFLINE"):
        check_can_push("me/tuned", token=TOKEN)


def test_embft_train_uploads_what_it_has_saved(hub, tiny_model_path, tmp_path, monkeypatch, capsys):
    import sys

    from huggingface_hub import ModelCard, constants

    from llama_index_embft.cli import app
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset

    EmbeddingQAFinetuneDataset(
        queries={f"q{n}": f"where is {n}" for n in range(4)},
        corpus={f"d{n}": f"{n} is here" for n in range(4)},
        relevant_docs={f"q{n}": [f"d{n}"] for n in range(4)},
    ).save_json(tmp_path / "train.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    flags = ["--embed-model", tiny_model_path, "--epochs", "1", "--batch-size", "4", "--device", "cpu", "--no-progress"]
    monkeypatch.setattr(
        sys, "argv", ["embft", "train", "train.json", *flags, "--out", "m", "--push-to-hub", "me/tuned"]
    )

    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 2
    assert "There is no token for the hub" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()  # told before training

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 0
    assert f"{hub.address}/me/tuned" in capsys.readouterr().out
    assert {"model.safetensors", "modules.json", "embft.json", "README.md", "training.svg"} <= set(hub.committed)
    assert ModelCard(hub.committed["README.md"].decode()).data.library_name == "sentence-transformers"
    assert TOKEN not in b"".join(hub.committed.values()).decode("latin-1")


def test_an_exported_folder_and_a_data_set_go_up_too(hub, saved, tmp_path):
    from llama_index_embft.dataset import EmbeddingQAFinetuneDataset
    from llama_index_embft.export import push_dataset_to_hub

    (saved / "model.onnx").write_bytes(b"\x08graph")
    push_to_hub(saved, "me/tuned", token=TOKEN, endpoint=hub.address)
    assert hub.committed["model.onnx"] == b"\x08graph"

    dataset = EmbeddingQAFinetuneDataset(
        queries={"q": "wo ist 猫"}, corpus={"d": "hier", "e": "dort"}, relevant_docs={"q": ["d"]}
    )
    hub.committed.clear()
    address = push_dataset_to_hub(dataset, "me/tuned", token=TOKEN, endpoint=hub.address)
    assert address == f"{hub.address}/datasets/me/tuned"
    assert hub.repo["type"] == "dataset"
    assert hub.is_private
    assert set(hub.committed) == {"dataset.json", "README.md"}
    (tmp_path / "back.json").write_bytes(hub.committed["dataset.json"])
    assert EmbeddingQAFinetuneDataset.from_json(tmp_path / "back.json") == dataset
    assert "1 queries; 2 passages" in hub.committed["README.md"].decode()

    hub.refuse["/api/datasets/me/tuned/commit"] = (413, {"error": "too large"})
    with pytest.raises(OutputError, match="try again with push_dataset_to_hub"):
        push_dataset_to_hub(dataset, "me/tuned", token=TOKEN, endpoint=hub.address)
