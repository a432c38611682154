"""Google Drive, over an emulator on real sockets: every answer it may give, crashes, twins, and what it costs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import random
import re
import signal
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from contracts.destination import DestinationContract, virtual
from crosscut.destinations import EVERYONE
from crosscut.destinations.drive import DriveDestination
from crosscut.destinations.drive_account import Account, short
from crosscut.destinations.drive_auth import CONSENT_NOTE
from crosscut.destinations.drive_client import Found, quoted
from crosscut.destinations.drive_folders import is_drive, named, parent_of
from crosscut.destinations.drive_listing import KEPT_SECONDS, Listing
from crosscut.destinations.drive_pace import UPLOADS
from crosscut.destinations.drive_upload import WHOLE
from crosscut.destinations.drive_wire import SLICE, Line
from crosscut.errors import CrosscutError, DeliverError, RequestError
from crosscut.files import FileNotes
from crosscut.virtual import Extent, VirtualFile
from drive_emulator import Emulator, deliver, deliver_the_same
from drive_model import PASSING, REFRESH, ROBOT, SECRET, STEP, USER, Fault
from emulating import wait_until

SECOND = 0.01
MEGABYTE = random.Random(1).randbytes(4 * STEP + 1000)
"""Five requests of one step each."""
SECOND_CHUNK = f"bytes {STEP}-"


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def whole():
    """Bytes of files that go in one request."""
    return -1


@pytest.fixture
def opened(emulator, tmp_path, whole):
    """The account as one more process would open it."""
    accounts = []
    emulator.consent_file(tmp_path / CONSENT_NOTE)

    def opened(**changed):
        usual = {"consent": FileNotes(tmp_path), "url": emulator.url, "second": SECOND, "chunk": STEP, "whole": whole}
        account = Account(changed.pop("folder", tmp_path / "drive"), **(usual | changed))
        accounts.append(account)
        return account

    yield opened
    for account in accounts:
        account.close()


@pytest.fixture
def destination(opened):
    return DriveDestination("drive:", opened())


def put(destination, name="1.mp4", data=MEGABYTE):
    with destination.open("task") as delivery:
        return delivery.put(name, virtual(data))


def there(emulator, folder="task"):
    """Every file in the folder with its bytes, and that it was written once alone."""
    nodes = emulator.children(folder)
    assert len({node.name for node in nodes}) == len(nodes), "a twin"
    return {node.name: node.data for node in nodes}


def refused(destination, data=MEGABYTE):
    with pytest.raises(DeliverError) as caught:
        put(destination, data=data)
    return caught.value


class TestDrive(DestinationContract):
    LINKS = False

    @pytest.fixture(params=["consent", "shared drive"])
    def destination(self, request, opened, emulator, tmp_path):
        self.emulator = emulator
        self.opened = opened
        if request.param == "consent":
            return DriveDestination("drive:", opened())
        drive = emulator.make_drive(**{ROBOT: "fileOrganizer"})
        return DriveDestination(
            f"drive:{drive}", opened(service_account=emulator.service_account(tmp_path / "key.json"))
        )

    def read(self, folder, name):
        return there(self.emulator, folder).get(name)

    def names(self, folder):
        return sorted(there(self.emulator, folder))

    def wrong(self, destination):
        del destination
        self.emulator.refresh_error = "invalid_grant"
        return DriveDestination("drive:", self.opened())

    @contextlib.contextmanager
    def full(self):
        self.emulator.faults = [Fault("quota", path="uploadType=", times=9)]
        yield
        self.emulator.faults = []

    def stumble(self):
        self.emulator.faults = [Fault("503", path="uploadType=")]

    def stall(self):
        self.emulator.faults = [Fault("hang", content_range="bytes 0-")]

    def begun(self):
        return any(fault.times == 0 for fault in self.emulator.faults)


class TestDriveAtOnce(TestDrive):
    """Small files, which have no session."""

    STALLED = WHOLE

    @pytest.fixture
    def whole(self):
        return WHOLE

    def stall(self):
        self.emulator.faults = [Fault("hang", path="uploadType=multipart")]

    @pytest.mark.parametrize("kind", PASSING)
    def test_what_heals_is_tried_again(self, destination, kind):
        self.emulator.faults = [Fault(kind, path="uploadType=multipart")]
        delivered = put(destination)
        assert self.emulator.faults[0].times == 0
        assert there(self.emulator) == {"1.mp4": MEGABYTE}
        assert delivered.sha256 == hashlib.sha256(MEGABYTE).hexdigest()
        assert self.emulator.count("PUT", "/session") == 0

    def test_who_dies_before_the_answer_has_delivered(self, destination):
        self.emulator.faults = [Fault("lost", path="uploadType=multipart"), Fault("quota", path="uploadType=multipart")]
        refused(destination)
        put(destination)
        assert there(self.emulator) == {"1.mp4": MEGABYTE}
        assert len({session.node.id for session in self.emulator.sessions.values()}) == 1

    def test_what_arrives_damaged_is_replaced(self, destination):
        self.emulator.faults = [Fault("damage", path="uploadType=multipart")]
        put(destination)
        assert there(self.emulator) == {"1.mp4": MEGABYTE}

    def test_a_token_that_has_run_out_is_renewed(self, destination):
        self.emulator.faults = [Fault("401", path="uploadType=multipart")]
        put(destination)
        assert there(self.emulator) == {"1.mp4": MEGABYTE}

    def test_the_largest_is_one_request_and_a_larger_one_is_not(self, opened, emulator):
        for size, requests in ((WHOLE, (1, 0)), (WHOLE + 1, (2, 1))):
            put(DriveDestination("drive:", opened(chunk=256 * STEP)), f"{size}.mp4", bytes(size))
            assert (emulator.count("POST", "/upload"), emulator.count("PUT", "/session")) == requests


WHERE = {
    "token": {"path": "/token"},
    "ids": {"path": "generateIds"},
    "list": {"method": "GET", "path": "/drive/v3/files?"},
    "folder": {"method": "POST", "path": "/drive/v3/files?"},
    "start": {"path": "uploadType=resumable"},
    "first": {"content_range": "bytes 0-"},
    "second": {"content_range": SECOND_CHUNK},
    "last": {"content_range": f"-{len(MEGABYTE) - 1}/"},
}
HEALING = [
    (where, kind)
    for where in WHERE
    for kind in PASSING
    if where != "token" or kind not in ("rate", "backend")  # that server has no such answers
]
REFUSALS = {
    "quota": "storage_full",
    "daily": "daily_limit",
    "scope": "missing_scope",
    "permission": "not_permitted",
    "disabled": "api_disabled",
    "items": "shared_drive_full",
    "children": "folder_full",
    "policy": "forbidden_by_policy",
    "unheard_of": "refused",
}


class TestUploads:
    """One row of the protocol's table each."""

    @pytest.mark.parametrize(("where", "kind"), HEALING)
    def test_what_heals_is_tried_again(self, destination, emulator, where, kind):
        where = WHERE[where]
        emulator.faults = [Fault(kind, **where)]
        delivered = put(destination)
        assert emulator.faults[0].times == 0
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert delivered.sha256 == hashlib.sha256(MEGABYTE).hexdigest()
        assert [len(emulator.folders(name)) for name in ("Crosscut", "task")] == [1, 1]

    def test_a_file_is_sent_in_as_few_requests_as_may_be(self, opened, emulator):
        put(DriveDestination("drive:", opened(chunk=64 * STEP)))
        assert (emulator.count("POST", "/upload"), emulator.count("PUT", "/session")) == (1, 1)

    def test_what_was_kept_is_not_sent_again(self, destination, emulator):
        emulator.faults = [Fault("503", content_range=SECOND_CHUNK), Fault("half", content_range=f"bytes {2 * STEP}-")]
        put(destination)
        assert emulator.received() <= len(MEGABYTE) + STEP

    @pytest.mark.parametrize("kind", ["none_kept", "some_kept"])
    def test_what_was_not_kept_is_sent_again(self, opened, emulator, kind):
        destination = DriveDestination("drive:", opened(chunk=2 * STEP))
        emulator.faults = [Fault(kind, method="PUT")]
        assert put(destination).sha256 == hashlib.sha256(MEGABYTE).hexdigest()
        assert there(emulator) == {"1.mp4": MEGABYTE}

    @pytest.mark.parametrize("kind", ["404", "410", "400"])
    def test_a_session_that_is_no_more_is_begun_anew_with_the_same_id(self, destination, emulator, kind):
        emulator.faults = [Fault(kind, content_range=SECOND_CHUNK)]
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert emulator.count("POST", "/upload") == 2
        assert len({session.node.id for session in emulator.sessions.values()}) == 1

    @pytest.mark.parametrize("kind", ["404", "none_kept", "503"])
    @pytest.mark.parametrize("where", ["bytes 0-", SECOND_CHUNK])
    def test_what_never_gets_on_is_given_up(self, destination, emulator, kind, where):
        emulator.faults = [Fault(kind, content_range=where, times=100)]
        error = refused(destination)
        assert (error.code, error.retryable) == ("unavailable", True)
        assert there(emulator) == {}
        assert emulator.faults[0].times > 90

    def test_an_upload_that_gets_on_has_all_the_patience_it_needs(self, destination, emulator):
        emulator.faults = [Fault("503", content_range=f"bytes {STEP * n}-", times=3) for n in range(5)]
        assert put(destination).retries == 15
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert put(destination, "2.mp4").retries == 0

    def test_an_id_that_is_in_use_by_this_very_file_is_success(self, destination, emulator, opened):
        put(destination)
        sent = emulator.received()
        put(DriveDestination("drive:", opened()))
        assert emulator.received() == sent
        assert emulator.children("task")[0].revisions == 1

    def test_what_has_other_bytes_or_another_name_is_replaced(self, destination, emulator):
        put(destination)
        put(destination, data=MEGABYTE[::-1])
        emulator.children("task")[0].name = "renamed by hand"
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}

    def test_an_id_that_is_taken_while_it_is_sent_is_replaced(self, destination, emulator, opened, tmp_path):
        """Another machine with the same notes would do that."""
        put(destination)
        with destination.open("task") as delivery:
            delivery.remove("1.mp4")
        emulator.faults = [Fault("hang", content_range=f"bytes {4 * STEP}-")]
        first = threading.Thread(target=put, args=(destination,))
        first.start()
        wait_until(lambda: emulator.faults[0].times == 0)
        session = list(emulator.sessions.values())[-1]
        session.node.size, session.node.sha256 = 5, "other"
        emulator.nodes[session.node.id] = session.node
        emulator.closing.set()
        first.join()
        assert there(emulator) == {"1.mp4": MEGABYTE}

    def test_an_empty_file_has_no_range(self, destination, emulator):
        emulator.faults = [Fault("lost", method="PUT")]
        delivered = put(destination, data=b"")
        assert delivered.bytes == 0
        assert there(emulator) == {"1.mp4": b""}

    @pytest.mark.parametrize(
        ("where", "kind", "code"),
        [(where, *refusal) for where in ("uploadType=resumable", "/session/") for refusal in REFUSALS.items()]
        + [("uploadType=resumable", "404", "not_found")],
    )
    def test_what_does_not_heal_is_one_sentence_and_not_tried_again(self, destination, emulator, where, kind, code):
        emulator.faults = [Fault(kind, path=where, times=9)]
        error = refused(destination)
        assert (error.code, error.retryable, emulator.faults[0].times) == (code, False, 8)

    def test_a_full_drive_is_said_before_anything_is_sent(self, destination, emulator):
        emulator.quota = 1_000_000
        assert refused(destination).code == "storage_full"
        assert emulator.received() == 0

    def test_damage_on_the_way_is_seen_and_sent_again_once(self, destination, emulator):
        emulator.faults = [Fault("damage", content_range=f"bytes {4 * STEP}-")]
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert emulator.children("task")[0].revisions == 2

    def test_what_is_damaged_twice_does_not_stay(self, destination, emulator):
        emulator.faults = [Fault("damage", content_range=f"bytes {4 * STEP}-", times=2)]
        error = refused(destination)
        assert (error.code, error.retryable) == ("checksum_mismatch", True)
        assert there(emulator) == {}
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}

    def test_a_session_elsewhere_is_shown_no_token(self, destination, emulator, opened):
        """Whoever can write the notes must not be sent the token."""
        account = opened()
        emulator.faults = [Fault("quota", content_range=SECOND_CHUNK)]
        refused(destination)
        with Emulator() as stranger:
            for path in (account.folder / "notes").rglob("*"):
                if path.is_file() and "upload_id" in path.read_text():
                    path.write_text(path.read_text().replace(emulator.url, stranger.url))
            put(destination)
            assert stranger.seen == []
        assert there(emulator) == {"1.mp4": MEGABYTE}


