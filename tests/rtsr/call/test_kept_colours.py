"""Colours that outlast calls: whose they are, what is in their folder, and what trouble does."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sip_ends import OPUS_SDP, SDP, answered, between, hang_up, tag_of

from rtsr.call import kept_colours
from rtsr.call.formats import OPUS, PCMU
from rtsr.call.kept_colours import KeptColours
from rtsr.colour.auto import AutoColour, Excerpt
from rtsr.colour.colour import Colour, read_colour
from rtsr.errors import ArgumentError, RtsrError
from rtsr.runtime.models import find_model


@pytest.fixture
def facts(stand_in):
    return find_model(stand_in).metadata


def taught(facts, gain_db=-6.0, seconds=30.0):
    """What a call knows at its end that has learnt for some seconds."""
    gains = ((gain_db,) * 24,) * 4
    colour = AutoColour(Colour(facts.name, facts.weights_sha256, seconds, gains))
    colour.learnt_hops = 100
    return colour


def files(folder):
    return sorted(path.name for path in folder.glob("*.json"))


def test_a_person_is_known_again_and_nobody_else(tmp_path, facts):
    folder = tmp_path / "colours"
    kept = KeptColours(folder)
    assert kept.of("anna@example.com", facts).learnt is None
    kept.keep("anna@example.com", taught(facts))
    # As after the bridge was started again.
    kept = KeptColours(folder)
    known = kept.of("anna@example.com", facts)
    assert known.learnt.gains_db == ((-6.0,) * 24,) * 4
    assert known.learnt_hops == 0
    assert kept.of("bert@example.com", facts).learnt is None
    assert kept.of(None, facts).learnt is None


def test_who_has_called_cannot_be_read_from_the_folder(tmp_path, facts):
    names = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        kept = KeptColours(folder)
        kept.keep("anna@example.com", taught(facts))
        names += files(folder)
        assert folder.stat().st_mode & 0o077 == 0
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o077 == 0
            assert "anna" not in path.name
            assert b"anna" not in path.read_bytes()
    # The same address has other names elsewhere, so that a table of all numbers does not help.
    assert len(set(names)) == 2


def test_what_taught_nothing_is_not_written(tmp_path, facts):
    kept = KeptColours(tmp_path / "colours")
    kept.keep("anna@example.com", AutoColour())
    unchanged = taught(facts)
    unchanged.learnt_hops = 0
    kept.keep("anna@example.com", unchanged)
    kept.keep(None, taught(facts))
    assert files(tmp_path / "colours") == []


def test_a_file_that_is_of_no_use_is_left_out_and_replaced(tmp_path, facts, caplog):
    folder = tmp_path / "colours"
    kept = KeptColours(folder)
    kept.keep("anna@example.com", taught(facts))
    path = folder / files(folder)[0]
    Colour("other", "1" * 64, 10.0, ((1.0,) * 24,) * 4).save(path)
    for text, reason in ((None, "learnt for model 'other'"), ("{", "is not JSON")):
        if text is not None:
            path.write_text(text)
        with caplog.at_level(logging.WARNING):
            assert kept.of("anna@example.com", facts).learnt is None
        assert reason in caplog.records[-1].reason
        assert "anna" not in caplog.text
        assert path.name not in caplog.records[-1].reason
    kept.keep("anna@example.com", taught(facts, 3.0))
    assert read_colour(path).gains_db == ((3.0,) * 24,) * 4


def test_who_is_forgotten_during_a_call_stays_forgotten(tmp_path, facts):
    folder = tmp_path / "colours"
    kept = KeptColours(folder)
    kept.keep("anna@example.com", taught(facts))
    during = kept.of("anna@example.com", facts)
    during.learnt_hops = 100
    (folder / files(folder)[0]).unlink()
    kept.keep("anna@example.com", during)
    assert files(folder) == []
    # The next call is another one.
    kept.keep("anna@example.com", taught(facts))
    assert len(files(folder)) == 1


def test_those_go_whose_last_call_is_longest_ago(tmp_path, facts, monkeypatch):
    monkeypatch.setattr(kept_colours, "MOST_COLOURS", 3)
    folder = tmp_path / "colours"
    kept = KeptColours(folder)
    for age, name in ((30, "anna"), (20, "bert"), (10, "cleo")):
        before = set(files(folder))
        kept.keep(name, taught(facts))
        (path,) = set(files(folder)) - before
        os.utime(folder / path, (time.time() - age, time.time() - age))
    # Who calls from a telephone alone teaches nothing, and is still there.
    assert kept.of("anna", facts).learnt is not None
    kept.keep("dora", taught(facts))
    known = [name for name in ("anna", "bert", "cleo", "dora") if kept.of(name, facts).learnt]
    assert known == ["anna", "cleo", "dora"]


def test_bridges_that_start_at_once_agree_on_a_key(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            folder = tmp_path / str(number)
            made = list(threads.map(KeptColours, [folder] * 8))
            made[0].keep("anna", taught(find_model("small").metadata))
            facts = find_model("small").metadata
            assert all(kept.of("anna", facts).learnt is not None for kept in made)
            assert len(list(folder.iterdir())) == 2


def test_a_colour_that_cannot_be_written_is_logged(tmp_path, facts, caplog):
    kept = KeptColours(tmp_path / "colours")
    (tmp_path / "colours").rename(tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        kept.keep("anna@example.com", taught(facts))
    assert caplog.records[-1].getMessage() == "a colour was not kept"
    assert caplog.records[-1].reason == "No such file or directory"


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".rtsr-key").write_bytes(b"short")
    for name, kind, reason in (
        ("file", ArgumentError, "name a folder"),
        ("me.json", ArgumentError, "name a folder"),
        ("none/colours", RtsrError, "There is no folder"),
        ("file/colours", RtsrError, "Not a directory"),
        ("other", RtsrError, "is not the key"),
    ):
        with pytest.raises(kind, match=reason):
            KeptColours(tmp_path / name)
    assert not (tmp_path / "me.json").exists()


def colour_of_the_call(running):
    running.until(lambda: running.engine.lines)
    return running.engine.lines[0].path.stream.colour


@pytest.mark.parametrize(
    ("offered", "forms", "chosen"),
    [(SDP, (OPUS,), OPUS_SDP), (OPUS_SDP, (PCMU,), SDP)],
    ids=["caller", "called"],
)
def test_the_next_call_of_a_person_begins_with_what_the_last_has_taught(
    offered, forms, chosen, stand_in, tmp_path
):
    folder = tmp_path / "colours"
    sound = np.random.default_rng(0).normal(0.0, 0.1, (76800, 1)).astype(np.float32)
    with between(stand_in, kept_colours=KeptColours(folder), forms=forms) as (
        peer,
        running,
        called,
    ):
        to = answered(peer, called, offered, chosen)[2]
        first = colour_of_the_call(running)
        assert first.learnt is None
        first.learn(Excerpt(sound, 24000.0))
        hang_up(peer, to)
        running.until(lambda: files(folder))
        running.until(lambda: not running.engine.lines)
        peer.send(peer.request("INVITE", body=offered, call="c2"))
        called.answer(called.hear("INVITE"), 200, chosen)
        text = peer.final()[1]
        second = colour_of_the_call(running)
        assert second is not first
        assert second.learnt == read_colour(folder / files(folder)[0])
        assert second.learnt.seconds == pytest.approx(1.2, abs=0.05)
        hang_up(peer, tag_of(text), call="c2")


def test_whose_sound_is_enhanced_by_now_has_their_own_colour(stand_in, tmp_path, facts):
    folder = tmp_path / "colours"
    kept = KeptColours(folder)
    kept.keep("me@127.0.0.1", taught(facts, -6.0))
    kept.keep("x@127.0.0.1", taught(facts, -3.0))
    with between(stand_in, kept_colours=kept, forms=(OPUS, PCMU)) as (peer, running, called):
        invite, _, to = answered(peer, called)
        first = colour_of_the_call(running)
        assert first.learnt.gains_db[0][0] == -6.0
        # The called end, a telephone now, is the narrow one and then is not again.
        for number, answer, gain_db in ((7, SDP, -3.0), (8, OPUS_SDP, -6.0)):
            called.request(invite, "INVITE", number, answer)
            called.hear("SIP/2.0 200")
            called.request(invite, "ACK", number)
            running.until(lambda gain_db=gain_db: gain_of_the_call(running) == gain_db)
        assert colour_of_the_call(running) is first
        hang_up(peer, to)
        called.answer(called.hear("BYE"), 200)


def gain_of_the_call(running):
    colour = colour_of_the_call(running)
    return colour and colour.learnt and colour.learnt.gains_db[0][0]


@pytest.mark.parametrize(
    ("shown", "asked", "kept"),
    [
        ("sip:anonymous@anonymous.invalid", "", 0),
        ("sip:x@Anonymous.INVALID", "", 0),
        ("sip:Restricted@127.0.0.1", "", 0),
        ("sip:anonymous;cpc=ordinary@gw.example", "", 0),
        ("sip:me@127.0.0.1", "Privacy: user;id\r\n", 0),
        ("sip:+4989;cpc=ordinary@gw.example", "", 1),
        ("tel:+4989;phone-context=x", "", 1),
    ],
)
def test_who_does_not_want_to_be_known_is_not_and_others_are(
    shown, asked, kept, stand_in, tmp_path
):
    folder = tmp_path / "colours"
    sound = np.random.default_rng(0).normal(0.0, 0.1, (76800, 1)).astype(np.float32)
    with between(stand_in, kept_colours=KeptColours(folder)) as (peer, running, called):
        request = peer.request("INVITE", body=SDP, more=asked)
        peer.send(request.replace(b"<sip:me@127.0.0.1>;tag", f"<{shown}>;tag".encode()))
        called.answer(called.hear("INVITE"), 200, OPUS_SDP)
        called.hear("ACK")
        text = peer.final()[1]
        colour = colour_of_the_call(running)
        colour.learn(Excerpt(sound, 24000.0))
        assert colour.learnt is not None
        hang_up(peer, tag_of(text))
        running.until(lambda: running.bridge.calls == 0)
    assert len(files(folder)) == kept


def refused(*options):
    result = subprocess.run(
        [sys.executable, "-m", "rtsr", "call", *options], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_the_command_says_where_colours_cannot_be_kept(tmp_path):
    sip = ("sip", "--listen", "127.0.0.1:0", "--to", "sip:x@127.0.0.1:5", "--colour")
    assert "needs the folder to keep them in" in refused(*sip, "auto:")
    assert "name a folder" in refused(*sip, f"auto:{tmp_path}/me.json")
    web = refused("web", "--listen", "127.0.0.1:0", "--colour", "auto:kept")
    assert "Only `rtsr live` and `rtsr call sip` keep what they learn" in web
