"""Labels: short strings by which a packet is filtered, routed and found again.

A label's name is `{protocol}.{field}` in lower case; its value is text. Names
that the built-in parsers set are constants here, so that a typo is an
AttributeError rather than a filter that never matches.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "BUILTIN_LABELS",
    "MAX_LABEL_NAME_OCTETS",
    "RTCP_CALL_ID",
    "RTCP_PACKET_TYPE",
    "RTCP_SSRC",
    "RTP_CALL_ID",
    "RTP_PAYLOAD_TYPE",
    "RTP_SSRC",
    "SIP_CALL_ID",
    "SIP_CONTACT_URI",
    "SIP_CONTENT_TYPE",
    "SIP_CSEQ",
    "SIP_CSEQ_METHOD",
    "SIP_FROM_TAG",
    "SIP_FROM_URI",
    "SIP_METHOD",
    "SIP_REASON",
    "SIP_REQUEST_URI",
    "SIP_STATUS_CODE",
    "SIP_TO_TAG",
    "SIP_TO_URI",
    "SIP_TRANSPORT",
    "SIP_USER_AGENT",
    "SIP_VIA_BRANCH",
    "LabelType",
    "check_label_name",
    "is_label_name",
]


class LabelType(enum.Enum):
    """What a filter expression sees. The value of a label is text all the same."""

    STRING = "string"
    INT = "int"


MAX_LABEL_NAME_OCTETS: Final = 63

SIP_METHOD: Final = "sip.method"
SIP_CALL_ID: Final = "sip.call_id"
SIP_FROM_URI: Final = "sip.from_uri"
SIP_TO_URI: Final = "sip.to_uri"
SIP_STATUS_CODE: Final = "sip.status_code"
SIP_REASON: Final = "sip.reason"
SIP_CSEQ: Final = "sip.cseq"
SIP_CSEQ_METHOD: Final = "sip.cseq_method"
SIP_FROM_TAG: Final = "sip.from_tag"
SIP_TO_TAG: Final = "sip.to_tag"
SIP_REQUEST_URI: Final = "sip.request_uri"
SIP_CONTACT_URI: Final = "sip.contact_uri"
SIP_VIA_BRANCH: Final = "sip.via_branch"
SIP_USER_AGENT: Final = "sip.user_agent"
SIP_CONTENT_TYPE: Final = "sip.content_type"
SIP_TRANSPORT: Final = "sip.transport"
RTP_CALL_ID: Final = "rtp.call_id"
RTP_SSRC: Final = "rtp.ssrc"
RTP_PAYLOAD_TYPE: Final = "rtp.payload_type"
RTCP_CALL_ID: Final = "rtcp.call_id"
RTCP_SSRC: Final = "rtcp.ssrc"
RTCP_PACKET_TYPE: Final = "rtcp.packet_type"

_INT_LABELS = frozenset(
    {SIP_STATUS_CODE, SIP_CSEQ, RTP_SSRC, RTP_PAYLOAD_TYPE, RTCP_SSRC, RTCP_PACKET_TYPE}
)

BUILTIN_LABELS: Final[Mapping[str, LabelType]] = MappingProxyType(
    {
        name: LabelType.INT if name in _INT_LABELS else LabelType.STRING
        for name in (
            SIP_METHOD,
            SIP_CALL_ID,
            SIP_FROM_URI,
            SIP_TO_URI,
            SIP_STATUS_CODE,
            SIP_REASON,
            SIP_CSEQ,
            SIP_CSEQ_METHOD,
            SIP_FROM_TAG,
            SIP_TO_TAG,
            SIP_REQUEST_URI,
            SIP_CONTACT_URI,
            SIP_VIA_BRANCH,
            SIP_USER_AGENT,
            SIP_CONTENT_TYPE,
            SIP_TRANSPORT,
            RTP_CALL_ID,
            RTP_SSRC,
            RTP_PAYLOAD_TYPE,
            RTCP_CALL_ID,
            RTCP_SSRC,
            RTCP_PACKET_TYPE,
        )
    }
)
"""The labels of the built-in parsers with their types, in the core's order."""

_LABEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")


def is_label_name(name: str) -> bool:
    """Whether the text can name a label: `[a-z0-9][a-z0-9._-]*`, at most 63 octets."""
    return len(name) <= MAX_LABEL_NAME_OCTETS and _LABEL_NAME.match(name) is not None


def check_label_name(name: str) -> str:
    """Returns the name where it can name a label.

    Raises:
        ValueError: It can't; the message says what is allowed.
    """
    if not is_label_name(name):
        raise ValueError(
            f"{name!r} is no label name: lower-case letters, digits, '.', '_' and '-' only, "
            f"a letter or digit first, at most {MAX_LABEL_NAME_OCTETS} octets"
        )
    return name
