"""Asking again: what is counted, when it ends, and what is never tried twice."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import ClientError
from faulty_server import Answer, Faulty, serving
from tenacity import RetryCallState, stop_after_attempt

from poolbench import hub, remote
from poolbench.errors import UserError
from poolbench.processes.preemption import GracePeriodOver
from poolbench.retry import raised, retried


class Answers:
    """Fails as often as it is told, and notes when it was asked and what it was told to wait."""

    def __init__(self, *errors: BaseException | None) -> None:
        self._errors: Iterator[BaseException | None] = iter(errors)
        self.asked = self.failed = 0
        self.attempts: list[int] = []

    def __call__(self) -> int:
        self.asked += 1
        error = next(self._errors, None)
        if error is not None:
            raise error
        return self.asked

    def pause(self, state: RetryCallState) -> float:
        self.attempts.append(state.attempt_number)
        assert isinstance(raised(state), ConnectionError)
        return 0.0

    def fail(self) -> None:
        self.failed += 1


def ask(answers: Answers, attempts: int = 3, **options: object) -> object:
    return retried(
        answers,
        mends=lambda error: isinstance(error, ConnectionError),
        stop=stop_after_attempt(attempts),
        pause=answers.pause,
        failed=answers.fail,
        **options,  # type: ignore[arg-type]
    )


def test_it_is_asked_until_it_answers() -> None:
    answers = Answers(ConnectionError(), ConnectionError())
    assert ask(answers) == 3
    assert answers.attempts == [1, 2] and answers.failed == 2


def test_the_last_error_is_raised_or_handed_over() -> None:
    answers = Answers(*(ConnectionError(str(number)) for number in range(9)))
    with pytest.raises(ConnectionError, match="2"):
        ask(answers)
    assert (answers.asked, answers.failed) == (3, 2), "behind the last failure nothing is to be done"
    assert ask(answers, give_up=lambda state: (state.attempt_number, str(raised(state)))) == (3, "5")


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt(), GracePeriodOver(), SystemExit(3)])
def test_what_does_not_mend_is_raised_at_once(error: BaseException) -> None:
    answers = Answers(error)
    with pytest.raises(type(error)) as caught:
        ask(answers)
    assert caught.value is error and (answers.asked, answers.failed) == (1, 0)


def test_progress_begins_the_count_anew() -> None:
    answers = Answers(*(ConnectionError() for _ in range(6)))
    assert ask(answers, progress=lambda: min(answers.asked, 5)) == 7
    assert answers.attempts == [1, 1, 1, 1, 1, 2]
    stuck = Answers(*(ConnectionError() for _ in range(9)))
    with pytest.raises(ConnectionError):
        ask(stuck, progress=lambda: min(stuck.asked, 2))
    assert stuck.asked == 4, "three in all, from the last that brought something"


def test_the_hub_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    class BusyError(OSError):
        def __init__(self, after: str) -> None:
            super().__init__("busy")
            self.response = type("Response", (), {"status_code": 429, "headers": {"Retry-After": after}})()

    waits = Answers(BusyError("0"), BusyError("7"), BusyError("soon"), BusyError("900"))
    assert hub.insist("a/b", waits) == 5
    assert slept == [1, 7, 4, 60]
    with pytest.raises(UserError, match="a/b cannot be fetched: status 429: busy"):
        hub.insist("a/b", Answers(*(BusyError("0") for _ in range(hub.ATTEMPTS))))
    assert slept[4:] == [1, 2, 4, 8, 16]


def test_a_store_says_how_long_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real answer of a server, as fsspec tells it; in s3's words, and in none."""
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.02))
    (tmp_path / "a.bin").write_bytes(b"content")
    with serving(Faulty(tmp_path, busy_every=2, busy=Answer(429, {"Retry-After": "7"}, b""))) as faulty:
        system, name = fsspec.core.url_to_fs(f"{faulty.url}/a.bin")
        asked = [remote.patiently(lambda: remote.call(system, "cat_file", name, seconds=9)) for _ in range(3)]
        assert asked == [b"content"] * 3 and faulty.failed == 2
    assert all(7 < pause < 7.1 for pause in slept) and len(slept) == 2
    told = {"ResponseMetadata": {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": "3"}}}
    of_s3 = ClientError({"Error": {"Code": "SlowDown"}, **told}, "GetObject")
    assert remote.patiently(Answers(of_s3, ConnectionResetError(), of_s3)) == 4
    assert [round(pause) for pause in slept[2:]] == [3, 0, 3]
