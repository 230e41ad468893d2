"""Access tokens: what is in them, and which ones /me refuses. The keys that verify them."""

import base64
import hmac
import json
import time
from uuid import UUID

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey


def decoded(token):
    header, claims, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (header, claims))


def unsigned(header, claims):
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return ".".join((*parts, ""))


async def me(http, token):
    return await http.get("/me", headers={"Authorization": f"Bearer {token}"})


def signed(app, pair, *, header=None, key=None, **claims):
    """The pair's access token with other claims or headers, signed by the service's key unless another is given."""
    was_header, was_claims = decoded(pair["access_token"])
    protected = {name: value for name, value in (was_header | (header or {})).items() if value is not None}
    payload = {name: value for name, value in (was_claims | claims).items() if value is not None}
    return jwt.encode(protected, payload, key or app.state.keys.signing, algorithms=[protected["alg"]])


async def test_an_access_token_follows_rfc_9068(http, pair):
    header, claims = decoded(pair["access_token"])
    (key,) = (await http.get("/.well-known/jwks.json")).json()["keys"]
    assert header == {"alg": "Ed25519", "typ": "at+jwt", "kid": key["kid"]}
    assert claims.keys() == {"iss", "aud", "sub", "iat", "exp", "jti", "sid", "role", "scope", "epoch"}
    assert claims["iss"] == claims["aud"] == "triton"
    assert claims["exp"] - claims["iat"] == 24 * 3600
    assert claims["role"] == "admin"
    assert "users:admin" in claims["scope"].split()
    assert all(UUID(claims[name]) for name in ("sub", "jti", "sid"))


async def test_me_tells_who_asks(http, pair):
    answer = await me(http, pair["access_token"])
    assert answer.status_code == 200
    _, claims = decoded(pair["access_token"])
    assert answer.json() == {
        "id": claims["sub"],
        "kind": "user",
        "email": "ada@triton.local",
        "role": "admin",
        "client_id": None,
        "scopes": claims["scope"].split(),
    }


async def test_me_needs_a_token(http):
    answer = await http.get("/me")
    assert answer.status_code == 401
    assert answer.json()["code"] == "missing_token"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_tokens_that_are_not_ours_are_refused(http, app, pair):
    header, claims = decoded(pair["access_token"])
    stranger = OKPKey.generate_key("Ed25519", {"kid": header["kid"]})
    other_kid = OKPKey.generate_key("Ed25519", {"kid": "another"})
    now = int(time.time())
    head, body, signature = pair["access_token"].split(".")
    middle = len(signature) // 2
    tampered = f"{head}.{body}.{signature[:middle]}{'B' if signature[middle] == 'A' else 'A'}{signature[middle + 1 :]}"
    richer = base64.urlsafe_b64encode(json.dumps(claims | {"client_id": None}).encode()).rstrip(b"=").decode()
    refused = {
        "token_algorithm_not_allowed": [
            unsigned(header | {"alg": "none"}, claims),
        ],
        "token_signature_invalid": [
            tampered,
            f"{head}.{richer}.{signature}",
            signed(app, pair, key=stranger),
        ],
        "token_key_unknown": [signed(app, pair, header={"kid": "another"}, key=other_kid)],
        "token_expired": [signed(app, pair, exp=now - 1)],
        "token_not_yet_valid": [signed(app, pair, nbf=now + 60)],
        "token_issuer_invalid": [signed(app, pair, iss="https://elsewhere.example")],
        "token_audience_invalid": [signed(app, pair, aud="somebody-else")],
        "token_malformed": [
            "rubbish",
            signed(app, pair, header={"typ": "JWT"}),
            signed(app, pair, header={"kid": None}),
            signed(app, pair, header={"jku": "https://elsewhere.example/jwks.json"}),
            signed(app, pair, exp=None),
            f"{pair['access_token']}{'x' * 20_000}",
        ],
    }
    for code, tokens in refused.items():
        for token in tokens:
            answer = await me(http, token)
            assert (answer.status_code, answer.json()["code"]) == (401, code)


async def test_a_public_key_as_hmac_secret_is_refused(http, app, pair):
    header, claims = decoded(pair["access_token"])
    raw = base64.urlsafe_b64decode(app.state.keys.published["keys"][0]["x"] + "=")
    for secret in (raw, app.state.keys.signing.as_pem(private=False)):
        text = unsigned(header | {"alg": "HS256"}, claims).rstrip(
            "."
        )  # by hand: joserfc refuses to sign with such a key
        mac = base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).rstrip(b"=").decode()
        assert (await me(http, f"{text}.{mac}")).json()["code"] == "token_algorithm_not_allowed"


async def test_the_key_set_is_public_and_cached(http):
    answer = await http.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    (key,) = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "Ed25519")
    assert key["kid"] == OKPKey.import_key(key).thumbprint()


async def test_the_private_key_is_stored_encrypted(http, app, rows):
    ((private_key, public_jwk),) = rows("SELECT private_key, public_jwk FROM signing_keys")
    secret = app.state.keys.signing.as_dict(private=True)["d"]
    assert secret.encode() not in private_key
    assert "d" not in public_jwk


@pytest.mark.parametrize("name", ["issuer", "keys", "settings"])
async def test_reprs_of_what_holds_secrets_show_none(http, app, name):
    shown = repr(getattr(app.state, name))
    key = app.state.keys.signing.as_dict(private=True)["d"]
    for secret in (key, "key-secret-of-the-tests", "agent-secret-of-the-tests", "a long enough password"):
        assert secret not in shown
    assert repr(app.state.issuer.successor_key) not in shown
