// A Llama-like decoder whose whole step is one call: every weight is read once, by all threads, in order.
//
// A layer is seven passes with a barrier after each: norm and QKV; turning and keeping; attention; output; norm, gate
// and up; SwiGLU; down. engine/kernels/packed.py packs the weights. All sums are float32, or exact integers.

#include <cmath>
#include <limits>

#include "products.h"
#include "team.h"

struct Layer {
  Matrix qkv, out, gate_up, down;
  const float *attention_norm, *feed_norm, *query_norm, *key_norm, *bias;
};

// `cache` is [layers][kv_heads][2][length][dim]: keys in blocks of 16 places, [length / 16][dim][16], then values.
// `most` tokens can be read at once; `fine` inputs have 16 bits where weights are integers, others 8.
struct Config {
  int64_t layers, hidden, heads, kv_heads, dim, feed, vocabulary, length, most, threads, fine;
  float epsilon, scale;
  const float *cosines, *sines, *final_norm;  // cosines and sines: [length][dim / 2]
  Matrix head, embedding;
  const Layer* layer;
  float* cache;
};

class Decoder {
 public:
  explicit Decoder(const Config& config) : c(config), team(c.threads), inputs(c.threads) {
    for (auto& input : inputs) input.reserve(c.most, std::max({c.hidden, c.feed, c.heads * c.dim}));
    hidden.resize(c.most * c.hidden);
    mixed.resize(c.most * wide() * c.dim);
    attended.resize(c.most * c.heads * c.dim);
    both.resize(c.most * 2 * c.feed);
    scores.resize(c.threads * (c.length + WIDTH));
  }

  // Read `tokens` ids from place `start` on; logits of the last `keep` of them, [keep, vocabulary].
  void step(const int64_t* ids, int64_t tokens, int64_t start, int64_t keep, float* logits) {
    team.run([&](int64_t number) {
      embed(ids, tokens);
      team.meet();
      for (int64_t layer = 0; layer < c.layers; ++layer) pass(layer, tokens, start, number);
      if (!keep) return;
      Input& x = norm(hidden.data() + (tokens - keep) * c.hidden, c.final_norm, keep, c.head, number);
      times(c.head, x, keep, [&](int64_t token, int64_t row, Vector y) {
        for (int64_t lane = 0; lane < std::min(WIDTH, c.vocabulary - row); ++lane)
          logits[token * c.vocabulary + row + lane] = y[lane];
      });
      team.meet();
    });
  }

 private:
  int64_t wide() const { return c.heads + 2 * c.kv_heads; }

  void embed(const int64_t* ids, int64_t tokens) {
    for (int64_t token; (token = team.take()) < tokens;)
      for (int64_t i = 0; i < c.hidden; ++i) hidden[token * c.hidden + i] = c.embedding.at(ids[token], i);
  }

  void pass(int64_t place, int64_t tokens, int64_t start, int64_t number) {
    const Layer& layer = c.layer[place];
    const int64_t size = wide() * c.dim;
    const auto add = [&](int64_t token, int64_t row, Vector y) {
      if (row < c.hidden) store(&hidden[token * c.hidden + row], load(&hidden[token * c.hidden + row]) + y);
    };
    times(layer.qkv, norm(hidden.data(), layer.attention_norm, tokens, layer.qkv, number), tokens,
          [&](int64_t token, int64_t row, Vector y) {
            if (row < size) store(&mixed[token * size + row], layer.bias ? y + load(layer.bias + row) : y);
          });
    team.meet();
    turn(layer, place, tokens, start);
    team.meet();
    attend(place, tokens, start, number);
    team.meet();
    times(layer.out, take(attended.data(), c.heads * c.dim, tokens, layer.out, number), tokens, add);
    team.meet();
    times(layer.gate_up, norm(hidden.data(), layer.feed_norm, tokens, layer.gate_up, number), tokens,
          [&](int64_t token, int64_t row, Vector y) {
            if (row < 2 * c.feed) store(&both[token * 2 * c.feed + row], y);
          });
    team.meet();
    times(layer.down, swiglu(tokens, layer.down, number), tokens, add);
    team.meet();
  }

  // RMSNorm, arXiv:1910.07467. Every thread makes its own copy: that is quicker than to wait for another's.
  Input& norm(const float* from, const float* weight, int64_t tokens, const Matrix& reader, int64_t number) {
    Input& x = inputs[number];
    x.depth = c.hidden;
    for (int64_t token = 0; token < tokens; ++token, from += c.hidden) {
      Vector sum = {};
      for (int64_t i = 0; i < c.hidden; i += WIDTH) sum += load(from + i) * load(from + i);
      const float inverse = 1.f / std::sqrt(total(sum) / c.hidden + c.epsilon);
      for (int64_t i = 0; i < c.hidden; i += WIDTH)
        store(&x.values[token * c.hidden + i], load(from + i) * inverse * load(weight + i));
    }
    x.round(tokens, reader, c.fine);
    return x;
  }

  Input& take(const float* from, int64_t depth, int64_t tokens, const Matrix& reader, int64_t number) {
    Input& x = inputs[number];
    x.depth = depth;
    std::copy(from, from + tokens * depth, x.values.begin());
    x.round(tokens, reader, c.fine);
    return x;
  }

