"""A client that has no generated code: what it knows of Tradewind comes from gRPC reflection.

    pip install grpcio grpcio-reflection grpcio-status
    tests/reflection.py target/release/tradewind     starts an orchestrator of its own
    tests/reflection.py 127.0.0.1:7400               uses the one that listens there

Shows that reflection, health and error details are enough to push a rule, read it back, and be
told precisely what is wrong with another. Not a test of the rules themselves.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status


class Client:
    """Calls methods by name with plain dictionaries for messages."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        grpc.channel_ready_future(self.channel).result(timeout=20)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return set(self.database.get_services())

    def call(self, service, method, request):
        description = self.pool.FindServiceByName(service).FindMethodByName(method)
        request_type = message_factory.GetMessageClass(description.input_type)
        response_type = message_factory.GetMessageClass(description.output_type)
        rpc = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )
        return rpc(request_type(**request), timeout=10)


def expect(holds, claim):
    if not holds:
        sys.exit(f"reflection: FAILED: {claim}")
    print(f"reflection: {claim}")


def rule(body):
    return {
        "id": "by-reflection",
        "data": {
            "match": {"any": [{"path": {"exact": "/by-reflection"}}]},
            "respond": {"status": 200, "body": body},
        },
    }


def check(address):
    client = Client(address)
    rules, fleet = "tradewind.v1.RuleService", "tradewind.v1.FleetService"
    wanted = {rules, fleet, "tradewind.v1.FollowService", "grpc.health.v1.Health"}
    expect(wanted <= client.services(), "reflection lists the services")
    health = client.call("grpc.health.v1.Health", "Check", {})
    expect(health.status == 1, "health says SERVING")

    before = client.call(rules, "PutRule", {"rule": rule("one")}).result.version
    put = client.call(rules, "PutRule", {"rule": rule("two"), "expected_version": before})
    expect(put.result.version == before + 1, "a rule pushed without generated code is the next version")
    got = client.call(rules, "GetRule", {"id": "by-reflection"}).rule
    expect(got.rule.data.respond.body == "two", "it reads back as written")

    try:
        client.call(rules, "PutRule", {"rule": rule("three"), "expected_version": before})
        expect(False, "a write that expects an old version is refused")
    except grpc.RpcError as error:
        expect(error.code() == grpc.StatusCode.ABORTED, "a write that expects an old version is refused")
        infos = details(error, error_details_pb2.ErrorInfo)
        expect(any(str(put.result.version) in info.metadata.values() for info in infos),
               "the refusal names the current version")

    bad = {"id": "Bad Id", "data": {"match": {"any": [{"path": {"exact": "no-slash"}}]},
                                    "timeouts": {"connect": "soon"}}}
    try:
        client.call(rules, "PutRule", {"rule": bad})
        expect(False, "an invalid rule is refused")
    except grpc.RpcError as error:
        expect(error.code() == grpc.StatusCode.INVALID_ARGUMENT, "an invalid rule is refused")
        violations = [violation for request in details(error, error_details_pb2.BadRequest)
                      for violation in request.field_violations]
        for violation in violations:
            print(f"reflection:   {violation.field}: {violation.description}")
        expect(len(violations) >= 3, "the refusal lists every problem")

    expect(client.call(rules, "DeleteRule", {"id": "by-reflection"}).result.outcome == "retired",
           "the rule is retired")
    client.call(fleet, "ListNodes", {})
    print("reflection: all done")


def details(error, kind):
    """Every detail of one kind in a google.rpc.Status."""
    found = []
    for packed in rpc_status.from_call(error).details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(where):
    if not pathlib.Path(where).is_file():
        return check(where)
    grpc_port, http_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as data:
        process = subprocess.Popen(
            [where, "orchestrator", "--data", data,
             "--grpc-listen", f"127.0.0.1:{grpc_port}", "--http-listen", f"127.0.0.1:{http_port}"],
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items()
                 if not name.startswith("TRADEWIND_")},
        )
        try:
            check(f"127.0.0.1:{grpc_port}")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                code = "nothing"
        expect(code == 0, "the orchestrator ends well when asked to stop")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
