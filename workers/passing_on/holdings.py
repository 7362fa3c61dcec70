"""Which units of its plan a receiver has verified. Pure."""

from __future__ import annotations


class Holdings:
    """The units of ``plan``, which is the id of a plan."""

    def __init__(self, plan: bytes) -> None:
        self.plan = plan
        self._bits = bytearray()

    @property
    def bitmap(self) -> bytes:
        """A bit for each unit: that of unit N is bit N % 8 of byte N // 8, the least significant one first."""
        return bytes(self._bits)

    def add(self, unit: int) -> None:
        """The unit is verified."""
        byte = unit // 8
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        self._bits[byte] |= 1 << unit % 8

    def has(self, unit: int) -> bool:
        """True if the unit is verified."""
        byte = unit // 8
        return byte < len(self._bits) and bool(self._bits[byte] >> unit % 8 & 1)