  // SiLU(gate) x up, arXiv:2002.05202.
  Input& swiglu(int64_t tokens, const Matrix& reader, int64_t number) {
    Input& x = inputs[number];
    x.depth = c.feed;
    for (int64_t token = 0; token < tokens; ++token)
      for (int64_t i = 0; i < c.feed; i += WIDTH) {
        const float* gate = &both[token * 2 * c.feed + i];
        store(&x.values[token * c.feed + i], load(gate) / (1.f + exponential(-load(gate))) * load(gate + c.feed));
      }
    x.round(tokens, reader, c.fine);
    return x;
  }

  template <typename Put>
  void times(const Matrix& m, const Input& x, int64_t tokens, Put put) {
    const int64_t blocks = m.rows / BLOCK, shares = team.size * 4;
    const int64_t chunk = std::max<int64_t>(1, std::min<int64_t>(16, blocks / shares));
    for (int64_t first; (first = team.take() * chunk) < blocks;)
      product(m, x, c.fine, tokens, first, std::min(first + chunk, blocks), put);
  }

  float* keys(int64_t layer, int64_t head) const { return c.cache + (layer * c.kv_heads + head) * 2 * c.length * c.dim; }
  float* values(int64_t layer, int64_t head) const { return keys(layer, head) + c.length * c.dim; }

  // Turn queries and keys by their places (RoPE, arXiv:2104.09864), and keep keys and values.
  void turn(const Layer& layer, int64_t place_of_layer, int64_t tokens, int64_t start) {
    for (int64_t job; (job = team.take()) < tokens * wide();) {
      const int64_t token = job / wide(), head = job % wide(), place = start + token;
      float* x = &mixed[job * c.dim];
      if (head >= c.heads + c.kv_heads) {
        std::copy(x, x + c.dim, values(place_of_layer, head - c.heads - c.kv_heads) + place * c.dim);
        continue;
      }
      if (const float* weight = head < c.heads ? layer.query_norm : layer.key_norm) scale(x, weight);
      rotate(x, place);
      if (head < c.heads) continue;
      float* kept = keys(place_of_layer, head - c.heads) + place / WIDTH * WIDTH * c.dim + place % WIDTH;
      for (int64_t i = 0; i < c.dim; ++i) kept[i * WIDTH] = x[i];
    }
  }

  void scale(float* x, const float* weight) const {
    float sum = 0;
    for (int64_t i = 0; i < c.dim; ++i) sum += x[i] * x[i];
    const float inverse = 1.f / std::sqrt(sum / c.dim + c.epsilon);
    for (int64_t i = 0; i < c.dim; ++i) x[i] *= inverse * weight[i];
  }

  void rotate(float* x, int64_t place) const {
    const int64_t half = c.dim / 2;
    const float *cosine = c.cosines + place * half, *sine = c.sines + place * half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = a * cosine[i] - b * sine[i];
      x[i + half] = b * cosine[i] + a * sine[i];
    }
  }

  // Scores, softmax and weighted values of one head and token at a time; sixteen places share a vector.
  void attend(int64_t layer, int64_t tokens, int64_t start, int64_t number) {
    const int64_t sharing = c.heads / c.kv_heads;
    float* score = &scores[number * (c.length + WIDTH)];
    for (int64_t job; (job = team.take()) < tokens * c.heads;) {
      const int64_t head = job / tokens, token = job % tokens, seen = start + token + 1;
      const float* q = &mixed[(token * wide() + head) * c.dim];
      const float most = rate(q, keys(layer, head / sharing), seen, score);
      Vector sums = {};
      for (int64_t place = 0; place < seen; place += WIDTH) {
        const Vector e = exponential(load(score + place) - most);
        store(score + place, e);
        sums += e;
      }
      weigh(score, values(layer, head / sharing), seen, total(sums), &attended[(token * c.heads + head) * c.dim]);
    }
  }

  // Scores of the first `seen` places, and the largest; those after them, up to a full vector, are minus infinity.
  float rate(const float* q, const float* key, int64_t seen, float* score) const {
    Vector most = Vector{} - std::numeric_limits<float>::infinity();
    for (int64_t place = 0; place < seen; place += WIDTH, key += WIDTH * c.dim) {
      Vector sums[4] = {};
      for (int64_t i = 0; i < c.dim; i += 4)
        for (int64_t chain = 0; chain < 4; ++chain) sums[chain] += load(key + (i + chain) * WIDTH) * q[i + chain];
      Vector found = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * c.scale;
      for (int64_t lane = seen - place; lane < WIDTH; ++lane) found[lane] = -std::numeric_limits<float>::infinity();
      store(score + place, found);
      most = larger(most, found);
    }
    return largest(most);
  }

  void weigh(const float* weight, const float* value, int64_t seen, float sum, float* out) const {
    for (int64_t part = 0; part < c.dim; part += 64) {
      const int64_t vectors = std::min<int64_t>(4, (c.dim - part) / WIDTH);
      Vector sums[4] = {};
      for (int64_t place = 0; place < seen; ++place)
        for (int64_t i = 0; i < vectors; ++i) sums[i] += load(value + place * c.dim + part + i * WIDTH) * weight[place];
      for (int64_t i = 0; i < vectors; ++i) store(out + part + i * WIDTH, sums[i] / sum);
    }
  }

  const Config c;
  Team team;
  std::vector<Input> inputs;
  std::vector<float> hidden, mixed, attended, both, scores;
};

extern "C" {
void* decoder_open(const Config* config) { return new Decoder(*config); }
void decoder_close(void* decoder) { delete static_cast<Decoder*>(decoder); }
void decoder_step(void* decoder, const int64_t* ids, int64_t tokens, int64_t start, int64_t keep, float* logits) {
  static_cast<Decoder*>(decoder)->step(ids, tokens, start, keep, logits);
}
}
