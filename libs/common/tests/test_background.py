"""Tasks beside a service's work come to an end with it."""

import asyncio

from triton_common.background import in_background


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same():
    lost = []

    async def work():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    async with asyncio.timeout(5), in_background(work()):
        await asyncio.sleep(0)
        [task] = [task for task in asyncio.all_tasks() if "work" in repr(task.get_coro())]
    assert task.cancelled()
    assert lost
