"""What commands from Kafka may do here. Asked before anything is dispatched.

The rule behind the rules: whoever may write to the command topic, and even
whoever holds a signing key, gets no local file and no network peer that this
agent's operator did not name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka.errors import CommandNotAllowed

# Capturers whose whole purpose is a local file: not to be allowed by any pattern.
_FILE_CAPTURERS = frozenset({"pcap"})
_FILE_KEY = re.compile(r"(^|_)(file|files|path|paths|dir|directory|folder)$")
# "/etc/shadow", "~/x", "./x", "../x", "file:…". A filter expression never begins so.
_FILE_VALUE = re.compile(r"\s*(/|~|\.{1,2}/|file:)", re.IGNORECASE)
_OWN_SECURITY = ("sasl", "tls", "client_id")
_MAX_DEPTH = 32


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
        """
        if not _any(command, self._rules.commands):
            raise CommandNotAllowed(f"{command} is not among kafka.remote.commands")
        for task in _tasks(params):
            self._check_task(task)
        rest = {key: value for key, value in params.items() if key not in ("task", "tasks")}
        _refuse_files(rest, "params")

    def _check_task(self, task: Any) -> None:
        if not isinstance(task, Mapping):
            raise CommandNotAllowed("a task from Kafka must be an object")
        _refuse_files(task, "task")
        self._check_capture(task.get("capture"))
        reporters = task.get("reporters")
        if reporters is None:
            return
        if not isinstance(reporters, Sequence) or isinstance(reporters, str):
            raise CommandNotAllowed("task.reporters: must be a list")
        for number, reporter in enumerate(reporters):
            self._check_reporter(reporter, f"task.reporters.{number}")

    def _check_capture(self, capture: Any) -> None:
        if not isinstance(capture, Mapping):
            raise CommandNotAllowed("task.capture: must be an object")
        kind = capture.get("type")
        if not isinstance(kind, str) or kind in _FILE_CAPTURERS:
            raise CommandNotAllowed(f"task.capture.type: {kind!r} reads local files")
        if not _any(kind, self._rules.capturers):
            raise CommandNotAllowed(f"capturer {kind!r} is not among kafka.remote.capturers")
        interfaces = list(_interfaces(capture))
        if not interfaces and "*" not in self._rules.interfaces:
            raise CommandNotAllowed(
                "task.capture: names no interface, and not every one is allowed"
            )
        for interface in interfaces:
            if not isinstance(interface, str) or not _any(interface, self._rules.interfaces):
                raise CommandNotAllowed(
                    f"interface {str(interface)[:64]!r} is not among kafka.remote.interfaces"
                )

    def _check_reporter(self, reporter: Any, where: str) -> None:
        if isinstance(reporter, str):
            reporter = {"type": reporter}
        if not isinstance(reporter, Mapping) or not isinstance(reporter.get("type"), str):
            raise CommandNotAllowed(f"{where}: must be an object with a type")
        kind = reporter["type"]
        if not _any(kind, self._rules.reporters):
            raise CommandNotAllowed(f"reporter {kind!r} is not among kafka.remote.reporters")
        if kind != "kafka":
            return
        # Plugin settings may stand under "config" or beside "type": both are looked at.
        config = {**reporter}
        inner = config.pop("config", None)
        for settings in (config, {} if inner is None else inner):
            if not isinstance(settings, Mapping):
                raise CommandNotAllowed(f"{where}.config: must be an object")
            self._check_kafka_settings(settings, where)

    def _check_kafka_settings(self, settings: Mapping[str, Any], where: str) -> None:
        for key in _OWN_SECURITY:
            if key in settings:
                # With verification off, inherited credentials could be drawn out.
                raise CommandNotAllowed(f"{where}: a task from Kafka may not set {key}")
        brokers = settings.get("brokers", [])
        for broker in brokers.split(",") if isinstance(brokers, str) else brokers:
            if not isinstance(broker, str) or broker.strip() not in self._brokers:
                raise CommandNotAllowed(
                    f"broker {str(broker)[:128]!r} is not among kafka.remote.brokers"
                )
        self._check_topic(settings, where)

    def _check_topic(self, settings: Mapping[str, Any], where: str) -> None:
        for key in ("topic", "topic_prefix"):
            topic = settings.get(key)
            if topic is None:
                continue
            if not isinstance(topic, str):
                raise CommandNotAllowed(f"{where}.{key}: must be text")
            if self._is_control_topic(topic, key == "topic_prefix"):
                # Captured octets must not become commands, answers or events.
                raise CommandNotAllowed(f"{where}.{key}: {topic!r} belongs to fleet control")
            if not _any(topic, self._rules.topics):
                raise CommandNotAllowed(f"topic {topic[:128]!r} is not among kafka.remote.topics")

    def _is_control_topic(self, topic: str, is_prefix: bool) -> bool:
        if is_prefix:
            return any(control.startswith(f"{topic}-") for control in self._control_topics)
        return topic in self._control_topics


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _tasks(params: Mapping[str, Any]) -> Iterator[Any]:
    if "task" in params:
        yield params["task"]
    tasks = params.get("tasks")
    if isinstance(tasks, Mapping):
        yield from tasks.values()
    elif isinstance(tasks, list):
        yield from tasks
    elif tasks is not None:
        yield tasks


def _interfaces(capture: Mapping[str, Any]) -> Iterator[Any]:
    inner = capture.get("config")
    for section in (capture, inner if isinstance(inner, Mapping) else {}):
        for key in ("interface", "interfaces"):
            named = section.get(key)
            if isinstance(named, list):
                yield from named
            elif named is not None:
                yield named


def _refuse_files(value: Any, where: str, depth: int = 0) -> None:
    """Refuses keys and values that name files, wherever they stand."""
    if depth > _MAX_DEPTH:
        raise CommandNotAllowed(f"{where[:200]}: nested too deeply")
    if isinstance(value, Mapping):
        for key, member in value.items():
            if isinstance(key, str) and _FILE_KEY.search(key.lower()):
                raise CommandNotAllowed(f"{where}.{key[:64]}: no files in commands from Kafka")
            _refuse_files(member, f"{where}.{key}", depth + 1)
    elif isinstance(value, list):
        for number, member in enumerate(value):
            _refuse_files(member, f"{where}.{number}", depth + 1)
    elif isinstance(value, str) and _FILE_VALUE.match(value):
        raise CommandNotAllowed(f"{where}: {value[:64]!r} names a file")
