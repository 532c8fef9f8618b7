"""
The recipe of the switch: how the traffic goes from one release to the next, and back.

A phase that outlives its session: the host does it to the end by itself, one way or the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fabdjango.commands import activation, database, django, environment, gunicorn, managers
from fabdjango.commands import release as releases
from fabdjango.commands.manager import SLOTS
from fabdjango.facts import DjangoFacts, Facts, Reversal
from fabdjango.plan import Phase, Step
from fabdjango.recipes import ANY_MIGRATION, Deployment, Site, with_hooks

__all__ = ["Backwards", "activate", "recover"]


@dataclass(frozen=True)
class Backwards:
    """Migrations to reverse in a rollback, in order, and ``known``, those that the older release has (as app.name)."""

    known: tuple[str, ...] = ()
    migrations: tuple[Reversal, ...] = ()

    @property
    def first(self) -> bool:
        """True if the older release cannot live with them: then they go before the switch, else after it."""
        return any(each.unsafe for each in self.migrations)


def activate(plan: Deployment, found: DjangoFacts, event: str = "deploy", backwards: Backwards | None = None) -> Phase:
    """
    Migrate, start the release in the idle slot, and give it the traffic once it answers; then wait to be confirmed.

    ``event`` is what the journal calls it: deploy, activate, restart, rollback, env.set or env.unset.
    """
    settings, facts, layout = plan.site.settings, plan.facts, plan.layout
    entry = _entry(plan, event)
    first = (
        ()
        if facts.first_deploy_done or facts.current or not plan.leads
        else releases.run_first(settings, layout, plan.path)
    )
    first_reversed = bool(backwards and backwards.first)
    reverse = [_reverse(plan, backwards)] if backwards else []
    arm = [activation.arm(layout, {**_record(plan, entry), "reversed": first_reversed})]
    begin = _exchange if settings.slots == "1" else _start_beside
    steps = [
        releases.still_as_surveyed(facts, layout),
        *(_migrate(plan, {**entry, "event": "migrate"}, found) if _migrates(plan, found) else ()),
        *first,
        # What is reversed while the newer release serves has to be applied again on the way back: so it is written down first.
        *(arm + reverse if first_reversed else []),
        activation.place(
            layout, plan.site.templates, plan.bind, facts.app_group, jobs=bool(plan.site.settings.schedule)
        ),
        _configured(plan),
        *begin(plan, [] if first_reversed else arm),
        *_take_over(plan),
        activation.await_word(layout, settings.activation.confirm),
        releases.journal(layout, {**entry, "result": "serves"}),
        *([environment.publish(layout, plan.release)] if plan.change else []),
        *_leave_old(plan),
        *_tidied(plan),
        *([] if first_reversed else reverse),
        *_published(plan, event),
        activation.forget(layout),
    ]
    return Phase(
        "activate",
        tuple(steps),
        undo=(*(_forwards(plan, entry) if first_reversed else ()), *_undo(plan, entry)),
        undo_from="arm" if first_reversed else "configure",
        serving_from="arm",
        kept_from="journal",
        record=layout.run / "activations",
        lock=plan.site.lock,
        followed=True,
    )


def _configured(plan: Deployment) -> Step:
    """Where the survey has seen the manager's files as they should be, nobody has to become root to write them."""
    step = plan.manager.configure()
    return replace(step, guard=plan.manager.as_before()) if plan.has_files else step


def _entry(plan: Deployment, event: str) -> dict[str, object]:
    return {
        "event": event,
        "release": plan.release,
        "commit": plan.sha,
        "from": plan.facts.current,
        "by": plan.site.holder,
        **({"variables": sorted(plan.change)} if plan.change else {}),
    }


def _reverse(plan: Deployment, backwards: Backwards) -> Step:
    names = [f"{each.app}.{each.name}" for each in backwards.migrations]
    newer = plan.layout.release(plan.facts.current)
    return django.reverse(
        plan.site.settings, plan.layout, newer, backwards.known, names, {**_entry(plan, "migrate"), "to": plan.release}
    )


