"""The supervisor names who hangs, counts failures between checkpoints, and loses no record."""

from __future__ import annotations

import pytest

from vrtspike.errors import ConfigError, NoRoomError
from vrtspike.training.supervisor import REFUSED_SECONDS, Command, Heartbeat, Supervisor


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(clock: Clock) -> Supervisor:
    supervisor = Supervisor(max_failures=2, hang_timeout_s=60.0, start_timeout_s=500.0, clock=clock)
    assert supervisor.begin("first", 3)
    return supervisor


def beats(supervisor: Supervisor, *ticks: int | None, doing: str = "training") -> list[Command]:
    """Let ranks beat; None: that rank is silent."""
    return [
        supervisor.beat(
            Heartbeat("first", rank, count, doing, f"host {rank}", f"file.py:{rank} wait")
        )
        for rank, count in enumerate(ticks)
        if count is not None
    ]


def test_the_rank_that_is_least_far_is_named(supervisor: Supervisor, clock: Clock) -> None:
    beats(supervisor, 8, 7, 8)
    clock.now += 59
    assert all(reply.end is None for reply in beats(supervisor, 8, 7, 8))
    clock.now += 2
    (reply,) = {reply.end for reply in beats(supervisor, 8, 7, 8)}
    assert reply is not None and "61 s: rank 1 (host 1) hangs while training, at file.py:1" in reply
    assert "rank 0" not in reply and "rank 2" not in reply
    assert supervisor.begin("second", 3)
    assert "rank 1 (host 1) hangs" in supervisor.take().warnings[0]


def test_a_rank_that_is_silent_is_named_before_one_that_is_behind(
    supervisor: Supervisor, clock: Clock
) -> None:
    beats(supervisor, 5, 6, 6)
    for _ in range(7):
        clock.now += 10
        replies = beats(supervisor, 5, 6, None)
    assert replies[0].end is not None and "rank 2 (host 2) stopped answering" in replies[0].end


def test_a_run_that_moves_does_not_hang(supervisor: Supervisor, clock: Clock) -> None:
    for ticks in range(50):
        clock.now += 30
        assert all(reply.end is None for reply in beats(supervisor, ticks // 2, 3, 3))


def test_nobody_hangs_before_all_have_beaten(supervisor: Supervisor, clock: Clock) -> None:
    for _ in range(10):
        clock.now += 30
        assert all(reply.end is None for reply in beats(supervisor, 1, 1, None))


def test_attempts_without_a_new_checkpoint_are_counted(supervisor: Supervisor) -> None:
    supervisor.post({"kind": "saved", "step": 10})
    assert supervisor.begin("2", 3) and supervisor.begin("3", 3)
    supervisor.post({"kind": "saved", "step": 20})
    assert supervisor.begin("4", 3) and supervisor.begin("5", 3)
    supervisor.post({"kind": "saved", "step": 20})  # not a new one
    supervisor.fail("4", "rank 0: an old attempt")
    supervisor.fail("5", "rank 1: RuntimeError: first")
    supervisor.fail("5", "rank 0: RuntimeError: it followed")
    assert supervisor.take().given_up is None
    assert not supervisor.begin("6", 3)
    given_up = supervisor.take().given_up
    assert "failed 3 times" in str(given_up) and str(given_up).endswith("first")


def test_a_refusal_ends_the_others_and_is_not_tried_again(
    supervisor: Supervisor, clock: Clock
) -> None:
    error = ConfigError("what", where="here", fix="so")
    supervisor.refuse(error)
    assert all(reply.end is None for reply in beats(supervisor, 1, 1, None))
    clock.now += REFUSED_SECONDS + 1
    assert all(reply.end is not None for reply in beats(supervisor, 1, 1, None))
    assert not supervisor.begin("second", 3)
    assert supervisor.take().refusal is error and supervisor.take().refusal is None


def test_records_arrive_once_and_in_order(supervisor: Supervisor) -> None:
    for step in range(3):
        supervisor.post({"kind": "train", "step": step})
    assert [record["step"] for record in supervisor.take().records] == [0, 1, 2]
    assert supervisor.take().records == []


def test_a_stop_is_heard_by_all_but_an_old_attempt(supervisor: Supervisor) -> None:
    supervisor.ask_to_stop()
    assert all(reply.stop for reply in beats(supervisor, 1, 1, 1))
    old = supervisor.beat(Heartbeat("before", 0, 1, "", ""))
    assert not old.stop and old.end == "another attempt has begun"


def test_a_silent_rank_is_named_though_others_wait_patiently(
    supervisor: Supervisor, clock: Clock
) -> None:
    beats(supervisor, 1, 1, 1)
    for ticks in range(2, 8):
        clock.now += 12
        replies = beats(supervisor, ticks, None, ticks)
    assert replies[0].end is not None and "rank 1 (host 1) stopped answering" in replies[0].end


def test_a_run_waits_for_workers_only_so_long(supervisor: Supervisor, clock: Clock) -> None:
    warnings = []
    for _ in range(49):
        clock.now += 10
        warnings += supervisor.take().warnings
    assert len(warnings) == 7 and "waiting for room for the workers, 70 s" in warnings[0]
    beats(supervisor, 1, 1, 1)
    clock.now += 450
    assert supervisor.take().given_up is None
    clock.now += 60
    given_up = supervisor.take().given_up
    assert isinstance(given_up, NoRoomError) and "no workers for 510 s" in str(given_up)


def test_a_stop_that_nobody_can_hear_ends_the_run(supervisor: Supervisor, clock: Clock) -> None:
    """Workers that have saved get time to be gone, and those that answer are waited for."""
    beats(supervisor, 1, 1, 1)
    clock.now += 100
    supervisor.ask_to_stop()
    clock.now += 29
    assert not supervisor.take().deserted
    beats(supervisor, 2, 2, 2)
    clock.now += 29
    assert not supervisor.take().deserted
    clock.now += 2
    assert supervisor.take().deserted
