"""`python -m cotune_simulation.card`: the daemon of one card."""

import argparse
import asyncio
from pathlib import Path

from cotune_simulation import announce
from cotune_simulation.card import DEFAULT_SOCKET
from cotune_simulation.card.daemon import SETTLING_SECONDS, CardDaemon
from cotune_simulation.card.identity import CardIdentity, card_uuid, read_identity
from cotune_simulation.card.products import card_product, products
from cotune_simulation.termination import end_at_sigterm


def main() -> None:
    """Serve the card until SIGTERM."""
    parser = argparse.ArgumentParser(prog="cotune_simulation.card", description="a simulated card")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--product", choices=products())
    what.add_argument("--identity", type=Path, help="file with product and UUID, as the device plugin prepares it")
    parser.add_argument("--node", default="local", help="with --product: the name that the card's UUID is made of")
    parser.add_argument(
        "--mps-replicas", type=int, default=0, help="with --product: into how many shares MPS divides it; 0: no MPS"
    )
    parser.add_argument("--socket", type=Path, default=DEFAULT_SOCKET)
    parser.add_argument("--settling-seconds", type=float, default=SETTLING_SECONDS)
    options = parser.parse_args()
    if options.identity:
        identity = read_identity(options.identity)
    else:
        identity = CardIdentity(options.product, card_uuid(options.node), options.mps_replicas)
    announce(f"card {identity.product} ({identity.uuid})")
    daemon = CardDaemon(card_product(identity.product), identity.uuid, options.settling_seconds, identity.mps_replicas)
    end_at_sigterm()
    asyncio.run(daemon.serve(options.socket, ready=lambda: print(f"listening on {options.socket}", flush=True)))


if __name__ == "__main__":
    main()
