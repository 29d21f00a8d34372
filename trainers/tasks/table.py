"""The tasks by their names in `trainers/protocol/catalog.py`."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.tasks.base import Task
from trainers.tasks.causal_lm import CausalLM
from trainers.tasks.chat import Chat
from trainers.tasks.instruct import Instruct
from trainers.tasks.multi_label import MultiLabel
from trainers.tasks.regression import Regression
from trainers.tasks.text_classification import TextClassification
from trainers.tasks.text_similarity import TextSimilarity
from trainers.tasks.text_to_text import TextToText
from trainers.tasks.token_classification import TokenClassification

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        TextClassification(), MultiLabel(), Regression(), TextSimilarity(), TokenClassification(), CausalLM(),
        Instruct(), Chat(), TextToText(),
    )
}  # fmt: skip
