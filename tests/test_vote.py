"""An election among predictions, by eye."""

from seq2seq.api import Hypothesis, elect


def vote_of(*texts_and_log_probs):
    return elect([Hypothesis(text, log_prob, [], log_prob) for text, log_prob in texts_and_log_probs])


def test_most_votes_win_even_if_another_text_is_more_probable():
    assert vote_of(("a", -5.0), ("b", -0.1), ("a", -7.0)) == Hypothesis("a", -6.0, [], -6.0)


def test_equal_votes_are_decided_by_the_mean_log_probability():
    assert vote_of(("a", -1.0), ("b", -0.2), ("b", -3.0), ("a", -0.4)).text == "a"  # -0.7 against -1.6
    assert vote_of(("a", -1.0), ("b", -0.5)).text == "b"
