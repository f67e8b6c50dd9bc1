"""One direction of one recurrent layer over all its steps, forward and backward by hand, for the CPU.

There, PyTorch records every small operation of every step and undoes them one by one, which takes longer than the
matrix products do when rows differ in length. Here everything that does not wait for the step before is done for all
steps at once: what the input gives to the gates, the slopes of the gates, and the gradients of all weights. What is
left of a step is one product and a few passes over its gates. Products are taken in the precision of the weights, and
all else in that of the state.

Tokens are packed as in a ``PackedSequence``: the first of every row, then the second of every row that has one, and so
on, the longest row first. ``sizes`` says how many rows have a first token, a second, ...; its sum is N, or less where
tokens of no row stand behind the others: what comes out there is zero, and must have no gradient. The equations and the
order of the gates are those of ``nn.GRU`` and ``nn.LSTM``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from seq2seq.nn.fast.packing import after_last


class GRULayer(Function):
    """``h' = n + z (h - n)`` with ``n = tanh(W_n x + r (U_n h))`` and gates ``r, z = sigmoid(W x + U h)``.

    Every product has a bias. Cho et al. 2014, but for the place of ``r``, which is that of PyTorch and cuDNN.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - as in PyTorch
        inputs: Tensor,
        state: Tensor,
        w: Tensor,
        u: Tensor,
        w_bias: Tensor,
        u_bias: Tensor,
        sizes: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Run over all steps.

        Args:
            ctx: Keeps what `backward` needs.
            inputs: All tokens, ``(N, E)``.
            state: Before the first step, ``(B, H)``.
            w: Weights of r, z and n for the input, ``(3 * H, E)``.
            u: Weights of r, z and n for the state, ``(3 * H, H)``.
            w_bias: Beside ``w``, ``(3 * H)``.
            u_bias: Beside ``u``, ``(3 * H)``.
            sizes: Rows at each step.

        Returns:
            The state after every token, ``(N, H)``, and after each row's last one, ``(B, H)``.
        """
        size = state.size(1)
        both = 2 * size
        gates = state.new_empty(len(inputs), 3 * size)  # r, z and U_n h; the products with the state add to them
        add_product(gates[:, :both].copy_(w_bias[:both] + u_bias[:both]), inputs, w[:both].t())
        gates[:, both:] = u_bias[both:]
        new = add_product(w_bias[both:].repeat(len(inputs), 1), inputs, w[both:].t())
        outputs, h, u_t = torch.empty_like(new), state, u.t()
        r, z, u_h = gates.chunk(3, 1)
        steps = (by_step(part, sizes) for part in (gates, gates[:, :both], r, z, u_h, new, outputs))
        for rows, gate, r_z, r, z, u_h, n, after in zip(sizes, *steps, strict=True):
            h = h[:rows]
            add_product(gate, h, u_t)
            r_z.sigmoid_()
            n.addcmul_(r, u_h).tanh_()
            h = torch.lerp(n, h, z, out=after)
        outputs[sum(sizes) :] = 0
        ctx.save_for_backward(inputs, state, w, u, gates, new, outputs)
        ctx.sizes = sizes
        return outputs, after_last(by_step(outputs, sizes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the arguments of `forward`, given those of its results."""
        d_outputs, d_last = grad_outputs
        inputs, state, w, u, gates, new, outputs = ctx.saved_tensors
        sizes, (r, z, u_h) = ctx.sizes, gates.chunk(3, 1)
        before = before_each(outputs, state, sizes)
        # From the last step to the first, all that flows into a state is added up here.
        d_h = add_last(d_outputs.clone(memory_format=torch.contiguous_format), d_last, sizes)
        # How the state after a token follows what goes into its gates, and u_h in the place of n.
        slopes, keep = torch.empty_like(gates), 1 - z
        slope_r, slope_z, slope_u_h = slopes.chunk(3, 1)
        slope_n = keep.addcmul(keep * new, new, value=-1)
        torch.sub(before, new, out=slope_z).mul_(z).mul_(keep)
        torch.mul(slope_n, r, out=slope_u_h)
        torch.addcmul(slope_u_h, slope_u_h, r, value=-1, out=slope_r).mul_(u_h)
        slopes[sum(sizes) :] = 0

        by_gate, per_gate = slopes.unflatten(1, (3, -1)), d_h.unsqueeze(1)
        steps = (by_step(part, sizes) for part in (slopes, by_gate, per_gate, z, d_h))
        d_state = torch.zeros_like(state)
        d_befores = [d_state, *by_step(d_h, sizes)]
        for rows, d_before, *step in reversed(list(zip(sizes, d_befores, *steps, strict=False))):
            d_gate, d_by_gate, d_per_gate, z_step, d_after = step
            d_by_gate.mul_(d_per_gate)
            add_product(d_before[:rows].addcmul_(d_after, z_step), d_gate, u)
        d_u, d_u_bias = slopes.to(u.dtype).t() @ before.to(u.dtype), slopes.sum(0)
        torch.mul(slope_n, d_h, out=slope_u_h)  # now of n, as the input's part is not scaled by r
        d_given = slopes.to(w.dtype)
        return d_given @ w, d_state, d_given.t() @ inputs, d_u, slopes.sum(0), d_u_bias, None


