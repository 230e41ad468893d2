"""Where webhooks may go: addresses and URLs, one by one."""

from ipaddress import ip_address, ip_network

import pytest

from jobs_service.addresses import Reach, WebhookUrlRefused, check_url
from jobs_service.settings import Settings


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_only_public_addresses_are_permitted(address):
    assert not Reach().permits(ip_address(address))
    assert Reach(private=True).permits(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111", "2a00:1450::5"],
)
def test_public_addresses_are_permitted(address):
    assert Reach().permits(ip_address(address))


def test_networks_that_the_settings_name_are_permitted_and_no_others():
    reach = Reach(networks=(ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00:1::9", "8.8.8.8"):
        assert reach.permits(ip_address(address))
    for address in ("10.2.0.1", "127.0.0.1", "fd00:2::9"):
        assert not reach.permits(ip_address(address))


BAD = {
    "": "ASCII",
    "https://example.com/a b": "ASCII",
    "https://exa\nmple.com/": "ASCII",
    "https://example.com/\x00": "ASCII",
    "https://example.com/\n": "ASCII",
    "https://bücher.example/": "xn--",
    "https://example.com\\@127.0.0.1/": "backslashes",
    f"https://example.com/{'a' * 2048}": "2048",
    "example.com/hook": "begin with https://",
    "//example.com/hook": "begin with https://",
    "ftp://example.com/": "begin with https://",
    "file:///etc/passwd": "begin with https://",
    "gopher://example.com/": "begin with https://",
    "http://example.com/": "begin with https://",
    "https://[::1": "not a URL",
    "https://example.com:99999/": "not a URL",
    "https://example.com:x/": "not a URL",
    "https://user:password@example.com/": "user name",
    "https://example.com@127.0.0.1/": "user name",
    "https://@example.com/": "user name",
    "https://example.com/#part": "fragment",
    "https://example.com/#": "fragment",
    "https://example.com:22/": "port",
    "https://example.com:25/": "port",
    "https://example.com:0/": "port",
    "https:///hook": "no valid host",
    "https://": "no valid host",
    "https://exa_mple..com/": "no valid host",
    "https://-example.com/": "no valid host",
    "https://%31%32%37.0.0.1/": "no valid host",
    "https://2130706433/": "no valid host",
    "https://0x7f000001/": "no valid host",
    "https://0x7f.1/": "no valid host",
    "https://127.1/": "no valid host",
    "https://0177.0.0.1/": "no valid host",
    "https://127.0.0.1./": "no valid host",
    "https://[fe80::1%25eth0]/": "no valid host",
    "https://127.0.0.1/": "not a public address",
    "https://[::ffff:169.254.169.254]/latest": "not a public address",
    "https://[::1]/": "not a public address",
    "https://10.0.0.8:8443/": "not a public address",
    "https://localhost/": "not a public name",
    "https://LOCALHOST./": "not a public name",
    "https://a.localhost/": "not a public name",
    "https://printer.local/": "not a public name",
    "https://metadata.google.internal/": "not a public name",
    "https://jobs/": "not a public name",
}


@pytest.mark.parametrize(("url", "word"), BAD.items())
def test_a_bad_url_is_refused_with_a_sentence(url, word):
    with pytest.raises(WebhookUrlRefused) as refused:
        check_url(url, reach=Reach())
    assert word in refused.value.message
    assert refused.value.message.endswith((".", "…."))
    assert refused.value.details[0].field == "body.url"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://EXAMPLE.com:8443/hook?token=1&x=%20",
        "https://example.com:80/",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:9443/",
        "https://a_b.example.co.uk./",
    ],
)
def test_a_good_url_is_taken(url):
    check_url(url, reach=Reach())


def test_dev_takes_http_and_other_networks_open_names_that_are_not_public():
    check_url("http://example.com/", reach=Reach.of(Settings()))
    with pytest.raises(WebhookUrlRefused, match="https:// or http://"):
        check_url("ftp://example.com/", reach=Reach.of(Settings()))
    with pytest.raises(WebhookUrlRefused, match="not a public name"):
        check_url("http://localhost:9000/", reach=Reach.of(Settings()))
    opened = Settings(webhook_allowed_networks="10.0.0.0/8, fd00::/8")
    check_url("https://receiver.internal/", reach=Reach.of(opened))
    check_url("https://10.0.0.1/", reach=Reach.of(opened))
    check_url("http://localhost:9000/", reach=Reach.of(Settings(webhook_allow_private=True)))


def test_outside_dev_http_needs_the_private_setting(monkeypatch):
    closed = Settings(environment="dev").model_copy(update={"environment": "prod"})
    assert not Reach.of(closed).plain_http
    assert Reach.of(closed.model_copy(update={"webhook_allow_private": True})).plain_http