class TestCrashes:
    def test_another_process_goes_on_where_one_was_killed(self, opened, emulator, tmp_path):
        piece = tmp_path / "piece"
        piece.write_bytes(MEGABYTE)
        file = VirtualFile([Extent(piece, 0, len(MEGABYTE))])
        emulator.faults = [Fault("hang", content_range=f"bytes {3 * STEP}-")]
        victim = multiprocessing.get_context("spawn").Process(
            target=deliver, args=(DriveDestination("drive:", opened()), file)
        )
        victim.start()
        wait_until(lambda: emulator.faults[0].times == 0, 60)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        assert there(emulator) == {}
        deliver(DriveDestination("drive:", opened()), file)
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert emulator.count("POST", "/upload") == 1
        assert emulator.received() == len(MEGABYTE), "bytes were sent again"

    def test_other_bytes_do_not_go_on_with_what_was_begun(self, opened, emulator):
        emulator.faults = [Fault("quota", content_range=SECOND_CHUNK)]
        refused(DriveDestination("drive:", opened()))
        other = bytes(len(MEGABYTE))
        put(DriveDestination("drive:", opened()), data=other)
        assert there(emulator) == {"1.mp4": other}

    def test_a_session_that_has_expired_meanwhile_is_begun_anew(self, opened, emulator):
        emulator.faults = [Fault("quota", content_range=SECOND_CHUNK)]
        refused(DriveDestination("drive:", opened()))
        emulator.expire_sessions()
        put(DriveDestination("drive:", opened()))
        assert there(emulator) == {"1.mp4": MEGABYTE}

    def test_whoever_dies_before_the_last_answer_has_delivered(self, opened, emulator):
        emulator.faults = [
            Fault("lost", content_range=f"bytes {4 * STEP}-"),
            Fault("quota", content_range="bytes */"),
        ]
        refused(DriveDestination("drive:", opened()))
        sent = emulator.received()
        put(DriveDestination("drive:", opened()))
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert emulator.received() == sent

    @pytest.mark.parametrize("seed", range(4))
    def test_with_faults_everywhere_every_file_arrives_once_byte_for_byte(self, opened, emulator, seed):
        draw = random.Random(seed)
        files = {f"{n}.mp4": draw.randbytes(draw.choice([0, 1000, STEP, 3 * STEP + 7])) for n in range(24)}
        emulator.draw, emulator.chaos = draw, 0.1
        account = opened()

        def until_delivered(name):
            while True:
                try:
                    return put(DriveDestination("drive:", account), name, files[name])
                except DeliverError as error:
                    if not error.retryable:
                        raise
                    time.sleep(error.after or SECOND)

        with ThreadPoolExecutor(4) as pool:
            delivered = dict(zip(files, pool.map(until_delivered, files), strict=True))
        emulator.chaos = 0
        assert there(emulator) == files
        assert {node.revisions for node in emulator.children("task")} == {1}
        assert all(delivered[name].sha256 == hashlib.sha256(data).hexdigest() for name, data in files.items())
        assert sum(bool(seen.fault) for seen in emulator.seen) > 5


