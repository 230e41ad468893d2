"""What a worker's threads ask of jobs-service at the same time goes there in one request (docs/adr/018).

A request costs both sides more than the call in it. So while requests are under way, calls wait, and the next takes
them all along; a call that comes alone leaves alone, at once.
"""

import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Final

from loguru import logger
from pydantic_core import to_json

from triton_common.client import Answer, SyncServiceClient, remote_error
from triton_common.errors import AppError, Conflict, NotFound, TooManyRequests, Unauthorized, Unavailable
from triton_common.logging import current_request_id
from triton_common.schemas import ClaimCall, FinishCall, ProgressCall
from triton_common.telemetry import current_traceparent

PATH: Final = "/internal/v1/jobs/calls"
REQUESTS: Final = 2  # under way at once: one is answered while the other's answers are dealt with
LARGEST: Final = 100  # calls in a request, as jobs-service takes them
LARGEST_BYTES: Final = 500_000  # half of what jobs-service reads; a document that is larger goes alone
_HEADERS: Final = {"Content-Type": "application/json"}

Call = ClaimCall | ProgressCall | FinishCall


class Calls:
    """Calls jobs-service for any number of threads. No thread of its own: who waits first sends for all."""

    def __init__(self, service: SyncServiceClient) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()  # nobody, unless REQUESTS are under way
        self._under_way = 0

    def make(self, call: Call) -> dict[str, Any]:
        """The body of the call's answer. Raises the answer's error, or what the request ended with."""
        [answer] = self.make_all([call])
        if isinstance(answer, AppError):
            raise answer
        return answer

    def make_all(self, calls: Sequence[Call]) -> "list[dict[str, Any] | AppError]":
        """Their answers: of each its body or its error."""
        mine = [_Waiting(call) for call in calls]
        with self._lock:
            self._waiting.extend(mine)
            batch = self._next() if self._under_way < REQUESTS else []
        if batch:
            self._send(batch)
        answers: list[dict[str, Any] | AppError] = []
        for one in mine:
            while isinstance(told := one.told.get(), list):
                self._send(told)
            answers.append(told)
        return answers

    def _next(self) -> "list[_Waiting]":
        """What goes in the request that is now under way; the lock is held."""
        batch: list[_Waiting] = []
        room = LARGEST_BYTES
        while self._waiting and len(batch) < LARGEST and (not batch or len(self._waiting[0].content) <= room):
            batch.append(self._waiting.popleft())
            room -= len(batch[-1].content)
        self._under_way += bool(batch)
        return batch

    def _send(self, batch: "list[_Waiting]") -> None:
        """Make a request, and have the first of those who wait by then make the next."""
        try:
            self._ask(batch)
        finally:
            with self._lock:
                self._under_way -= 1
                following = self._next()
            if following:
                following[0].told.put(following)

    def _ask(self, batch: "list[_Waiting]") -> None:
        told: list[dict[str, Any] | AppError] = [Unavailable("jobs-service was not asked.")] * len(batch)
        try:
            told = self._answers(batch)
        except Exception as error:  # noqa: BLE001  it is told to all, and ends no thread that sends for others
            logger.opt(exception=error).error("jobs-service could not be asked")
        finally:  # whatever happens, nobody is left waiting
            for one, its in zip(batch, told, strict=True):
                one.told.put(its)

    def _answers(self, batch: "list[_Waiting]") -> "list[dict[str, Any] | AppError]":
        content = b'{"calls":[' + b",".join([one.content for one in batch]) + b"]}"
        try:
            answers = self._service.request("POST", PATH, headers=_HEADERS, content=content)["answers"]
            return [_told(answer) for _, answer in zip(batch, answers, strict=True)]
        except (NotFound, Conflict):  # of the request, not of a call: a jobs-service of an older release, say
            return [Unavailable("jobs-service takes no calls now.")] * len(batch)
        except AppError as error:
            if len(batch) > 1 and error.status < 500 and not isinstance(error, TooManyRequests | Unauthorized):
                # one of them is not understood: the others must not pay for that
                return [answer for one in batch for answer in self._answers([one])]
            return [error] * len(batch)
        except (KeyError, TypeError, ValueError):
            return [Unavailable("jobs-service's answer was not understood.")] * len(batch)


class _Waiting:
    """A call, and whoever waits for its answer: told that, or what to send now."""

    __slots__ = ("content", "told")

    def __init__(self, call: Call) -> None:
        place = {"request_id": current_request_id() or "", "traceparent": current_traceparent()}
        self.content = call.model_copy(update=place).model_dump_json().encode()
        self.told: SimpleQueue[dict[str, Any] | AppError | list[_Waiting]] = SimpleQueue()


def _told(answer: dict[str, Any]) -> dict[str, Any] | AppError:
    if answer["status"] >= 400:
        return remote_error(Answer(answer["status"], to_json(answer["problem"]), None))
    body = answer["body"]
    if not isinstance(body, dict):
        raise TypeError
    return body
