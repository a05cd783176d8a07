"""A stand-in for the package `spaces` on ZeroGPU, for tests: what is decorated runs in a forked daemon, as there.

Arguments, what is yielded and exceptions are pickled; `duration` is called with the arguments; the generator runs in a
thread of the daemon and is asked to stop between two of its yields; the daemon is kept for the next call if it ended
well; a death is an error of Gradio's; Gradio's launch is wrapped. What is asked becomes a line of the file LENT_NOTES.
"""

import inspect
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import wraps

import gradio as gr
from gradio.context import LocalContext

FORK = multiprocessing.get_context("fork")


def note(**facts):
    with open(os.environ["LENT_NOTES"], "a") as notes:
        notes.write(json.dumps(facts) + "\n")


class Daemon:
    """One forked process that serves one function."""

    def __init__(self, task):
        self.orders, orders = FORK.Pipe()
        self.stop = FORK.Event()
        self.process = FORK.Process(target=serve, args=(task, orders, self.stop, self.orders), daemon=True)
        self.process.start()
        orders.close()

    def ask(self, arguments):
        self.orders.send_bytes(pickle.dumps(arguments))

    def answer(self):
        try:
            return pickle.loads(self.orders.recv_bytes())
        except (EOFError, ConnectionResetError):
            return "aborted", None


def serve(task, orders, stop, other_end):
    other_end.close()
    while True:
        try:
            args, kwargs = pickle.loads(orders.recv_bytes())
        except EOFError:
            return
        stop.clear()
        with ThreadPoolExecutor() as threads:
            threads.submit(iterate, task, args, kwargs, orders, stop)
        orders.send_bytes(pickle.dumps(("end", None)))


def iterate(task, args, kwargs, orders, stop):
    going = task(*args, **kwargs)
    while True:
        try:
            value = next(going)
        except StopIteration:
            return
        except Exception as error:
            orders.send_bytes(pickle.dumps(("error", type(error).__name__)))
            return
        if stop.is_set():
            going.close()
            return
        orders.send_bytes(pickle.dumps(("value", value)))


def GPU(task=None, *, duration=60):
    if task is None:
        return lambda given: GPU(given, duration=duration)
    if not inspect.isgeneratorfunction(task):
        raise NotImplementedError("this stand-in lends to sync generators only")
    kept = []

    @wraps(task)
    def lent(*args, **kwargs):
        seconds = duration(*args, **kwargs) if callable(duration) else duration
        daemon = kept.pop() if kept and kept[-1].process.is_alive() else Daemon(task)
        who = str(LocalContext.request.get(None))
        note(seconds=seconds, process=daemon.process.pid, daemon=daemon.process.daemon, who=who)
        daemon.ask((args, kwargs))
        stopped = False
        while (said := daemon.answer())[0] == "value":
            if stopped:
                continue
            try:
                yield said[1]
            except GeneratorExit:
                daemon.stop.set()
                stopped = True
        if said[0] == "end":
            kept.append(daemon)
        elif not stopped:
            raise gr.Error(said[1] or "GPU task aborted", title="ZeroGPU worker error", print_exception=False)

    return lent


if os.environ.get("SPACES_ZERO_GPU"):
    launched = gr.Blocks.launch

    @wraps(launched)
    def launch(*args, **kwargs):
        note(launched=True)
        gr.Blocks.launch = launched
        return launched(*args, **kwargs)

    gr.Blocks.launch = launch
