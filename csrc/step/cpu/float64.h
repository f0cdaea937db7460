// The passes over float64 parameters, whose state is float64 too: part of step/cpu/kernels.cpp, which says what may
// stand here. They are rare, so this is the rule in the plainest loop.
#pragma once

#include <cstdint>

#include "step/piece.h"

namespace pagedopt {
namespace PAGEDOPT_ISA {
namespace {

using Element64 = AdamElementOf<double>;

// Calls visit(i, new element) for every element that the step moves.
template <bool amsgrad, class Visit>
PAGEDOPT_HD void for_moved64(const Piece& piece, Visit visit) {
  const auto* const p = static_cast<const double*>(piece.param);
  const auto* const g = static_cast<const double*>(piece.grad);
  const auto slot = [&](int i) { return static_cast<const double*>(piece.slot[i]); };
  const bool decay = piece.scalars64.coupled_decay != 0.0;
  for (std::int64_t i = 0; i < piece.numel; ++i) {
    if (piece.skip_zeros && g[i] == 0.0) continue;
    Element64 e{p[i], slot(0)[i], slot(1)[i], amsgrad ? slot(2)[i] : 0.0};
    adam<amsgrad>(piece.scalars64, decay, g[i], e);
    visit(i, e);
  }
}

template <bool amsgrad>
void update64(const Piece& piece) {
  const auto slot = [&](int i) { return static_cast<double*>(piece.slot[i]); };
  for_moved64<amsgrad>(piece, [&](std::int64_t i, const Element64& e) {
    static_cast<double*>(piece.param)[i] = e.p;
    slot(0)[i] = e.m;
    slot(1)[i] = e.v;
    if (amsgrad) slot(2)[i] = e.vmax;
  });
}

void update64(const Piece& piece) { piece.amsgrad ? update64<true>(piece) : update64<false>(piece); }

double square_sum64(const void* numbers, std::int64_t numel) {
  const auto* const x = static_cast<const double*>(numbers);
  double sum = 0.0;
  for (std::int64_t i = 0; i < numel; ++i) sum += x[i] * x[i];
  return sum;
}

Partial gradient_norm64(const Piece& piece) {
  Partial partial;
  partial.grad_square = square_sum64(piece.grad, piece.numel);
  return partial;
}

template <bool amsgrad>
Partial measure64(const Piece& piece) {
  Partial partial;
  partial.param_square = square_sum64(piece.param, piece.numel);
  for_moved64<amsgrad>(piece, [&](std::int64_t, const Element64& e) {
    if (e.m == 0.0) return;
    const double move = adam_move<amsgrad>(piece.scalars64, e);
    partial.move_square += move * move;
  });
  return partial;
}

Partial measure64(const Piece& piece) { return piece.amsgrad ? measure64<true>(piece) : measure64<false>(piece); }

}  // namespace
}  // namespace PAGEDOPT_ISA
}  // namespace pagedopt
