"""Why a command from the fleet was refused; they travel like every other error."""

from __future__ import annotations

from otus_sdk.errors import OtusError

__all__ = [
    "CommandInterrupted",
    "CommandNotAllowed",
    "CommandStale",
    "EnvelopeInvalid",
    "RequestIdReused",
    "SignatureInvalid",
    "SignatureMissing",
]


class EnvelopeInvalid(OtusError):
    """The command's envelope is not what the protocol says."""

    code = "envelope_invalid"
    rpc_code = -32040


class CommandStale(OtusError):
    """The command is older than the agent takes, or dated in the future."""

    code = "command_stale"
    rpc_code = -32041


class SignatureMissing(OtusError):
    """The agent takes signed commands only."""

    code = "signature_missing"
    rpc_code = -32042


class SignatureInvalid(OtusError):
    """The signature does not hold, or its key is not trusted (any more, yet, for this)."""

    code = "signature_invalid"
    rpc_code = -32043


class CommandNotAllowed(OtusError):
    """The agent's operator does not allow this from Kafka."""

    code = "command_not_allowed"
    rpc_code = -32044


class RequestIdReused(OtusError):
    """Another command has had this request_id."""

    code = "request_id_reused"
    rpc_code = -32045


class CommandInterrupted(OtusError):
    """The agent ended while it ran the command: whether it took effect is not known."""

    code = "command_interrupted"
    rpc_code = -32046
