// A Llama-like decoder whose whole step is one call: every weight is read once, by all threads, in order.
//
// A step takes tokens of one or of several texts. A layer is five passes with a barrier after each: norm, QKV, turning
// and keeping; attention; output; norm, gate, up and SwiGLU; down. Rows of QKV and of gate and up are packed so that
// what belongs together is found in one block (engine/kernels/packed.py); where queries or keys have norms of their
// own, turning is a pass by itself. All sums are float32, or exact integers.

#include <cmath>

#include "attention.h"
#include "best.h"
#include "products.h"
#include "team.h"
#include "turning.h"

struct Layer {
  Matrix qkv, out, gate_up, down;
  const float *attention_norm, *feed_norm, *query_norm, *key_norm, *bias;
};

// `cache` is [rows][layers][kv_heads][2][length][dim]: keys in blocks of 16 places, [length / 16][dim][16], then values.
// `most` tokens can be read at once; `fine` inputs have 16 bits where weights are integers, others 8. Where weights are
// bfloat16, fine inputs are float32, others bfloat16 in a prompt. Where rows are `paired`, each block of a query or key
// holds 16 rows of a head's first half, and those with which they are turned.
struct Config {
  int64_t layers, hidden, heads, kv_heads, dim, feed, vocabulary, length, most, threads, fine, paired;
  float epsilon, scale;
  const float *cosines, *sines, *final_norm;  // cosines and sines: [length][dim / 2]
  Matrix head, embedding;
  const Layer* layer;
  float* cache;
};

// Tokens, each of row `rows[i]` at place `places[i]`; those of a row stand together and in order. `wanted` [keep] are
// the numbers of those whose logits are asked for; or, where there is room for `best` [keep], the row of the largest of
// them alone, `banned` rows left out.
struct Text {
  const int64_t *ids, *rows, *places, tokens, *wanted, keep, *banned, bans;
  int64_t* best;
};

class Decoder {
 public:
  explicit Decoder(const Config& config) : c(config), team(c.threads), inputs(c.threads + 1) {
    const int64_t widest = std::max({c.hidden, c.feed, c.heads * c.dim});
    for (int64_t number = 0; number <= c.threads; ++number)
      inputs[number].reserve(number < c.threads ? FEW : c.most, widest);
    hidden.resize(c.most * c.hidden);
    mixed.resize(c.most * wide() * c.dim);
    attended.resize(c.most * c.heads * c.dim);
    gated.resize(c.most * c.feed);
    scores.resize(c.threads * TOGETHER * room());
    found.resize(c.threads * c.most);
  }

  // Read a text's tokens; logits [keep, vocabulary], of which nothing is written where the best are asked for.
  void step(const Text& text, float* logits) {
    cut(text);
    team.run([&](int64_t number) {
      embed(text, number);
      team.meet();
      for (int64_t layer = 0; layer < c.layers; ++layer) pass(layer, text, number);
      if (!text.keep) return;
      const Input& x = norm(c.final_norm, text.keep, c.head, number, [&](int64_t token) { return text.wanted[token]; });
      text.best ? choose(x, text, number) : tell(x, text, logits, number);
    });
    if (text.best)
      for (int64_t token = 0; token < text.keep; ++token) text.best[token] = best_of(token);
  }

 private:
  static constexpr int64_t FEW = 4;     // tokens that each thread prepares for itself: quicker than to wait for another
  static constexpr int64_t SLICE = 64;  // tokens that a thread multiplies with a block of weights at a time
  static constexpr int64_t PROMPT = 32;  // from so many tokens on a step waits for arithmetic, and no more for weights

  int64_t wide() const { return c.heads + 2 * c.kv_heads; }
  int64_t room() const { return c.length + 2 * WIDTH; }
  bool fine(const Matrix& m, int64_t tokens) const { return c.fine || (!m.whole() && tokens < PROMPT); }

  // Neighbours in one text attend together.
  void cut(const Text& text) {
    tiles.clear();
    for (int64_t first = 0, count; first < text.tokens; first += count) {
      const int64_t last = first + TOGETHER - 1;
      count = last < text.tokens && text.rows[last] == text.rows[first] ? TOGETHER : 1;
      tiles.push_back({first, count});
    }
  }

  void embed(const Text& text, int64_t number) {
    for (int64_t token; (token = team.take(number, text.tokens)) < text.tokens;)
      for (int64_t i = 0; i < c.hidden; ++i) hidden[token * c.hidden + i] = c.embedding.at(text.ids[token], i);
  }

  void tell(const Input& x, const Text& text, float* logits, int64_t number) {
    times(c.head, x, text.keep, number, [&](int64_t token, int64_t row, Vector y, Vector next) {
      float* to = logits + token * c.vocabulary + row;
      for (int64_t lane = 0; lane < std::min(BLOCK, c.vocabulary - row); ++lane)
        to[lane] = lane < WIDTH ? y[lane] : next[lane - WIDTH];
    });
    team.meet();
  }

