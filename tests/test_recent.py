"""An answer is asked for once in a while, and never kept for longer than it is good."""

from __future__ import annotations

from crosscut.recent import Recent


def test_an_answer_is_good_for_a_moment():
    now, asked = [0.0], []
    recent = Recent(1.0, 2, lambda: now[0])

    def look():
        asked.append(now[0])
        return len(asked)

    assert [recent.get("a", look), recent.get("a", look)] == [1, 1]
    now[0] = 0.99
    assert recent.get("a", look) == 1
    now[0] = 1.0
    assert recent.get("a", look) == 2
    recent.forget()
    assert recent.get("a", look) == 3


def test_few_answers_are_kept():
    recent = Recent(1.0, 2, lambda: 0.0)
    assert [recent.get(key, lambda key=key: key) for key in "abc"] == ["a", "b", "c"]
    assert recent.get("a", lambda: "anew") == "anew"
