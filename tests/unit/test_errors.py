"""What a program says when it cannot go on: a traceback only for our own faults."""

import errno
import os

import pytest

from nemoflow.errors import MACHINE, UserError, report


def said(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        report(main)
    return stopped.value.code


def test_a_users_mistake_is_its_message():
    assert said(UserError("x.yaml:3: seed is missing; set it")) == (
        "error: x.yaml:3: seed is missing; set it"
    )


@pytest.mark.parametrize("number", MACHINE)
def test_a_failing_machine_is_named_with_the_file(number):
    told = said(OSError(number, os.strerror(number), "results/x.json"))
    assert told.startswith("error: ") and "results/x.json. Nothing finished was lost" in told


def test_a_defect_of_ours_keeps_its_traceback():
    with pytest.raises(IsADirectoryError):
        report(lambda: (_ for _ in ()).throw(OSError(errno.EISDIR, "", "x")))


def test_an_interrupt_ends_quietly():
    assert said(KeyboardInterrupt()) == 130
