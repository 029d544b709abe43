"""The device plugin against a kubelet's socket."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cotune_simulation.card.identity import CardIdentity, card_uuid, read_identity, write_identity
from cotune_simulation.card.products import card_product, products
from cotune_simulation.device_plugin import deviceplugin_pb2 as api
from cotune_simulation.device_plugin.devices import NodeFolder, SharedCard
from cotune_simulation.device_plugin.labels import feature_labels
from cotune_simulation.device_plugin.registration import keep_registered
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

RESOURCE = "nvidia.com/gpu"
UUID = card_uuid("lab")


class Kubelet:
    """Takes registrations, as a kubelet does."""

    def __init__(self) -> None:
        self.registered: asyncio.Queue[api.RegisterRequest] = asyncio.Queue()

    def __mapping__(self) -> dict[str, Handler]:
        handler = Handler(self._register, Cardinality.UNARY_UNARY, api.RegisterRequest, api.Empty)
        return {"/v1beta1.Registration/Register": handler}

    async def _register(self, stream: Stream[api.RegisterRequest, api.Empty]) -> None:
        request = await stream.recv_message()
        assert request is not None
        self.registered.put_nowait(request)
        await stream.send_message(api.Empty())

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncGenerator[None]:
        server = Server([self])
        await server.start(path=str(folder / "kubelet.sock"))
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()
            (folder / "kubelet.sock").unlink(missing_ok=True)


@asynccontextmanager
async def registered_plugin(
    folder: Path, kubelet: Kubelet, replicas: int = 8, mps: bool = False
) -> AsyncGenerator[Channel]:
    plugin = SharedCard(UUID, replicas, NodeFolder(folder), mps)
    task = asyncio.create_task(keep_registered(plugin, folder, "simulated.sock", RESOURCE))
    try:
        async with asyncio.timeout(10):
            request = await kubelet.registered.get()
        assert (request.version, request.resource_name) == ("v1beta1", RESOURCE)
        async with Channel(path=str(folder / request.endpoint)) as channel:
            yield channel
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def allocate(channel: Channel, *containers: list[str]) -> api.AllocateResponse:
    requests = [api.ContainerAllocateRequest(devices_ids=ids) for ids in containers]
    call = UnaryUnaryMethod(channel, "/v1beta1.DevicePlugin/Allocate", api.AllocateRequest, api.AllocateResponse)
    return await call(api.AllocateRequest(container_requests=requests), timeout=5)


def test_replicas_are_numbered_and_leave_when_the_card_is_unhealthy(tmp_path: Path) -> None:
    async def watch() -> list[set[tuple[str, str]]]:
        kubelet, seen = Kubelet(), list[set[tuple[str, str]]]()
        async with kubelet.running(tmp_path), registered_plugin(tmp_path, kubelet) as channel:
            method = UnaryStreamMethod(
                channel, "/v1beta1.DevicePlugin/ListAndWatch", api.Empty, api.ListAndWatchResponse
            )
            async with asyncio.timeout(10), method.open() as stream:
                await stream.send_message(api.Empty(), end=True)
                for change in (NodeFolder(tmp_path).unhealthy_mark.touch, NodeFolder(tmp_path).unhealthy_mark.unlink):
                    devices = await stream.recv_message()
                    assert devices is not None
                    seen.append({(device.ID, device.health) for device in devices.devices})
                    change()
                await stream.cancel()
        return seen

    healthy, unhealthy = asyncio.run(watch())
    assert healthy == {(f"{UUID}::{number}", "Healthy") for number in range(8)}
    assert unhealthy == {(f"{UUID}::{number}", "Unhealthy") for number in range(8)}


def test_each_container_gets_the_card_its_socket_and_nvml(tmp_path: Path) -> None:
    async def ask() -> api.AllocateResponse:
        kubelet = Kubelet()
        async with kubelet.running(tmp_path), registered_plugin(tmp_path, kubelet) as channel:
            return await allocate(channel, [f"{UUID}::3"], [f"{UUID}::5"])

    one, other = asyncio.run(ask()).container_responses
    assert one == other
    assert dict(one.envs) == {"NVIDIA_VISIBLE_DEVICES": UUID}
    assert {(mount.container_path, mount.host_path, mount.read_only) for mount in one.mounts} == {
        ("/run/cotune-simulation", str(tmp_path / "run"), True),
        ("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", str(tmp_path / "libnvidia-ml.so.1"), True),
    }


def test_under_mps_a_container_is_told_so(tmp_path: Path) -> None:
    async def ask() -> api.AllocateResponse:
        kubelet = Kubelet()
        async with kubelet.running(tmp_path), registered_plugin(tmp_path, kubelet, mps=True) as channel:
            return await allocate(channel, [f"{UUID}::3"])

    (container,) = asyncio.run(ask()).container_responses
    assert set(container.envs) == {"NVIDIA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY"}


def test_foreign_devices_are_refused(tmp_path: Path) -> None:
    async def ask() -> None:
        kubelet = Kubelet()
        async with kubelet.running(tmp_path), registered_plugin(tmp_path, kubelet, replicas=1) as channel:
            await allocate(channel, [UUID])
            await allocate(channel, ["GPU-other"])

    with pytest.raises(GRPCError, match="unknown devices: GPU-other"):
        asyncio.run(ask())


def test_it_registers_again_with_a_kubelet_that_was_restarted(tmp_path: Path) -> None:
    async def restart() -> None:
        kubelet = Kubelet()
        plugin = SharedCard(UUID, 8, NodeFolder(tmp_path))
        task = asyncio.create_task(keep_registered(plugin, tmp_path, "simulated.sock", RESOURCE))
        async with asyncio.timeout(10):
            async with kubelet.running(tmp_path):
                await kubelet.registered.get()
            async with kubelet.running(tmp_path):
                await kubelet.registered.get()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(restart())


def test_a_nodes_card_keeps_its_uuid_and_differs_from_other_nodes() -> None:
    assert card_uuid("lab") == UUID != card_uuid("staging")


def test_labels_are_those_of_feature_discovery() -> None:
    labels = feature_labels(card_product("NVIDIA-GeForce-RTX-3060"), replicas=8)
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-GeForce-RTX-3060-SHARED"
    assert (labels["nvidia.com/gpu.count"], labels["nvidia.com/gpu.replicas"]) == ("1", "8")
    assert (labels["nvidia.com/gpu.memory"], labels["nvidia.com/gpu.sharing-strategy"]) == ("12288", "time-slicing")


def test_the_label_says_how_a_card_is_shared() -> None:
    labels = feature_labels(card_product("NVIDIA-H200"), replicas=8, mps=True)
    assert (labels["nvidia.com/gpu.sharing-strategy"], labels["nvidia.com/gpu.replicas"]) == ("mps", "8")
    assert labels["nvidia.com/mps.capable"] == "true"


def test_a_node_keeps_how_its_card_is_shared(tmp_path: Path) -> None:
    for mps_replicas in (0, 8):
        identity = CardIdentity("NVIDIA-H200", UUID, mps_replicas)
        write_identity(tmp_path / "card.json", identity)
        assert read_identity(tmp_path / "card.json") == identity


def test_an_exclusive_card_has_its_plain_name() -> None:
    labels = feature_labels(card_product("NVIDIA-H200"), replicas=1)
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.sharing-strategy"]) == ("NVIDIA-H200", "none")


@pytest.mark.parametrize("product", products())
def test_every_card_of_the_data_file_is_complete(product: str) -> None:
    assert card_product(product).memory_bytes > 0
