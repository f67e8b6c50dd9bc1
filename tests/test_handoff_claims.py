"""A forum question about ``output`` and ``h_n``, claim by claim.

The question (Q) shows both for an ``nn.GRU`` and asks why they differ; three answers (A, B, C) explain. Each claim is
quoted in our words, with a verdict: true, false, or true on a condition. Every test names the claims that it settles.
``output`` is ``(batch, steps, directions * hidden)`` and ``h_n`` is ``(layers * directions, batch, hidden)``.

Q1   false  ``output`` and ``h_n`` should be the same.
Q2   false  They are transposes of each other.
A1   true   With three layers they are not equal.
A2   cond.  ``h_n.view(layers, directions, batch, hidden)`` reads ``h_n``, always. ``view(directions, layers, ...)`` is
            wrong with more than one layer and two directions, and ``view(layers, batch, directions * hidden)`` with
            two directions and more than one sequence.
A3   cond.  ``h_n`` is the state at the last step: of each sequence's own length, if the input is packed. For the
            backward direction, the last step is step 0.
A4   true   ``output`` is the last layer at every step.
A5   true   ``output.view(batch, steps, directions, hidden)`` separates the directions, forward first.
A6   cond.  With one direction, ``output[:, -1]`` is ``h_n`` of the top layer: without padding.
A7   cond.  With two directions, ``output[:, -1, :H]`` is its forward ``h_n``: without padding.
A8   false  With two directions, ``output[:, -1, :H]`` is its backward ``h_n``. (The answer prints True.)
A9   false  ``output[:, S]`` is the forward ``h_n``: step S does not exist; it is S - 1.
A10  true   ``output[:, 0, H:]`` is the backward ``h_n``, with or without padding.
A11  true   All of this holds for an LSTM, too. It also has ``c_n``, of which nothing is in ``output``.
B1   true   ``output`` has every step of the last layer.
B2   true   ``h_n`` has every layer at its last step.
B3   cond.  ``h_n`` is a strict subset of ``output`` if and only if there is one layer. All of ``h_n`` is in ``output``
            if and only if there is one layer; with a single step, the subset is not strict.
B4   true   The backward direction is a copy that reads the reversed input. In its own time, its first output is beside
            the forward direction's last, and its last beside the forward direction's first.
B5   --     ``h_n`` is returned so that nobody has to pick these values out of ``output``. That is an intention, which
            no test can settle; what can be tested is that picking goes wrong under padding (A6, A7).
C1   cond.  With one layer, ``output`` is ``h_n[-1]``: its last step is, with one direction and any number of layers.
C2   true   They are no transposes.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

B, S, H, E = 4, 5, 7, 8
LENGTHS = torch.tensor([3, 5, 1, 4])

every_cell = pytest.mark.parametrize("cell", ["gru", "lstm"])
every_shape = pytest.mark.parametrize(
    ("layers", "directions"), [(layers, directions) for layers in (1, 2, 3) for directions in (1, 2)]
)
pytestmark = pytest.mark.usefixtures("float64")


def run(layers, directions, cell="gru", lengths=None, steps=S):
    """Run a network of PyTorch on random vectors, packed if lengths are given: network, vectors, output, h_n, c_n."""
    torch.manual_seed(4)
    kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
    rnn = kind(E, H, layers, batch_first=True, bidirectional=directions == 2)
    vectors = torch.randn(B, steps, E)
    if lengths is None:
        output, final = rnn(vectors)
    else:
        packed_output, final = rnn(pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False))
        output, _ = pad_packed_sequence(packed_output, batch_first=True, total_length=steps)
    h_n, c_n = final if cell == "lstm" else (final, None)
    return rnn, vectors, output, h_n, c_n


def is_in(rows, output, directions):
    """Whether each row of ``h_n`` or ``c_n`` is anywhere in ``output``, for each sequence, ``(L * D, B)``."""
    vectors = output.unflatten(-1, (directions, H)).flatten(1, 2)  # (B, S * D, H)
    return (rows.unsqueeze(2) == vectors).all(dim=-1).any(dim=-1)


def single(rnn, suffix="", input_size=E):
    """A network of one layer and direction with the parameters of one that belongs to ``rnn``."""
    copy = type(rnn)(input_size, H, batch_first=True)
    for name, parameter in copy.named_parameters():
        parameter.data = getattr(rnn, name.removesuffix("_l0") + (suffix or "_l0")).data
    return copy


def test_q1_a1_h_n_has_more_than_output_and_output_more_than_h_n():
    _, _, output, h_n, _ = run(layers=3, directions=1)

    assert is_in(h_n, output, 1).all(dim=-1).tolist() == [False, False, True]  # the lower layers are in h_n only
    steps_in_h_n = (output.unsqueeze(0) == h_n.unsqueeze(2)).all(dim=-1).any(dim=0)  # (B, S)
    assert steps_in_h_n.tolist() == [[False, False, False, False, True]] * B  # the earlier steps are in output only


def test_q2_c2_they_are_no_transposes_of_each_other():
    _, _, output, h_n, _ = run(layers=2, directions=1, steps=1)  # as in the question: one step, two layers

    assert torch.equal(output[:, 0], h_n[1])  # the top layer is in both,
    assert not is_in(h_n[:1], output, 1).any()  # and layer 0 is in h_n only


@every_shape
@pytest.mark.parametrize("batch", [1, B])
def test_a2_h_n_is_read_by_layer_and_then_by_direction(layers, directions, batch):
    _, _, output, h_n, _ = run(layers, directions)
    h_n = h_n[:, :batch].contiguous()
    right = h_n.view(layers, directions, batch, H)

    directions_first = h_n.view(directions, layers, batch, H).transpose(0, 1)
    directions_joined = h_n.view(layers, batch, directions * H)

    assert torch.equal(right[-1, 0], output[:batch, -1, :H])
    assert torch.equal(directions_first, right) is (layers == 1 or directions == 1)
    assert torch.equal(directions_joined, right.transpose(1, 2).flatten(2)) is (directions == 1 or batch == 1)


@every_cell
@pytest.mark.parametrize("directions", [1, 2])
def test_a3_the_last_step_is_that_of_each_sequence_if_and_only_if_the_input_is_packed(cell, directions):
    rnn, vectors, _, packed, _ = run(2, directions, cell, LENGTHS)
    _, _, _, unpacked, _ = run(2, directions, cell)

    for b, length in enumerate(LENGTHS.tolist()):
        _, final = rnn(vectors[b : b + 1, :length])
        alone = final[0] if cell == "lstm" else final
        torch.testing.assert_close(packed[:, b], alone[:, 0], rtol=0, atol=1e-12)
        assert torch.allclose(unpacked[:, b], alone[:, 0], rtol=0, atol=1e-12) is (length == S)


@every_cell
def test_a4_b1_output_is_the_last_layer_at_every_step(cell):
    rnn, vectors, output, _, _ = run(2, 1, cell)
    lower, upper = single(rnn, "_l0"), single(rnn, "_l1", input_size=H)

    torch.testing.assert_close(output, upper(lower(vectors)[0])[0], rtol=0, atol=1e-12)


@every_cell
def test_a5_directions_are_side_by_side_forward_first(cell):
    rnn, vectors, output, _, _ = run(1, 2, cell)
    forward, backward = output.view(B, S, 2, H).unbind(2)

    torch.testing.assert_close(forward, single(rnn)(vectors)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(backward, single(rnn, "_l0_reverse")(vectors.flip(1))[0].flip(1), rtol=0, atol=1e-12)


@every_cell
@every_shape
def test_a6_a7_a11_the_last_output_is_the_forward_final_state_without_padding(layers, directions, cell):
    _, _, output, h_n, _ = run(layers, directions, cell)
    top_forward = h_n.view(layers, directions, B, H)[-1, 0]

    assert torch.equal(output[:, -1, :H], top_forward)

    _, _, output, h_n, _ = run(layers, directions, cell, LENGTHS)
    top_forward = h_n.view(layers, directions, B, H)[-1, 0]

    assert torch.equal(
        output[torch.arange(B), LENGTHS - 1, :H], top_forward
    )  # with padding: at each sequence's own end
    assert (output[:, -1, :H] == top_forward).all(dim=-1).tolist() == (LENGTHS == S).tolist()


@every_cell
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["unpadded", "padded"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a8_a10_the_backward_final_state_is_the_second_half_of_the_first_output(layers, lengths, cell):
    _, _, output, h_n, _ = run(layers, 2, cell, lengths)
    top_backward = h_n.view(layers, 2, B, H)[-1, 1]

    assert not torch.isclose(output[:, -1, :H], top_backward).all(dim=-1).any()  # A8 is false
    assert torch.equal(output[:, 0, H:], top_backward)  # A10 is true


def test_a9_there_is_no_output_at_index_s():
    _, _, output, h_n, _ = run(1, 1)

    with pytest.raises(IndexError):
        _ = output[:, S]
    assert torch.equal(output[:, S - 1], h_n[0])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["unpadded", "padded"])
def test_a11_c_n_is_ordered_like_h_n_and_is_not_in_output(lengths):
    _, _, output, h_n, c_n = run(2, 2, "lstm", lengths)

    assert c_n.shape == h_n.shape
    assert is_in(h_n, output, 2).all(dim=-1).tolist() == [False, False, True, True]
    assert not is_in(c_n, output, 2).any()


@every_cell
def test_b2_h_n_has_every_layer_at_its_last_step(cell):
    rnn, vectors, _, h_n, _ = run(2, 1, cell)
    lower, upper = single(rnn, "_l0"), single(rnn, "_l1", input_size=H)
    lower_output = lower(vectors)[0]

    torch.testing.assert_close(h_n[0], lower_output[:, -1], rtol=0, atol=1e-12)
    torch.testing.assert_close(h_n[1], upper(lower_output)[0][:, -1], rtol=0, atol=1e-12)


@every_cell
@every_shape
def test_b3_all_of_h_n_is_in_output_if_and_only_if_there_is_one_layer(layers, directions, cell):
    _, _, output, h_n, _ = run(layers, directions, cell, LENGTHS)

    found = is_in(h_n, output, directions).all(dim=-1).tolist()

    assert found == [False] * (layers - 1) * directions + [True] * directions


def test_b3_with_a_single_step_the_subset_is_not_strict():
    _, _, output, h_n, _ = run(1, 2, steps=1)

    assert torch.equal(output.flatten(), h_n.transpose(0, 1).flatten())  # the same numbers


@every_cell
def test_b4_the_backward_direction_is_a_copy_that_reads_the_reversed_input(cell):
    rnn, vectors, output, h_n, _ = run(1, 2, cell)

    own_output = single(rnn, "_l0_reverse")(vectors.flip(1))[0]  # in the copy's own time

    torch.testing.assert_close(output[:, -1, H:], own_output[:, 0], rtol=0, atol=1e-12)  # beside the forward end
    torch.testing.assert_close(output[:, 0, H:], own_output[:, -1], rtol=0, atol=1e-12)
    torch.testing.assert_close(h_n[1], own_output[:, -1], rtol=0, atol=1e-12)


@every_cell
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_c1_h_n_minus_1_is_the_last_output_if_there_is_one_direction(layers, cell):
    _, _, output, h_n, _ = run(layers, 1, cell)

    assert torch.equal(output[:, -1], h_n[-1])
    assert not torch.isclose(output[:, :-1], h_n[-1].unsqueeze(1)).all(dim=-1).any()  # no other step

    _, _, output, h_n, _ = run(layers, 2, cell)

    assert not torch.isclose(output[:, -1, H:], h_n[-1]).all(dim=-1).any()  # with two, h_n[-1] is the backward one
