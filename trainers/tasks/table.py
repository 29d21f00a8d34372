"""The tasks by the names that `trainers/catalog.py` declares."""

from __future__ import annotations

from collections.abc import Mapping

from trainers.tasks.base import Task
from trainers.tasks.chat import Chat
from trainers.tasks.text_classification import TextClassification

TASKS: Mapping[str, Task] = {task.name: task for task in (TextClassification(), Chat())}
