"""The sender against real receivers: signatures, retries, accidents, and addresses it must not reach."""

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from loguru import logger
from prometheus_client import REGISTRY
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from jobs_service.addresses import Reach, look_up
from jobs_service.deliveries import PAUSES, PER_CLIENT, PER_ENDPOINT, Sender, pause_after
from jobs_service.main import build
from jobs_service.webhooks import Vault
from triton_common.testing import free_port

LOCAL = ip_network("127.0.0.0/8")


@dataclass
class Receiver:
    """A server that keeps what it gets, and answers with `answer`: a status, bytes as they are, or what it awaits."""

    url: str = ""
    answer: int | bytes | Callable[[], Awaitable[int]] = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; it is kept as long as the other side keeps it, unless bytes were answered."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self.one(reader, writer):
                pass
        writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        headers["request"] = head[0]
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        answer = self.answer
        if callable(answer):
            answer = await answer()
        if keep := isinstance(answer, int):
            location = "Location: http://169.254.169.254/latest/meta-data\r\n" if 300 <= answer < 400 else ""
            answer = f"HTTP/1.1 {answer} X\r\n{location}Content-Length: 2\r\n\r\nhi".encode()
        writer.write(answer)
        return keep

    def events(self, secret: str) -> list[dict[str, Any]]:
        """The bodies, each verified as a receiver would."""
        return [Webhook(secret).verify(body, headers) for headers, body in self.got]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=in-the-query"
        yield receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"webhook_allowed_networks": [LOCAL]})


@pytest.fixture
async def sender_of(api, settings) -> Callable[..., Sender]:
    """Makes senders; the app's own is stopped, so that nobody else sends."""
    [own] = [task for task in asyncio.all_tasks() if "Sender.run" in repr(task.get_coro())]
    own.cancel()
    await asyncio.wait([own])

    def make(**options: Any) -> Sender:
        defaults: dict[str, Any] = {
            "vault": Vault(settings.encryption_keys),
            "reach": Reach(networks=(LOCAL,), plain_http=True),
            "disable_after": timedelta(days=3),
            "kept": timedelta(days=30),
        }
        return Sender(api.app.state.database, **(defaults | options))

    return make


@pytest.fixture
def sender(sender_of) -> Sender:
    return sender_of()


async def send(sender: Sender) -> None:
    """One turn, to the end of all its attempts."""
    await sender.turn()
    while sender.sending:
        await asyncio.wait(sender.sending)


async def endpoint(api, url, *, client=None, **changes):
    client = client or await api.client()
    return await api.made("/api/v1/webhooks", {"client_id": client["id"], "url": url} | changes)


async def order_test(api, made):
    return await api.made(f"/api/v1/webhooks/{made['id']}/test", None)


async def log_of(api, made, **filters):
    return (await api.get(f"/api/v1/webhooks/{made['id']}/deliveries", params=filters)).json()["items"]


async def state_of(api, made):
    return (await api.get(f"/api/v1/webhooks/{made['id']}")).json()


def make_due(api):
    api.sql("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")


def spend(api, ordered):
    """All attempts but the last of a delivery, which is due."""
    api.sql(
        "UPDATE webhook_deliveries SET attempts = %(n)s, next_attempt_at = now() WHERE id = %(id)s",
        n=len(PAUSES),
        id=ordered["id"],
    )


