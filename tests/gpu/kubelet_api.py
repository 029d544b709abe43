"""The kubelet's device plugin interface, v1beta1, for whichever version of protobuf a machine has.

Generated code asks for a runtime at least as new as its compiler, and the machine's is what it is. So the messages are
described here, and made when this is imported. Numbers are those of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "v1beta1"
_TEXT, _FLAG = "string", "bool"
_MESSAGES: "dict[str, tuple[tuple[str, int, str, bool], ...]]" = {
    "Empty": (),
    "DevicePluginOptions": (
        ("pre_start_required", 1, _FLAG, False),
        ("get_preferred_allocation_available", 2, _FLAG, False),
    ),
    "RegisterRequest": (
        ("version", 1, _TEXT, False),
        ("endpoint", 2, _TEXT, False),
        ("resource_name", 3, _TEXT, False),
        ("options", 4, "DevicePluginOptions", False),
    ),
    "Device": (("ID", 1, _TEXT, False), ("health", 2, _TEXT, False)),
    "ListAndWatchResponse": (("devices", 1, "Device", True),),
    "ContainerAllocateRequest": (("devices_ids", 1, _TEXT, True),),
    "AllocateRequest": (("container_requests", 1, "ContainerAllocateRequest", True),),
    "DeviceSpec": (
        ("container_path", 1, _TEXT, False),
        ("host_path", 2, _TEXT, False),
        ("permissions", 3, _TEXT, False),
    ),
    "EnvsEntry": (("key", 1, _TEXT, False), ("value", 2, _TEXT, False)),
    "ContainerAllocateResponse": (("envs", 1, "EnvsEntry", True), ("devices", 3, "DeviceSpec", True)),
    "AllocateResponse": (("container_responses", 1, "ContainerAllocateResponse", True),),
}
"""Name, number, type, whether it is repeated. A map is repeated entries, on the wire as in the file."""


def _classes() -> "dict[str, Any]":
    file: Any = descriptor_pb2.FileDescriptorProto(name="cotune/deviceplugin.proto", package=_PACKAGE, syntax="proto3")
    kinds: Any = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message: Any = file.message_type.add(name=name)
        for field, number, kind, is_repeated in fields:
            found = message.field.add(name=field, number=number)
            found.label = kinds.LABEL_REPEATED if is_repeated else kinds.LABEL_OPTIONAL
            if kind in (_TEXT, _FLAG):
                found.type = kinds.TYPE_STRING if kind == _TEXT else kinds.TYPE_BOOL
            else:
                found.type, found.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    pool: Any = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {it: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{it}")) for it in _MESSAGES}


_made = _classes()
Empty: Any = _made["Empty"]
DevicePluginOptions: Any = _made["DevicePluginOptions"]
RegisterRequest: Any = _made["RegisterRequest"]
Device: Any = _made["Device"]
ListAndWatchResponse: Any = _made["ListAndWatchResponse"]
AllocateRequest: Any = _made["AllocateRequest"]
DeviceSpec: Any = _made["DeviceSpec"]
EnvsEntry: Any = _made["EnvsEntry"]
ContainerAllocateResponse: Any = _made["ContainerAllocateResponse"]
AllocateResponse: Any = _made["AllocateResponse"]
