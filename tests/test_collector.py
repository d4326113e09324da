"""The cyclic garbage collector rests where asked, and frees later what was made meanwhile."""

import gc
import weakref

import pytest

from dpmedbench import collector


class Node:
    """Something that can lie in a cycle."""


def cycle():
    node = Node()
    node.self = node
    return weakref.ref(node)


def test_rests_and_goes_on():
    with collector.paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_goes_on_after_an_error():
    with pytest.raises(ZeroDivisionError), collector.paused():
        _ = 1 / 0
    assert gc.isenabled()


def test_stays_off_where_it_was_off():
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_made_in_a_pause_can_still_be_freed():
    """A model that ran out of memory is made in a pause and lies in cycles."""
    with collector.paused():
        made = cycle()
    gc.collect()
    assert made() is not None
    collector.collect()
    assert made() is None
