"""Signing in to the simulated Salesforce: the real client's flows, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import requests
from salesforce_sim_help import World, world
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceExpiredSession


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    with world() as w:
        yield w


def token(w: World, auth: tuple[str, str] | None = None, **form: str) -> requests.Response:
    return requests.post(f"{w.url}/services/oauth2/token", data=form, auth=auth, timeout=10)


def test_client_credentials_sign_in_and_query(w: World) -> None:
    answer = token(w, ("plumbline-demo", "demo-secret"), grant_type="client_credentials").json()
    assert answer["token_type"] == "Bearer" and answer["access_token"].startswith(w.org.organization_id[:15] + "!")
    assert answer["instance_url"] == w.url, "a client that follows instance_url must stay on this server"
    assert w.column("SELECT Name FROM Organization") == ["Plumbline Demo"]
    assert w.column(f"SELECT Username FROM User WHERE Id = '{w.org.integration_user_id}'") == ["integration@plumbline.example"]


def test_credentials_in_the_body_work_as_well(w: World) -> None:
    good = token(w, grant_type="client_credentials", client_id="plumbline-demo", client_secret="demo-secret")
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("form", "auth", "error", "description"),
    [
        ({"grant_type": "client_credentials"}, ("plumbline-demo", "wrong"), "invalid_client", "invalid client credentials"),
        ({"grant_type": "client_credentials"}, ("somebody", "demo-secret"), "invalid_client_id", "client identifier invalid"),
        ({"grant_type": "refresh_token", "refresh_token": "old"}, ("plumbline-demo", "demo-secret"), "invalid_grant",
         "expired access/refresh token"),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "junk"}, None, "invalid_grant", "invalid assertion"),
        ({"grant_type": "password"}, None, "unsupported_grant_type", "grant type not supported"),
    ],
)  # fmt: skip
def test_refusals_are_worded_as_salesforce_words_them(
    w: World, form: dict[str, str], auth: tuple[str, str] | None, error: str, description: str
) -> None:
    answer = token(w, auth, **form)
    assert (answer.status_code, answer.json()) == (400, {"error": error, "error_description": description})


def test_the_client_tells_a_wrong_secret(w: World) -> None:
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        w.sign_in(consumer_secret="wrong")
    assert caught.value.code == "invalid_client"


def test_jwt_bearer_checks_the_signature(w: World) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    def sign_in(key: str, username: str = "admin@plumbline.example") -> Salesforce:
        return Salesforce(username=username, consumer_key="plumbline-demo", privatekey=key, session=w.session, version="62.0")

    sf = sign_in(w.org.identity.private_key_pem)
    assert sf.restful("limits")["DailyApiRequests"]["Max"] == w.org.daily_limit
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    foreign = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid assertion"):
        sign_in(foreign)
    with pytest.raises(SalesforceAuthenticationFailed, match="hasn't approved"), pytest.warns(UserWarning):
        sign_in(w.org.identity.private_key_pem, "nobody@plumbline.example")


def test_a_refresh_token_earns_a_session(w: World) -> None:
    answer = token(
        w, ("plumbline-demo", "demo-secret"), grant_type="refresh_token", refresh_token=w.org.identity.refresh_token
    ).json()
    sf = Salesforce(session_id=answer["access_token"], instance_url="https://acme.my.salesforce.com", session=w.session)
    assert sf.query("SELECT COUNT() FROM User")["totalSize"] == 3


def test_expired_tokens_answer_401_until_the_client_signs_in_again(w: World) -> None:
    sf = w.sign_in()
    w.faults.arm("expire_tokens")
    stale = requests.get(f"{w.data}/limits", headers={"Authorization": f"Bearer {sf.session_id}"}, timeout=10)
    assert stale.status_code == 401
    assert stale.json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]
    assert sf.query("SELECT COUNT() FROM User")["totalSize"] == 3, "the client signed in again by itself"
    direct = Salesforce(session_id="none", instance_url="https://acme.my.salesforce.com", session=w.session)
    with pytest.raises(SalesforceExpiredSession):
        direct.query("SELECT Id FROM User")


def test_tokens_can_have_a_lifetime_and_be_revoked(w: World) -> None:
    identity = w.org.identity
    identity.token_lifetime = timedelta(minutes=15)
    short, ended = identity.issue(w.org.admin_id), identity.issue(w.org.admin_id)
    identity.token_lifetime = None

    def status(token: str) -> int:
        return requests.get(f"{w.data}/limits", headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code

    assert status(short) == 200
    requests.post(f"{w.url}/services/oauth2/revoke", data={"token": ended}, timeout=10)
    assert status(ended) == 401
    w.clock.advance(timedelta(minutes=16))
    assert status(short) == 401


def test_versions_and_unknown_paths(w: World) -> None:
    versions = requests.get(f"{w.url}/services/data/", timeout=10).json()
    assert versions[-1] == {"label": "Winter '27", "url": "/services/data/v68.0", "version": "68.0"}
    sf = w.sign_in()
    headers = {"Authorization": f"Bearer {sf.session_id}"}
    gone = [{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}]
    for path in ("v99.0/limits", "v62.0/nothing", "v62.0/sobjects/Nothing/describe"):
        answer = requests.get(f"{w.url}/services/data/{path}", headers=headers, timeout=10)
        assert (answer.status_code, answer.json()) == (404, gone)
    wrong = requests.put(f"{w.data}/composite/sobjects", headers=headers, timeout=10)
    assert wrong.status_code == 405 and wrong.json()[0]["errorCode"] == "METHOD_NOT_ALLOWED"
