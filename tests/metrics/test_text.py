"""BLEU and chrF of a whole corpus, however it is divided, as sacrebleu computes them."""

import pytest
import sacrebleu

from seq2seq.metrics import BLEU, ChrF, SequenceErrorRate

PREDICTIONS = ["The cat sat on the mat.", "A dog runs", "Ünïcödé wörds are här", "zzz"]
REFERENCES = [
    ["The cat sat on a mat.", "A cat was on the mat."],
    ["A dog is running."],
    ["Ünïcödé words are here", "x", "wörds are här"],
    ["no overlap at all"],
]


@pytest.mark.parametrize(("kind", "theirs"), [(BLEU, sacrebleu.BLEU), (ChrF, sacrebleu.CHRF)])
@pytest.mark.parametrize("divided", [[4], [1, 3], [2, 1, 1]])
def test_the_score_is_that_of_the_whole_corpus(kind, theirs, divided):
    streams = [[own[number] if number < len(own) else None for own in REFERENCES] for number in range(3)]
    expected = theirs()
    score = expected.corpus_score(PREDICTIONS, streams).score

    parts, start = [], 0
    for size in divided:  # as if each part came from another process
        parts.append(kind())
        parts[-1].update(PREDICTIONS[start : start + size], REFERENCES[start : start + size])
        start += size
    whole = parts[0]
    for part in parts[1:]:
        whole.merge_state(part)

    assert float(whole.compute()) == pytest.approx(score)
    assert 0 < score < 100
    assert whole.signature == str(expected.get_signature())


def test_options_are_those_of_sacrebleu():
    lower = BLEU(lowercase=True)
    lower.update(["THE CAT SAT ON THE MAT"], [["the cat sat on the mat"]])

    assert float(lower.compute()) == pytest.approx(100)
    assert "case:lc" in lower.signature


def test_no_texts_have_no_score_above_0():
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert float(BLEU().compute()) == 0


def test_a_word_is_wrong_unless_it_equals_one_of_its_references():
    metric = SequenceErrorRate()
    metric.update(predicted_ids=[[4], [5], [6, 7]], reference_ids=[[[4]], [[9], [5]], [[6], [7]]])

    assert float(metric.compute()) == pytest.approx(1 / 3)
