"""What workers tell each other, with a piece of memory of the test's own."""

from fullhouse.worker.siblings import Siblings


def test_what_came_to_all_and_was_served_by_all_is_known_to_each():
    memory = bytearray(Siblings.BYTES)
    one, two = Siblings(memory, 1), Siblings(memory, 2)
    assert one.publish_flow(10, 4) == (10, 4)
    assert two.publish_flow(5, 5) == (15, 9)
    assert one.publish_flow(12, 6) == (17, 11)


def test_the_sums_never_fall_when_a_worker_has_ended_and_another_has_its_row():
    memory = bytearray(Siblings.BYTES)
    assert Siblings(memory, 1).publish_flow(1000, 990) == (1000, 990)
    assert Siblings(memory, 65).publish_flow(3, 2) == (1003, 992)


def test_loads_and_flows_do_not_touch_each_other():
    memory = bytearray(Siblings.BYTES)
    rows = [Siblings(memory, row) for row in range(64)]
    for one in rows:
        one.publish_flow(1, 1)
    for one in rows:
        one.publish_load(5.0, 100.0)
    assert rows[0].publish_flow(1, 1) == (64, 64)
    assert not rows[0].is_lighter_elsewhere(100.0)
    rows[63].publish_load(4.0, 100.0)
    assert rows[0].is_lighter_elsewhere(100.0)
