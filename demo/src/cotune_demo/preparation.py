"""Everything before the experiment: simulated cards, the services of staging and production, the operator."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from localcluster.locations import repository_root

from cotune_demo.cluster import Commands, DemoError
from cotune_demo.progress import Progress
from cotune_demo.records import CLAIM, make_volume
from cotune_demo.scenes import EDGE, LAB, PRODUCTION, STAGING, Scene, Site

UNINVITED = "somebody-else"
ALL_NAMESPACES = (LAB, STAGING, PRODUCTION, EDGE.lab, *EDGE.tuned, UNINVITED)
"""Those that a run leaves."""
OPERATOR = "cotune-system"
NODE_AGENTS = "cotune-node-agents"

_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
"""For the node's process id namespace, which the node agents need, and nothing else does."""
_SHARES = "8"
_CARDS = str(repository_root() / "simulation" / "manifests" / "simulated-card.yaml")


async def prepare(commands: Commands, progress: Progress, scene: Scene, node_agents: bool = False) -> None:
    """The state from which every run starts, whatever an earlier one has left.

    Args:
        commands: of the cluster.
        progress: takes what is being done.
        scene: what is demonstrated.
        node_agents: over the simulated cards, so that it is known whose the processes on them are.
    """
    progress.say("taking away what an earlier run has left")
    was_there, _ = await commands.run(commands.kubectl, "get", "deployment", "cotune", "--namespace", OPERATOR)
    await _forget_resources(commands)
    await define_resources(commands)
    # The image's tag is the same after every build: only a new pod runs the newest.
    restart = ("rollout", "restart", "deployment/cotune", "--namespace", OPERATOR)
    await asyncio.gather(
        _forget_namespaces(commands),
        _cards(commands, progress, scene),
        *([commands.do(*restart)] if was_there else []),
    )
    tuned = [namespace for it in scene.sites for namespace in it.tuned]
    progress.say(f"the services of {', '.join(tuned)}, with a grant from each owner")
    await asyncio.gather(*(make_namespace(commands, it.lab) for it in scene.sites))
    await asyncio.gather(*(_furnish(commands, it) for it in scene.sites))
    await asyncio.gather(
        _operator(commands, progress, scene, node_agents),
        *(apply_corpus(commands, it.lab, scene.corpus) for it in scene.sites),
    )
    if scene.is_simulation:
        await wait_for_cards(commands, progress)


async def _cards(commands: Commands, progress: Progress, scene: Scene) -> None:
    """One for each node, or none, and the nodes that take trials."""
    if scene.is_simulation:
        progress.say(f"SIMULATED cards on the nodes {', '.join(scene.nodes)}")
        await apply_cards(commands)
    else:
        await commands.do("delete", "-f", _CARDS, "--ignore-not-found", "--timeout=60s")
    await dedicate(commands, *(name for it in scene.sites for name in it.lab_nodes))


async def _operator(commands: Commands, progress: Progress, scene: Scene, node_agents: bool) -> None:
    """The operator, ready, in the namespaces that invite it."""
    progress.say(f"the operator, by Helm, in {OPERATOR}")
    await make_namespace(commands, OPERATOR)
    await make_volume(commands, OPERATOR)
    tuned = [namespace for it in scene.sites for namespace in it.tuned]
    labs = ",".join(it.lab for it in scene.sites)
    options = [*("--set", f"labNamespaces={{{labs}}}", "--set", f"tunedNamespaces={{{','.join(tuned)}}}")]
    options += ["--set", "artifacts.enabled=true", "--set", f"artifacts.existingClaim={CLAIM}"]
    if node_agents:
        await make_namespace(commands, NODE_AGENTS, _PRIVILEGED)
        options += ["--values", str(repository_root() / "simulation" / "manifests" / "node-agent-values.yaml")]
    await install_operator(commands, *options)
    if node_agents:
        await commands.do("rollout", "restart", "daemonset/cotune-node-agent", "--namespace", NODE_AGENTS)
        timeout = f"--timeout={scene.ready_seconds}s"
        await commands.do("rollout", "status", "daemonset/cotune-node-agent", "--namespace", NODE_AGENTS, timeout)
    await _ready(commands, progress, "cotune", OPERATOR, scene.ready_seconds)


