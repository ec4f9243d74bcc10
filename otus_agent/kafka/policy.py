"""What commands from Kafka may do here. Asked before anything is dispatched.

The rule behind the rules: whoever may write to the command topic, and even
whoever holds a signing key, gets no local file and no network peer that this
agent's operator did not name.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from otus_agent.config.kafka import KafkaConfig
from otus_agent.config.task import CaptureSection
from otus_agent.kafka.errors import CommandNotAllowed
from otus_agent.supervisor import parse_task
from otus_sdk.model import PayloadType

# Capturers whose whole purpose is a local file: not to be allowed by any pattern.
_FILE_CAPTURERS = frozenset({"pcap"})
_FILE_KEY = re.compile(r"(^|[_-])(file|path|dir|directory|folder|socket)s?$", re.IGNORECASE)
# "/etc/shadow", "~/x", "./x", "x/../y", "file:…". No filter expression begins so.
_FILE_VALUE = re.compile(r"/|~|file:|([^\s'\"]*/)?\.{1,2}/", re.IGNORECASE)
_OWN_SECURITY = ("sasl", "tls", "client_id")
_MAX_DEPTH = 32
# Words of pcap-filter(7) that are no names. libpcap looks names up: hosts in DNS and
# /etc/hosts, ports in /etc/services, MAC addresses in /etc/ethers.
_FILTER_WORDS = """
    and or not src dst host net mask port portrange gateway proto protochain broadcast multicast
    less greater len ether link ip ip6 arp rarp tcp udp icmp icmp6 igmp igrp pim sctp vrrp carp ah
    esp vlan mpls pppoed pppoes geneve inbound outbound llc ppp wlan type subtype dir
    tcpflags icmptype icmpcode icmp6type icmp6code
    """
_KNOWN_FILTER_WORDS = frozenset(_FILTER_WORDS.split())
_FILTER_CONSTANT = re.compile(
    r"tcp-(fin|syn|rst|push|ack|urg|ece|cwr)|icmp-(echo|echoreply|unreach|redirect|timxceed)"
    r"|0x[0-9A-Fa-f]+|[0-9.]+"
)
_MAC = re.compile(
    r"[0-9a-f]{1,2}([:.-][0-9a-f]{1,2}){5}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}", re.IGNORECASE
)
_FILTER_TOKEN = re.compile(r"[A-Za-z0-9_.:\\-]+")
# What a topic prefix is completed with; a plugin's own types come from parsers
# that the operator allowed.
_PAYLOAD_TYPES = tuple(kind.value for kind in PayloadType)


class RemotePolicy:
    """The rules of one configuration."""

    def __init__(self, kafka: KafkaConfig) -> None:
        self._rules = kafka.remote
        self._brokers = frozenset(kafka.brokers) | frozenset(kafka.remote.brokers)
        self._control_topics = kafka.control_topics()

    def check(self, command: str, params: Mapping[str, Any]) -> None:
        """Lets a command pass.

        Raises:
            CommandNotAllowed: the message says what is not allowed, and by which key.
            ConfigurationInvalid: a task does not hold.
        """
        if not _any(command, self._rules.commands):
            raise CommandNotAllowed(f"{command} is not among kafka.remote.commands")
        for key, value in params.items():
            if key == "task":
                self._check_task(value)
            elif key == "tasks" and isinstance(value, list):
                for task in value:
                    self._check_task(task)
            else:
                _refuse_unknown(value, f"params.{key[:64]}")

    def _check_task(self, raw: Any) -> None:
        if not isinstance(raw, Mapping):
            raise CommandNotAllowed("a task from Kafka must be an object")
        _refuse_files(raw, "task")
        # What is judged is what would run: the same model, however it was written.
        task = parse_task(raw)
        self._check_capture(task.capture)
        for parser in task.parsers:
            self._check_kind("parser", parser.type)
        for processor in task.processors:
            self._check_kind("processor", processor.type)
        for number, reporter in enumerate(task.reporters):
            self._check_kind("reporter", reporter.type)
            self._check_peers(reporter.config, f"task.reporters.{number}.config")

    def _check_kind(self, kind: str, name: str) -> None:
        if not _any(name, getattr(self._rules, f"{kind}s")):
            raise CommandNotAllowed(f"{kind} {name[:64]!r} is not among kafka.remote.{kind}s")

    def _check_capture(self, capture: CaptureSection) -> None:
        if capture.type in _FILE_CAPTURERS:
            raise CommandNotAllowed(f"task.capture.type: {capture.type!r} reads local files")
        self._check_kind("capturer", capture.type)
        _refuse_names(capture.config.get("bpf_filter"))
        interfaces = list(_interfaces(capture.config))
        if not interfaces and "*" not in self._rules.interfaces:
            raise CommandNotAllowed(
                "task.capture: names no interface, and not every one is allowed"
            )
        for interface in interfaces:
            if not isinstance(interface, str) or not _any(interface, self._rules.interfaces):
                raise CommandNotAllowed(
                    f"interface {str(interface)[:64]!r} is not among kafka.remote.interfaces"
                )

    def _check_peers(self, settings: Mapping[str, Any], where: str) -> None:
        """Brokers, topics and credentials, of whichever reporter has such keys."""
        for key in _OWN_SECURITY:
            if key in settings:
                # With verification off, inherited credentials could be drawn out.
                raise CommandNotAllowed(f"{where}: a task from Kafka may not set {key}")
        brokers = settings.get("brokers", [])
        for broker in brokers if isinstance(brokers, list) else [brokers]:
            if not isinstance(broker, str) or broker not in self._brokers:
                raise CommandNotAllowed(
                    f"broker {str(broker)[:128]!r} is not among kafka.remote.brokers"
                )
        for key in ("topic", "topic_prefix"):
            if settings.get(key) is not None:
                self._check_topic(settings[key], key, where)

    def _check_topic(self, topic: Any, key: str, where: str) -> None:
        if not isinstance(topic, str):
            raise CommandNotAllowed(f"{where}.{key}: must be text")
        kinds = _PAYLOAD_TYPES if key == "topic_prefix" else ()
        names = [f"{topic}-{kind}" for kind in kinds] or [topic]
        if self._is_control_topic(topic, bool(kinds)):
            # Captured octets must not become commands, answers or events.
            raise CommandNotAllowed(f"{where}.{key}: {topic[:128]!r} belongs to fleet control")
        for name in names:
            if not _any(name, self._rules.topics):
                raise CommandNotAllowed(f"topic {name[:128]!r} is not among kafka.remote.topics")

    def _is_control_topic(self, topic: str, is_prefix: bool) -> bool:
        if topic in self._control_topics:
            return True
        return is_prefix and any(name.startswith(f"{topic}-") for name in self._control_topics)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_names(expression: Any) -> None:
    """Refuses a capture filter that libpcap would have to look something up for."""
    if not isinstance(expression, str):
        return
    for token in _FILTER_TOKEN.findall(expression.removeprefix("raw:")):
        if (
            token in _KNOWN_FILTER_WORDS
            or _FILTER_CONSTANT.fullmatch(token)
            or _MAC.fullmatch(token)
            or _is_address(token)
            or not re.search(r"[A-Za-z\\]", token)
        ):
            continue
        raise CommandNotAllowed(
            f"task.capture.bpf_filter: {token[:64]!r} is a name; filters from Kafka take numbers"
        )


def _is_address(token: str) -> bool:
    try:
        ipaddress.ip_address(token)
    except ValueError:
        return False
    return True


def _interfaces(settings: Mapping[str, Any]) -> Iterator[Any]:
    for key in ("interface", "interfaces"):
        named = settings.get(key)
        if isinstance(named, list):
            yield from named
        elif named is not None:
            yield named


def _refuse_unknown(value: Any, where: str) -> None:
    """Lets plain values that name no file pass: what these rules do not know, they refuse."""
    if isinstance(value, Mapping | list):
        raise CommandNotAllowed(f"{where}: no command from Kafka takes an object or a list here")
    _refuse_files(value, where)


def _refuse_files(value: Any, where: str, depth: int = 0) -> None:
    """Refuses keys and values that name files, wherever they stand."""
    if depth > _MAX_DEPTH:
        raise CommandNotAllowed(f"{where[:200]}: nested too deeply")
    if isinstance(value, Mapping):
        for key, member in value.items():
            if _FILE_KEY.search(str(key)):
                raise CommandNotAllowed(f"{where}.{str(key)[:64]}: no files in commands from Kafka")
            _refuse_files(member, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for number, member in enumerate(value):
            _refuse_files(member, f"{where}.{number}", depth + 1)
    elif isinstance(value, str) and _FILE_VALUE.match(value.strip()):
        raise CommandNotAllowed(f"{where}: {value[:64]!r} names a file")