async def test_a_webhook_is_signed_as_its_standard_says(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    ordered = await order_test(api, made)
    assert (ordered["status"], ordered["attempts"]) == ("pending", 0)
    await send(sender)
    [event] = receiver.events(made["secret"])
    assert event == ordered["payload"]
    assert event["type"] == "webhook.test"
    assert event["data"] == {"endpoint_id": made["id"], "client_id": made["client_id"]}
    assert datetime.fromisoformat(event["timestamp"]).tzinfo == UTC
    [headers] = [headers for headers, _ in receiver.got]
    assert headers["request"] == "POST /hook?token=in-the-query HTTP/1.1"
    assert headers["host"] == receiver.url.split("/")[2]
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == ordered["id"]
    assert headers["user-agent"].startswith("Triton-Webhooks/")
    with pytest.raises(WebhookVerificationError):
        receiver.events("whsec_" + "A" * 43 + "=")
    [delivery] = await log_of(api, made, status="delivered")
    assert (delivery["attempts"], delivery["response_status"], delivery["error"]) == (1, 200, None)
    assert delivery["delivered_at"]
    assert delivery["next_attempt_at"] is None
    await send(sender)
    assert len(receiver.got) == 1


async def test_what_failed_is_sent_again_later_under_the_same_id(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    ordered = await order_test(api, made)
    receiver.answer = 500
    await send(sender)
    [delivery] = await log_of(api, made, status="pending")
    assert (delivery["attempts"], delivery["response_status"], delivery["error"]) == (1, 500, "It answered 500.")
    pause = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.fromisoformat(delivery["last_attempt_at"])
    assert timedelta(seconds=3) < pause < timedelta(seconds=9)
    assert (await state_of(api, made))["failing_since"]
    await send(sender)
    assert len(receiver.got) == 1, "it is not due yet"
    make_due(api)
    receiver.answer = 204
    await send(sender)
    assert receiver.ids == [ordered["id"]] * 2
    assert (await log_of(api, made))[0]["status"] == "delivered"
    assert (await state_of(api, made))["failing_since"] is None


async def test_after_the_last_attempt_a_delivery_has_failed_and_can_be_ordered_again(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    ordered = await order_test(api, made)
    api.sql("UPDATE webhook_deliveries SET attempts = %(n)s", n=len(PAUSES))
    receiver.answer = 503
    await send(sender)
    [delivery] = await log_of(api, made, status="failed")
    assert (delivery["attempts"], delivery["next_attempt_at"]) == (11, None)
    again = await api.made(f"/api/v1/webhooks/{made['id']}/deliveries/{ordered['id']}/redeliver", None)
    assert (again["status"], again["attempts"], again["error"]) == ("pending", 0, None)
    receiver.answer = 200
    await send(sender)
    assert receiver.ids == [ordered["id"]] * 2
    delivered = await api.made(f"/api/v1/webhooks/{made['id']}/deliveries/{ordered['id']}/redeliver", None)
    assert delivered["delivered_at"] is None
    await send(sender)
    assert receiver.ids == [ordered["id"]] * 3


def test_the_attempts_fill_a_day():
    assert timedelta(hours=23) < sum(PAUSES, timedelta()) < timedelta(hours=25)
    assert pause_after(len(PAUSES) + 1) is None
    assert all(0.8 * pause <= (pause_after(n) or timedelta()) <= 1.2 * pause for n, pause in enumerate(PAUSES, start=1))


async def test_after_a_rotation_both_secrets_sign_for_a_day(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    rotated = await api.made(f"/api/v1/webhooks/{made['id']}/rotate-secret", None)
    assert rotated["secret"] != made["secret"]
    left = datetime.fromisoformat(rotated["previous_secret_expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24, minutes=1)
    await order_test(api, made)
    await send(sender)
    assert receiver.events(made["secret"]) == receiver.events(rotated["secret"])
    api.sql("UPDATE webhook_endpoints SET previous_secret_expires_at = now()")
    await order_test(api, made)
    await send(sender)
    receiver.got = receiver.got[1:]
    assert len(receiver.events(rotated["secret"])) == 1
    with pytest.raises(WebhookVerificationError):
        receiver.events(made["secret"])


async def test_who_answers_gone_is_disabled_and_the_clients_other_endpoints_are_told(api, receiver, sender):
    client, stranger = await api.client(), await api.client("Other")
    every = ["webhook.disabled", "job.completed"]
    async with receiving() as gone:
        gone.answer = 410
        dead = await endpoint(api, gone.url, client=client, event_types=every)
        told = await endpoint(api, receiver.url, client=client, event_types=every)
        deaf = await endpoint(api, receiver.url, client=client)
        foreign = await endpoint(api, receiver.url, client=stranger, event_types=every)
        off = await endpoint(api, receiver.url, client=client, event_types=every)
        await api.call("PATCH", f"/api/v1/webhooks/{off['id']}", json={"enabled": False})
        await order_test(api, dead)
        await order_test(api, dead)
        await send(sender)
    state = await state_of(api, dead)
    assert (state["enabled"], state["disabled_reason"]) == (False, "It answered 410 Gone.")
    assert [delivery["status"] for delivery in await log_of(api, dead)] == ["failed", "failed"]
    await send(sender)
    [event] = receiver.events(told["secret"])
    assert event["type"] == "webhook.disabled"
    assert event["data"] == {
        "endpoint_id": dead["id"],
        "client_id": client["id"],
        "reason": "It answered 410 Gone.",
    }
    assert await log_of(api, deaf) == await log_of(api, foreign) == await log_of(api, off) == []


async def test_who_fails_for_three_days_is_disabled_and_gets_what_waits_when_enabled_again(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    ordered = await order_test(api, made)
    receiver.answer = 500
    await send(sender)
    last = [await order_test(api, made) for _ in range(2)]
    api.sql("UPDATE webhook_endpoints SET failing_since = now() - interval '71 hours'")
    spend(api, last[0])
    await send(sender)
    assert (await state_of(api, made))["enabled"]
    api.sql("UPDATE webhook_endpoints SET failing_since = now() - interval '73 hours'")
    make_due(api)
    await send(sender)
    assert (await state_of(api, made))["enabled"], "what was sent may arrive yet"
    spend(api, last[1])
    await send(sender)
    state = await state_of(api, made)
    assert not state["enabled"]
    assert state["disabled_reason"].startswith("Its deliveries have failed without a success since 20")
    make_due(api)
    sent = len(receiver.got)
    await send(sender)
    assert len(receiver.got) == sent, "nothing is sent while it is disabled"
    receiver.answer = 200
    on = (await api.call("PATCH", f"/api/v1/webhooks/{made['id']}", json={"enabled": True})).json()
    assert on["failing_since"] is None
    await send(sender)
    assert receiver.ids[sent:] == [ordered["id"]]
    assert [delivery["status"] for delivery in await log_of(api, made)] == ["failed", "failed", "delivered"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_that_says_so(api, receiver, sender, status):
    made = await endpoint(api, receiver.url)
    receiver.answer = status
    await order_test(api, made)
    await send(sender)
    [delivery] = await log_of(api, made, status="pending")
    assert delivery["response_status"] == status
    assert delivery["error"] == f"It answered {status}: redirects are not followed. Change the URL."
    assert len(receiver.got) == 1


async def test_a_name_that_leads_elsewhere_when_it_is_connected_is_not_called(api, receiver, sender_of):
    """Public when the endpoint is made and at its first lookup, 127.0.0.1 at the next: what is connected is judged."""
    port = receiver.url.split(":")[2].split("/")[0]
    made = await endpoint(api, f"http://rebinding.example:{port}/hook")
    asked = []

    async def resolve(name, port):
        asked.append((name, port))
        return [ip_address("127.0.0.1")]

    await order_test(api, made)
    await send(sender_of(reach=Reach(plain_http=True), resolve=resolve))
    assert asked == [("rebinding.example", int(port))]
    assert receiver.got == []
    [delivery] = await log_of(api, made)
    assert delivery["error"] == "The name leads to an address that is not public."
    assert delivery["response_status"] is None


async def test_one_private_address_among_public_ones_is_enough_to_refuse(api, receiver, sender_of):
    port = receiver.url.split(":")[2].split("/")[0]
    made = await endpoint(api, f"http://mixed.example:{port}/hook")

    async def resolve(name, port):
        return [ip_address("127.0.0.1"), ip_address("10.0.0.1")]

    await order_test(api, made)
    await send(sender_of(resolve=resolve))
    assert receiver.got == []
    assert (await log_of(api, made))[0]["error"] == "The name leads to an address that is not public."


async def test_a_name_that_is_looked_up_again_is_judged_again(api, receiver, sender_of):
    """No connection is kept: the second attempt goes by the second lookup."""
    port = receiver.url.split(":")[2].split("/")[0]
    made = await endpoint(api, f"http://changing.example:{port}/hook")
    addresses = iter(["127.0.0.1", "10.0.0.1"])

    async def resolve(name, port):
        return [ip_address(next(addresses))]

    sender = sender_of(resolve=resolve)
    for _ in range(2):
        await order_test(api, made)
        await send(sender)
    assert len(receiver.got) == 1
    assert [delivery["status"] for delivery in await log_of(api, made)] == ["pending", "delivered"]


async def test_the_next_address_is_tried_when_one_is_dead(api, receiver, sender_of):
    port = receiver.url.split(":")[2].split("/")[0]
    made = await endpoint(api, f"http://two.example:{port}/hook")

    async def resolve(name, port):
        return [ip_address("127.0.0.2"), ip_address("127.0.0.1")]

    await order_test(api, made)
    await send(sender_of(resolve=resolve))
    assert (await log_of(api, made))[0]["status"] == "delivered"


async def test_proxies_of_the_environment_are_not_used(api, receiver, sender_of, monkeypatch):
    async with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.split("/hook")[0])
        made = await endpoint(api, receiver.url)
        await order_test(api, made)
        await send(sender_of())
        assert (len(receiver.got), proxy.got) == (1, [])


async def test_settings_that_became_stricter_hold_for_old_endpoints(api, receiver, sender_of):
    made = await endpoint(api, receiver.url)
    await order_test(api, made)
    await send(sender_of(reach=Reach()))
    assert receiver.got == []
    assert (await log_of(api, made))[0]["error"] == "The URL must begin with https://."


def certificate(name: str) -> tuple[bytes, bytes]:
    """(certificate, key) of a server that signs for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem), key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def test_tls_and_host_go_by_the_name_though_the_address_is_connected(api, sender_of, tmp_path, monkeypatch):
    chain, key = certificate("hooks.example")
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    named = []
    server.sni_callback = lambda _socket, name, _context: named.append(name)

    async def resolve(name, port):
        return [ip_address("127.0.0.1")]

    async with receiving(server) as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        right = await endpoint(api, f"https://hooks.example:{port}/")
        wrong = await endpoint(api, f"https://others.example:{port}/")
        for made in (right, wrong):
            await order_test(api, made)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "chain.pem"))
        sender = sender_of(resolve=resolve)
        await send(sender)
        assert sorted(named) == ["hooks.example", "others.example"]
        assert [headers["host"] for headers, _ in receiver.got] == [f"hooks.example:{port}"]
        assert (await log_of(api, right))[0]["status"] == "delivered"
        assert "certificate" in (await log_of(api, wrong))[0]["error"]
        # the authorities are read once, not for each delivery: that takes milliseconds of the whole process
        (tmp_path / "chain.pem").unlink()
        await order_test(api, right)
        await send(sender)
        assert [delivery["status"] for delivery in await log_of(api, right)] == ["delivered"] * 2
        # nor is a certificate taken that nobody vouches for
        monkeypatch.delenv("SSL_CERT_FILE")
        await order_test(api, right)
        await send(sender_of(resolve=resolve))
        assert "certificate verify failed" in (await log_of(api, right, status="pending"))[0]["error"]


async def test_what_a_killed_sender_had_is_sent_again_when_its_lease_is_over(api, receiver, sender_of):
    made = await endpoint(api, receiver.url)
    ordered = await order_test(api, made)
    arrived, never = asyncio.Event(), asyncio.Event()

    async def hang() -> int:
        arrived.set()
        await never.wait()
        return 200

    receiver.answer = hang
    killed, other = sender_of(), sender_of()
    await killed.turn()
    await arrived.wait()
    for attempt in killed.sending:
        attempt.cancel()
    await asyncio.wait(killed.sending)
    receiver.answer = 200
    await send(other)
    assert receiver.ids == [ordered["id"]], "the lease holds"
    make_due(api)
    await send(other)
    assert receiver.ids == [ordered["id"]] * 2
    [delivery] = await log_of(api, made)
    assert (delivery["status"], delivery["attempts"]) == ("delivered", 2)
    never.set()


async def test_an_attempt_that_outlived_its_lease_changes_nothing(api, receiver, sender_of):
    made = await endpoint(api, receiver.url)
    await order_test(api, made)
    arrived, late = asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        arrived.set()
        await late.wait()
        return 500

    receiver.answer = slow
    first, second = sender_of(), sender_of()
    await first.turn()
    await arrived.wait()
    make_due(api)
    receiver.answer = 503
    await send(second)
    [known] = await log_of(api, made)
    assert (known["attempts"], known["response_status"]) == (2, 503)
    late.set()
    while first.sending:
        await asyncio.wait(first.sending)
    assert await log_of(api, made) == [known]


async def test_several_senders_at_once_deliver_once_each(api, receiver, sender_of):
    client = await api.client()
    endpoints = [await endpoint(api, receiver.url, client=client) for _ in range(4)]
    ordered = [(await order_test(api, made))["id"] for made in endpoints for _ in range(8)]
    senders = [sender_of() for _ in range(4)]
    async with asyncio.timeout(30):
        while api.sql("SELECT id FROM webhook_deliveries WHERE status = 'pending'"):
            await asyncio.gather(*(send(sender) for sender in senders))
    assert sorted(receiver.ids) == sorted(ordered)


async def test_what_another_sender_is_just_taking_is_left_alone(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    await order_test(api, made)
    async with await psycopg.AsyncConnection.connect(api.database_url) as other:
        await other.execute("SELECT id FROM webhook_deliveries FOR UPDATE")
        async with asyncio.timeout(5):
            await sender.turn()
        assert not sender.sending
    await send(sender)
    assert len(receiver.got) == 1


async def test_a_slow_endpoint_holds_up_no_other(api, receiver, sender):
    never = asyncio.Event()

    async def hang() -> int:
        await never.wait()
        return 200

    async with receiving() as slow:
        slow.answer = hang
        stuck = await endpoint(api, slow.url)
        for _ in range(3 * PER_ENDPOINT):
            await order_test(api, stuck)
        quick = await endpoint(api, receiver.url)
        for _ in range(3 * PER_ENDPOINT):
            await order_test(api, quick)
        async with asyncio.timeout(20):
            while len(await log_of(api, quick, status="delivered")) < 3 * PER_ENDPOINT:
                await sender.turn()
                await asyncio.wait(sender.sending, return_when=asyncio.FIRST_COMPLETED)
        assert len(slow.got) == PER_ENDPOINT
        never.set()
        while sender.sending:
            await asyncio.wait(sender.sending)


async def test_a_client_with_nothing_but_slow_endpoints_holds_up_no_other(api, receiver, sender):
    never = asyncio.Event()

    async def hang() -> int:
        await never.wait()
        return 200

    client = await api.client()
    async with receiving() as slow:
        slow.answer = hang
        for stuck in [await endpoint(api, slow.url, client=client) for _ in range(20)]:
            for _ in range(PER_ENDPOINT):
                await order_test(api, stuck)
        quick = await endpoint(api, receiver.url)
        ordered = await order_test(api, quick)
        await sender.turn()
        assert len(sender.sending) == PER_CLIENT + 1
        await asyncio.wait(sender.sending, return_when=asyncio.FIRST_COMPLETED)
        assert receiver.ids == [ordered["id"]]
        await sender.turn()
        assert len(sender.sending) == PER_CLIENT
        never.set()
        while sender.sending:
            await asyncio.wait(sender.sending)


async def test_who_has_the_fewest_places_comes_first(api, receiver, sender, monkeypatch):
    """Not who waits longest: a long queue is always the oldest."""
    monkeypatch.setattr("jobs_service.deliveries.IN_FLIGHT", 2)
    busy, other = await endpoint(api, receiver.url), await endpoint(api, receiver.url)
    for made in (busy, busy, busy, other):
        await order_test(api, made)
    await send(sender)
    assert [len(await log_of(api, made, status="delivered")) for made in (busy, other)] == [1, 1]


async def test_a_lookup_that_hangs_keeps_its_place_after_its_attempt(api, receiver, sender_of):
    """It has a thread as long as the system is silent: the threads of one client must not become more and more."""
    answered = asyncio.Event()

    async def silent(name, port):
        await answered.wait()
        return [ip_address("127.0.0.1")]

    made = await endpoint(api, "http://silent.example/")
    for _ in range(PER_ENDPOINT + 1):
        await order_test(api, made)
    sender = sender_of(timeout=0.05, resolve=silent)
    await sender.turn()
    async with asyncio.timeout(10):
        while len([1 for delivery in await log_of(api, made) if delivery["error"]]) < PER_ENDPOINT:  # noqa: ASYNC110  same
            await asyncio.sleep(0.02)
    await sender.turn()
    assert len(sender.sending) == PER_ENDPOINT
    answered.set()
    while sender.sending:
        await asyncio.wait(sender.sending)
    await sender.turn()
    assert len(sender.sending) == 1
    await asyncio.wait(sender.sending)


def test_a_lookup_that_hangs_holds_up_no_exit():
    """In a process of its own, whose resolver is silent for much longer than this test waits."""
    program = """
import asyncio, contextlib, socket, time
from jobs_service.addresses import look_up
socket.getaddrinfo = lambda *_, **__: time.sleep(600)
async def main():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await look_up("silent.example", 443)
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


async def test_names_are_looked_up_by_the_system():
    assert ip_address("127.0.0.1") in await look_up("localhost", 80)
    with pytest.raises(OSError, match=r".+"):
        await look_up("nowhere.invalid", 80)


async def test_the_whole_path_is_called(api, receiver, sender):
    made = await endpoint(api, receiver.url.replace("/hook?", "/a;b=1/hook;token=secret?x=1;y&"))
    await order_test(api, made)
    bare = await endpoint(api, receiver.url.split("/hook")[0])
    await order_test(api, bare)
    await send(sender)
    assert sorted(headers["request"] for headers, _ in receiver.got) == [
        "POST / HTTP/1.1",
        "POST /a;b=1/hook;token=secret?x=1;y&token=in-the-query HTTP/1.1",
    ]


async def test_no_answer_in_time_is_a_failure(api, receiver, sender_of):
    never = asyncio.Event()

    async def hang() -> int:
        await never.wait()
        return 200

    receiver.answer = hang
    made = await endpoint(api, receiver.url)
    await order_test(api, made)
    await send(sender_of(timeout=0.2))
    never.set()
    assert (await log_of(api, made))[0]["error"] == "There was no answer in time."


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"220 mail.example ESMTP and a secret\r\n\r\n", "The answer was not HTTP."),
        (b"SSH-2.0-OpenSSH_9.9 and a secret\r\n", "The connection was closed before an HTTP answer."),
        (b"", "The connection was closed before an HTTP answer."),
        (b"HTTP/1.1 20", "The connection was closed before an HTTP answer."),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", "It answered 404."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", None),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, None),
    ],
)
async def test_the_status_decides_whatever_else_is_answered(api, receiver, sender, answer, error):
    receiver.answer = answer
    made = await endpoint(api, receiver.url)
    await order_test(api, made)
    await send(sender)
    [delivery] = await log_of(api, made)
    assert delivery["error"] == error
    assert (delivery["status"] == "delivered") == (error is None)


async def test_a_status_in_time_decides_however_slow_its_body_is(api, sender_of, monkeypatch):
    monkeypatch.setattr("jobs_service.deliveries.READ_FOR", 1.5)
    gone = asyncio.Event()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        await gone.wait()
        writer.close()

    async with await asyncio.start_server(begin, "127.0.0.1", 0) as server:
        made = await endpoint(api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await order_test(api, made)
        await send(sender_of(timeout=1))
        gone.set()
    [delivery] = await log_of(api, made)
    assert (delivery["status"], delivery["response_status"], delivery["error"]) == ("delivered", 200, None)


async def test_a_sender_ends_after_its_attempts_however_often_it_is_cancelled(sender, nobody):
    cancelled, end = asyncio.Event(), asyncio.Event()

    async def linger() -> None:
        """An attempt that takes its time to end."""
        try:
            await end.wait()
        except asyncio.CancelledError:
            cancelled.set()
            await end.wait()

    attempt = asyncio.create_task(linger())
    sender.sending[attempt] = {"client_id": nobody, "endpoint_id": nobody}
    attempt.add_done_callback(sender.sending.pop)
    running = asyncio.create_task(sender.run(interval=timedelta(milliseconds=1)))
    await asyncio.sleep(0)
    running.cancel()
    await cancelled.wait()
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    assert not running.done()
    end.set()
    await asyncio.wait([running])
    assert attempt.done()


async def test_a_connection_that_is_reset_says_so(api, sender):
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        made = await endpoint(api, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await order_test(api, made)
        await send(sender)
    assert (await log_of(api, made))[0]["error"] == "The connection was closed before an HTTP answer."


async def test_who_cannot_be_reached_says_so(api, sender, sender_of):
    made = await endpoint(api, f"http://127.0.0.1:{free_port()}/")
    await order_test(api, made)
    await send(sender)
    assert (await log_of(api, made))[0]["error"].startswith("There is no connection: ")
    nameless = await endpoint(api, "http://nowhere.invalid/")
    await order_test(api, nameless)
    await send(sender_of())
    assert (await log_of(api, nameless))[0]["error"].startswith("There is no connection: ")

    async def no_address(name, port):
        return []

    await order_test(api, nameless)
    await send(sender_of(resolve=no_address))
    assert (await log_of(api, nameless))[0]["error"] == "There is no connection: the name has no address"


async def test_a_secret_whose_key_is_gone_fails_the_delivery_and_not_the_endpoint(api, receiver, sender_of):
    made = await endpoint(api, receiver.url)
    await order_test(api, made)
    api.sql("UPDATE webhook_endpoints SET failing_since = now() - interval '10 days'")
    await send(sender_of(vault=Vault(SecretStr("some-other-key-than-before"))))
    assert receiver.got == []
    assert (await log_of(api, made))[0]["error"] == "Its secret cannot be decrypted: rotate it."
    assert (await state_of(api, made))["enabled"]


async def test_old_deliveries_are_deleted(api, receiver, sender):
    made = await endpoint(api, receiver.url)
    kept = await order_test(api, made)
    api.sql(
        """INSERT INTO webhook_deliveries (id, endpoint_id, event_type, payload)
        SELECT uuidv7(interval '-31 days'), %(endpoint)s, 'webhook.test', '{}' FROM generate_series(1, 1100)""",
        endpoint=made["id"],
    )
    await sender.purge()
    assert [str(row["id"]) for row in api.sql("SELECT id FROM webhook_deliveries")] == [kept["id"]]


async def test_nothing_of_a_delivery_is_logged_but_ids(api, receiver, sender):
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(f"{message} {message.record['extra']}"), level="TRACE")
    try:
        made = await endpoint(api, receiver.url)
        for answer in (200, 500, b"not http", 410):
            receiver.answer = answer
            await order_test(api, made)
            await send(sender)
    finally:
        logger.remove(sink)
    written = "\n".join(lines)
    for message in ("webhook delivered", "webhook not delivered", "webhook endpoint disabled", made["id"]):
        assert message in written
    for word in (made["secret"], "in-the-query", "webhook.test", "v1,"):
        assert word not in written


async def test_attempts_are_counted_by_outcome(api, receiver, sender):
    def counted() -> dict[str, float]:
        name = "triton_webhook_deliveries_total"
        return {
            outcome: REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0
            for outcome in ("delivered", "retrying", "failed")
        }

    before = counted()
    made = await endpoint(api, receiver.url)
    for answer in (200, 500, 410):
        receiver.answer = answer
        await order_test(api, made)
        await send(sender)
    assert counted() == {outcome: number + 1 for outcome, number in before.items()}


async def test_the_running_service_sends_and_recovers_when_postgres_was_away(
    settings, running, api, receiver, postgres_server
):
    """A second process on the same database, whose sender looks for work all the time."""
    async with running(build(settings.model_copy(update={"sweep_interval": timedelta(milliseconds=20)}))):
        made = await endpoint(api, receiver.url)
        first = await order_test(api, made)
        async with asyncio.timeout(20):
            while receiver.ids != [first["id"]]:  # noqa: ASYNC110  nothing tells of it
                await asyncio.sleep(0.02)
        postgres_server.stop()
        postgres_server.start()
        async with asyncio.timeout(20):
            while (  # noqa: ASYNC110  same
                ordered := await api.post(f"/api/v1/webhooks/{made['id']}/test")
            ).status_code != 202:
                await asyncio.sleep(0.05)
            while receiver.ids[-1] != ordered.json()["id"]:  # noqa: ASYNC110  same
                await asyncio.sleep(0.02)
    assert json.loads(receiver.got[-1][1])["type"] == "webhook.test"


async def test_every_event_of_a_job_but_progress_makes_a_webhook(api, receiver, sender):
    client = await api.client()
    every = ["job.submitted", "job.claimed", "job.retrying", "job.failed", "job.retried", "job.completed"]
    made = await endpoint(api, receiver.url, client=client, event_types=every)
    default = await endpoint(api, receiver.url, client=client)
    stranger = await endpoint(api, receiver.url, client=await api.client("Other"), event_types=every)
    off = await endpoint(api, receiver.url, client=client, event_types=every)
    await api.call("PATCH", f"/api/v1/webhooks/{off['id']}", json={"enabled": False})
    job = await api.job(client)
    await api.sent(1)
    assert (await api.claim(job)).status_code == 200
    await api.progress(job)
    await api.finish(job, "failed", retryable=False)
    assert (await api.post(f"/api/v1/jobs/{job['id']}/retry")).status_code == 200
    await api.sent(2)
    assert (await api.claim(job)).status_code == 200
    finished = (await api.finish(job, attempt=2)).json()
    await send(sender)
    await send(sender)
    assert await log_of(api, stranger) == await log_of(api, off) == []
    sent = [delivery["payload"] for delivery in reversed(await log_of(api, made, status="delivered"))]
    kinds = ["submitted", "claimed", "failed", "retried", "claimed", "completed"]
    assert [event["type"] for event in sent] == [f"job.{kind}" for kind in kinds]
    history = (await api.get(f"/api/v1/jobs/{job['id']}/events")).json()["items"]
    told = [event for event in history if event["kind"] != "progress"]
    assert [event["data"]["seq"] for event in sent] == [event["seq"] for event in told]
    times = [datetime.fromisoformat(event["timestamp"]) for event in sent]
    assert times == [datetime.fromisoformat(event["at"]) for event in told]
    assert sent[2]["data"]["error"] == {"code": "model_failed", "message": "The model gave up."}
    assert sent[-1]["data"] == {
        "job_id": job["id"],
        "client_id": client["id"],
        "prospect_id": job["prospect_id"],
        "value_proposition_id": job["value_proposition_id"],
        "job_type": "value_proposition",
        "status": "completed",
        "progress": 100,
        "attempt": 2,
        "seq": told[-1]["seq"],
        "document_id": finished["document_id"],
        "error": None,
    }
    types = [delivery["event_type"] for delivery in reversed(await log_of(api, default))]
    assert types == ["job.failed", "job.completed"]
    assert all(delivery["job_id"] == job["id"] for delivery in await log_of(api, made))


async def test_an_endpoint_that_is_being_deleted_fails_no_move(api, receiver, sender):
    """The move waits for the deletion, and goes on without the endpoint: its foreign key would fail the move."""
    client = await api.client()
    made = await endpoint(api, receiver.url, client=client, event_types=["job.claimed"])
    job = await api.job(client)
    await api.sent(1)
    async with await psycopg.AsyncConnection.connect(api.database_url) as deleting:
        await deleting.execute("DELETE FROM webhook_endpoints WHERE id = %s", [made["id"]])
        claiming = asyncio.create_task(api.claim(job))
        async with asyncio.timeout(10):
            while not api.sql("SELECT 1 FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110  nothing tells of it
                await asyncio.sleep(0.02)
        await deleting.commit()
        assert (await claiming).status_code == 200
    assert api.sql("SELECT id FROM webhook_deliveries") == []
