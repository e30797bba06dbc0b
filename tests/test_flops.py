# Copyright 2026 The hypo_jax Authors
# SPDX-License-Identifier: Apache-2.0
"""Operations counted from a jaxpr, against hand counts and XLA's own."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from hypo_jax import objective
from hypo_jax.aot import flops
from hypo_jax.batch import Rows
from hypo_jax.models import Model, TransformerConfig, row_splash
from hypo_jax.models.row_layout import RowLayout
from hypo_jax.scoring import token_log_probs_from_hidden

B, T, D, F, L, V = 3, 5, 8, 16, 4, 32


def shape(*axes, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(axes, dtype)


def test_a_batched_product_counts_two_operations_a_term():
  found = flops.count_function(
    lambda x, y: jnp.einsum("btd,bdf->btf", x, y),
    shape(B, T, D),
    shape(B, D, F),
  )
  assert found.flops == 2 * B * T * D * F
  assert found.bytes == 4 * B * (T * D + D * F + T * F)


def layers(x, weights, *, remat=False):
  body = lambda x, w: (jnp.tanh(x @ w), None)  # noqa: E731
  return jax.lax.scan(jax.checkpoint(body) if remat else body, x, weights)[0]


def test_a_scanned_body_counts_once_a_layer():
  found = flops.count_function(layers, shape(T, D), shape(L, D, D))
  assert found.flops == L * 2 * T * D * D


@pytest.mark.parametrize(("remat", "passes"), [(False, 3), (True, 4)])
def test_a_backward_pass_is_two_forwards_and_remat_one_more(remat, passes):
  def loss(x, weights):
    return layers(x, weights, remat=remat).sum()

  gradient = jax.grad(loss, argnums=(0, 1))
  found = flops.count_function(gradient, shape(T, D), shape(L, D, D))
  assert found.flops == passes * L * 2 * T * D * D


def test_a_while_loop_counts_at_its_bound():
  def decode(x, w):
    inner = lambda x, _: (x @ w, None)  # noqa: E731
    body = lambda c: (c[0] + 2, jax.lax.scan(inner, c[1], length=2)[0])  # noqa: E731
    return jax.lax.while_loop(lambda c: c[0] < 12, body, (0, x))

  count = lambda *trips: flops.count_function(  # noqa: E731
    decode, shape(T, D), shape(D, D), while_trips=trips
  )
  assert count(6).flops == 12 * 2 * T * D * D
  for wrong in ((), (6, 6)):
    with pytest.raises(ValueError, match="while_trips: expected"):
      count(*wrong)


@pytest.mark.parametrize("axes", [{"d"}, {"d", "t"}])
def test_what_a_device_does_counts_once_a_device(axes):
  """Rows are cut by "d" where they are, and left to the compiler by "t"."""
  mesh = AbstractMesh((3, 2), ("d", "t"), axis_types=(AxisType.Auto,) * 2)
  cut = PartitionSpec(tuple(sorted(axes)))
  product = jax.shard_map(
    lambda x, w: x @ w,
    mesh=mesh,
    in_specs=(cut, PartitionSpec()),
    out_specs=cut,
    axis_names=axes,
    check_vma=False,
  )
  found = flops.count_function(product, shape(6 * B, D), shape(D, F))
  assert found.flops == 2 * 6 * B * D * F


def test_of_a_conditional_the_dearest_branch_counts():
  def either(at, x, w):
    branches = (lambda x: x, lambda x: x @ w @ w, lambda x: x @ w)
    return jax.lax.switch(at, branches, x)

  found = flops.count_function(either, shape(dtype=int), *[shape(D, D)] * 2)
  assert found.flops == 2 * 2 * D**3


@pytest.mark.parametrize("chunk_size", [2, 5])
def test_chunked_log_probs_count_whole_chunks_and_their_recomputation(
  chunk_size,
):
  def loss(hidden, head, tokens):
    return token_log_probs_from_hidden(
      hidden, head, tokens, chunk_size=chunk_size
    ).sum()

  args = shape(B, T, D), shape(D, V), shape(B, T, dtype=jnp.int32)
  padded = -(-T // chunk_size) * chunk_size
  forward = 2 * B * padded * D * V
  assert flops.count_function(loss, *args).flops == forward
  # Forward, then a chunk's logits again and two products of the backward pass.
  gradient = jax.value_and_grad(loss, argnums=(0, 1))
  assert flops.count_function(gradient, *args).flops == 4 * forward


def test_a_product_that_nothing_depends_on_does_not_count():
  def f(x):
    unused = jnp.einsum("td,fd->tf", x, x)  # noqa: F841
    return x @ x.T

  assert flops.count_function(f, shape(T, D)).flops == 2 * T * T * D


def test_xla_agrees_on_an_unrolled_program():
  def unrolled(x, weights):
    for i in range(L):
      x = x @ weights[i]
    return x

  args = shape(T, D), shape(L, D, D)
  mine = flops.count_function(unrolled, *args).flops
  cost = jax.jit(unrolled).lower(*args).compile().cost_analysis()
  assert cost["flops"] == pytest.approx(mine, rel=0.02)


def test_a_transformer_row_counts_as_by_hand():
  heads, kv_heads, head, prompt, slots, length = 4, 2, 4, 6, 3, 5
  model = Model(
    TransformerConfig(
      vocab_size=V,
      num_layers=L,
      width=D,
      num_heads=heads,
      num_kv_heads=kv_heads,
      head_dim=head,
      mlp_width=F,
      max_positions=32,
    )
  )
  rows = Rows(
    shape(B, prompt, dtype=jnp.int32),
    shape(B, prompt, dtype=bool),
    shape(B, slots, length, dtype=jnp.int32),
    shape(B, slots, length, dtype=bool),
  )
  score = lambda params, rows: objective.score_rows(model, params, rows)  # noqa: E731
  found = flops.count_function(score, model.abstract_params, rows)
  # The prompt's last token is what predicts each slot's first.
  weights = D * head * (heads + kv_heads) * 2 + 3 * D * F
  tokens = B * (prompt + slots * length)
  attention = heads * head * B
  attention *= prompt**2 + slots * length * (prompt + length)
  expected = L * 2 * (tokens * weights + 2 * attention)
  expected += 2 * B * slots * length * D * V
  # The last layer's prompt gives keys and values, and one token that goes on.
  left_out = B * (prompt - 1)
  weights -= 2 * D * head * kv_heads
  expected -= 2 * left_out * (weights + 2 * heads * head * prompt)
  assert found.flops == expected


def test_a_kernel_counts_every_program_of_its_grid():
  """Two products; of six blocks of 512, none sees more than two."""
  layout, tokens, width = RowLayout(512, 512), 512 + 5 * 512, 16
  attend = partial(
    row_splash.attend_row,
    layout=layout,
    windows=(None,),
    scale=1.0,
    softcap=None,
  )
  found = flops.count_function(
    attend,
    shape(2, tokens, 4, width),
    shape(2, tokens, 2, width),
    shape(2, tokens, 2, width),
    shape(2, tokens, dtype=bool),
    shape(dtype=jnp.int32),
  )
  assert found.flops == 2 * 2 * (2 * 4) * width * (6 * 2) * 512**2
  # What is on the chip doesn't count: scores would be 300 MB.
  assert found.bytes < 60e6
