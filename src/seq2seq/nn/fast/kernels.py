"""One direction of one recurrent layer over all its steps, with hand-written forward and backward passes for the CPU.

Autograd records every small operation of every step and differentiates them one by one, which takes longer than the
matrix multiplications if sequences differ in length. Here, everything that does not depend on the previous step is
computed for all steps at once: the input's contribution to the gates, the local gradients of the gates, and the
gradients of all weights. Each step is left with one matrix multiplication and a few element-wise operations. Matrices
are multiplied in the precision of the weights, and everything else is computed in that of the state.

The N tokens are in the order of a ``PackedSequence``: the first of every sequence, then the second of every sequence
that has one, and so on, the longest sequence first. ``batch_sizes`` holds the number of sequences that have a first
token, a second, ... The equations and the order of the gates are those of ``nn.GRU`` and ``nn.LSTM``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class GRULayer(Function):
    """``h' = n + z (h - n)`` with ``n = tanh(W_n x + r (U_n h))`` and gates ``r, z = sigmoid(W x + U h)``.

    Every matrix product has a bias. Cho et al. 2014, but ``r`` scales ``U_n h`` and not ``h``, as in PyTorch and cuDNN.
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
        batch_sizes: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Run over all steps.

        Args:
            ctx: Stores the tensors that `backward` needs.
            inputs: Input vectors of all tokens, ``(N, E)``.
            state: State before the first step, ``(B, H)``.
            w: Weights of r, z and n for the input, ``(3 * H, E)``.
            u: Weights of r, z and n for the state, ``(3 * H, H)``.
            w_bias: Bias that belongs to ``w``, ``(3 * H)``.
            u_bias: Bias that belongs to ``u``, ``(3 * H)``.
            batch_sizes: Number of sequences at each step.

        Returns:
            The state after every token, ``(N, H)``, and after the last token of each sequence, ``(B, H)``.
        """
        size = state.size(1)
        both = 2 * size
        gates = state.new_empty(len(inputs), 3 * size)  # r, z and U_n h; each step adds the state's share
        add_matmul(gates[:, :both].copy_(w_bias[:both] + u_bias[:both]), inputs, w[:both].t())
        gates[:, both:] = u_bias[both:]
        n = add_matmul(w_bias[both:].repeat(len(inputs), 1), inputs, w[both:].t())
        outputs = torch.empty_like(n)
        r, z, u_h = gates.chunk(3, 1)
        h, u_t = state, u.t()
        steps = (part.split(batch_sizes) for part in (gates, gates[:, :both], r, z, u_h, n, outputs))
        for gates_t, r_z_t, r_t, z_t, u_h_t, n_t, h_t in zip(*steps, strict=True):
            h = h[: len(gates_t)]
            add_matmul(gates_t, h, u_t)
            r_z_t.sigmoid_()
            n_t.addcmul_(r_t, u_h_t).tanh_()
            h = torch.lerp(n_t, h, z_t, out=h_t)
        ctx.save_for_backward(inputs, state, w, u, gates, n, outputs)
        ctx.batch_sizes = batch_sizes
        return outputs, final_states(outputs, batch_sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the arguments of `forward`, given those of its results."""
        d_outputs, d_final = grad_outputs
        inputs, state, w, u, gates, n, outputs = ctx.saved_tensors
        batch_sizes, (r, z, u_h) = ctx.batch_sizes, gates.chunk(3, 1)
        before = states_before(outputs, state, batch_sizes)
        # The gradient of the state after each token; the loop below adds the gradients from later steps.
        d_h = add_final(d_outputs.clone(memory_format=torch.contiguous_format), d_final, batch_sizes)
        # The derivatives of the state after a token with respect to its gates before activation, with u_h instead of n.
        local_grads, keep = torch.empty_like(gates), 1 - z
        grad_r, grad_z, grad_u_h = local_grads.chunk(3, 1)
        grad_n = keep.addcmul(keep * n, n, value=-1)
        torch.sub(before, n, out=grad_z).mul_(z).mul_(keep)
        torch.mul(grad_n, r, out=grad_u_h)
        torch.addcmul(grad_u_h, grad_u_h, r, value=-1, out=grad_r).mul_(u_h)

        by_gate = local_grads.unflatten(1, (3, -1))
        steps = [part.split(batch_sizes) for part in (local_grads, by_gate, d_h.unsqueeze(1), z, d_h)]
        d_state = torch.zeros_like(state)
        d_before = [d_state, *steps[-1]]
        for step in reversed(range(len(batch_sizes))):
            d_gates_t, d_by_gate_t, d_per_gate_t, z_t, d_h_t = (part[step] for part in steps)
            d_by_gate_t.mul_(d_per_gate_t)
            add_matmul(d_before[step][: batch_sizes[step]].addcmul_(d_h_t, z_t), d_gates_t, u)
        d_u, d_u_bias = local_grads.to(u.dtype).t() @ before.to(u.dtype), local_grads.sum(0)
        torch.mul(grad_n, d_h, out=grad_u_h)  # from here on that of n: r does not scale the inputs
        d_input_gates = local_grads.to(w.dtype)
        return d_input_gates @ w, d_state, d_input_gates.t() @ inputs, d_u, local_grads.sum(0), d_u_bias, None


