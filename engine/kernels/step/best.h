// The largest of a token's logits and its row, which each thread keeps while it multiplies: of equals the lowest row,
// and what is no number counts as the largest of all.

#pragma once
#include <limits>

#include "vector.h"

struct Best {
  Vector values;
  Whole rows;

  void clear() { values = Vector{} - std::numeric_limits<float>::infinity(), rows = Whole{} + INT32_MAX; }

  // Sixteen logits with their rows.
  void see(Vector found, Whole own) {
    const Whole strange = found != found, known = values == values;
    const Whole equal = (found == values) | (strange & ~known);
    const Whole better = (found > values) | (strange & known) | (equal & (own < rows));
    values = better ? found : values;
    rows = better ? own : rows;
  }

  // The row of the best in any lane.
  int32_t row() const {
    Best all = *this;
    for (int64_t lane = 0; lane < WIDTH; ++lane) all.see(Vector{} + values[lane], Whole{} + rows[lane]);
    return all.rows[0];
  }
};