async def _furnish(commands: Commands, site: Site) -> None:
    """What the owners of a site's staging and production have there."""
    # Of the files there, those of the services: the experiment comes later.
    files = [repository_root() / "examples" / site.services / f"{namespace}.yaml" for namespace in site.tuned]
    await asyncio.gather(*(commands.do("apply", "-f", str(it)) for it in files))


async def services_ready(commands: Commands, progress: Progress, site: Site, seconds: int) -> None:
    """Until what the owners of staging and production have there serves: a rollout does not begin before.

    Args:
        commands: of the cluster.
        progress: takes what is waited for.
        site: whose services.
        seconds: how long each of them may take.
    """
    for namespace in site.tuned:
        for deployment in site.deployments:
            await _ready(commands, progress, deployment, namespace, seconds)


async def _ready(commands: Commands, progress: Progress, deployment: str, namespace: str, seconds: int) -> None:
    progress.waiting(f"waiting for {namespace}/{deployment} to be ready")
    timeout = f"--timeout={seconds}s"
    await commands.do("rollout", "status", f"deployment/{deployment}", "--namespace", namespace, timeout)


async def apply_cards(commands: Commands) -> None:
    """SIMULATED cards on every node that is labelled with one."""
    await commands.do("apply", "-f", _CARDS)


async def dedicate(commands: Commands, *nodes: str) -> None:
    """Let only trials run on these nodes."""
    await commands.do("taint", "nodes", *nodes, "cotune.dev/dedicated=trials:NoSchedule", "--overwrite")


async def define_resources(commands: Commands) -> None:
    """cotune's kinds."""
    await commands.do("apply", "--server-side", "--force-conflicts", "-f", str(repository_root() / "crds"))
    await commands.do("wait", "--for=condition=Established", "crd", "-l", "!none", "--timeout=30s")


async def make_namespace(commands: Commands, name: str, labels: Mapping[str, str] = _RESTRICTED) -> None:
    """A namespace, under Pod Security `restricted` unless the labels say otherwise."""
    await commands.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


async def install_operator(commands: Commands, *values: str) -> None:
    """The operator with these options of helm; that it is ready is not waited for."""
    await make_namespace(commands, OPERATOR)
    chart = str(repository_root() / "helm" / "cotune")
    # Nothing stands by here: what is shown is one operator.
    options = ("--set", "replicaCount=1", *values)
    await commands.release("upgrade", "--install", "cotune", chart, "--namespace", OPERATOR, *options)


async def _forget_resources(commands: Commands) -> None:
    known, _ = await commands.run(commands.kubectl, "get", "crd", "gpuprofiles.cotune.dev")
    if known:  # With the operator still there: a rollout in progress is taken back first.
        for kind in ("gpuallocationexperiments", "gpuprofiles"):
            for namespace in (LAB, EDGE.lab):
                await commands.do("delete", kind, "--all", "--namespace", namespace, "--timeout=120s")


async def _forget_namespaces(commands: Commands) -> None:
    await commands.do("delete", "namespace", *ALL_NAMESPACES, "--ignore-not-found", "--timeout=120s")


async def wait_for_cards(commands: Commands, progress: Progress) -> None:
    """Until every node offers its card.

    Raises:
        DemoError: one does not for two minutes.
    """
    shares: dict[str, str] = {}
    for _ in range(240):
        nodes = (await commands.get("nodes"))["items"]
        shares = {it["metadata"]["name"]: it["status"]["allocatable"].get("nvidia.com/gpu", "0") for it in nodes}
        if all(it == _SHARES for it in shares.values()):
            return
        progress.waiting("waiting for the cards' device plugins")
        await asyncio.sleep(0.5)
    raise DemoError(f"the nodes do not offer their cards: {shares}")


async def apply_corpus(commands: Commands, namespace: str, write: tuple[str, ...]) -> None:
    """The ConfigMap `speech` with what the command `write` writes into a folder.

    Raises:
        DemoError: the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = await asyncio.to_thread(
            subprocess.run,
            [*write, folder],
            # Their modules lie where this process finds its own packages, however it was told so.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(it for it in sys.path if it)},
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            raise DemoError(f"the speech corpus could not be made: {made.stderr.decode()[-200:]}")
        await commands.do("create", "configmap", "speech", "--namespace", namespace, f"--from-file={folder}")