class TestTwins:
    def test_many_who_begin_at_once_make_one_folder_and_one_file_of_each_name(self, opened, emulator):
        emulator.lag = 60.0
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(3)
        destination = DriveDestination("drive:", opened())
        writers = [context.Process(target=deliver_the_same, args=(destination, start)) for _ in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [writer.exitcode for writer in writers] == [0, 0, 0]
        assert [len(emulator.folders(name)) for name in ("Crosscut", "task")] == [1, 1]
        assert there(emulator) == {f"{n}.mp4": bytes([n]) * 1000 for n in range(6)}
        assert {node.revisions for node in emulator.children("task")} == {1}
        assert emulator.most_at_once <= UPLOADS

    def test_ten_threads_make_one_folder(self, destination, emulator):
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda n: put(destination, f"{n % 5}.mp4", b"same"), range(10)))
        assert [len(emulator.folders(name)) for name in ("Crosscut", "task")] == [1, 1]
        assert sorted(there(emulator)) == [f"{n}.mp4" for n in range(5)]

    def test_two_who_send_the_same_do_not_share_its_session(self, opened, emulator):
        emulator.faults = [Fault("slow", content_range=SECOND_CHUNK)]
        first = threading.Thread(target=put, args=(DriveDestination("drive:", opened()),))
        first.start()
        wait_until(lambda: emulator.faults[0].times == 0)
        put(DriveDestination("drive:", opened()))
        first.join()
        assert emulator.received() == len(MEGABYTE)
        assert emulator.children("task")[0].revisions == 1

    def test_no_more_than_a_few_are_sent_at_once(self, opened, emulator):
        accounts = [opened(), opened()]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda n: put(DriveDestination("drive:", accounts[n % 2]), f"{n}.mp4"), range(12)))
        assert emulator.most_at_once <= UPLOADS

    def test_what_somebody_put_into_the_trash_is_made_anew_and_left_there(self, destination, emulator):
        put(destination)
        emulator.children("task")[0].trashed = True
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}
        assert sum(node.name == "1.mp4" for node in emulator.nodes.values()) == 2

    def test_what_somebody_moved_away_is_left_where_it_is(self, destination, emulator):
        put(destination)
        moved = emulator.children("task")[0]
        moved.parent = emulator.make_folder("elsewhere")
        with destination.open("task") as delivery:
            assert not delivery.holds("1.mp4")
            delivery.put("1.mp4", virtual(b"new"))
        assert there(emulator) == {"1.mp4": b"new"}
        assert moved.data == MEGABYTE

    @pytest.mark.parametrize("folder", ["task", "Crosscut"])
    def test_a_folder_in_the_trash_is_made_anew_once(self, destination, emulator, opened, folder):
        put(destination)
        emulator.folders(folder)[0].trashed = True
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: put(DriveDestination("drive:", opened())), range(4)))
        assert [len(emulator.folders(name)) for name in ("Crosscut", "task")] == [1, 1]
        assert there(emulator) == {"1.mp4": MEGABYTE}

    def test_a_folder_that_is_gone_for_good_is_made_anew(self, destination, emulator):
        put(destination)
        for node in [*emulator.children("task"), *emulator.folders("task")]:
            del emulator.nodes[node.id]
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}

    @pytest.mark.parametrize("folder", ["task", "Anna's \\ \"cut\" ' or name = 'x", "käse 🧀/.."])
    def test_lost_notes_are_found_again_in_drive(self, opened, emulator, tmp_path, folder):
        for number, place in enumerate(("first", "second")):
            with DriveDestination("drive:", opened(folder=tmp_path / place)).open(folder) as delivery:
                assert delivery.holds("1.mp4", 4) is bool(number)
                delivery.put("1.mp4", virtual(b"data"))
        assert there(emulator, folder) == {"1.mp4": b"data"}
        assert len(emulator.folders(folder)) == 1


