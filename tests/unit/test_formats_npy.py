"""Headers of NumPy's files, read by several threads."""

from __future__ import annotations

import ast
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tacit.data.kinds.formats import npy


def test_headers_are_parsed_by_one_thread_at_a_time(monkeypatch):
    """Two at once end in a SystemError, now and then, where CPython is older than 3.11.8 or 3.12.2."""
    parse, at_once, most, count = ast.literal_eval, 0, 0, threading.Lock()

    def slowly(text):
        nonlocal at_once, most
        with count:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with count:
            at_once -= 1
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", slowly)
    file = io.BytesIO()
    np.save(file, np.zeros((3, 4), np.float32))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda content: npy.header(io.BytesIO(content), len(content)), [file.getvalue()] * 8))
    assert {each.shape for each in found} == {(3, 4)}
    assert most == 1