  // Logits are compared where they are made, and never written.
  void choose(const Input& x, const Text& text, int64_t number) {
    constexpr float NEVER = -std::numeric_limits<float>::infinity();
    Best* own = &found[number * c.most];
    for (int64_t token = 0; token < text.keep; ++token) own[token].clear();
    const auto see = [&](int64_t token, Whole rows, Vector y) {
      y = rows < int32_t(c.vocabulary) ? y : Vector{} + NEVER;
      for (int64_t ban = 0; ban < text.bans; ++ban) y = rows == int32_t(text.banned[ban]) ? Vector{} + NEVER : y;
      own[token].see(y, rows);
    };
    times(c.head, x, text.keep, number, [&](int64_t token, int64_t row, Vector y, Vector next) {
      see(token, LANES + int32_t(row), y);
      see(token, LANES + int32_t(row + WIDTH), next);
    });
    team.meet();
  }

  int64_t best_of(int64_t token) const {
    Best all = found[token];
    for (int64_t number = 1; number < c.threads; ++number)
      all.see(found[number * c.most + token].values, found[number * c.most + token].rows);
    return all.row();
  }

  void pass(int64_t place, const Text& text, int64_t number) {
    const Layer& layer = c.layer[place];
    const int64_t tokens = text.tokens;
    const auto each = [](int64_t token) { return token; };
    const auto add = [&](int64_t token, int64_t row, Vector y, Vector next) {
      float* to = &hidden[token * c.hidden + row];
      store(to, load(to) + y);
      store(to + WIDTH, load(to + WIDTH) + next);
    };
    times(layer.qkv, norm(layer.attention_norm, tokens, layer.qkv, number, each), tokens, number,
          [&](int64_t token, int64_t row, Vector y, Vector next) {
            if (layer.bias) y += load(layer.bias + row), next += load(layer.bias + row + WIDTH);
            c.paired ? place_turned(place, text, token, row, y, next) : place_plain(token, row, y, next);
          });
    team.meet();
    if (!c.paired) turn(layer, place, text, number), team.meet();
    attend_all(place, text, number);
    meet(layer.out, number);
    times(layer.out, plain(attended, tokens, layer.out, number), tokens, number, add);
    meet(layer.gate_up, number);
    times(layer.gate_up, norm(layer.feed_norm, tokens, layer.gate_up, number, each), tokens, number,
          [&](int64_t token, int64_t row, Vector gate, Vector up) {  // SiLU(gate) x up, arXiv:2002.05202
            store(&gated[token * c.feed + row / 2], gate / (1.f + exponential(-gate)) * up);
          });
    meet(layer.down, number);
    times(layer.down, plain(gated, tokens, layer.down, number), tokens, number, add);
    meet(place + 1 < c.layers ? c.layer[place + 1].qkv : c.head, number);
  }

  // What `fill(token, to)` writes for each token, rounded as its reader wants it. Each thread has a copy of its own of
  // a few tokens; many are shared.
  template <typename Fill>
  const Input& prepare(int64_t tokens, const Matrix& reader, int64_t number, Fill fill) {
    const bool alone = tokens <= FEW;
    Input& x = inputs[alone ? number : team.size];
    const auto next = [&](int64_t token) { return alone ? token + 1 : team.take(number, tokens); };
    for (int64_t token = next(-1); token < tokens; token = next(token)) {
      fill(token, &x.values[token * reader.depth]);
      x.round(token, reader, fine(reader, tokens));
    }
    if (!alone) team.meet();
    return x;
  }

  // RMSNorm, arXiv:1910.07467, of those tokens that `which` names.
  template <typename Which>
  const Input& norm(const float* weight, int64_t tokens, const Matrix& reader, int64_t number, Which which) {
    return prepare(tokens, reader, number, [&](int64_t token, float* to) {
      const float* from = &hidden[which(token) * c.hidden];
      Vector sum = {};
      for (int64_t i = 0; i < c.hidden; i += WIDTH) sum += load(from + i) * load(from + i);
      const float inverse = 1.f / std::sqrt(total(sum) / c.hidden + c.epsilon);
      for (int64_t i = 0; i < c.hidden; i += WIDTH) store(to + i, load(from + i) * inverse * load(weight + i));
    });
  }

  const Input& plain(const std::vector<float>& from, int64_t tokens, const Matrix& reader, int64_t number) {
    return prepare(tokens, reader, number, [&](int64_t token, float* to) {
      std::copy_n(&from[token * reader.depth], reader.depth, to);
    });
  }

  // Blocks of a matrix that are one job.
  int64_t chunk(const Matrix& m) const {
    return std::max<int64_t>(1, std::min<int64_t>(16, m.rows / BLOCK / (team.size * 8)));
  }

  template <typename Put>
  void times(const Matrix& m, const Input& x, int64_t tokens, int64_t number, Put put) {
    const int64_t blocks = m.rows / BLOCK, slices = (tokens + SLICE - 1) / SLICE, size = chunk(m);
    const int64_t jobs = (blocks + size - 1) / size * slices;
    for (int64_t job; (job = team.take(number, jobs)) < jobs;) {
      const int64_t first = job / slices * size, token = job % slices * SLICE;
      product(m, x, fine(m, tokens), {token, std::min(token + SLICE, tokens)}, {first, std::min(first + size, blocks)}, put);
    }
  }

