"""What users get wrong is said in a message that names it, without a traceback, and with the exit code that scripts rely on."""

import pytest

from tests.wrong_inputs import WRONG_INPUTS, outcome, place


@pytest.fixture(scope="module", autouse=True)
def folder():
    with place() as folder:
        yield folder


@pytest.mark.parametrize("wrong", WRONG_INPUTS, ids=lambda wrong: wrong.command)
def test_the_message_names_what_is_wrong(wrong, folder):
    code, message = outcome(wrong)
    assert code == wrong.code, message
    assert [part for part in wrong.named if part not in message] == [], message
    assert "Traceback" not in message and "hunter2" not in message
    written = [path for name in ("storage", "folder") for path in (folder / name).rglob("*")]
    assert written == [], "nothing was done"
