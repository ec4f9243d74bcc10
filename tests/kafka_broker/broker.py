"""Runs Apache Kafka (KRaft, one node) from jars that Maven fetched once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from free_ports import free_ports
from kafka_broker.certificates import Certificates, make_certificates

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(os.environ.get("OTUS_KAFKA_CACHE") or Path.home() / ".cache" / "otus-kafka")
USER, PASSWORD = "otus", "otus-secret"
_LISTENERS = ("plaintext", "sasl", "tls", "proxied", "controller")


class BrokerUnavailable(Exception):
    """No real broker can be had on this machine; the message says why."""


def fetch_jars() -> Path:
    """Returns the folder of jars, fetched on the first call ever.

    Raises:
        BrokerUnavailable: no Java, no Maven, or no registry.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise BrokerUnavailable(f"no {program} on this machine")
    CACHE.mkdir(parents=True, exist_ok=True)
    lib = CACHE / "4.1.1" / "lib"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if list(lib.glob("kafka_2.13-*.jar")):
            return lib
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={lib}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired as error:
            raise BrokerUnavailable("Maven took longer than 300 s") from error
        if done.returncode != 0:
            raise BrokerUnavailable(f"Maven failed: {done.stdout[-300:]}")
        return lib


class Broker:
    """One broker whose ports stay the same over a restart.

    Listeners: `bootstrap` (plain; its clients are super users), `sasl_bootstrap`
    (PLAIN and SCRAM for USER), `tls_bootstrap` (client certificate needed), and
    `proxied_port`, which advertises `proxy_port`: a test puts its own proxy there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lib = fetch_jars()
        ports = free_ports(len(_LISTENERS) + 1)
        self.ports = dict(zip(_LISTENERS, ports, strict=False))
        self.proxy_port = ports[-1]
        self.certificates: Certificates = make_certificates(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._format()

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.ports['plaintext']}"

    @property
    def sasl_bootstrap(self) -> str:
        return f"127.0.0.1:{self.ports['sasl']}"

    @property
    def tls_bootstrap(self) -> str:
        return f"127.0.0.1:{self.ports['tls']}"

    @property
    def proxied_port(self) -> int:
        return self.ports["proxied"]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _properties(self) -> str:
        port = self.ports
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        sasl = "listener.name.sasl"
        tls = "listener.name.tls.ssl"
        return "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"controller.quorum.voters=1@127.0.0.1:{port['controller']}",
                "listeners="
                + ",".join(f"{name.upper()}://127.0.0.1:{port[name]}" for name in _LISTENERS),
                "advertised.listeners="
                + ",".join(
                    f"{name.upper()}://127.0.0.1:"
                    f"{self.proxy_port if name == 'proxied' else port[name]}"
                    for name in _LISTENERS[:-1]
                ),
                "controller.listener.names=CONTROLLER",
                (
                    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,"
                    "TLS:SSL,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT"
                ),
                "inter.broker.listener.name=PLAINTEXT",
                f"{sasl}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                f'{sasl}.plain.sasl.jaas.config={plain} user_{USER}="{PASSWORD}";',
                f"{sasl}.scram-sha-256.sasl.jaas.config={scram};",
                f"{sasl}.scram-sha-512.sasl.jaas.config={scram};",
                f"{tls}.keystore.type=PEM",
                f"{tls}.keystore.location={self.certificates.server}",
                f"{tls}.truststore.type=PEM",
                f"{tls}.truststore.location={self.certificates.ca}",
                f"{tls}.client.auth=required",
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users=User:ANONYMOUS",
                "allow.everyone.if.no.acl.found=true",
                "num.partitions=3",
                "offsets.topic.num.partitions=4",
                "offsets.topic.replication.factor=1",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "auto.create.topics.enable=true",
                "controlled.shutdown.enable=false",
                # A restarted broker waits until the session of its former self is over.
                "broker.session.timeout.ms=1000",
                "broker.heartbeat.interval.ms=200",
                "log.retention.bytes=268435456",
                f"log.dirs={self.folder / 'log'}",
                "",
            ]
        )

    def _java(self, main: str, *arguments: str, heap: str = "384m") -> list[str]:
        return [
            "java",
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            f"{self.lib}/*",
            main,
            *arguments,
        ]

    def _format(self) -> None:
        settings = self.folder / "server.properties"
        settings.write_text(self._properties())
        command = self._java("kafka.tools.StorageTool", "format", "-t", "b3R1cy10ZXN0LWNsdXN0ZQ")
        command += ["-c", str(settings)]
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            command += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise BrokerUnavailable(f"storage format failed: {done.stderr[-500:]}")

    def start(self, deadline_s: float = 120.0) -> None:
        """Starts the broker and waits until it answers on its plain listener."""
        log = (self.folder / "broker.out").open("ab")
        self._process = subprocess.Popen(
            self._java("kafka.Kafka", str(self.folder / "server.properties")),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        end = time.monotonic() + deadline_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                tail = (self.folder / "broker.out").read_text(errors="replace")[-1500:]
                self.kill()
                raise BrokerUnavailable(f"the broker did not come up: {tail}")

    def _answers(self) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.ports["plaintext"]), 10.0).close()
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            try:
                return bool(admin.list_topics(timeout=10.0).brokers)
            except KafkaException:
                return False
        time.sleep(0.1)
        return False

    def pause(self) -> None:
        """Stops the process in its tracks: connections stay, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Ends the broker at once, as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(120)
            self._process = None

    def stop(self) -> None:
        """Ends the broker in an orderly way."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