def _forwards(plan: Deployment, entry: Mapping[str, object]) -> tuple[Step, ...]:
    """What was reversed for an older release that then did not serve, applied again."""
    newer = plan.layout.release(plan.facts.current)
    step = django.migrate(plan.site.settings, plan.layout, newer, None, {**entry, "event": "migrate"})
    return (replace(step, name="migrate-back", title="apply again what was reversed"),)


def _record(plan: Deployment, entry: Mapping[str, object]) -> dict[str, object]:
    """What whoever finds a dead activation has to know to finish or to undo it."""
    files = zip(plan.manager.files, plan.previous_files, strict=True)
    return {
        **entry,
        "slot": plan.slot,
        "from_slot": plan.facts.live_slot,
        "files": {str(put.path): previous.content if previous else None for put, previous in files},
    }


def _start_beside(plan: Deployment, arm: list[Step]) -> Iterator[Step]:
    """The new release in the idle slot; the one that serves is not touched before the new one answers."""
    yield activation.use_slot(plan.layout, plan.slot, plan.release)
    yield plan.manager.start_slot(plan.slot)
    yield from with_hooks(plan, _ask_slot(plan))
    yield from arm


def _exchange(plan: Deployment, arm: list[Step]) -> Iterator[Step]:
    """The new release in the only slot; requests wait in the socket that the manager holds."""
    yield from arm
    yield activation.close(plan.layout)
    yield plan.manager.stop_slot(plan.slot, name="stop-old")
    yield activation.use_slot(plan.layout, plan.slot, plan.release)
    yield plan.manager.start_slot(plan.slot)
    yield from with_hooks(plan, _ask_slot(plan))


def _take_over(plan: Deployment) -> Iterator[Step]:
    """The traffic, and then the other programs, to the new release."""
    settings, layout = plan.site.settings, plan.layout
    yield from with_hooks(plan, activation.switch(layout, plan.release, plan.slot))
    if plan.manager.held:
        # Only a live slot takes from the socket that the manager holds, and it looks when it starts.
        yield plan.manager.start_slot(plan.slot, name="open")
        yield replace(_ask_slot(plan), name="opened")
    # Both slots may take from a held socket until the old one stops.
    also = (plan.facts.current,) if plan.manager.held and plan.facts.current else ()
    yield releases.ask_health(settings, layout, plan.release, name="answer", also=also)
    yield from with_hooks(plan, plan.manager.restart_processes(), "restart")


def _ask_slot(plan: Deployment) -> Step:
    workers = gunicorn.workers_of(plan.site.settings, plan.facts)
    how = plan.facts.releases.get(plan.release) or {}
    return releases.ask_health(
        plan.site.settings,
        plan.layout,
        plan.release,
        slot=plan.slot,
        how={"workers": workers, **(how.get("asked") or {})},
    )


def _leave_old(plan: Deployment) -> Iterator[Step]:
    """Let the old release finish what it has begun, and stop it."""
    if not plan.old_slot:
        return
    if not plan.manager.held:
        yield activation.drain(plan.layout, plan.old_slot, plan.site.settings.activation.drain)
    yield from _cleared(plan, plan.old_slot)


def _tidied(plan: Deployment) -> Iterator[Step]:
    step = plan.manager.tidy()
    if step:
        yield step


def _published(plan: Deployment, event: str) -> Iterator[Step]:
    if event == "deploy" or plan.change:
        private = plan.site.private()
        step = releases.publish_settings(plan.layout, private.env_file, private.local_settings)
        if step:
            yield step


