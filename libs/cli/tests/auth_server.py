"""auth-service and an identity provider at the two ports of the command line, for the tests of accounts.

It runs in the environment of the workspace, since this member's own knows no service, and in auth-service's folder. The
provider is that of auth-service's tests, which sends browsers to http://test.
"""

import os
import runpy
import sys
import threading
from pathlib import Path

import alembic.config
import uvicorn

from auth_service.main import build

SERVICE = Path(__file__).parents[3] / "services" / "auth-service"


def main(port: int, provider_port: int) -> None:
    """Build the database that DATABASE_URL names, then serve both until a signal."""
    alembic.config.main(["upgrade", "head"])
    its = runpy.run_path(str(SERVICE / "tests" / "test_sso.py"))
    provider = its["Provider"]()
    provider.issuer = f"http://127.0.0.1:{provider_port}"
    provider.person = {"sub": "grace-1", "email": "grace@example.com", "email_verified": True}
    serving = uvicorn.Server(uvicorn.Config(provider.app, port=provider_port, log_config=None))
    threading.Thread(target=serving.run, daemon=True).start()
    os.environ |= {
        "AUTH_SSO_DISCOVERY_URL": f"{provider.issuer}/.well-known/openid-configuration",
        "AUTH_SSO_CLIENT_ID": its["CLIENT"],
        "AUTH_SSO_CLIENT_SECRET": its["SECRET"],
        "AUTH_SSO_REDIRECT_URI": its["CALLBACK"],
        "AUTH_SSO_RETURN_ORIGINS": f"http://127.0.0.1:{port}",
        "AUTH_SSO_ALLOWED_DOMAINS": "example.com",
        "AUTH_SSO_DEFAULT_ROLE": "viewer",
    }
    uvicorn.run(build(), port=port, log_config=None, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
