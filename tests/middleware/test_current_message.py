"""An actor can ask which message it runs for."""

from __future__ import annotations

import threading
from typing import Any

from django_actors.middleware import CurrentMessage, Middleware, SkipMessage
from tests.support import StubCase


class CurrentMessageTests(StubCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen: list[Any] = []

    def look(self) -> None:
        self.seen.append(CurrentMessage.get_current_message())

    def test_an_actor_sees_its_own_message(self):
        message = self.declare(self.look, actor_name="look").send()

        self.run_ready()

        self.assertEqual(self.seen, [message])

    def test_outside_of_an_actor_there_is_none(self):
        self.assertIsNone(CurrentMessage.get_current_message())
        for function in (self.look, lambda: 1 / 0):
            self.declare(function, actor_name=function.__name__, max_retries=0).send()
            self.run_ready()

            self.assertIsNone(CurrentMessage.get_current_message())

    def test_after_a_message_that_was_skipped_there_is_none(self):
        class Skip(Middleware):
            def before_process_message(self, broker, message):
                raise SkipMessage

        self.broker.add_middleware(Skip())
        self.declare(self.look, actor_name="look").send()

        self.run_ready()

        self.assertIsNone(CurrentMessage.get_current_message())
        self.assertEqual(self.seen, [])

    def test_a_coroutine_sees_it_too(self):
        async def look():
            self.look()

        message = self.declare(look).send()

        self.run_ready()

        self.assertEqual(self.seen, [message])

    def test_another_thread_does_not_see_it(self):
        def look_elsewhere():
            thread = threading.Thread(target=self.look)
            thread.start()
            thread.join()

        self.declare(look_elsewhere).send()

        self.run_ready()

        self.assertEqual(self.seen, [None])
