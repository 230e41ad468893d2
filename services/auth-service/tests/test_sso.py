"""Single sign-on with a provider that runs here: real keys, spoken to over HTTP, and made to go wrong in every way."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import threading
import time
from dataclasses import replace
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import httpx2
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from pydantic import ValidationError

from auth_service import oidc, sso
from auth_service.main import build
from auth_service.settings import Settings
from triton_common.db import transaction

EMAIL = "ada@triton.local"
PASSWORD = "a long enough password"
APP = "https://app.example"
RETURN_TO = f"{APP}/signed-in?tab=7f3a"
CALLBACK = "http://test/api/v1/auth/sso/callback"
CLIENT = "triton-client"
SECRET = "marked-client-secret-51"
RSA = RSAKey.generate_key(2048, parameters={"kid": "one"})


class Provider:
    """An OpenID provider: /authorize logs anybody in as `person`. `wrong` replaces what a path answers, those in
    `late` never do, those in `long` add blanks to it; `claims` and `header` go into the ID token in place of the right
    ones (None: left out)."""

    def __init__(self):
        self.issuer = ""
        self.key, self.alg, self.published = RSA, "RS256", [RSA]
        self.metadata, self.person, self.info = {}, {}, None
        self.claims, self.header, self.answer = {}, {}, {}
        self.wrong, self.late, self.long, self.asked = {}, set(), set(), []
        self.codes, self.given = {}, []
        self.held, self.released = threading.Event(), threading.Event()
        self.released.set()
        self.auth = "client_secret_basic"
        self.app = FastAPI()
        self.app.middleware("http")(self.misbehave)
        self.app.get("/.well-known/openid-configuration")(self.discovery)
        self.app.get("/jwks")(self.jwks)
        self.app.get("/authorize")(self.authorize)
        self.app.post("/token")(self.token)
        self.app.get("/userinfo")(self.userinfo)

    async def misbehave(self, request: Request, call_next):
        path = request.url.path
        self.asked.append(path)
        if path in self.late:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        if path in self.wrong:
            return self.wrong[path]
        answer = await call_next(request)
        if path not in self.long:
            return answer
        body = b"".join([chunk async for chunk in answer.body_iterator]) + b" " * oidc.LONGEST
        packed = gzip.compress(body) if "gzip" in request.headers["accept-encoding"] else body
        headers = {"content-type": "application/json"} | ({"content-encoding": "gzip"} if packed is not body else {})
        return Response(packed, headers=headers)

    async def discovery(self) -> JSONResponse:
        endpoints = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256", "Ed25519"],
            "token_endpoint_auth_methods_supported": [self.auth],
        }
        return JSONResponse({k: v for k, v in (endpoints | self.metadata).items() if v is not None})

    async def jwks(self) -> JSONResponse:
        odd = [
            {"kty": "new", "kid": "odd"},
            {"kty": "oct", "kid": "shared", "k": _base64(b"a shared secret").decode()},
            "no key",
        ]
        return JSONResponse({"keys": [*odd, *(key.as_dict(private=False) for key in self.published)]})

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["redirect_uri"] == CALLBACK
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = f"marked-code-{len(self.codes)}"
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "session_state": "x"} | self.answer
        return RedirectResponse(f"{CALLBACK}?{urlencode({k: v for k, v in answer.items() if v is not None})}")

    async def token(self, request: Request) -> Response:
        self.held.set()
        await asyncio.to_thread(self.released.wait)
        form = dict(parse_qsl((await request.body()).decode()))
        basic = request.headers.get("authorization", "").removeprefix("Basic ")
        name, _, secret = base64.b64decode(basic).decode().partition(":")
        shown = {
            "client_secret_basic": (unquote(name), unquote(secret)),
            "client_secret_post": (form.get("client_id"), form.get("client_secret")),
            "none": (form.get("client_id"), SECRET),
        }[self.auth]
        if shown != (CLIENT, SECRET):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        asked = self.codes.pop(form["code"], None)
        challenge = _base64(hashlib.sha256(form["code_verifier"].encode()).digest())
        if asked is None or asked["code_challenge"] != challenge.decode() or form["redirect_uri"] != CALLBACK:
            return JSONResponse({"error": "invalid_grant", "error_description": SECRET}, status_code=400)
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = {k: v for k, v in (claims | self.person | self.claims).items() if v is not None}
        header = {"alg": self.alg} | self.header
        if not isinstance(self.key, bytes):
            header = {"kid": self.key.kid} | header
        id_token = self.signed(header, claims)
        self.given += [id_token, asked["nonce"], asked["state"], form["code_verifier"]]
        return JSONResponse({"access_token": "marked-access", "token_type": "Bearer", "id_token": id_token})

    def signed(self, header, claims):
        if isinstance(self.key, bytes):  # joserfc refuses to take a public key for a secret
            said = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
            return (said + b"." + _base64(hmac.digest(self.key, said, "sha256"))).decode()
        registry = JWSRegistry(algorithms=["RS256", "HS256", "ES256", "Ed25519", "none"])
        return jwt.encode(header, claims, self.key, registry=registry)

    async def userinfo(self, request: Request) -> JSONResponse:
        assert request.headers["authorization"] == "Bearer marked-access"
        return JSONResponse(self.info if self.info is not None else self.person)


def _base64(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=")


@pytest.fixture
def provider(serving):
    """A provider where Grace Hopper is logged in."""
    one = Provider()
    one.person = {"sub": "grace-1", "email": "grace@example.com", "email_verified": True, "groups": ["triton-editors"]}
    with serving(one.app) as url:
        one.issuer = url
        yield one
        one.released.set()


@pytest.fixture
def sso_settings(make_settings, provider):
    """Settings for the provider; any replaced by keyword."""

    def make(**values):
        defaults = {
            "sso_discovery_url": f"{provider.issuer}/.well-known/openid-configuration",
            "sso_client_id": CLIENT,
            "sso_client_secret": SECRET,
            "sso_redirect_uri": CALLBACK,
            "sso_return_origins": APP,
            "sso_allowed_domains": "example.com, Triton.local",
            "sso_role_claim": "groups",
            "sso_role_map": {"triton-editors": "editor", "triton-admins": "admin"},
        }
        return make_settings(**(defaults | values))

    return make


@pytest.fixture
def app(sso_settings):
    return build(sso_settings())


async def at_provider(http, return_to=RETURN_TO):
    """The parameters that a browser brings back from the provider."""
    to_provider = await http.get("/sso/login", params={"return_to": return_to})
    assert to_provider.status_code == 302, to_provider.text
    async with httpx2.AsyncClient() as browser:
        back = await browser.get(to_provider.headers["location"])
    assert back.headers["location"].startswith(f"{CALLBACK}?")
    return dict(parse_qsl(urlsplit(back.headers["location"]).query))


async def sign_on(http, return_to=RETURN_TO):
    """What the app finds in its fragment after a login."""
    answer = await http.get("/sso/callback", params=await at_provider(http, return_to))
    return fragment(answer, return_to)


def fragment(answer, return_to=RETURN_TO):
    assert answer.status_code == 302, answer.text
    address, _, after = answer.headers["location"].partition("#")
    assert address == return_to
    assert answer.headers["cache-control"] == "no-store"
    return {name: value for name, [value] in parse_qs(after).items()}


async def exchange(http, code):
    return await http.post("/sso/token", json={"code": code})


async def who(http, found):
    """Whose tokens the code gives."""
    answer = await exchange(http, found["code"])
    assert answer.status_code == 200, answer.text
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    me = (await http.get("/me", headers=bearer)).json()
    return me | {"headers": bearer}


def last_refusal(rows):
    return rows("SELECT details->>'reason' FROM audit_events WHERE action = 'login.failed' ORDER BY at DESC LIMIT 1")[
        0
    ][0]


@pytest.mark.parametrize("auth", ["client_secret_basic", "client_secret_post", "none"])
async def test_a_first_login_makes_a_user_with_the_role_of_the_claim(sso_settings, starting, provider, rows, auth):
    provider.auth = auth
    secret = None if auth == "none" else SECRET
    async with starting(build(sso_settings(sso_client_secret=secret))) as http:
        me = await who(http, await sign_on(http))
        assert (me["email"], me["role"], me["client_id"]) == ("grace@example.com", "editor", None)
        [session] = (await http.get("/sessions", headers=me["headers"])).json()["items"]
        assert session["method"] == "sso"
        again = await who(http, await sign_on(http))
        assert again["id"] == me["id"]
    actions = [
        action for (action,) in rows("SELECT action FROM audit_events WHERE action <> 'login.failed' ORDER BY at")
    ]
    assert actions[-4:] == ["user.created", "user.sso_linked", "login.succeeded", "login.succeeded"]
    assert rows("SELECT count(*) FROM sso_logins") == [(0,)]


async def test_the_cookie_is_for_the_browser_alone(http, app):
    answer = await http.get("/sso/login", params={"return_to": RETURN_TO})
    [cookie] = answer.headers.get_list("set-cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # in dev, where there is no TLS
    assert answer.headers["cache-control"] == "no-store"
    app.state.sso = replace(app.state.sso, https_only=True)
    answer = await http.get("/sso/login", params={"return_to": RETURN_TO})
    [cookie] = answer.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-triton-sso-")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Secure", "Max-Age=600"} <= set(cookie.split("; "))


async def test_two_tabs_do_not_disturb_each_other(http):
    one, two = await at_provider(http), await at_provider(http)
    for tab in (one, two):
        assert "code" in fragment(await http.get("/sso/callback", params=tab))


@pytest.mark.parametrize("spelling", ["ada@triton.local", "ADA@Triton.Local", "\uff41da@triton.local"])
async def test_a_verified_address_links_to_its_user_who_keeps_role_and_password(http, provider, bearer, spelling):
    provider.person |= {"sub": "ada-1", "email": spelling, "groups": []}
    me = await who(http, await sign_on(http))
    assert me["id"] == (await http.get("/me", headers=bearer)).json()["id"]
    assert me["role"] == "admin"
    assert (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).status_code == 200


@pytest.mark.parametrize("verified", [True, "true", 1])
async def test_spellings_of_verified(http, provider, verified):
    provider.person["email_verified"] = verified
    assert "code" in await sign_on(http)


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        ({"email_verified": False}, "the e-mail address is not verified"),
        ({"email_verified": None}, "the e-mail address is not verified"),
        ({"email_verified": "false"}, "the e-mail address is not verified"),
        ({"email_verified": [True]}, "the e-mail address is not verified"),
        ({"email": None}, "there is no proper e-mail address"),
        ({"email": ["grace@example.com"]}, "there is no proper e-mail address"),
        ({"email": "grace"}, "there is no proper e-mail address"),
        ({"email": "grace@example.com\x00"}, "there is no proper e-mail address"),
        ({"email": "grace@evil.example"}, "the e-mail address is of another domain"),
        ({"email": "grace@sub.example.com"}, "the e-mail address is of another domain"),
        ({"email": "grace@example.com.evil.example"}, "the e-mail address is of another domain"),
        ({"email": "grace@ex\u0430mple.com"}, "there is no proper e-mail address"),  # a Cyrillic a
        ({"groups": ["others"]}, "no role"),
        ({"groups": None}, "no role"),
        ({"groups": {"triton-admins": True}}, "no role"),
        ({"groups": [["triton-admins"], 5]}, "no role"),
    ],
)
async def test_who_is_not_let_in_is_told_nothing_and_the_audit_log_why(http, provider, rows, person, reason):
    provider.person |= person
    assert await sign_on(http) == {"error": "sso_refused"}
    assert last_refusal(rows) == reason
    assert rows("SELECT count(*) FROM users") == [(1,)]


async def test_roles_come_from_a_path_or_by_default_and_the_highest_counts(sso_settings, starting, provider):
    provider.person |= {"groups": None, "realm_access": {"roles": ["triton-editors", "triton-admins"]}}
    async with starting(build(sso_settings(sso_role_claim="realm_access.roles"))) as http:
        assert (await who(http, await sign_on(http)))["role"] == "admin"
    provider.person |= {"sub": "linus-1", "email": "linus@example.com"}
    async with starting(build(sso_settings(sso_role_claim=None, sso_default_role="viewer"))) as http:
        assert (await who(http, await sign_on(http)))["role"] == "viewer"


async def test_the_role_of_one_without_a_password_follows_the_claim(http, provider, rows):
    before = await who(http, await sign_on(http))
    provider.person["groups"] = "triton-admins"
    assert (await who(http, await sign_on(http)))["role"] == "admin"
    assert (await http.get("/me", headers=before["headers"])).json()["code"] == "token_revoked"
    provider.person["groups"] = []
    assert await sign_on(http) == {"error": "sso_refused"}
    assert last_refusal(rows) == "no role"
    rows("UPDATE users SET deactivated_at = now() WHERE email = %s", EMAIL)
    provider.person["groups"] = ["triton-editors"]
    assert (await who(http, await sign_on(http)))["role"] == "admin"  # the last one


async def test_who_was_linked_once_is_known_by_subject_whatever_the_address(http, provider, rows):
    me = await who(http, await sign_on(http))
    for address in ({"email": EMAIL}, {"email": "new@elsewhere.example"}, {"email": None, "email_verified": None}):
        provider.person |= address
        assert (await who(http, await sign_on(http)))["id"] == me["id"]
    assert rows("SELECT count(*) FROM sso_identities") == [(1,)]


async def test_an_address_that_changed_hands_opens_no_account_until_an_admin_says_so(http, provider, bearer, rows):
    me = await who(http, await sign_on(http))
    provider.person["sub"] = "another-grace"
    assert await sign_on(http) == {"error": "sso_refused"}
    assert last_refusal(rows) == "linked to another subject"
    refused = await http.delete(f"/users/{me['id']}/sso-identities", headers=me["headers"])
    assert refused.json()["code"] == "insufficient_scope"
    absent = await http.delete("/users/0198c0de-0000-7000-8000-000000000000/sso-identities", headers=bearer)
    assert absent.json()["code"] == "user_not_found"
    assert (await http.delete(f"/users/{me['id']}/sso-identities", headers=bearer)).status_code == 204
    assert (await who(http, await sign_on(http)))["id"] == me["id"]


async def test_a_deactivated_user_is_refused_at_every_step(http, provider, bearer, rows):
    me = await who(http, await sign_on(http))
    code = (await sign_on(http))["code"]
    assert (await http.post(f"/users/{me['id']}/deactivate", headers=bearer)).status_code == 200
    late = await exchange(http, code)
    assert (late.status_code, late.json()["code"]) == (401, "invalid_sso_code")
    assert last_refusal(rows) == "deactivated"
    assert await sign_on(http) == {"error": "sso_refused"}
    assert (await http.delete(f"/users/{me['id']}/sso-identities", headers=bearer)).status_code == 204
    assert await sign_on(http) == {"error": "sso_refused"}
    assert last_refusal(rows) == "deactivated"
    assert rows("SELECT count(*) FROM sso_identities") == [(0,)]


async def test_two_first_logins_at_once_make_one_user(http, rows):
    one, two = await at_provider(http), await at_provider(http)
    answers = await asyncio.gather(*(http.get("/sso/callback", params=each) for each in (one, two)))
    ids = {(await who(http, fragment(answer)))["id"] for answer in answers}
    assert len(ids) == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://another.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": None},
        {"aud": []},
        {"aud": [CLIENT, "another"]},  # no azp
        {"aud": [CLIENT, "another"], "azp": "another"},
        {"azp": "another"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "soon"},
        {"iat": 5_000_000_000},
        {"iat": None},
        {"nbf": 5_000_000_000},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ["another"]},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
        {"sub": "nul\x00"},
        {"sub": 7},
    ],
)
async def test_an_id_token_that_is_not_for_this_login_is_not_believed(http, provider, rows, claims):
    provider.claims = claims
    assert await sign_on(http) == {"error": "sso_provider_invalid"}
    assert rows("SELECT count(*) FROM users") == [(1,)]


async def test_two_audiences_with_us_as_the_authorised_party_are_fine(http, provider):
    provider.claims = {"aud": [CLIENT, "another"], "azp": CLIENT}
    assert "code" in await sign_on(http)


@pytest.mark.parametrize(
    ("key", "alg", "header"),
    [
        (RSAKey.generate_key(2048, parameters={"kid": "one"}), "RS256", {}),  # not the published one
        (RSA, "none", {}),
        (RSA.as_pem(private=False), "HS256", {"kid": "one"}),  # key confusion
        (b"a shared secret", "HS256", {"kid": "shared"}),  # published as a shared one
        (ECKey.generate_key("P-256", parameters={"kid": "one"}), "ES256", {}),
        (RSA, "RS256", {"kid": "../../one"}),
        (RSA, "RS256", {"kid": "nobody's"}),
    ],
)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_a_token_that_the_provider_did_not_sign_is_not_believed(http, provider, key, alg, header):
    provider.key, provider.alg, provider.header = key, alg, header
    assert await sign_on(http) == {"error": "sso_provider_invalid"}


@pytest.mark.parametrize("id_token", [None, 5, "", "no.token", "e30.e30.e30", "a" * 5000])
async def test_what_is_no_id_token_is_not_believed(http, provider, id_token):
    provider.wrong["/token"] = JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": id_token})
    assert await sign_on(http) == {"error": "sso_provider_invalid"}


async def test_a_new_key_is_fetched_when_a_token_names_it(http, provider):
    assert "code" in await sign_on(http)
    assert "code" in await sign_on(http)
    assert provider.asked.count("/jwks") == provider.asked.count("/.well-known/openid-configuration") == 1
    for key, alg in (
        (ECKey.generate_key("P-256", parameters={"kid": "two"}), "ES256"),
        (OKPKey.generate_key("Ed25519", parameters={"kid": "three"}), "Ed25519"),
    ):
        provider.key, provider.alg = key, alg
        provider.published = [RSA, key]
        assert "code" in await sign_on(http)
    assert provider.asked.count("/jwks") == 3


async def test_userinfo_is_asked_for_what_the_id_token_lacks(http, provider):
    info = provider.person | {"groups": ["triton-admins"]}
    provider.info, provider.claims = info, {"email": None, "email_verified": None, "groups": None}
    assert (await who(http, await sign_on(http)))["role"] == "admin"
    assert provider.asked.count("/userinfo") == 1


@pytest.mark.parametrize("info", [{"sub": "eve-1"}, {"sub": "grace-1", "email": "eve@example.com"}, [], {}])
async def test_userinfo_of_somebody_else_is_not_believed(http, provider, info):
    provider.info, provider.claims = info, {"email_verified": None}
    assert await sign_on(http) == {"error": "sso_provider_invalid"}


@pytest.mark.parametrize(
    ("metadata", "answer", "code"),
    [
        ({}, {"code": None, "error": "access_denied"}, "sso_denied"),
        ({}, {"code": None, "error": "server_error", "error_description": "<b>"}, "sso_provider_invalid"),
        ({}, {"error": "x\r\nSet-Cookie: a=b"}, "sso_provider_invalid"),
        ({}, {"code": None}, "sso_provider_invalid"),
        ({}, {"code": "guessed"}, "sso_provider_invalid"),
        ({}, {"iss": "https://another.example"}, "sso_provider_invalid"),
        ({"authorization_response_iss_parameter_supported": True}, {}, "sso_provider_invalid"),
        (
            {"authorization_response_iss_parameter_supported": True},
            {"code": None, "error": "access_denied"},
            "sso_provider_invalid",
        ),
    ],
)
async def test_error_answers_end_at_the_app_with_a_code_of_ours(http, provider, metadata, answer, code):
    provider.metadata, provider.answer = metadata, answer
    assert await sign_on(http) == {"error": code}


async def test_the_issuer_in_the_answer_is_compared(http, provider):
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    provider.answer = {"iss": provider.issuer}
    assert "code" in await sign_on(http)


@pytest.mark.parametrize("path", ["/token", "/jwks", "/userinfo"])
@pytest.mark.parametrize(
    "answer", ["late", (500, "{}"), (502, "<html>"), (200, "<html>"), (200, "\x00"), (302, ""), (429, "slow down")]
)
async def test_a_provider_that_is_late_or_broken_ends_at_the_app_with_a_code(
    sso_settings, starting, provider, path, answer
):
    if answer == "late":
        provider.late.add(path)
    else:
        provider.wrong[path] = Response(answer[1], status_code=answer[0], headers={"Location": f"{APP}/elsewhere"})
    provider.claims = {"email": None}
    async with starting(build(sso_settings(sso_timeout=2 if answer == "late" else 30))) as http:
        assert await sign_on(http) == {"error": "sso_provider_unavailable"}
        provider.late.clear()
        provider.wrong.clear()
        assert "code" in await sign_on(http)


@pytest.mark.parametrize("path", ["/token", "/jwks", "/userinfo", "/.well-known/openid-configuration"])
async def test_an_answer_that_is_too_long_is_not_read_to_its_end(http, provider, path):
    provider.long.add(path)
    provider.claims = {"email": None}
    if path.startswith("/.well-known"):
        answer = await http.get("/sso/login", params={"return_to": RETURN_TO})
        assert (answer.status_code, answer.json()["code"]) == (503, "sso_provider_unavailable")
    else:
        assert await sign_on(http) == {"error": "sso_provider_unavailable"}
    provider.long.clear()
    assert "code" in await sign_on(http)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://another.example"},
        {"token_endpoint": None},
        {"jwks_uri": 5},
        {"id_token_signing_alg_values_supported": ["none", "HS256"]},
        "late",
        "broken",
        "a list",
    ],
)
async def test_a_provider_that_cannot_be_discovered_is_503_before_anything_begins(
    sso_settings, starting, provider, rows, metadata
):
    path = "/.well-known/openid-configuration"
    match metadata:
        case "late":
            provider.late.add(path)
        case "broken":
            provider.wrong[path] = Response("{", media_type="application/json")
        case "a list":
            provider.wrong[path] = JSONResponse([])
        case _:
            provider.metadata = metadata
    async with starting(build(sso_settings(sso_timeout=0.5))) as http:
        answer = await http.get("/sso/login", params={"return_to": RETURN_TO})
    assert (answer.status_code, answer.json()["code"]) == (503, "sso_provider_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert rows("SELECT count(*) FROM sso_logins") == [(0,)]


async def test_plain_http_endpoints_are_taken_in_dev_alone(http, app):
    app.state.sso.provider._https_only = True
    answer = await http.get("/sso/login", params={"return_to": RETURN_TO})
    assert answer.json()["code"] == "sso_provider_unavailable"


async def test_nobody_answers_at_the_providers_address(sso_settings, starting):
    url = "http://127.0.0.1:1/.well-known/openid-configuration"
    async with starting(build(sso_settings(sso_discovery_url=url))) as http:
        answer = await http.get("/sso/login", params={"return_to": RETURN_TO})
    assert answer.json()["code"] == "sso_provider_unavailable"


async def test_a_callback_counts_once(http):
    params = await at_provider(http)
    cookies = dict(http.cookies)
    first = fragment(await http.get("/sso/callback", params=params))
    assert not http.cookies
    http.cookies.update(cookies)
    again = await http.get("/sso/callback", params=params)
    assert (again.status_code, again.json()["code"]) == (400, "sso_login_invalid")
    assert (await exchange(http, first["code"])).status_code == 200


async def test_a_callback_in_another_browser_is_refused_and_the_right_one_goes_on(http):
    params = await at_provider(http)
    [name] = http.cookies
    right = http.cookies[name]
    for wrong in (None, "guessed"):
        http.cookies.clear()
        if wrong:
            http.cookies.set(name, wrong)
        answer = await http.get("/sso/callback", params=params)
        assert (answer.status_code, answer.json()["code"]) == (400, "sso_browser_mismatch")
    http.cookies.clear()
    http.cookies.set(name, right)
    assert "code" in fragment(await http.get("/sso/callback", params=params))


async def test_unknown_and_old_logins_are_refused(http, rows):
    answer = await http.get("/sso/callback", params={"state": "guessed", "code": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "sso_login_invalid")
    params = await at_provider(http)
    rows("UPDATE sso_logins SET expires_at = now()")
    answer = await http.get("/sso/callback", params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, "sso_login_invalid")
    for bad in ({}, {"state": "x" * 129}, {"state": "x", "code": "x" * 9000}):
        assert (await http.get("/sso/callback", params=bad)).status_code == 422


async def test_a_code_of_ours_is_good_once_and_for_a_minute(http, rows):
    code = (await sign_on(http))["code"]
    answer = await exchange(http, code)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    late = (await sign_on(http))["code"]
    left = rows("SELECT expires_at <= now() + interval '60 seconds' FROM sso_logins")
    assert left == [(True,)]
    rows("UPDATE sso_logins SET expires_at = now()")
    for bad in (code, late, "guessed"):
        answer = await exchange(http, bad)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_sso_code")


async def test_a_code_exchanged_twice_at_once_gives_one_session(http):
    code = (await sign_on(http))["code"]
    answers = await asyncio.gather(*(exchange(http, code) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401]


@pytest.mark.parametrize(
    "return_to",
    [
        "https://evil.example/",
        "https://app.example.evil.example/",
        "https://app.example@evil.example/",
        "https://user:pw@app.example/",
        "https://app.example:444/",
        "http://app.example/",
        "//app.example/",
        "/signed-in",
        "https:app.example",
        "https:///app.example",
        "https://evil.example\\@app.example/",
        "https://app.example\\.evil.example/",
        "https://app.example\t.evil.example/",
        "https://app.example/\r\nSet-Cookie: a=b",
        " https://app.example/",
        "https://app.example/#fragment",
        "https://[app.example/",
        "javascript:alert(1)//https://app.example/",
        "data:text/html,x",
        "https://app.ex\u0430mple/",
        "",
    ],
)
async def test_a_login_returns_to_known_origins_alone(http, rows, return_to):
    answer = await http.get("/sso/login", params={"return_to": return_to})
    assert (answer.status_code, answer.json()["code"]) == (422, "return_to_not_allowed")
    assert rows("SELECT count(*) FROM sso_logins") == [(0,)]


async def test_of_two_addresses_to_return_to_none_is_taken(http):
    answer = await http.get(f"/sso/login?return_to={RETURN_TO}&return_to=https://evil.example/")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("return_to", [APP, f"{APP}/", f"{APP}?a=b", f"{APP}/a/b?c=https://evil.example"])
async def test_a_login_returns_to_any_page_of_an_allowed_origin(http, return_to):
    assert "code" in await sign_on(http, return_to)


async def test_logins_that_are_begun_and_not_finished_are_slowed_down_by_address(sso_settings, starting, rows):
    async with starting(build(sso_settings(throttle_address=3))) as http:
        for _ in range(5):
            assert "code" in await sign_on(http)
        for _ in range(3):
            assert (await http.get("/sso/login", params={"return_to": RETURN_TO})).status_code == 302
        begun = rows("SELECT count(*) FROM sso_logins")
        refused = await http.get("/sso/login", params={"return_to": RETURN_TO})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_attempts")
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert rows("SELECT count(*) FROM sso_logins") == begun
        login = await http.post("/login", json={"email": EMAIL, "password": PASSWORD})
        assert login.status_code == 200, "a password is another matter"


async def test_a_provider_that_is_away_makes_nobody_wait(sso_settings, starting, provider):
    provider.wrong["/.well-known/openid-configuration"] = Response(status_code=500)
    async with starting(build(sso_settings(throttle_address=1))) as http:
        for _ in range(3):
            assert (await http.get("/sso/login", params={"return_to": RETURN_TO})).status_code == 503
        provider.wrong.clear()
        assert "code" in await sign_on(http)


async def test_no_transaction_is_open_while_the_provider_is_asked(sso_settings, starting, provider):
    async with starting(build(sso_settings(pool_size=1))) as http:
        params = await at_provider(http)
        provider.released.clear()
        callback = asyncio.create_task(http.get("/sso/callback", params=params))
        assert await asyncio.to_thread(provider.held.wait, 10)
        # the one connection there is
        assert (await http.post("/login", json={"email": EMAIL, "password": PASSWORD})).status_code == 200
        provider.released.set()
        assert "code" in fragment(await callback)


async def test_logins_that_nobody_finishes_are_forgotten(http, app, rows):
    await at_provider(http)
    await at_provider(http)
    rows("UPDATE sso_logins SET expires_at = now() WHERE id = (SELECT min(id::text)::uuid FROM sso_logins)")
    async with transaction(app.state.database) as session:
        await sso.forget_expired(session)
    assert rows("SELECT count(*) FROM sso_logins") == [(1,)]


async def test_without_a_provider_there_is_no_single_sign_on(make_settings, starting):
    async with starting(build(make_settings())) as http:
        for answer in (
            await http.get("/sso/login", params={"return_to": RETURN_TO}),
            await http.get("/sso/callback", params={"state": "x"}),
            await exchange(http, "x"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "sso_not_configured")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sso_client_id": ""}, "AUTH_SSO_CLIENT_ID"),
        ({"sso_allowed_domains": ""}, "AUTH_SSO_ALLOWED_DOMAINS"),
        ({"sso_return_origins": " , "}, "AUTH_SSO_RETURN_ORIGINS"),
        ({"sso_redirect_uri": ""}, "AUTH_SSO_REDIRECT_URI"),
        ({"sso_discovery_url": "https://id.example"}, "openid-configuration"),
        ({"sso_role_map": {"a": "emperor"}}, "sso_role_map"),
        ({"sso_return_origins": "https://app.example/path"}, "AUTH_SSO_RETURN_ORIGINS"),
        ({"sso_return_origins": "*"}, "AUTH_SSO_RETURN_ORIGINS"),
    ],
)
def test_half_a_provider_stops_the_start(sso_settings, values, says):
    with pytest.raises(ValidationError, match=says):
        sso_settings(**values)


@pytest.mark.parametrize("url", ["sso_discovery_url", "sso_redirect_uri", "sso_return_origins"])
def test_outside_dev_everything_is_https(url):
    values = {
        "environment": "prod",
        "database_url": "postgresql://u:a-password-of-the-tests@db/auth",
        "redis_url": "redis://:a-password-of-the-tests@redis/0",
        "key_secret": "key-secret-of-the-tests",
        "agent_client_secret": "agent-secret-of-the-tests",
        "sso_discovery_url": "https://id.example/.well-known/openid-configuration",
        "sso_client_id": CLIENT,
        "sso_client_secret": SECRET,
        "sso_redirect_uri": "https://triton.example/api/v1/auth/sso/callback",
        "sso_return_origins": APP,
        "sso_allowed_domains": "example.com",
    }
    Settings(**values)
    with pytest.raises(ValidationError, match="https"):
        Settings(**(values | {url: values[url].replace("https", "http")}))


def test_lists_and_maps_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("AUTH_SSO_ALLOWED_DOMAINS", "Example.com, example.org")
    monkeypatch.setenv("AUTH_SSO_ROLE_MAP", json.dumps({"staff": "viewer"}))
    settings = Settings()
    assert settings.sso_allowed_domains == ["example.com", "example.org"]
    assert settings.sso_role_map == {"staff": "viewer"}


async def test_logs_hold_no_token_code_or_address(sso_settings, starting, provider, capsys):
    seen = [SECRET, "marked-", "grace@", "grace-1", "ada@"]
    async with starting(build(sso_settings(log_level="TRACE"))) as http:
        found = await sign_on(http)
        pair = (await exchange(http, found["code"])).json()
        seen += [found["code"], pair["access_token"], pair["refresh_token"]]
        await exchange(http, found["code"])
        for claims in (
            {"nonce": "marked-nonce"},
            {"sub": "marked-sub"},
            {"email_verified": False},
            {"aud": "marked-a"},
        ):
            provider.claims = claims
            await sign_on(http)
        provider.claims = {}
        provider.answer = {"code": "marked-code-guessed"}
        await sign_on(http)
        provider.answer = {"error": "marked-error", "code": None}
        await sign_on(http)
        provider.answer = {}
        provider.wrong["/token"] = JSONResponse({"error": "marked-error", "error_description": SECRET}, status_code=400)
        await sign_on(http)
        provider.wrong["/token"] = Response("marked-page", status_code=500)
        params = await at_provider(http)
        seen += [params["state"], *http.cookies.values()]
        await http.get("/sso/callback", params=params)
        http.cookies.clear()
        await http.get("/sso/callback", params=await at_provider(http) | {"state": "marked-state"})
        await http.get("/sso/callback", params={"state": "marked-" * 50})
        await http.get("/sso/login", params={"return_to": "https://marked-evil.example"})
    out = capsys.readouterr()
    lines = out.out + out.err
    assert "what the identity provider says of a login is not believed" in lines
    assert "the identity provider does not answer as it should" in lines
    for secret in [*seen, *provider.given]:
        assert secret not in lines
