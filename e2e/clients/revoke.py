"""Revokes tokens with Python's client libraries.

Reads {"endpoint": url, "attempts": [{"library", "method", "client_id",
"client_secret", "token"}]} from standard input and prints one answer for each
attempt: {"error": code}, empty for a success.
"""

import json
import os
import sys

# The edge listens on loopback, without TLS.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests
from oauthlib.oauth2 import BackendApplicationClient, WebApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

if "--check" in sys.argv:
    sys.exit(0)


def credentials(a):
    """What goes into the form, and what into the header."""
    if a["method"] == "client_secret_basic":
        return {}, HTTPBasicAuth(a["client_id"], a["client_secret"])
    if a["method"] == "client_secret_post":
        return {"client_id": a["client_id"], "client_secret": a["client_secret"]}, None
    return {"client_id": a["client_id"]}, None


def oauthlib(endpoint, a):
    form, auth = credentials(a)
    client = WebApplicationClient(a["client_id"])
    url, headers, body = client.prepare_token_revocation_request(
        endpoint, a["token"], token_type_hint="access_token", **form
    )
    return requests.post(url, headers=headers, data=body, auth=auth, timeout=30)


def requests_oauthlib(endpoint, a):
    form, auth = credentials(a)
    session = OAuth2Session(
        client=BackendApplicationClient(a["client_id"]),
        token={"access_token": a["token"], "token_type": "Bearer"},
    )
    return session.post(
        endpoint,
        data={"token": a["token"], "token_type_hint": "access_token", **form},
        auth=auth,
        withhold_token=True,
        timeout=30,
    )


def authlib(endpoint, a):
    from authlib.integrations.requests_client import OAuth2Session as Session

    session = Session(
        a["client_id"],
        a.get("client_secret"),
        revocation_endpoint_auth_method=a["method"],
    )
    return session.revoke_token(endpoint, token=a["token"], token_type_hint="access_token", timeout=30)


LIBRARIES = {"oauthlib": oauthlib, "requests-oauthlib": requests_oauthlib, "authlib": authlib}

asked = json.load(sys.stdin)
answers = []
for attempt in asked["attempts"]:
    answer = LIBRARIES[attempt["library"]](asked["endpoint"], attempt)
    body = answer.json()  # fails on an empty body, as many clients do
    error = "" if answer.status_code == 200 else body["error"]
    answers.append({"error": error, "detail": f"{answer.status_code} {answer.text}"})
json.dump(answers, sys.stdout)
