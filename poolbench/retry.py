"""Asking again after a failure that may mend itself: tenacity waits and counts, the caller says what may mend."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.stop import stop_base

Value = TypeVar("Value")

_LONGEST = 60.0  # seconds that a server may ask to wait


def retried(
    ask: Callable[[], Value],
    *,
    mends: Callable[[Exception], bool],
    stop: "stop_base",
    pause: "Callable[[RetryCallState], float]",
    progress: Callable[[], object] = lambda: None,
    failed: Callable[[], None] = lambda: None,
    give_up: "Callable[[RetryCallState], Any] | None" = None,
) -> Value:
    """What `ask` gives, asked again after each failure that `mends`.

    Args:
        stop: tenacity's word for when to ask no more.
        pause: seconds to wait behind a failure; a state's `attempt_number` counts from 1.
        progress: what it gives has changed when a failure was one on the way, behind which the counting begins anew.
        failed: called behind each failure after which it is asked again.
        give_up: called when it is asked no more, instead of raising what `ask` raised last.

    Raises:
        Exception: what `ask` raised, where that does not mend or it was asked for the last time.
    """
    from tenacity import Retrying, retry_if_exception

    before = progress()

    def count(state: "RetryCallState") -> None:
        nonlocal before
        if (now := progress()) != before:
            before, state.attempt_number = now, 1

    again = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and mends(error)),
        after=count,
        wait=pause,
        stop=stop,
        before_sleep=lambda state: failed(),
        retry_error_callback=give_up,
        reraise=True,
    )
    return again(ask)


def raised(state: "RetryCallState") -> BaseException:
    """What was raised in the attempt of a state."""
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def wait_asked(headers: Mapping[str, Any]) -> float:
    """Seconds that a server's answer asks to wait, a minute at most; 0 without a word. A date is not read."""
    said = next((str(value) for name, value in headers.items() if name.lower() == "retry-after"), "")
    return min(_LONGEST, float(said)) if said.isdecimal() else 0.0