  // Wait for all threads; the first weights of the next product are on their way meanwhile.
  void meet(const Matrix& next, int64_t number) {
    const int64_t size = chunk(next), jobs = (next.rows / BLOCK + size - 1) / size;
    team.meet([&] { next.fetch(team.begin(number, jobs) * size); });
  }

  float* keys(int64_t row, int64_t layer, int64_t head) const {
    return c.cache + ((row * c.layers + layer) * c.kv_heads + head) * 2 * c.length * c.dim;
  }
  float* values(int64_t row, int64_t layer, int64_t head) const { return keys(row, layer, head) + c.length * c.dim; }

  float* key(int64_t layer, int64_t head, int64_t row, int64_t place) const {
    return keys(row, layer, head) + place / WIDTH * WIDTH * c.dim + place % WIDTH;
  }

  void place_plain(int64_t token, int64_t row, Vector y, Vector next) {
    float* to = &mixed[token * wide() * c.dim + row];
    if (row < wide() * c.dim) store(to, y);
    if (row + WIDTH < wide() * c.dim) store(to + WIDTH, next);
  }

  // As `turn`, for a block of paired rows.
  void place_turned(int64_t layer, const Text& text, int64_t token, int64_t row, Vector y, Vector next) {
    const int64_t head = row / c.dim, part = row % c.dim, half = c.dim / 2, first = part / 2;
    const int64_t place = text.places[token];
    if (head >= c.heads + c.kv_heads) {
      float* to = values(text.rows[token], layer, head - c.heads - c.kv_heads) + place * c.dim + part;
      return store(to, y), store(to + WIDTH, next);
    }
    const Vector cosine = load(c.cosines + place * half + first), sine = load(c.sines + place * half + first);
    const Vector turned[2] = {y * cosine - next * sine, next * cosine + y * sine};
    for (int side = 0; side < 2; ++side) {
      const int64_t at = first + side * half;
      if (head < c.heads) {
        store(&mixed[(token * wide() + head) * c.dim + at], turned[side]);
        continue;
      }
      float* kept = key(layer, head - c.heads, text.rows[token], place) + at * WIDTH;
      for (int64_t lane = 0; lane < WIDTH; ++lane) kept[lane * WIDTH] = turned[side][lane];
    }
  }

  // Turn queries and keys by their places, and keep keys and values.
  void turn(const Layer& layer, int64_t place_of_layer, const Text& text, int64_t number) {
    const int64_t half = c.dim / 2;
    for (int64_t job; (job = team.take(number, text.tokens * wide())) < text.tokens * wide();) {
      const int64_t token = job / wide(), head = job % wide(), place = text.places[token], row = text.rows[token];
      float* x = &mixed[job * c.dim];
      if (head >= c.heads + c.kv_heads) {
        std::copy(x, x + c.dim, values(row, place_of_layer, head - c.heads - c.kv_heads) + place * c.dim);
        continue;
      }
      if (const float* weight = head < c.heads ? layer.query_norm : layer.key_norm) scale(x, weight, c.dim, c.epsilon);
      rotate(x, c.cosines + place * half, c.sines + place * half, half);
      if (head < c.heads) continue;
      float* kept = key(place_of_layer, head - c.heads, row, place);
      for (int64_t i = 0; i < c.dim; ++i) kept[i * WIDTH] = x[i];
    }
  }

  void attend_all(int64_t layer, const Text& text, int64_t number) {
    const int64_t sharing = c.heads / c.kv_heads, cuts = tiles.size();
    for (int64_t job; (job = team.take(number, cuts * c.heads)) < cuts * c.heads;) {
      const auto [token, count] = tiles[job % cuts];
      const int64_t head = job / cuts, row = text.rows[token];
      const Attention a{&mixed[(token * wide() + head) * c.dim], keys(row, layer, head / sharing),
                        values(row, layer, head / sharing), c.dim, text.places[token] + 1, c.scale,
                        &scores[number * TOGETHER * room()], &attended[(token * c.heads + head) * c.dim],
                        wide() * c.dim, room(), c.heads * c.dim};
      count == TOGETHER ? attend<TOGETHER>(a) : attend<1>(a);
    }
  }

  const Config c;
  Team team;
  std::vector<Input> inputs;  // one for each thread, and the one that is shared
  std::vector<float> hidden, mixed, attended, gated, scores;
  std::vector<Best> found;  // by each thread, for each token
  std::vector<std::pair<int64_t, int64_t>> tiles;  // the first token and the number of those that attend together
};

extern "C" {
void* decoder_open(const Config* config) { return new Decoder(*config); }
void decoder_close(void* decoder) { delete static_cast<Decoder*>(decoder); }
void decoder_step(void* decoder, const Text* text, float* logits) { static_cast<Decoder*>(decoder)->step(*text, logits); }
}
