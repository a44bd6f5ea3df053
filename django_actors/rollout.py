"""
A rollout: all worker processes are replaced by ones with the code of now.

The first new one is the canary: until it is ready, nothing that works is touched,
and if it cannot boot, nothing will be. After it, a swift rollout (an edit was saved)
replaces all others together; a rolling one (SIGHUP) goes on one by one, so that the
service never has fewer workers than before.
"""

from __future__ import annotations

import logging

from .crew import Crew, Slot

logger = logging.getLogger("django_actors.MainProcess")


class Rollout:
    """
    Brings the crew to a new generation, step by step.

    A new rollout may begin while another one is under way: children that still boot
    may have read half of the old code and half of the new, and are started anew.
    """

    def __init__(self, crew: Crew, why: str, *, swift: bool) -> None:
        self.crew = crew
        self.swift = swift
        crew.generation += 1
        logger.info("Reloading %d worker processes (%s).", len(crew.slots), why)
        self._restart_the_booting()

    def advance(self) -> bool:
        """Do what can be done now; return True when there is nothing left to do."""
        old = [slot for slot in self.crew.slots if self._is_old(slot)]
        if not old:
            logger.info("All worker processes run the code of now.")
            return True
        if self._canary_died():
            self._keep(old)
            return True
        if self.swift and self._canary_lives():
            self._retire(old)
            return True
        old[0].replace = True
        return False

    def _restart_the_booting(self) -> None:
        for slot in self.crew.slots:
            slot.start_now()
            for child in slot.children():
                if not child.ready:
                    self.crew.retire(child)

    def _is_old(self, slot: Slot) -> bool:
        return slot.current is not None and slot.current.generation < self.crew.generation

    def _canary_lives(self) -> bool:
        return self.crew.ready_generation == self.crew.generation

    def _canary_died(self) -> bool:
        return self.crew.failed_generation == self.crew.generation and not self._canary_lives()

    def _keep(self, old: list[Slot]) -> None:
        logger.error("The new code could not boot. %d old worker processes go on.", len(old))
        for slot in old:
            slot.replace = False

    def _retire(self, old: list[Slot]) -> None:
        for slot in old:
            if slot.current is not None:
                self.crew.retire(slot.current)
