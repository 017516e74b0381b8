"""What the kernel prints of virtual servers in /proc/net/ip_vs.

tests/kernel/ipvs/test_servers_watch.py holds that it does.
"""

from __future__ import annotations

PRINTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr \x20
  -> 0A010002:1F90      Masq    1      0          0        \x20
  -> 0A010003:1F90      Masq    1      0          0        \x20
TCP  [fd00:0096:0000:0000:0000:0000:0000:0001]:0050 rr\x20
  -> [fd00:0001:0000:0000:0000:0000:0000:0002]:1F90      Masq    1      0          0        \x20
UDP  0A600002:0035 rr  persistent 2700000 FFFFFFFF
  -> 0A010002:0035      Masq    1      0          0        \x20
UDP  [fd00:0096:0000:0000:0000:0000:0000:0002]:0035 rr persistent 2700000 80000000
  -> [fd00:0001:0000:0000:0000:0000:0000:0002]:0035      Masq    1      0          0        \x20
SCTP  0A600003:0B59 wlc \x20
SCTP  [fd00:0096:0000:0000:0000:0000:0000:0003]:0B59 wlc\x20
FWM  C0000007 mh\x20
  -> 0A010002:1F90      Masq    1      0          0        \x20
FWM  C0000007 mh\x20
  -> [fd00:0001:0000:0000:0000:0000:0000:0002]:1F90      Masq    1      0          0        \x20
"""
"""Some of each family, by address and by mark, with affinity and without, and without endpoints."""