class LSTMLayer(Function):
    """``c' = f c + i g`` and ``h' = o tanh(c')`` with ``g = tanh(W_g x + U_g h)`` and ``i, f, o = sigmoid(W x + U h)``.

    Every matrix product has a bias. Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
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
        batch_sizes: Sequence[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run over all steps.

        Args:
            ctx: Stores the tensors that `backward` needs.
            inputs: Input vectors of all tokens, ``(N, E)``.
            state: h before the first step, ``(B, H)``.
            cell: c before the first step, ``(B, H)``.
            w: Weights of i, f, g and o for the input, ``(4 * H, E)``.
            u: Weights of i, f, g and o for the state, ``(4 * H, H)``.
            w_bias: Bias that belongs to ``w``, ``(4 * H)``.
            u_bias: Bias that belongs to ``u``, ``(4 * H)``.
            batch_sizes: Number of sequences at each step.

        Returns:
            h after every token, ``(N, H)``, and h and c after the last token of each sequence, ``(B, H)`` each.
        """
        size = state.size(1)
        gates = add_matmul((w_bias + u_bias).repeat(len(inputs), 1), inputs, w.t())
        outputs, cells, tanh_c = (state.new_empty(len(inputs), size) for _ in range(3))
        h, c, u_t = state, cell, u.t()
        steps = (part.split(batch_sizes) for part in (gates, outputs, cells, tanh_c))
        for gates_t, h_t, c_t, tanh_c_t in zip(*steps, strict=True):
            h, c = h[: len(gates_t)], c[: len(gates_t)]
            add_matmul(gates_t, h, u_t)
            i, f = gates_t[:, : 2 * size].sigmoid_().chunk(2, 1)
            g, o = gates_t[:, 2 * size : 3 * size].tanh_(), gates_t[:, 3 * size :].sigmoid_()
            c = torch.mul(f, c, out=c_t).addcmul_(i, g)
            h = torch.mul(o, torch.tanh(c, out=tanh_c_t), out=h_t)
        ctx.save_for_backward(inputs, state, cell, w, u, gates, outputs, cells, tanh_c)
        ctx.batch_sizes = batch_sizes
        return outputs, final_states(outputs, batch_sizes), final_states(cells, batch_sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the arguments of `forward`, given those of its results."""
        d_outputs, d_final, d_final_cell = grad_outputs
        inputs, state, cell, w, u, gates, outputs, cells, tanh_c = ctx.saved_tensors
        batch_sizes, (i, f, g, o) = ctx.batch_sizes, gates.chunk(4, 1)
        # The gradients of h and c after each token; the loop below adds the gradients from later steps.
        d_h = add_final(d_outputs.clone(memory_format=torch.contiguous_format), d_final, batch_sizes)
        d_c = add_final(torch.zeros_like(d_h), d_final_cell, batch_sizes)
        # The derivatives, before activation, of c after a token with respect to i, f and g, and of h with respect to o.
        local_grads = torch.empty_like(gates)
        grad_i, grad_f, grad_g, grad_o = local_grads.chunk(4, 1)
        torch.addcmul(i, i, i, value=-1, out=grad_i).mul_(g)
        torch.addcmul(f, f, f, value=-1, out=grad_f).mul_(states_before(cells, cell, batch_sizes))
        torch.addcmul(i, i * g, g, value=-1, out=grad_g)
        torch.addcmul(o, o, o, value=-1, out=grad_o).mul_(tanh_c)
        grad_c = o.addcmul(o * tanh_c, tanh_c, value=-1)  # of h with respect to c

        steps = [
            part.split(batch_sizes) for part in (local_grads, local_grads.unflatten(1, (4, -1)), f, grad_c, d_h, d_c)
        ]
        d_state, d_cell = torch.zeros_like(state), torch.zeros_like(cell)
        d_h_before, d_c_before = [d_state, *steps[-2]], [d_cell, *steps[-1]]
        for step in reversed(range(len(batch_sizes))):
            size, (d_gates_t, d_by_gate_t, f_t, grad_c_t, d_h_t, d_c_t) = batch_sizes[step], (p[step] for p in steps)
            d_c_t.addcmul_(d_h_t, grad_c_t)
            d_by_gate_t[:, :3].mul_(d_c_t.unsqueeze(1))
            d_by_gate_t[:, 3].mul_(d_h_t)
            d_c_before[step][:size].addcmul_(d_c_t, f_t)
            add_matmul(d_h_before[step][:size], d_gates_t, u)
        d_bias, d_gates = local_grads.sum(0), local_grads.to(u.dtype)
        d_u = d_gates.t() @ states_before(outputs, state, batch_sizes).to(u.dtype)
        return d_gates @ w, d_state, d_cell, d_gates.t() @ inputs, d_u, d_bias, d_bias.clone(), None


def last_tokens(batch_sizes: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield, for each step at which sequences end, the slices of these sequences and of their last tokens."""
    start = 0
    for size, next_size in zip(batch_sizes, [*batch_sizes[1:], 0], strict=True):
        if next_size < size:
            yield slice(next_size, size), slice(start + next_size, start + size)
        start += size


def final_states(states: Tensor, batch_sizes: Sequence[int]) -> Tensor:
    """Return the states after the last token of each sequence, ``(B, H)``, given those after every token, ``(N, H)``.

    Example:
        >>> final_states(torch.tensor([[1], [2], [3], [4]]), [3, 1]).tolist()
        [[4], [2], [3]]
    """
    return torch.cat([states[tokens] for _, tokens in reversed(list(last_tokens(batch_sizes)))])


def add_final(gradient: Tensor, d_final: Tensor, batch_sizes: Sequence[int]) -> Tensor:
    """Add the gradients of the final states, ``(B, H)``, to those of the states after every token, ``(N, H)``."""
    for sequences, tokens in last_tokens(batch_sizes):
        gradient[tokens] += d_final[sequences]
    return gradient


def states_before(states: Tensor, first: Tensor, batch_sizes: Sequence[int]) -> Tensor:
    """Return the states before every token, ``(N, H)``, given those after every token and those at the beginning."""
    steps = states.split(batch_sizes)
    return torch.cat([first, *(step[:size] for step, size in zip(steps, batch_sizes[1:], strict=False))])


def add_matmul(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add ``left @ right``, multiplied in the precision of ``right``, to ``total`` in place, and return it."""
    if total.dtype == right.dtype:
        return total.addmm_(left, right)
    return total.add_(left.to(right.dtype) @ right)
