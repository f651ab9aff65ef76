"""What a process gives back to the system."""

from __future__ import annotations

import re
import subprocess
import sys

from shared.daemons import ROOT
from shared.heap import _list_untouched  # pyright: ignore[reportPrivateUsage]

SMAPS = """\
55a0-55b0 r--p 00000000 08:01 77                         /usr/lib/constants.so
Size:                 64 kB
Anonymous:             0 kB
55b0-55f0 r-xp 00010000 08:01 77                         /usr/lib/code of two words.so
Anonymous:             0 kB
55f0-5600 r--p 00050000 08:01 77                         /usr/lib/relocated.so
Anonymous:            16 kB
5600-5610 rw-p 00060000 08:01 77                         /usr/lib/data.so
Anonymous:             0 kB
5610-5620 r--s 00000000 08:01 78                         /usr/share/shared.bin
Anonymous:             0 kB
7000-7010 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffe-7fff r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
"""


def test_only_pages_that_were_never_written_to_are_let_go() -> None:
    assert _list_untouched(SMAPS) == [(0x55A0, 0x10), (0x55B0, 0x40)]


def test_a_process_is_smaller_and_goes_on_working() -> None:
    script = (
        "import decimal, re, sqlite3, ssl, zlib\n"
        "from shared.heap import unmap_idle_code\n"
        "def mapped():\n"
        "    text = open('/proc/self/smaps_rollup').read()\n"
        "    resident = int(re.search(r'Rss: +(\\d+)', text)[1])\n"
        "    return resident - int(re.search(r'Anonymous: +(\\d+)', text)[1])\n"
        "before = mapped()\n"
        "unmap_idle_code()\n"
        "print(before, mapped())\n"
        "assert zlib.decompress(zlib.compress(b'x')) == b'x'\n"
        "assert sqlite3.connect(':memory:').execute('SELECT 1').fetchone() == (1,)\n"
        "assert ssl.create_default_context() and decimal.Decimal('1.5') * 2 == 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = map(int, re.findall(r"\d+", done.stdout))
    assert after < before / 2
