#!/usr/bin/env python3
"""Writes descriptors of Tenstorrent clusters that are not there, one per SKU: mock_cluster.py FOLDER

TT_METAL_MOCK_CLUSTER_DESC_PATH=FOLDER/n150.yaml gives a process such a cluster: TTNN then validates every call, allocates
memory and builds programs, and computes nothing (docs/hardware.md).
"""

import pathlib
import sys

# Chips as TTNN's lower layers number them. A harvesting mask says which rows or columns of cores a chip lacks. Real n300
# chips lack two rows and dispatch from Ethernet cores, which a mock has not; one row less and dispatch from worker cores
# leaves the same 8x8 compute grid.
WORMHOLE = dict(arch="wormhole_b0", harvest=(1, 0, 0))
WHOLE_WORMHOLE = dict(arch="wormhole_b0", harvest=(0, 0, 0))
BLACKHOLE = dict(arch="blackhole", harvest=(192, 288, 2))


class Cluster:
    def __init__(self, chips, kind, board):
        self.chips, self.kind, self.board = chips, kind, board
        self.links = []  # ((chip, channel), (chip, channel))
        self.coordinates = None  # per chip, or None: TTNN finds them from the links
        self.mmio = range(chips)  # chips with a PCIe connection of their own
        self.boards = [(0x41200000001 + i, [i]) for i in range(chips)]
        self.asics = None  # per chip: its location on its board
        self.buses = None  # per chip: PCIe bus, from which a Galaxy's trays are told

    def link(self, a, channel_a, b, channel_b, count):
        for i in range(count):
            self.links.append(((a, channel_a + i), (b, channel_b + i)))

    def yaml(self):
        n = range(self.chips)
        out = ["arch:"] + [f"  {i}: {self.kind['arch']}" for i in n]
        out.append("chips:" if self.coordinates else "chips:\n  {}")
        for i, coordinate in enumerate(self.coordinates or []):
            out += [f"  {i}:"] + [f"    - {value}" for value in coordinate]
        out += ["chip_unique_ids:"] + [f"  {i}: {0x100000000 * (i + 1) + 7 + i}" for i in n]
        out.append("ethernet_connections:" if self.links else "ethernet_connections:\n  []")
        for ends in self.links:
            out.append("  -")
            for chip, channel in ends:
                out += [f"    - chip: {chip}", f"      chan: {channel}"]
        out.append("ethernet_connections_to_remote_devices:\n  []")
        out += ["chips_with_mmio:"] + [f"  - {i}: {i}" for i in self.mmio]
        out.append("harvesting:")
        tensix, ethernet, pcie = self.kind["harvest"]
        for i in n:
            out += [
                f"  {i}:",
                "    noc_translation: true",
                f"    harvest_mask: {tensix}",
                "    dram_harvesting_mask: 0",
                f"    eth_harvesting_mask: {ethernet}",
                f"    pcie_harvesting_mask: {pcie}",
                "    l2cpu_harvesting_mask: 0",
            ]
        if self.buses:
            out.append("io_device_type: PCIe")
            out += ["asic_locations:"] + [f"  {i}: {self.asics[i]}" for i in n]
            out += ["chip_to_bus_id:"] + [f'  {i}: "0x{self.buses[i]:04x}"' for i in n]
        out += ["chip_to_boardtype:"] + [f"  {i}: {self.board}" for i in n]
        out.append("boards:")
        for number, chips in self.boards:
            out += ["  -", f"    - board_id: {number}", f"    - board_type: {self.board}", "    - chips:"]
            out += [f"        - {chip}" for chip in chips]
        return "\n".join(out) + "\n"


def n150():
    cluster = Cluster(1, WORMHOLE, "n150")
    cluster.coordinates = [(0, 0, 0, 0)]
    cluster.boards = [(0x100018000000001, [0])]
    return cluster


def n300():
    cluster = Cluster(2, WORMHOLE, "n300")
    cluster.link(0, 8, 1, 0, 2)
    cluster.coordinates = [(0, 0, 0, 0), (0, 1, 0, 0)]
    cluster.mmio = [0]
    cluster.boards = [(0x100014000000001, [0, 1])]
    return cluster


def t3k():
    """Four n300: their PCIe chips 0 to 3 in a square, the other chip of each beside it, together 2x4."""
    cluster = Cluster(8, WORMHOLE, "n300")
    for a, channel_a, b, channel_b in ((0, 6, 2, 6), (0, 14, 1, 14), (1, 0, 3, 0), (2, 14, 3, 14), (4, 6, 5, 6), (6, 6, 7, 6)):
        cluster.link(a, channel_a, b, channel_b, 2)
    for i in range(4):
        cluster.link(i, 8, i + 4, 0, 2)
    columns = (1, 1, 2, 2, 0, 0, 3, 3)
    cluster.coordinates = [(column, i % 2, 0, 0) for i, column in enumerate(columns)]
    cluster.mmio = range(4)
    cluster.boards = [(0x100014000000001 + i, [i + 4, i]) for i in range(4)]
    return cluster


def galaxy():
    """Four trays of eight chips in two columns, four links between neighbours, together 8x4."""
    trays, per_tray = (1, 2, 3, 4), range(1, 9)
    chip = lambda tray, asic: 4 * (asic - 1) + tray - 1
    cluster = Cluster(32, WHOLE_WORMHOLE, "ubb")
    for tray in trays:
        for asic in per_tray:
            if asic % 4:
                cluster.link(chip(tray, asic), 8, chip(tray, asic + 1), 4, 4)
            if asic <= 4:
                cluster.link(chip(tray, asic), 12, chip(tray, asic + 4), 0, 4)
    for tray in (1, 3):
        for asic in (4, 8):
            cluster.link(chip(tray, asic), 8, chip(tray + 1, asic), 8, 4)
    for tray in (1, 2):
        for asic in (5, 6, 7, 8):
            cluster.link(chip(tray, asic), 12, chip(tray + 2, asic), 12, 4)
    place = {chip(tray, asic): (tray, asic) for tray in trays for asic in per_tray}
    first_bus = {1: 0xC0, 2: 0x80, 3: 0x00, 4: 0x40}
    cluster.asics = [place[i][1] for i in range(32)]
    cluster.buses = [first_bus[place[i][0]] + place[i][1] for i in range(32)]
    cluster.boards = [(0x100035000000000, list(range(32)))]
    return cluster


def blackhole(rows, columns):
    """p150 cards in a grid, two links between neighbours."""
    cluster = Cluster(rows * columns, BLACKHOLE, "p150")
    for row in range(rows):
        for column in range(columns):
            here = row * columns + column
            if column + 1 < columns:
                cluster.links += [((here, 9), (here + 1, 4)), ((here, 11), (here + 1, 6))]
            if row + 1 < rows:
                cluster.links += [((here, 8), (here + columns, 5)), ((here, 10), (here + columns, 7))]
    cluster.asics = [0] * cluster.chips
    cluster.buses = [0x20 * i + 1 for i in range(cluster.chips)]
    return cluster


SKUS = {
    "n150": n150,
    "n300": n300,
    "t3k": t3k,
    "galaxy": galaxy,
    "p150": lambda: blackhole(1, 1),
    "p150x4": lambda: blackhole(2, 2),
    "p150x8": lambda: blackhole(2, 4),
}


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 1
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SKUS.items():
        (folder / f"{name}.yaml").write_text(make().yaml())
    return 0


if __name__ == "__main__":
    sys.exit(main())
