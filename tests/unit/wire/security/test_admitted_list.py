"""The admitted keys as workers on other machines receive them."""

from __future__ import annotations

from msd.wire.protocol.codec import decode, encode
from msd.wire.protocol.messages import AdmittedHash, WorkerOrder
from msd.wire.security.admitted_list import admitted_message
from msd.wire.security.keys import AdmittedKey, Role, key_hash

NOW = 1_700_000_000.0
CLIENT, OPERATOR, WORKER, SERVER = (bytes([n]) * 32 for n in range(1, 5))
KEYS = [AdmittedKey("c", Role.CLIENT, CLIENT), AdmittedKey("o", Role.OPERATOR, OPERATOR, NOW + 60)]


def test_the_message_has_the_hashes_of_clients_operators_and_the_server() -> None:
    message = admitted_message([*KEYS, AdmittedKey("w", Role.WORKER, WORKER)], SERVER, NOW)
    assert sorted((key.hash, key.role, key.seconds) for key in message.keys) == sorted(
        [
            (key_hash(CLIENT), "client", None),
            (key_hash(OPERATOR), "operator", 60.0),
            (key_hash(SERVER), "operator", None),
        ]
    )
    assert decode(encode(message), WorkerOrder) == message


def test_the_digest_depends_on_the_keys_and_not_on_their_order_or_the_time() -> None:
    digest = admitted_message(KEYS, SERVER, NOW).digest
    assert admitted_message(KEYS[::-1], SERVER, NOW + 1).digest == digest
    changed = [
        [KEYS[0]],
        [KEYS[0], AdmittedKey("o", Role.CLIENT, OPERATOR, NOW + 60)],
        [KEYS[0], AdmittedKey("o", Role.OPERATOR, OPERATOR, NOW + 61)],
    ]
    assert all(admitted_message(keys, SERVER, NOW).digest != digest for keys in changed)
    assert admitted_message(KEYS, WORKER, NOW).digest != digest


def test_the_scope_of_an_invitation_is_in_the_message_and_in_the_digest() -> None:
    invited = AdmittedKey("i", Role.CLIENT, CLIENT, scope="photos/")
    message = admitted_message([invited], SERVER, NOW)
    assert AdmittedHash(hash=key_hash(CLIENT), role="client", scope="photos/") in message.keys
    assert message.digest != admitted_message([AdmittedKey("c", Role.CLIENT, CLIENT)], SERVER, NOW).digest


def test_an_expired_key_is_left_out() -> None:
    message = admitted_message(KEYS, SERVER, NOW + 61)
    assert AdmittedHash(hash=key_hash(CLIENT), role="client") in message.keys
    assert len(message.keys) == 2
    assert message.digest == admitted_message([KEYS[0]], SERVER, NOW).digest