def _undo(plan: Deployment, entry: Mapping[str, object]) -> Iterator[Step]:
    """Everything as it was: before the switch only the new slot goes, after it the traffic goes back first."""
    facts, layout, manager = plan.facts, plan.layout, plan.manager
    one_slot = plan.site.settings.slots == "1"
    yield manager.tail(slot=plan.slot)
    yield activation.begin_revert(layout)
    if one_slot and facts.current:
        yield _if_armed(plan, activation.use_slot(layout, plan.slot, facts.current, name="slot-back"))
    yield activation.switch_back(layout, facts.current, facts.live_slot)
    if one_slot and facts.current:
        yield _if_armed(plan, manager.start_slot(plan.slot, name="start-back"))
    else:
        if not manager.held:
            drain = activation.drain(layout, plan.slot, plan.site.settings.activation.drain, name="drain-new")
            yield _if_armed(plan, drain)
        yield manager.stop_slot(plan.slot, name="stop-new")
        yield activation.empty_slot(layout, plan.slot)
    yield manager.restore(plan.previous_files)
    back = manager.restart_processes(name="processes-back", back=plan.previous_files)
    if back and facts.current:
        yield _if_armed(plan, back)
    if facts.current:
        how = facts.current_marker.get("asked")
        health = releases.ask_health(plan.site.settings, layout, facts.current, name="health-back", how=how)
        yield _if_armed(plan, health)
    yield releases.journal_undone(layout, entry, activation.state_file(layout, "reverting"))
    yield activation.forget(layout)


def _if_armed(plan: Deployment, step: Step) -> Step:
    return replace(step, guard=activation.armed(plan.layout))


def recover(site: Site, facts: Facts) -> Phase:
    """
    Finish or undo what a dead activation left, as its record says.

    One that was confirmed is finished: its release serves. Any other is undone; one that left no record had not
    touched what serves.
    """
    site = site.on(facts)
    record, layout = facts.activation, site.layout
    manager = managers.find(site.settings, facts, layout, site.templates, site.host)
    files = record.get("files") or {}
    previous = tuple(
        replace(put, content=files[str(put.path)]) if files.get(str(put.path)) is not None else None
        for put in manager.files
    )
    plan = Deployment(
        site,
        replace(facts, current=record.get("from", facts.current), live_slot=record.get("from_slot", facts.live_slot)),
        record.get("commit", ""),
        record.get("release", facts.current),
        "",
        "",
        (),
        manager,
        previous,
        record.get("slot", facts.live_slot or "a"),
    )
    entry = {name: record.get(name, "") for name in ("event", "release", "commit", "from", "by")}
    variables = record.get("variables") or []
    entry |= {"variables": variables} if variables else {}
    if not record:
        # It died before the switch: what it started in the idle slot goes.
        steps = [step for slot in SLOTS if slot != facts.live_slot for step in _cleared(plan, slot)]
    elif "release" not in record:
        # Nothing can be read in it; each rename of the switch has been done or not, and the slot that is live serves.
        steps = [activation.forget(layout)]
    elif record.get("state") == "confirmed":
        steps = [
            releases.journal(layout, {**entry, "result": "serves"}),
            *([environment.publish(layout, plan.release)] if variables else []),
            *_leave_old(plan),
            *_tidied(plan),
            activation.forget(layout),
        ]
    else:
        again = _forwards(plan, entry) if record.get("reversed") else ()
        steps = [*manager.install(), *again, *_undo(plan, entry)]
    return Phase("recover", (activation.find_slots_again(layout), *steps), lock=site.lock)


def _cleared(plan: Deployment, slot: str) -> tuple[Step, ...]:
    return (plan.manager.stop_slot(slot), activation.empty_slot(plan.layout, slot))


def _migrates(plan: Deployment, found: DjangoFacts) -> bool:
    return plan.leads and plan.site.settings.django.migrate != "never" and bool(found.migrations)


def _migrate(plan: Deployment, entry: Mapping[str, object], found: DjangoFacts) -> tuple[Step, ...]:
    names = [f"{each.app}.{each.name}" for each in found.migrations] if found is not ANY_MIGRATION else None
    step = django.migrate(plan.site.settings, plan.layout, plan.path, names, entry)
    return (*_backup(plan), *with_hooks(plan, step))


def _backup(plan: Deployment) -> tuple[Step, ...]:
    """The database as it is before the migrations; if it cannot be kept, nothing is changed."""
    site = plan.site
    if not site.settings.database.backup_before_migrate:
        return ()
    return (database.backup(site.settings, plan.layout, plan.path, site.holder, before_migrate=True),)
