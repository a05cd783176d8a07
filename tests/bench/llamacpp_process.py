"""llama.cpp in a process of its own: token ids come in as a line of JSON, the moment of every token goes out as one.

It is run by the Python of an environment in which llama-cpp-python alone was installed, and so imports nothing of ours.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy


class Reader:
    """A model of llama.cpp's, driven through its C interface: a chosen token is an argmax over its logits."""

    def __init__(self, path: str, context: int, threads: int):
        llama_cpp.llama_backend_init()
        self.silence = llama_cpp.llama_log_callback(lambda *said: None)
        llama_cpp.llama_log_set(self.silence, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        asked = llama_cpp.llama_context_default_params()
        asked.n_ctx = asked.n_batch = asked.n_ubatch = context
        asked.n_threads = asked.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, asked)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def next(self, ids: list[int]) -> int:
        """Read these tokens; the likeliest one after them. Raises RuntimeError where llama.cpp refuses."""
        read = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(read, len(ids))):
            raise RuntimeError(f"llama.cpp could not read {len(ids)} tokens")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(numpy.ctypeslib.as_array(logits, shape=(self.vocabulary,)).argmax())

    def write(self, ids: list[int], tokens: int) -> list[float]:
        """The moment at which reading began, and that of each of so many tokens, in seconds."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        moments = [time.perf_counter()]
        for _ in range(tokens):
            ids = [self.next(ids)]
            moments.append(time.perf_counter())
        return moments


def main() -> None:
    reader = Reader(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(reader.write(asked["ids"], asked["tokens"])), flush=True)


if __name__ == "__main__":
    main()