class LSTMLayer(Function):
    """``c' = f c + i g`` and ``h' = o tanh(c')`` with ``g = tanh(W_g x + U_g h)`` and ``i, f, o = sigmoid(W x + U h)``.

    Every product has a bias. Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - as in PyTorch
        inputs: Tensor,
        state: Tensor,
        cell: Tensor,
        w: Tensor,
        u: Tensor,
        w_bias: Tensor,
        u_bias: Tensor,
        sizes: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run over all steps.

        Args:
            ctx: Keeps what `backward` needs.
            inputs: All tokens, ``(N, E)``.
            state: h before the first step, ``(B, H)``.
            cell: c before the first step, ``(B, H)``.
            w: Weights of i, f, g and o for the input, ``(4 * H, E)``.
            u: Weights of i, f, g and o for the state, ``(4 * H, H)``.
            w_bias: Beside ``w``, ``(4 * H)``.
            u_bias: Beside ``u``, ``(4 * H)``.
            sizes: Rows at each step.

        Returns:
            h after every token, ``(N, H)``, and h and c after each row's last one, ``(B, H)`` each.
        """
        size = state.size(1)
        gates = add_product((w_bias + u_bias).repeat(len(inputs), 1), inputs, w.t())
        outputs, cells, squashed = (state.new_empty(len(inputs), size) for _ in range(3))  # h, c, tanh(c) after each
        h, c, u_t = state, cell, u.t()
        steps = (by_step(part, sizes) for part in (gates, outputs, cells, squashed))
        for gate, h_after, c_after, tanh_c in zip(*steps, strict=True):
            h, c = h[: len(gate)], c[: len(gate)]
            add_product(gate, h, u_t)
            i, f = gate[:, : 2 * size].sigmoid_().chunk(2, 1)
            g, o = gate[:, 2 * size : 3 * size].tanh_(), gate[:, 3 * size :].sigmoid_()
            c = torch.mul(f, c, out=c_after).addcmul_(i, g)
            h = torch.mul(o, torch.tanh(c, out=tanh_c), out=h_after)
        outputs[sum(sizes) :] = 0
        ctx.save_for_backward(inputs, state, cell, w, u, gates, outputs, cells, squashed)
        ctx.sizes = sizes
        return outputs, after_last(by_step(outputs, sizes)), after_last(by_step(cells, sizes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the arguments of `forward`, given those of its results."""
        d_outputs, d_last, d_last_cell = grad_outputs
        inputs, state, cell, w, u, gates, outputs, cells, squashed = ctx.saved_tensors
        sizes, (i, f, g, o) = ctx.sizes, gates.chunk(4, 1)
        # From the last step to the first, all that flows into a state is added up here.
        d_h = add_last(d_outputs.clone(memory_format=torch.contiguous_format), d_last, sizes)
        d_c = add_last(torch.zeros_like(d_h), d_last_cell, sizes)  # likewise
        # How c after a token follows what goes into i, f and g, and how h follows what goes into o.
        slopes = torch.empty_like(gates)
        slope_i, slope_f, slope_g, slope_o = slopes.chunk(4, 1)
        torch.addcmul(i, i, i, value=-1, out=slope_i).mul_(g)
        torch.addcmul(f, f, f, value=-1, out=slope_f).mul_(before_each(cells, cell, sizes))
        torch.addcmul(i, i * g, g, value=-1, out=slope_g)
        torch.addcmul(o, o, o, value=-1, out=slope_o).mul_(squashed)
        slope_c = o.addcmul(o * squashed, squashed, value=-1)  # how h follows c
        slopes[sum(sizes) :] = 0

        d_gates, f_steps, c_slopes, d_states, d_cells = (
            by_step(part, sizes) for part in (slopes, f, slope_c, d_h, d_c)
        )
        d_state, d_cell = torch.zeros_like(state), torch.zeros_like(cell)
        for step in reversed(range(len(sizes))):
            d_cells[step].addcmul_(d_states[step], c_slopes[step])
            by_gate = d_gates[step].unflatten(1, (4, -1))
            by_gate[:, :3].mul_(d_cells[step].unsqueeze(1))
            by_gate[:, 3].mul_(d_states[step])
            rows = sizes[step]
            (d_cells[step - 1][:rows] if step else d_cell).addcmul_(d_cells[step], f_steps[step])
            add_product(d_states[step - 1][:rows] if step else d_state, d_gates[step], u)
        d_bias, d_all = slopes.sum(0), slopes.to(u.dtype)
        d_u = d_all.t() @ before_each(outputs, state, sizes).to(u.dtype)
        return d_all @ w, d_state, d_cell, d_all.t() @ inputs, d_u, d_bias, d_bias.clone(), None


def by_step(tokens: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Return the tokens of each step, of all of them, ``(N, ...)``; what belongs to no row is left out."""
    return tokens[: sum(sizes)].split(sizes)


def ends(sizes: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield, for each step at which rows end, which rows those are and which tokens their last ones are."""
    start = 0
    for rows, going_on in zip(sizes, [*sizes[1:], 0], strict=True):
        if going_on < rows:
            yield slice(going_on, rows), slice(start + going_on, start + rows)
        start += rows


def before_each(states: Tensor, first: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the states before every token, ``(N, H)``, of those after every token and that before the first step."""
    earlier = (step[:rows] for step, rows in zip(by_step(states, sizes), sizes[1:], strict=False))
    return torch.cat([first, *earlier, states[sum(sizes) :]])


def add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add ``left @ right`` to a total, by a product in the precision of ``right``, and return it."""
    if total.dtype == right.dtype:
        return total.addmm_(left, right)
    return total.add_(left.to(right.dtype) @ right)


def add_last(gradient: Tensor, d_last: Tensor, sizes: Sequence[int]) -> Tensor:
    """Add the gradients of the states after each row's last token, ``(B, H)``, to those after every one, ``(N, H)``."""
    for rows, tokens in ends(sizes):
        gradient[tokens] += d_last[rows]
    return gradient
