"""What going back to an older release would do to the database, judged by its data; the answer is one line of JSON."""

import json

P = PARAMETERS  # noqa: F821 - set by the line before this program
answer = {"migrations": [], "notes": []}
if not has_database("default"):
    answer["notes"].append("no migrations: the project has no database")
else:
    link = connections["default"]
    try:
        executor = MigrationExecutor(link)
        if not P["target_known"] and executor.loader.applied_migrations:
            fail(
                "the older release does not say which migrations it has: it was prepared by an older fabdjango",
                "deploy its commit again: fab … deploy --commit=…",
            )
        answer["migrations"] = reversal(executor, link, P["target_known"])
    except Exception:
        fail_about_migrations("the database")
    finally:
        link.close()
print(json.dumps(answer))
