"""How many calls may be under way at once, and when the next call may begin.

A service can have two limits that it does not announce: calls at once, and calls in a second.
`Pace` learns both from refusals. After a refusal all calls pause, half as many may be under
way (multiplicative decrease), and each reply adds a part of a call again (additive increase). From
then on calls are also spread over time: they begin at the rate that the service has shown to take.
At first this rate grows slowly, because another refusal would cost another pause. Later it grows
faster, because the service's limit may have grown.

Nothing here waits or reads a clock: each method is told the time, in seconds of any clock that
never goes back.
"""

from collections import deque
from math import inf
from typing import Final

__all__ = ["Pace"]

BACKED_OFF: Final = 0.95
"""The part of a rate that is left after a refusal, if the rate was kept for a while before."""

KEPT: Final = 0.8
"""If this part of a rate was reached before a refusal, the rate was the limit."""

PROBE: Final = 30.0
FIRST_PROBE: Final = 5.0
"""Seconds in which a rate grows by the part that a refusal takes off. `FIRST_PROBE` is for a rate
that is an estimate, which is often too low."""

MIN_WINDOW: Final = 1.0
MIN_REPLIES: Final = 10
"""Over how many seconds, and over how many replies, a rate is measured at least."""

REMEMBERED: Final = 4096
"""How many replies are remembered at most, to measure a rate."""

CATCH_UP: Final = 0.1
"""Seconds by which the beginning of calls may lag behind their rate and still be made up for."""


class Pace:
    """Decides when calls may begin. All calls of a run share one pace.

    Args:
        concurrency: how many calls may be under way at once at most.

    Attributes:
        active: how many calls are under way.
        paused_until: when the pause ends, or ended.
        refusals: how many pauses there were since the last reply.
    """

    def __init__(self, concurrency: int) -> None:
        self.active: int = 0
        self.paused_until: float = -inf
        self.refusals: int = 0
        self._ceiling = concurrency
        self._limit = float(concurrency)
        self._pauses = 0
        # When the last replies came, and when the first refusal after a reply.
        self._replies: deque[float] = deque(maxlen=REMEMBERED)
        self._refused_at = inf
        # The rate that the service takes, in calls a second, and where and how slowly it grows.
        self._learned = inf
        self._floor = inf
        self._probe = PROBE
        self._next = -inf

    @property
    def limit(self) -> int:
        """How many calls may be under way at once now."""
        return int(self._limit)

    def rate(self, now: float) -> float:
        """Return how many calls may begin in a second; infinite before the first refusal."""
        if self._learned == inf:
            return inf
        probe = max(0.0, now - self.paused_until) / self._probe
        return self._floor + self._learned * (1 - BACKED_OFF) * probe * probe

    def wait(self, now: float) -> float | None:
        """Return in how many seconds a call may begin, 0 for now; None if one must end first."""
        if self.active + 1 > self._limit:
            return None
        return max(0.0, self._next - now)

    def begin(self, now: float) -> int:
        """Begin a call; return the number of its pause, for `reply` and `refuse`."""
        self.active += 1
        if self._learned < inf:
            self._next = max(self._next, now - CATCH_UP) + 1 / self.rate(now)
        return self._pauses

    def end(self) -> None:
        """End a call, however it ended; `reply` or `refuse` may follow."""
        self.active -= 1

    def reply(self, began: int, now: float) -> None:
        """Count a reply that the service gave.

        Args:
            began: what `begin` returned.
            now: the time.
        """
        self._replies.append(now)
        if began == self._pauses:
            # A reply to a call that began before the pause does not show that the pause helped.
            self.refusals = 0
            self._limit = min(self._ceiling, self._limit + 1 / self._limit)

    def refuse(self, began: int, now: float) -> int:
        """Slow down, because the service refused a call; return the new value of `refusals`.

        Calls that began before the same pause are refused for the same reason, and count once.

        Args:
            began: what `begin` returned.
            now: the time.
        """
        if began == self._pauses:
            self._limit = max(1.0, self._limit / 2)
            if not self.refusals:
                self._learn(now)
                self._refused_at = now
            self._pauses += 1
            self.refusals += 1
        return self.refusals

    def pause(self, until: float) -> None:
        """Let no call begin until a time; a later end of the pause stays."""
        self.paused_until = max(self.paused_until, until)
        self._next = self.paused_until

    def _learn(self, now: float) -> None:
        rate = self.rate(now)
        # A service that limits the calls in a window of time refuses for about as long as that.
        window = max(MIN_WINDOW, self.paused_until - self._refused_at, MIN_REPLIES / rate)
        # The pause before counts: what fits between two pauses is what the service takes.
        replies = sum(1 for time in self._replies if time > now - window)
        recent = replies / window
        if recent >= KEPT * rate:
            self._learned, self._floor, self._probe = rate, BACKED_OFF * rate, PROBE
        elif replies >= MIN_REPLIES or (recent and self._pauses):
            # At the first refusal, few replies tell nothing: another program may have used up what
            # the service takes.
            self._learned, self._floor, self._probe = recent, recent, FIRST_PROBE
