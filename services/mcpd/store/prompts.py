"""Prompts: ways of working with the tools that have proved themselves, for a user to pick."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver import MCPServer
from pydantic import Field

Table = Annotated[str, Field(description="Name of the dataset", min_length=1, max_length=100)]
Need = Annotated[str, Field(description="What is needed, in a sentence", min_length=1)]
Question = Annotated[str, Field(description="The question", min_length=1)]


def explore_table(table: Table) -> str:
    """Get to know a dataset: its columns, its gaps, and what it can tell."""
    return f"""Get to know the dataset {table!r}.
1. describe_dataset gives its columns and a few rows.
2. With run_sql count nulls and distinct values of each column, and the span of numbers and dates.
3. Say in a few lines what a row stands for, which columns identify it, and what looks wrong
   (values that do not fit, gaps, duplicates), each with the query that shows it.
4. Propose three questions that the dataset can answer, and answer the best one.
Aggregate in SQL; do not read all rows. Where an answer says truncated, say so."""


def find_match(need: Need) -> str:
    """Find documents for a need, check them, and record how they did."""
    return f"""Find what fits this need: {need}
1. search_pathway: was something like it tried before, and how did it go?
2. list_corpora, then search_corpora with use_playbook. Filter by what is a field.
3. Check the first ten against the need one by one; say for each why it fits or does not.
4. When the user agrees, record_playbook with your ratings (1 fits, -1 looks right but is wrong),
   so that the next search for this need starts from there.
5. add_pathway: the need, what was tried and how it went, in a few words.
If a tool that writes is not there, this server is read-only: leave steps 4 and 5 out and say so."""


def answer_cited(question: Question) -> str:
    """Answer a question from the corpora, with citations."""
    return f"""Answer from the corpora: {question}
1. compose_context with the question gives messages with numbered documents.
2. Answer from those documents alone, and cite them by their numbers after each claim.
3. What they do not say, you do not know: say so, or look further with search_corpora or run_sql.
4. End with the list of what you cited: number, corpus, id."""


def add_prompts(server: MCPServer) -> None:
    """Publishes the prompts."""
    server.prompt(title="Explore a dataset")(explore_table)
    server.prompt(title="Find and record")(find_match)
    server.prompt(title="Answer with citations")(answer_cited)
