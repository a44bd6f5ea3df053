"""The claimed messages of a process that no thread has begun."""

from __future__ import annotations

import threading
from collections import Counter

from django.test import SimpleTestCase

from django_actors.delivery import Delivery
from django_actors.work_heap import WorkHeap

from .engine import begin, wait_until


def deliver(name: str, priority: int = 0) -> Delivery:
    return Delivery(name.encode(), queue_name="default", priority=priority)


class OrderTests(SimpleTestCase):
    def setUp(self) -> None:
        self.heap = WorkHeap()

    def pop_all(self) -> list[str]:
        popped = [self.heap.pop() for _ in range(len(self.heap))]
        return [each.body.decode() for each in popped if each]

    def test_the_lowest_priority_number_leaves_first(self):
        self.heap.push([deliver("b", 10), deliver("c", 100), deliver("a", -5)])

        self.assertEqual(self.pop_all(), ["a", "b", "c"])

    def test_those_of_one_priority_leave_in_the_order_they_came(self):
        self.heap.push([deliver("a"), deliver("b")])
        self.heap.push([deliver("urgent", -1), deliver("c")])

        self.assertEqual(self.pop_all(), ["urgent", "a", "b", "c"])

    def test_its_length_is_what_was_not_begun(self):
        self.heap.push([deliver("a"), deliver("b")])
        self.heap.pop()

        self.assertEqual(len(self.heap), 1)

    def test_the_worst_priority_is_the_largest_number(self):
        self.assertIsNone(self.heap.worst_priority())

        self.heap.push([deliver("a", 5), deliver("b", 50), deliver("c", -5)])

        self.assertEqual(self.heap.worst_priority(), 50)


class WaitingTests(SimpleTestCase):
    def setUp(self) -> None:
        self.heap = WorkHeap()
        self.addCleanup(self.heap.close)

    def test_who_waits_is_given_what_comes(self):
        waiting = begin(self.heap.pop)
        delivery = deliver("a")

        self.heap.push([delivery])

        self.assertIs(waiting.result(), delivery)

    def test_many_threads_share_everything_and_get_nothing_twice(self):
        taken: list[bytes] = []

        def take() -> None:
            while (delivery := self.heap.pop()) is not None:
                taken.append(delivery.body)

        threads = [begin(take) for _ in range(4)]
        for start in range(0, 400, 20):
            self.heap.push([deliver(str(number)) for number in range(start, start + 20)])
        wait_until(lambda: len(taken) == 400)
        self.heap.close()

        for thread in threads:
            thread.result()
        self.assertEqual(set(Counter(taken).values()), {1})

    def test_what_is_cleared_is_given_to_nobody_and_later_messages_are(self):
        self.heap.push([deliver("b", 5), deliver("a", 1)])

        cleared = self.heap.clear()

        self.assertEqual([each.body for each in cleared], [b"a", b"b"])
        waiting = begin(self.heap.pop)
        self.heap.push([deliver("c")])
        self.assertEqual(waiting.result().body, b"c")


class ClosingTests(SimpleTestCase):
    def setUp(self) -> None:
        self.heap = WorkHeap()

    def test_closing_returns_what_was_not_begun_the_most_urgent_first(self):
        self.heap.push([deliver("b"), deliver("c"), deliver("a", -1)])

        self.assertEqual([each.body for each in self.heap.close()], [b"a", b"b", b"c"])
        self.assertEqual(len(self.heap), 0)

    def test_all_who_wait_are_let_go(self):
        waiting = [begin(self.heap.pop) for _ in range(5)]

        self.heap.close()

        self.assertEqual([each.result() for each in waiting], [None] * 5)

    def test_who_comes_later_is_let_go_at_once(self):
        self.heap.push([deliver("a")])
        self.heap.close()

        self.assertEqual([begin(self.heap.pop).result() for _ in range(3)], [None] * 3)

    def test_what_comes_too_late_is_handed_back(self):
        late = [deliver("a"), deliver("b")]
        self.heap.close()

        self.assertEqual(self.heap.push(late), late)
        self.assertEqual(len(self.heap), 0)

    def test_before_that_nothing_is_too_late(self):
        self.assertEqual(self.heap.push([deliver("a")]), [])

    def test_closing_again_returns_nothing(self):
        self.heap.push([deliver("a")])
        self.heap.close()

        self.assertEqual(self.heap.close(), [])

    def test_every_message_is_either_taken_or_handed_back_while_it_closes(self):
        taken: list[bytes] = []
        pushed = [str(number).encode() for number in range(500)]
        back: list[Delivery] = []
        half = threading.Event()

        def take() -> None:
            while (delivery := self.heap.pop()) is not None:
                taken.append(delivery.body)
                if len(taken) == 50:
                    half.set()

        def push() -> None:
            for body in pushed:
                back.extend(self.heap.push([Delivery(body, queue_name="default")]))

        threads = [begin(take), begin(take), begin(push)]
        half.wait(30)
        back += self.heap.close()
        for thread in threads:
            thread.result()

        self.assertEqual(Counter([*taken, *(each.body for each in back)]), Counter(pushed))