class TestWhatIsThere:
    def test_one_listing_of_many_pages_answers_for_all(self, destination, emulator):
        with destination.open("task") as delivery:
            for number in range(5):
                delivery.put(f"{number}.mp4", virtual(b"x" * number))
        emulator.page = 2
        asked = len(emulator.seen)
        with destination.open("task") as delivery:
            assert all(delivery.holds(f"{number}.mp4", number) for number in range(5))
            assert not delivery.holds("0.mp4", 1)
            assert not delivery.holds("9.mp4")
        assert len(emulator.seen) - asked == 4  # the folder, and three pages

    def test_a_folder_is_listed_once_for_many_batches(self, opened, emulator):
        names = [f"{number}.mp4" for number in range(60)]
        writer = DriveDestination("drive:", opened())
        with writer.open("task") as delivery:
            for name in names:
                delivery.put(name, virtual(b"x"))
        emulator.page = 10
        destination = DriveDestination("drive:", opened())  # as another process
        asked, listed = len(emulator.seen), emulator.count("GET", "/drive/v3/files?")
        for batch in range(12):
            with destination.open("task") as delivery:
                assert all(delivery.holds(name, 1) for name in names[5 * batch : 5 * batch + 5])
                delivery.put("one more.mp4", virtual(bytes(batch)))
                assert delivery.holds("one more.mp4", batch)
        assert emulator.count("GET", "/drive/v3/files?") - listed == 6
        with destination.open("task") as delivery:
            delivery.remove("0.mp4")
            assert not delivery.holds("0.mp4")
        assert emulator.count("GET", "/drive/v3/files?") - listed == 6
        assert len(emulator.seen) - asked < 70

    def test_what_somebody_took_away_is_missed_after_a_while(self):
        now, asked = [0.0], []
        listing = Listing(lambda: now[0])

        def ask():
            asked.append(now[0])
            return [Found("id", "1.mp4", size=len(asked))]

        assert listing.find("id", ask) == ("1.mp4", 1)
        now[0] = KEPT_SECONDS
        assert listing.find("id", ask) == ("1.mp4", 1)
        now[0] = KEPT_SECONDS + 1
        assert listing.find("id", ask) == ("1.mp4", 2)
        assert asked == [0.0, KEPT_SECONDS + 1]

    def test_a_listing_that_comes_late_hides_nothing(self, destination, emulator):
        emulator.lag = 60.0
        put(destination, data=b"12345")
        with destination.open("task") as delivery:
            assert delivery.holds("1.mp4", 5)
            assert not delivery.holds("1.mp4", 4)

    def test_nothing_is_listed_where_nobody_asks(self, destination, emulator):
        put(destination)
        put(destination, "2.mp4")
        assert emulator.count("GET", "q=%27root") == 1
        assert emulator.count("GET", "/drive/v3/files?") == 2

    def test_a_long_text_waits_on_disk_and_leaves_nothing_behind(self, destination, emulator, tmp_path):
        lines = [f"line {number} 🧀\n" * 1000 for number in range(500)]
        with destination.open("task") as delivery:
            delivery.put_text("manifest.csv", lines)
        node = emulator.children("task")[0]
        whole = "".join(lines).encode()
        assert (node.size, node.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
        assert not list((tmp_path / "drive").glob(".text-*"))

    def test_the_location_is_the_folder_s_link_as_soon_as_it_has_one(self, destination, emulator):
        assert destination.location("task") == "drive:Crosscut/task"
        put(destination)
        link = f"https://drive.google.com/drive/folders/{emulator.folders('task')[0].id}"
        assert destination.location("task") == link


class TestPlaces:
    FOLDER = "1AbCdEfGhIjKlMnOpQrStUvWxYz012345"

    @pytest.mark.parametrize(
        "place",
        [
            f"drive:{FOLDER}",
            f"drive: {FOLDER} ",
            f"drive:https://drive.google.com/drive/folders/{FOLDER}",
            f"drive:https://drive.google.com/drive/u/1/folders/{FOLDER}?usp=sharing",
            f"drive:https://drive.google.com/open?id={FOLDER}&x=1",
            f"https://drive.google.com/drive/folders/{FOLDER}",
        ],
    )
    def test_a_folder_is_named_by_its_id_or_link(self, place):
        assert parent_of(place) == self.FOLDER
        assert named(place) == f"drive:{self.FOLDER}"
        assert is_drive(place)

    def test_without_a_name_it_is_the_app_s_own(self):
        assert parent_of("drive:") is None
        assert named("drive: ") == "drive:"
        assert not is_drive("videos/drive:")

    @pytest.mark.parametrize(
        "place", ["drive:Marketing", "drive:a/b", "drive:https://evil.test/folders/" + FOLDER, FOLDER, "drive:../../x"]
    )
    def test_anything_else_is_refused(self, place):
        with pytest.raises(RequestError) as caught:
            parent_of(place)
        assert caught.value.code == "bad_destination"

    def test_a_service_account_needs_a_shared_drive(self, opened, emulator, tmp_path):
        account = opened(service_account=emulator.service_account(tmp_path / "key.json"))
        error = refused(DriveDestination("drive:", account))
        assert (error.code, emulator.seen) == ("no_storage", [])

    def test_a_folder_that_was_shared_with_a_service_account_does_not_help(self, opened, emulator, tmp_path):
        folder = emulator.make_folder("shared", owner=ROBOT)
        account = opened(service_account=emulator.service_account(tmp_path / "key.json"))
        assert refused(DriveDestination(f"drive:{folder}", account)).code == "no_storage"

    def test_a_member_who_may_only_read_is_told_so(self, opened, emulator, tmp_path):
        drive = emulator.make_drive(**{ROBOT: "reader"})
        account = opened(service_account=emulator.service_account(tmp_path / "key.json"))
        error = refused(DriveDestination(f"drive:{drive}", account))
        assert (error.code, "content manager" in error.public) == ("not_permitted", True)

    def test_a_drive_of_others_is_not_found(self, opened, emulator, tmp_path):
        account = opened(service_account=emulator.service_account(tmp_path / "key.json"))
        assert refused(DriveDestination(f"drive:{emulator.make_drive()}", account)).code == "not_found"

    def test_with_consent_to_its_own_files_the_app_sees_no_other_folder(self, opened, emulator):
        error = refused(DriveDestination(f"drive:{emulator.make_folder('by hand')}", opened()))
        assert (error.code, "use drive: alone" in error.public) == ("not_found", True)

    def test_a_link_to_a_file_is_no_folder(self, destination, opened, emulator):
        put(destination)
        file = emulator.children("task")[0].id
        assert refused(DriveDestination(f"drive:{file}", opened())).code == "not_a_folder"

    def test_a_person_s_folder_is_written_to_by_who_acts_for_them(self, opened, emulator, tmp_path):
        key = emulator.service_account(tmp_path / "key.json")
        emulator.delegated = {"boss@example.com"}
        folder = emulator.make_folder("Videos", owner="boss@example.com")
        put(DriveDestination(f"drive:{folder}", opened(service_account=key, subject="boss@example.com")))
        assert there(emulator) == {"1.mp4": MEGABYTE}
        error = refused(DriveDestination("drive:", opened(service_account=key, subject="eve@example.com")))
        assert (error.code, "domain-wide" in error.public) == ("not_delegated", True)


class TestCredentials:
    def test_a_token_that_has_run_out_is_renewed_once(self, destination, emulator):
        with destination.open("task") as delivery:
            delivery.put("1.mp4", virtual(b"one"))
            emulator.forget_tokens()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda n: delivery.put(f"{n}.mp4", virtual(MEGABYTE)), range(4)))
        assert emulator.tokens_given == 2

    def test_a_token_may_run_out_in_the_middle_of_a_file(self, destination, emulator):
        emulator.faults = [Fault("401", content_range=SECOND_CHUNK)]
        put(destination)
        assert (there(emulator), emulator.tokens_given) == ({"1.mp4": MEGABYTE}, 2)

    def test_a_new_token_that_is_refused_as_well_is_the_end(self, destination, emulator):
        emulator.faults = [Fault("401", path="uploadType", times=9)]
        error = refused(destination)
        assert (error.code, error.retryable, emulator.faults[0].times) == ("wrong_credentials", False, 7)

    def test_a_new_token_that_is_refused_in_the_middle_is_the_end(self, destination, emulator):
        emulator.faults = [Fault("401", content_range=SECOND_CHUNK, times=99)]
        assert refused(destination).code == "wrong_credentials"

    @pytest.mark.parametrize(
        ("error", "code", "word"),
        [("invalid_grant", "consent_expired", "7 days"), ("invalid_client", "wrong_credentials", "CLIENT_ID")],
    )
    def test_consent_that_is_over_says_what_to_do(self, destination, emulator, error, code, word):
        emulator.refresh_error = error
        caught = refused(destination)
        assert (caught.code, caught.retryable, word in caught.public) == (code, False, True)
        assert "crosscut auth google" in caught.public

    def test_consent_that_was_given_again_is_used_at_once(self, opened, emulator, tmp_path):
        destination = DriveDestination("drive:", opened())
        facts = json.loads((tmp_path / "google.json").read_text())
        (tmp_path / "google.json").write_text(json.dumps(facts | {"refresh_token": "1//old"}))
        assert refused(destination).code == "consent_expired"
        emulator.consent_file(tmp_path / "google.json")
        put(destination)
        assert there(emulator) == {"1.mp4": MEGABYTE}

    def test_without_any_it_says_how_to_connect(self, opened, tmp_path):
        error = refused(DriveDestination("drive:", opened(consent=FileNotes(tmp_path / "nothing"))))
        assert (error.code, "crosscut auth google" in error.public) == ("not_connected", True)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"client_email": "a", "private_key": 1}'])
    def test_a_file_that_is_no_key_is_refused(self, opened, tmp_path, text):
        (tmp_path / "key.json").write_text(text)
        error = refused(DriveDestination("drive:", opened(service_account=tmp_path / "key.json")))
        assert (error.code, "JSON key file" in error.public) == ("wrong_credentials", True)

    def test_a_key_that_is_damaged_or_another_s_is_refused(self, opened, emulator, tmp_path):
        drive = emulator.make_drive(**{ROBOT: "organizer"})
        path = emulator.service_account(tmp_path / "key.json")
        emulator.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        assert refused(DriveDestination(f"drive:{drive}", opened(service_account=path))).code == "wrong_credentials"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"private_key": "-----BEGIN nonsense"}))
        assert refused(DriveDestination(f"drive:{drive}", opened(service_account=path))).code == "wrong_credentials"

    def test_secrets_are_in_no_log_no_repr_and_no_error(self, destination, emulator, opened, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        for client in ("httpx2", "httpcore2"):  # as bootstrap has it
            caplog.set_level(logging.WARNING, client)
        told = [repr(destination), repr(opened()), repr(opened().identity())]
        faults = ["half", "503", "404", "quota", "unheard_of", "drop"]
        for kind in faults:
            emulator.faults = [Fault(kind, content_range="bytes 0-", times=9)]
            try:
                put(destination, f"{kind}.mp4")
            except DeliverError as error:
                told += [error.public, error.detail, "".join(traceback.format_exception(error)), repr(vars(error))]
        emulator.faults = []
        emulator.refresh_error = "invalid_grant"
        emulator.forget_tokens()
        try:
            put(DriveDestination("drive:", opened(folder=tmp_path / "other")))
        except DeliverError as error:
            told += [error.detail, "".join(traceback.format_exception(error))]
        everything = "\n".join([*told, caplog.text])
        for secret in (REFRESH, SECRET, "ya29.", "upload_id", "secret-"):
            assert secret not in everything

    def test_what_is_noted_can_be_read_by_nobody_else(self, destination, emulator, tmp_path):
        emulator.faults = [Fault("quota", content_range=SECOND_CHUNK)]
        refused(destination)
        paths = [path for path in (tmp_path / "drive" / "notes").rglob("*") if path.name != "lock"]
        assert any("upload_id" in path.read_text() for path in paths if path.is_file())
        assert {path.stat().st_mode & 0o077 for path in paths} == {0}


class TestPace:
    def test_all_who_deliver_pause_when_one_is_asked_to(self, opened, emulator):
        one, other = (DriveDestination("drive:", opened(second=0.3)) for _ in range(2))
        put(one)
        emulator.faults = [Fault("rate", path="uploadType=resumable")]
        begun = time.monotonic()
        thread = threading.Thread(target=put, args=(one, "2.mp4"))
        thread.start()
        wait_until(lambda: emulator.faults[0].times == 0)
        time.sleep(0.1)
        put(other, "3.mp4")
        assert time.monotonic() - begun >= 0.3
        thread.join()
        assert sorted(there(emulator)) == ["1.mp4", "2.mp4", "3.mp4"]

    def test_a_long_pause_is_told_to_everyone_and_nobody_asks_meanwhile(self, opened, emulator):
        one, other = (DriveDestination("drive:", opened()) for _ in range(2))
        put(one)
        emulator.faults = [Fault("429", path="uploadType=resumable", headers={"Retry-After": "30"})]
        for destination in (one, other):
            asked = len(emulator.seen)
            error = refused(destination, data=b"other")
            assert (error.code in EVERYONE, error.retryable, 29 < error.after <= 30) == (True, True, True)
        assert len(emulator.seen) == asked

    def test_pauses_double_and_fewer_are_sent_at_once(self, opened, emulator, tmp_path):
        put(DriveDestination("drive:", opened()))
        emulator.faults = [Fault("rate", path="uploadType=resumable", times=9)]
        assert refused(DriveDestination("drive:", opened()), data=b"other").code == "rate_limited"
        shared = opened().shared
        name = f"pace/{short(USER)}"
        assert shared.read(f"{name}/limit.json")["limit"] < UPLOADS
        assert shared.read(f"{name}/pause.json")["level"] == 4


class CancelledError(Exception):
    pass


class TestCancelling:
    """Within a second or so, whatever it waits for."""

    @pytest.fixture
    def stopped(self, opened, emulator):
        def stopped(**changed):
            """How long a put takes to end after it is cancelled half a second in."""
            account = opened(**changed)
            put(DriveDestination("drive:", account), "0.mp4", b"")
            moment = time.monotonic() + 0.5

            def check():
                if time.monotonic() >= moment:
                    raise CancelledError

            with DriveDestination("drive:", account).open("task", check) as delivery, pytest.raises(CancelledError):
                delivery.put("1.mp4", virtual(MEGABYTE * 30))
            return time.monotonic() - moment

        return stopped

    def test_an_answer_that_does_not_come(self, stopped, emulator):
        emulator.faults = [Fault("hang", content_range="bytes 0-262143")]
        assert stopped() < 1

    def test_a_body_that_nobody_reads(self, stopped, emulator):
        emulator.faults = [Fault("hang", content_range="bytes 0-")]
        assert stopped(chunk=256 * STEP) < 1
        assert emulator.received() == 0

    def test_a_pause(self, stopped, emulator):
        emulator.faults = [Fault("rate", path="uploadType", skip=1)]
        assert stopped(second=5.0) < 1

    def test_a_free_place(self, opened, stopped, emulator):
        emulator.faults = [Fault("hang", method="PUT", skip=1, times=UPLOADS)]
        account = opened()
        with ThreadPoolExecutor(2 * UPLOADS) as pool:
            others = []
            try:
                put(DriveDestination("drive:", account), "9.mp4", b"")
                others = [
                    pool.submit(put, DriveDestination("drive:", account), f"w{n}.mp4", b"1") for n in range(2 * UPLOADS)
                ]
                wait_until(lambda: emulator.faults[0].times == 0)
                moment = time.monotonic() + 0.3

                def check():
                    if time.monotonic() >= moment:
                        raise CancelledError

                waiting = DriveDestination("drive:", opened())
                with waiting.open("task", check) as delivery, pytest.raises(CancelledError):
                    delivery.put("1.mp4", virtual(b"1"))
                assert time.monotonic() - moment < 1
            finally:
                emulator.closing.set()
        assert [other.exception() for other in others] == [None] * 2 * UPLOADS


def test_what_is_written_over_tls_is_whole_however_slowly_it_is_read():
    """A write that timed out in the middle of a record has to go on with the very same bytes."""
    ends = socket.socketpair()
    contexts = [ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:
        # Without certificates.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("aNULL:@SECLEVEL=0")
    data = random.Random(3).randbytes(5 * SLICE + 17)

    def read():
        got = bytearray()
        with contexts[0].wrap_socket(ends[0], server_side=True) as peer:
            while len(got) < len(data):
                time.sleep(0.7 if len(got) < 3 << 14 else 0)
                got += peer.recv(1 << 14)
        return bytes(got)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        with contexts[1].wrap_socket(ends[1]) as line:
            Line(SimpleNamespace(get_extra_info=lambda _: line), lambda: None).write(data, timeout=10)
            assert reading.result() == data


def test_memory_does_not_grow_with_the_file(destination, emulator, tmp_path, opened):
    piece = tmp_path / "piece"
    piece.write_bytes(random.Random(2).randbytes(1 << 20))
    file = VirtualFile([Extent(piece, 0, 1 << 20) for _ in range(96)])
    account = opened(chunk=64 * STEP)
    put(DriveDestination("drive:", account), "0.mp4", b"")
    tracemalloc.start()
    try:
        with DriveDestination("drive:", account).open("task") as delivery:
            delivery.put("1.mp4", file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@given(st.text())
def test_a_quoted_text_is_one_text_and_reads_back(text):
    whole = quoted(text)
    assert re.fullmatch(r"'((?:[^'\\]|\\[\\'])*)'", whole, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", whole[1:-1], flags=re.DOTALL) == text


def test_an_error_that_is_not_retryable_does_not_look_like_one_for_everyone(destination, emulator):
    emulator.faults = [Fault("quota", path="uploadType")]
    error: CrosscutError = refused(destination)
    assert error.code not in EVERYONE


def test_the_account_is_named_for_a_consent(opened):
    assert opened().identity().account == USER
