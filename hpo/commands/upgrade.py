"""`hpo upgrade`: the databases of a home brought to the schemas of the installed libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpo.care.upgrade import Schema, schemas_of, upgrade_home
from hpo.paths import Home


def upgrade(home: Home, *, check: bool, with_copy: bool = True) -> tuple[list[Schema], list[Schema]]:
    """The databases as they are now, and those that were upgraded; with `check` none is. Raises as `upgrade_home`."""
    done = [] if check else upgrade_home(home, with_copy=with_copy)
    return schemas_of(home), done


def upgrade_lines(schemas: Sequence[Schema], done: Sequence[Schema]) -> Iterator[str]:
    """What was done, or would be."""
    if not schemas:
        yield "there are no databases yet; nothing to upgrade"
    upgraded = {schema.place: schema for schema in done}
    for schema in schemas:
        head = f"schema {schema.head} of {schema.library}"
        if schema.place in upgraded:
            kept = upgraded[schema.place].kept or "not kept"
            yield f"{schema.place}: is now at {head}; as it was: {kept}"
        elif schema.age == "current":
            yield f"{schema.place}: has {head}; nothing to do"
        elif schema.age == "older":
            yield f"{schema.place}: has schema {schema.revision}, would go to {head}; a copy of it is kept"
        else:
            yield f"{schema.place}: has schema {schema.revision} of a later {schema.library}; install that one"
    if any(schema.kept for schema in done):
        yield "delete the old ones when all works: a sweep continued, a model asked"
