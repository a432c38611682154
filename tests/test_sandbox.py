from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import crosscut
from crosscut import isolation
from crosscut.errors import ConformError, SandboxError, StorageError
from crosscut.sandbox import JSON, Limits, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_landlock = pytest.mark.skipif(not isolation.landlock_version(), reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not isolation.seccomp_available(), reason="this kernel has no seccomp filter")
QUICK = Limits(cpu_seconds=30, wall_seconds=30)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(["sandbox_tasks"]) as opened:
        yield opened


def test_no_more_children_run_than_there_may_be() -> None:
    with Sandbox(["sandbox_tasks"], at_once=1) as narrow:
        begun = threading.Event()
        stop = threading.Event()

        def hold() -> None:
            with contextlib.suppress(SandboxError):
                narrow.run(
                    "sandbox_tasks:sleep", arguments={}, on_progress=lambda _: begun.set(), cancelled=stop, limits=QUICK
                )

        holder = threading.Thread(target=hold)
        holder.start()
        assert begun.wait(20)
        unwanted = threading.Event()
        threading.Timer(0.3, unwanted.set).start()
        with pytest.raises(SandboxError) as caught:
            narrow.run("sandbox_tasks:echo", arguments={}, cancelled=unwanted)
        assert caught.value.code == "cancelled"
        stop.set()
        holder.join()
        assert narrow.run("sandbox_tasks:echo", arguments={"a": 1}) == {"a": 1}


def refusal(
    sandbox: Sandbox, task: str, limits: Limits = QUICK, outputs: tuple[Path, ...] = (), **arguments: object
) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        sandbox.run(f"sandbox_tasks:{task}", arguments=arguments, limits=limits, outputs=outputs)
    return caught.value


def test_a_task_reads_its_inputs_fills_its_outputs_and_answers(sandbox: Sandbox, tmp_path: Path) -> None:
    source, first, second = tmp_path / "source", tmp_path / "first", tmp_path / "second"
    source.write_bytes(b"some bytes")
    assert sandbox.run("sandbox_tasks:copy", arguments={}, inputs=[source], outputs=[first, second]) == 10
    assert first.read_bytes() == second.read_bytes() == b"some bytes"


def test_arguments_and_answers_of_a_megabyte_travel(sandbox: Sandbox) -> None:
    arguments: JSON = {"text": "ü\n" * 500_000, "list": [1, 2.5, None, True, {"a": []}]}
    assert sandbox.run("sandbox_tasks:echo", arguments=arguments) == arguments


def test_only_modules_named_at_the_start_may_be_called(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="not of the modules"):
        sandbox.run("os:system", arguments={})


