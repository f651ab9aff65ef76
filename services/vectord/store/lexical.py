"""BM25 over the items' texts, by tantivy.

tantivy finds the candidates. Its own statistics still count deleted texts until it happens
to merge, so the candidates are scored again with counts of the texts that are alive: the
score of an item then depends on the items alone, not on their past, and is the same after
a restart.

Each commit gives a searcher that never changes, which a view of the index keeps beside its
rows: a reader sees texts and vectors of the same instant. Queries are built from words, so
no character of a caller's text is ever syntax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tantivy

from services.vectord.core.bm25 import Counts, count_words, score_words
from shared.wire.vectord import Language

# Memory for texts on their way into the index; tantivy takes no less. Bytes.
_HEAP = 15_000_000
# Distinct words of a query that are looked up; the rest of a long text adds little.
_MAX_WORDS = 256
# Longer words are not indexed. Bytes.
_WORD_BYTES = 64
# Candidates beyond those wanted, so that those whose scores change a little are among them.
_SPARE = 64
# Texts whose counted words are kept.
_COUNTED = 20_000
# Up to so many allowed rows are named in the query itself.
_NAMED_ROWS = 2000

Allowed = np.ndarray[Any, np.dtype[np.bool_]]


class Lexical:
    """The text index of one table; its rows are the table's. One thread at a time writes.

    Args:
        texts: the table's, by row.
        language: whose endings are taken off words.
    """

    def __init__(self, texts: Sequence[str | None], language: Language = "english") -> None:
        self._words = _Words(texts, language)
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("row", stored=False, indexed=True, fast=True)
        builder.add_text_field("text", stored=False, tokenizer_name="words", index_option="freq")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer("words", self._words.analyzer)
        # Otherwise a watching thread reloads too, and one of the two waits 100 ms for its lock.
        self._index.config_reader(reload_policy="manual")
        self._writer: Any = None
        self._dirty = False

    def add(self, first_row: int, texts: Iterable[str | None]) -> None:
        """Takes the texts of rows from `first_row` on; seen after `commit`."""
        for row, text in enumerate(texts, start=first_row):
            if text:
                document = tantivy.Document()
                document.add_unsigned("row", row)
                document.add_text("text", text)
                self._open_writer().add_document(document)
                self._words.counts.add(self._words.analyzer.analyze(text))
                self._dirty = True

    def remove(self, rows: Iterable[int]) -> None:
        """Drops rows; gone after `commit`."""
        if self._writer is None:
            return
        for row in rows:
            text = self._words.texts[row]
            if not text:
                continue
            self._words.counts.remove(self._words.analyzer.analyze(text))
            self._writer.delete_documents_by_query(
                tantivy.Query.term_query(self._schema, "row", row)
            )
            self._dirty = True

    def commit(self) -> Searcher | None:
        """What searches see from now on; None while there never was a text."""
        if self._writer is None:
            return None
        if self._dirty:
            self._writer.commit()
            self._index.reload()
            self._dirty = False
        return Searcher(self._schema, self._words, self._index.searcher())

    def close(self) -> None:
        """Lets go of tantivy's threads; its searchers go on."""
        if self._writer is not None:
            self._writer.wait_merging_threads()
            self._writer = None

    def _open_writer(self) -> Any:
        if self._writer is None:
            self._writer = self._index.writer(heap_size=_HEAP, num_threads=1)
        return self._writer


class _Words:
    """The words of a table's texts, and how many texts each is in."""

    def __init__(self, texts: Sequence[str | None], language: Language) -> None:
        self.texts = texts
        self.analyzer = build_analyzer(language)
        self.counts = Counts()
        self._counted: dict[int, tuple[dict[str, int], int]] = {}

    def of_row(self, row: int) -> tuple[dict[str, int], int]:
        """How often each word stands in a row's text, and how many words it has."""
        found = self._counted.get(row)
        if found is None:
            if len(self._counted) >= _COUNTED:
                self._counted = {}
            found = self._counted[row] = count_words(self.analyzer.analyze(self.texts[row] or ""))
        return found


class Searcher:
    """The texts as of one commit."""

    def __init__(self, schema: Any, words: _Words, searcher: Any) -> None:
        self._schema = schema
        self._words = words
        self._searcher = searcher

    def search(
        self, text: str, k: int, allowed: Allowed, count_allowed: Callable[[], int]
    ) -> list[tuple[int, float]]:
        """The best `k` of the allowed rows for the words of `text`, as (row, BM25).

        Rows at or past the end of `allowed` are not the view's and never come.
        """
        words = self._split(text)
        if not words or not self._searcher.num_docs:
            return []
        query = tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, self._term("text", word)) for word in words]
        )
        few = count_allowed()
        if few == 0:
            return []
        if few <= _NAMED_ROWS and few < len(allowed):
            named: list[int] = np.flatnonzero(allowed).tolist()
            only = tantivy.Query.term_set_query(self._schema, "row", named)
            # A constant score of nothing: membership must not count.
            query = tantivy.Query.boolean_query(
                [
                    (tantivy.Occur.Must, query),
                    (tantivy.Occur.Must, tantivy.Query.const_score_query(only, 0.0)),
                ]
            )
        wanted = 2 * k + _SPARE
        limit = wanted
        while True:
            hits = self._searcher.search(query, limit, count=False).hits
            found = self._keep(hits, allowed)
            if len(found) >= wanted or len(hits) < limit:
                return self._rank(found, words)[:k]
            limit *= 8

    def score(self, text: str, rows: Sequence[int]) -> list[tuple[int, float]]:
        """BM25 of given rows of the view for the words of `text`, whether found by them or not."""
        return self._rank(rows, self._split(text))

    def _split(self, text: str) -> list[str]:
        return list(dict.fromkeys(self._words.analyzer.analyze(text)))[:_MAX_WORDS]

    def _keep(self, hits: Sequence[Any], allowed: Allowed) -> list[int]:
        if not hits:
            return []
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return [row for row in rows if row < len(allowed) and allowed[row]]

    def _rank(self, rows: Sequence[int], words: Sequence[str]) -> list[tuple[int, float]]:
        counts, of_row = self._words.counts, self._words.of_row
        scored = [(row, score_words(counts, words, *of_row(row))) for row in rows]
        # Equal scores by row: in the order in which the items were written.
        return sorted(scored, key=lambda pair: (-pair[1], pair[0]))

    def _term(self, field: str, value: object) -> Any:
        return tantivy.Query.term_query(self._schema, field, value, "freq")


def build_analyzer(language: Language) -> Any:
    """What cuts texts into words: in one case, without accents and without endings.

    Endings matter: without English ones, BM25 alone finds .59 instead of .43 (nDCG@10, short
    job titles over descriptions), .44 instead of .39 (questions over answers).
    """
    builder = (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(_WORD_BYTES))
        .filter(tantivy.Filter.lowercase())
    )
    if language != "none":
        # Before accents go: some languages' endings have them.
        builder = builder.filter(tantivy.Filter.stemmer(language))
    return builder.filter(tantivy.Filter.ascii_fold()).build()