def test_threads_of_x264_and_of_the_decoder_work_in_a_child(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.run("sandbox_tasks:encode", arguments={"threads": 4}, outputs=[tmp_path / "out"]) == 25
    assert sandbox.run("sandbox_tasks:thread", arguments={}) == [1]


# what a child cannot do


@needs_landlock
@pytest.mark.parametrize(("deed", "value"), [("open", "/etc/passwd"), ("list", "/"), ("av", "/etc/passwd")])
def test_a_child_opens_nothing(sandbox: Sandbox, deed: str, value: str) -> None:
    assert sandbox.run("sandbox_tasks:attempt", arguments={"deed": deed, "values": [value]}) == "PermissionError"


@needs_landlock
def test_a_child_removes_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    arguments = {"deed": "unlink", "values": [str(victim)]}
    assert sandbox.run("sandbox_tasks:attempt", arguments=arguments) == "PermissionError"
    assert sandbox.run("sandbox_tasks:attempt", arguments=arguments, read_paths=[tmp_path]) == "PermissionError"
    assert victim.exists()


@needs_landlock
def test_granted_paths_are_readable_and_no_others(sandbox: Sandbox, tmp_path: Path) -> None:
    inside, beside = tmp_path / "granted" / "below" / "file", tmp_path / "beside"
    inside.parent.mkdir(parents=True)
    inside.touch()
    beside.touch()

    def attempt(path: Path, *granted: Path) -> object:
        arguments = {"deed": "open", "values": [str(path)]}
        return sandbox.run("sandbox_tasks:attempt", arguments=arguments, read_paths=granted)

    assert attempt(inside, tmp_path / "granted") == "done"
    assert attempt(inside, inside) == "done"
    assert attempt(beside, tmp_path / "granted") == "PermissionError"
    assert attempt(beside) == "PermissionError"


@pytest.mark.skipif(isolation.landlock_version() < 4, reason="this kernel's Landlock does not know TCP")
def test_a_child_reaches_no_listener(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = {"deed": "connect", "values": [server.getsockname()[1]]}
        assert sandbox.run("sandbox_tasks:attempt", arguments=arguments) == "PermissionError"
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


@needs_seccomp
@pytest.mark.parametrize("deed", ["udp", "exec", "fork", "change limits"])
def test_a_child_starts_no_socket_and_no_process(sandbox: Sandbox, deed: str) -> None:
    assert sandbox.run("sandbox_tasks:attempt", arguments={"deed": deed}) == "PermissionError"


@needs_seccomp
@pytest.mark.parametrize("deed", ["kill", "tgkill"])
def test_a_child_signals_no_other_process(sandbox: Sandbox, deed: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        answer = sandbox.run("sandbox_tasks:attempt", arguments={"deed": deed, "values": [victim.pid]})
        assert answer == "PermissionError"
        assert victim.poll() is None
        victim.kill()


def test_a_child_sees_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELEVENLABS_API_KEY", "canary")
    with Sandbox(["sandbox_tasks"]) as sandbox:
        environment = sandbox.run("sandbox_tasks:environment", arguments={})
    assert "canary" not in str(environment)
    assert environment["MALLOC_ARENA_MAX"] == "2"


def test_a_child_holds_its_own_descriptors_and_no_others(sandbox: Sandbox, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        cancelled = threading.Event()
        going = threading.Event()
        other = pool.submit(
            sandbox.run,
            "sandbox_tasks:sleep",
            arguments={},
            on_progress=lambda _: going.set(),
            cancelled=cancelled,
            outputs=[tmp_path / "b"],
        )
        going.wait(10)
        assert sandbox.run("sandbox_tasks:descriptors", arguments={}, outputs=[tmp_path / "a"]) == [0, 1, 2, 3, 4]
        cancelled.set()
        assert isinstance(other.exception(10), SandboxError)


# limits


def test_memory_is_limited(sandbox: Sandbox) -> None:
    limits = Limits(memory_bytes=2**30)
    assert sandbox.run("sandbox_tasks:allocate", arguments={"size": 10_000_000}, limits=limits) == 10_000_000
    assert refusal(sandbox, "allocate", limits, size=2**30).code == "memory"


def test_processor_time_is_limited(sandbox: Sandbox) -> None:
    error = refusal(sandbox, "spin", Limits(cpu_seconds=1, wall_seconds=20))
    assert (error.code, error.detail) == ("time", "processor time")


def test_wall_time_is_limited(sandbox: Sandbox) -> None:
    began = time.monotonic()
    assert refusal(sandbox, "sleep", Limits(wall_seconds=0.2)).code == "time"
    assert time.monotonic() - began < 2


def test_the_size_of_outputs_is_limited(sandbox: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert refusal(sandbox, "fill", Limits(file_bytes=2**20), (output,), size=2**22).code == "output_too_large"
    assert not output.exists()


# how a child ends


@pytest.mark.parametrize("task", ["segfault", "abort", "leave"])
def test_a_crash_is_an_error_of_that_file_alone(sandbox: Sandbox, tmp_path: Path, task: str) -> None:
    output = tmp_path / "output"
    error = refusal(sandbox, task, outputs=(output,))
    assert (error.code, error.retryable) == ("decoder_crashed", False)
    assert not output.exists()
    assert sandbox.run("sandbox_tasks:echo", arguments={"still": "here"}) == {"still": "here"}


def test_a_crash_with_threads_is_tried_again_without(sandbox: Sandbox, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert sandbox.run("sandbox_tasks:crash", arguments={"threads": 2}, outputs=[output]) == "with 1"
    assert output.read_bytes() == b"half"


def test_a_kill_by_the_kernel_is_taken_for_lack_of_memory(sandbox: Sandbox) -> None:
    error = refusal(sandbox, "killed")
    assert (error.code, error.retryable) == ("memory", True)


def test_an_error_of_ours_arrives_as_it_was_raised(sandbox: Sandbox) -> None:
    with pytest.raises(ConformError) as caught:
        sandbox.run("sandbox_tasks:refuse", arguments={})
    error = caught.value
    assert (error.public, error.code) == ("this clip is upside down", "upside_down")
    assert (error.retryable, error.detail) == (True, "the log's part")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("value", "damaged"),
        ("ffmpeg", "damaged"),
        ("exit", "damaged"),
        ("memory", "memory"),
        ("ffmpeg memory", "memory"),
        ("x264", "memory"),
    ],
)
def test_an_error_of_a_library_is_judged_and_its_text_kept_for_the_log(sandbox: Sandbox, kind: str, code: str) -> None:
    error = refusal(sandbox, "fail", kind=kind)
    assert error.code == code
    assert "secret" not in error.public
    assert "sandbox_tasks.py" in error.detail


def test_a_full_disk_is_no_fault_of_the_file(sandbox: Sandbox) -> None:
    with pytest.raises(StorageError) as caught:
        sandbox.run("sandbox_tasks:fail", arguments={"kind": "disk"})
    assert (caught.value.code, caught.value.retryable) == ("disk_full", True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "half a li",
        "no json\n",
        "[]\n",
        "[" * 100_000 + "\n",
        '{"result": NaN}\n',
        '{"error": 5}\n',
        '{"error": {"kind": "Popen"}}\n',
        '{"percent": "x"}\n',
    ],
)
def test_a_hijacked_child_can_only_fail(sandbox: Sandbox, text: str) -> None:
    assert type(refusal(sandbox, "forge", text=text)) is SandboxError


def test_an_endless_answer_is_cut_off(sandbox: Sandbox) -> None:
    assert refusal(sandbox, "flood").code == "damaged"


def test_control_characters_of_a_child_reach_no_log(sandbox: Sandbox) -> None:
    error = refusal(sandbox, "forge", text='{"error": {"public": "\\u001b[2Jx", "code": 7}}\n')
    assert (error.public, error.code) == ("?[2Jx", "7")


def test_an_answer_that_is_no_json_value_is_an_error(sandbox: Sandbox) -> None:
    assert "TypeError" in refusal(sandbox, "unspeakable").detail


# progress and cancellation


def test_progress_arrives_rising_and_at_most_once_a_percent(sandbox: Sandbox) -> None:
    heard: list[float] = []
    sandbox.run("sandbox_tasks:count", arguments={"steps": 1000}, on_progress=heard.append)
    assert heard == [percent / 100 for percent in range(1, 101)]


def test_forged_progress_stays_in_bounds(sandbox: Sandbox) -> None:
    heard: list[float] = []
    text = "".join(f'{{"percent": {percent}}}\n' for percent in (50, 20, -1, 10**9, 60)) + '{"result": 1}\n'
    assert sandbox.run("sandbox_tasks:forge", arguments={"text": text}, on_progress=heard.append) == 1
    assert heard == [0.5, 0.6]


def test_a_failing_listener_ends_the_child_and_removes_its_output(sandbox: Sandbox, tmp_path: Path) -> None:
    def fail(_: float) -> None:
        raise KeyError("no database")

    output = tmp_path / "output"
    with pytest.raises(KeyError):
        sandbox.run("sandbox_tasks:sleep", arguments={}, outputs=[output], on_progress=fail)
    assert not output.exists()


def test_cancelling_kills_within_half_a_second(sandbox: Sandbox, tmp_path: Path) -> None:
    cancelled = threading.Event()
    times: list[float] = []

    def cancel(_: float) -> None:
        times.append(time.monotonic())
        cancelled.set()

    output = tmp_path / "output"
    with pytest.raises(SandboxError) as caught:
        sandbox.run("sandbox_tasks:sleep", arguments={}, outputs=[output], on_progress=cancel, cancelled=cancelled)
    assert caught.value.code == "cancelled"
    assert time.monotonic() - times[0] < 0.5
    assert not output.exists()


# files


def test_an_existing_file_is_never_an_output_and_is_left_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    existing, other = tmp_path / "existing", tmp_path / "other"
    existing.write_bytes(b"precious")
    with pytest.raises(StorageError):
        sandbox.run("sandbox_tasks:echo", arguments={}, outputs=[other, existing])
    assert existing.read_bytes() == b"precious"
    assert not other.exists()


def test_a_missing_input_is_a_storage_error(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        sandbox.run("sandbox_tasks:echo", arguments={}, inputs=[tmp_path / "none"])
    assert str(tmp_path) not in caught.value.public


def test_two_hundred_tasks_leave_no_descriptor_and_no_process(sandbox: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()

    def census() -> tuple[int, int]:
        time.sleep(0.2)  # the spawner tells of an exit before it closes its end
        ours, theirs = (list(Path(f"/proc/{pid}/fd").iterdir()) for pid in ("self", spawner))
        return len(ours), len(theirs)

    sandbox.run("sandbox_tasks:echo", arguments={})
    # Another test may have left one of its own.
    there = set(processes_below(os.getpid()))
    spawner = sandbox._spawner._process.pid
    before = census()
    for number in range(200):
        if number % 20:
            sandbox.run("sandbox_tasks:copy", arguments={}, inputs=[source], outputs=[tmp_path / str(number)])
        else:
            refusal(sandbox, "segfault")
    assert census() == before
    assert set(processes_below(os.getpid())) <= there
    assert processes_below(spawner) == []


def test_eight_threads_at_once_get_their_own_answers(sandbox: Sandbox) -> None:
    def ask(number: int) -> object:
        return sandbox.run("sandbox_tasks:echo", arguments={"number": number})

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(64))) == [{"number": number} for number in range(64)]


# the spawner


def test_a_dead_spawner_takes_its_children_along_and_is_replaced() -> None:
    with Sandbox(["sandbox_tasks"]) as sandbox:
        going = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(sandbox.run, "sandbox_tasks:sleep", arguments={}, on_progress=lambda _: going.set())
            going.wait(10)
            spawner = sandbox._spawner._process.pid  # type: ignore[union-attr]
            (child,) = processes_below(spawner)
            os.kill(spawner, signal.SIGKILL)
            error = run.exception(10)
        assert isinstance(error, SandboxError)
        assert (error.code, error.retryable) == ("interrupted", True)
        assert gone([child])
        assert sandbox.run("sandbox_tasks:echo", arguments={"a": 1}) == {"a": 1}


def test_an_interrupt_is_for_the_parent_to_judge() -> None:
    with Sandbox(["sandbox_tasks"]) as sandbox:
        spawner = 0

        def interrupt(_: float) -> None:
            nonlocal spawner
            spawner = sandbox._spawner._process.pid  # type: ignore[union-attr]
            for process in (spawner, *processes_below(spawner)):
                os.kill(process, signal.SIGINT)
                os.kill(process, signal.SIGTERM)

        answer = sandbox.run("sandbox_tasks:sleep", arguments={"seconds": 0.2}, on_progress=interrupt)
        assert answer == "slept"
        assert os.getsid(spawner) != os.getsid(0)


def test_closing_ends_what_is_going_on() -> None:
    sandbox = Sandbox(["sandbox_tasks"])
    going = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(sandbox.run, "sandbox_tasks:sleep", arguments={}, on_progress=lambda _: going.set())
        going.wait(10)
        sandbox.close()
        error = run.exception(10)
    assert isinstance(error, SandboxError)
    assert error.code == "interrupted"
    with pytest.raises(SandboxError):
        sandbox.run("sandbox_tasks:echo", arguments={})


def test_a_module_that_cannot_be_imported_is_reported() -> None:
    with Sandbox(["sandbox_tasks", "no_such_module"]) as sandbox:
        error = refusal(sandbox, "echo")
    assert error.code == "unavailable"
    assert "no_such_module" in error.detail


def test_a_parent_killed_outright_leaves_no_process() -> None:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(crosscut.__file__).parents[1])])
    command = [sys.executable, "-m", "sandbox_tasks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"going\n"
        (spawner,) = processes_below(parent.pid)
        (child,) = processes_below(spawner)
        parent.kill()
    assert gone([spawner, child])


def test_the_machine_says_how_it_isolates() -> None:
    offered = Sandbox.isolation()
    assert offered[0] == "limits"
    assert ("seccomp" in offered) == isolation.seccomp_available()


def processes_below(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def gone(processes: list[int]) -> bool:
    """Whether none of them is alive within three seconds; a zombie is dead."""
    for _ in range(150):
        alive = []
        for process in processes:
            try:
                state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z":
                alive.append(process)
        if not alive:
            return True
        time.sleep(0.02)
    return False
